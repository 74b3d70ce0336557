"""`pdr predict --every-init` that is cut off: the same command keeps the whole blocks that were finished."""

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from pdr_cli import __version__
from pdr_cli.data.formats import cf, stored
from pdr_cli.errors import DataError, StorageError
from pdr_cli.inference import header, hindcast, unfinished
from pdr_cli.inference import model as inference
from pdr_cli.inference import plan as planning
from pdr_cli.inference.hindcast import Hindcast
from pdr_cli.inference.intake import Intake
from pdr_cli.inference.unfinished import Block
from pdr_cli.system import space
from pdr_cli.system.logs import Silence, log
from pdr_cli.system.processes import Processes
from tests.builders import weather_file
from tests.cli import Result, pdr
from tests.reliability import fault_loop

BOTH = pytest.mark.parametrize("name", ["h.zarr", "h.nc"])
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 steps: 27 inits of 4 steps each."""
    return weather_file(tmp_path_factory.mktemp("data") / "air.nc", 30, size=(13, 15))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five forecasts of 4 steps of 13 x 15 a chunk: blocks of 5, 5, 5, 5, 5 and 2."""
    monkeypatch.setattr(cf, "CHUNK_BYTES", 5 * 4 * 4 * 13 * 15)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Block]:
    """The blocks that are forecast, in their order."""
    found: list[Block] = []
    right = Hindcast.frames

    def frames(self: Hindcast, low: int, high: int) -> np.ndarray:
        found.append((low, high))
        return right(self, low, high)

    monkeypatch.setattr(Hindcast, "frames", frames)
    return found


@pytest.fixture
def predict(data: Path, weather_run: Path) -> Callable[..., Result]:
    """`pdr predict --every-init` with more options."""

    def run(name: str, *more: str, source: Path = data, model: Path = weather_run) -> Result:
        return pdr("predict", source, "--every-init", "-o", name, "-m", model, *more)

    return run


@pytest.fixture
def cut(predict: Callable[..., Result], made: list[Block], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A run that is interrupted as it begins its fourth block."""

    def run(name: str) -> Result:
        right = Hindcast.frames

        def frames(self: Hindcast, low: int, high: int) -> np.ndarray:
            if low == 15:
                raise KeyboardInterrupt
            return right(self, low, high)

        with monkeypatch.context() as patched:
            patched.setattr(Hindcast, "frames", frames)
            result = predict(name)
        made.clear()
        return result

    return run


@contextlib.contextmanager
def warned(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Let caplog see the log of pdr, which does not propagate."""
    log.addHandler(caplog.handler)
    before = log.level
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(caplog.handler)
        log.setLevel(before)


def names_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def folder_of(name: str) -> Path:
    (found,) = unfinished.folders(Path(name))
    return found


def whole(predict: Callable[..., Result], made: list[Block]) -> str:
    """The hash of an uninterrupted run."""
    assert predict("whole.zarr").code == 0
    digest = stored.sha256_of(Path("whole.zarr"))
    shutil.rmtree("whole.zarr")
    made.clear()
    return digest


@BOTH
def test_the_same_command_forecasts_only_the_rest(
    predict: Callable[..., Result], cut: Callable[..., Result], made: list[Block], name: str
) -> None:
    expected = whole(predict, made)
    result = cut(name)
    assert (result.code, "15 of 27 forecasts are kept in" in result.err) == (130, True), result.err
    assert not Path(name).exists()
    result = predict(name)
    assert (result.code, "continues: 15 of 27 forecasts kept" in result.err) == (0, True), result.err
    assert made == [(15, 20), (20, 25), (25, 27)]
    assert stored.sha256_of(Path(name)) == stored.provenance(Path(name))["pdr_data_sha256"] == expected
    assert pdr("verify", name).code == 0
    assert names_in(Path()) == [name], "nothing is left behind"


@dataclass
class Loop:
    """Hindcasts of five forecasts in blocks of 2, 2 and 1, by a model that takes no time; see `fault_loop`."""

    path: Path
    made: list[Block] = dataclasses.field(default_factory=list)
    stop_at: int | None = None
    error: BaseException = dataclasses.field(default_factory=KeyboardInterrupt)

    def frames(self, low: int, high: int) -> np.ndarray:
        """Forecasts, unless the run is to be interrupted here."""
        if low == self.stop_at:
            raise self.error
        self.made.append((low, high))
        return fault_loop.Hindcast(1).frames(low, high)

    def run(self, **request: str) -> list[Block]:
        """Write the hindcast; returns the blocks that were forecast."""
        self.made, alone = [], Processes()
        how = {"request": request, "compress": 1, "ranks": alone, "bar": Silence()}
        with hindcast.locked(self.path, alone):
            hindcast.write(self, self.path, fault_loop.hindcast_layout(), **how)  # type: ignore[arg-type]
        assert fault_loop.read_hindcast(self.path) == 1
        assert names_in(self.path.parent) == [self.path.name], "nothing is left behind"
        return self.made

    def cut(self, **request: str) -> Path:
        """Interrupt it in its third block; returns the folder of what was finished."""
        self.stop_at = 4
        with pytest.raises(KeyboardInterrupt):
            self.run(**request)
        self.stop_at = None
        return folder_of(str(self.path))


@pytest.fixture(params=["h.zarr", "h.nc"])
def loop(request: pytest.FixtureRequest, tmp_path: Path) -> Loop:
    return Loop(tmp_path / request.param)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def chunk(folder: Path, number: int) -> Path:
    """The file of a block."""
    (found,) = folder.glob(f"blocks.zarr/*/c/{number}/0/0/0")
    return found


@pytest.mark.parametrize("damage", [flip, lambda p: p.write_bytes(b""), Path.unlink], ids=["flip", "empty", "gone"])
def test_a_damaged_block_is_made_again(loop: Loop, damage: Callable, caplog: pytest.LogCaptureFixture) -> None:
    damage(chunk(loop.cut(), 0))
    with warned(caplog):
        assert loop.run() == [(0, 2), (4, 5)]
    assert "2 finished forecasts are damaged and made again" in caplog.text


def test_a_block_of_right_checksums_and_wrong_numbers_is_made_again(loop: Loop) -> None:
    folder = loop.cut()
    shutil.copy(chunk(folder, 1), chunk(folder, 0))
    assert loop.run() == [(0, 2), (4, 5)]


def test_a_torn_chunk_that_reaches_beyond_the_last_forecast_is_written_anew(loop: Loop) -> None:
    folder = loop.cut()
    torn = Path(str(chunk(folder, 0).parent).replace("/c/0/", "/c/2/")) / "0"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"torn")
    torn.with_suffix(".0123.partial").write_bytes(b"of a killed write")
    assert loop.run() == [(4, 5)]
    assert not list(loop.path.parent.rglob("*.partial"))


def test_lines_of_a_journal_that_are_cut_or_wrong_do_not_count(loop: Loop) -> None:
    journal = loop.cut() / "journal-0.jsonl"
    first, second = journal.read_text().split("\n")[1:3]
    swapped = json.dumps(json.loads(first) | {"sha256": json.loads(second)["sha256"]})
    journal.write_text("\n".join([swapped, "[]", "7", json.dumps({"inits": [1, 3], "sha256": ""}), second, first[:-9]]))
    assert loop.run() == [(0, 2), (4, 5)]


def test_a_second_interruption_keeps_more(loop: Loop) -> None:
    loop.stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    loop.cut()
    assert loop.made == [(2, 4)]
    assert loop.run() == [(4, 5)]


@pytest.mark.parametrize("place", ["request.json", "blocks.zarr/t2m/zarr.json", "blocks.zarr/time/c/0/0"])
def test_damaged_metadata_start_anew(loop: Loop, place: str, caplog: pytest.LogCaptureFixture) -> None:
    flip(loop.cut() / place)
    with warned(caplog):
        assert loop.run() == [(0, 2), (2, 4), (4, 5)]
    assert "removed the 4 finished forecasts of an interrupted run, because of damage" in caplog.text


def test_another_request_starts_anew_and_says_why(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.cut(model="a", device="cpu")
    with warned(caplog):
        assert loop.run(model="a", device="cuda") == [(0, 2), (2, 4), (4, 5)]
    assert "removed the 4 finished forecasts of an interrupted run, because of another device" in caplog.text


def test_another_input_starts_anew(
    predict: Callable[..., Result], cut: Callable[..., Result], made: list[Block], data: Path
) -> None:
    with xr.open_dataset(data) as content:
        changed = content.load().copy(deep=True)
    changed.t2m[15, 3, 4] += 0.5
    changed.to_netcdf("changed.nc")
    cut("h.zarr")
    result = predict("h.zarr", source=Path("changed.nc"))
    said = "starts anew: removed the 15 finished forecasts of an interrupted run, because of another input"
    assert (result.code, said in result.err) == (0, True), result.err
    assert sum(high - low for low, high in made) == 27


def test_a_request_names_all_that_changes_the_last_digits(data: Path, weather_run: Path) -> None:
    def found(batch: int | None) -> dict[str, str]:
        model = inference.load(weather_run / "model.safetensors", "cpu", batch)
        intake = Intake(model)
        plan = planning.plan(intake, intake.open([data])[0], None)
        return Hindcast(plan, model, intake).depends_on("identity")

    plain, other = found(None), found(4)
    assert {k for k in plain if plain[k] != other[k]} == {"--batch"}
    assert (plain["version of pdr"], plain["version of torch"]) == (__version__, torch.__version__)
    assert (plain["number of threads"], plain["device"]) == (str(torch.get_num_threads()), "cpu")
    assert plain["model"] == header.read_header(weather_run / "model.safetensors").sha256
    assert plain["set of options"] == "identity"


def test_a_full_disk_keeps_what_was_finished(loop: Loop) -> None:
    loop.stop_at, loop.error = 4, OSError(28, "No space left on device")
    with pytest.raises(StorageError):
        loop.run()
    assert not [p for p in names_in(loop.path.parent) if ".tmp" in p]
    loop.stop_at = None
    assert loop.run() == [(4, 5)]


@pytest.mark.parametrize(("stop_at", "error"), [(0, KeyboardInterrupt()), (4, DataError("a missing value"))])
def test_without_a_finished_block_or_with_an_input_at_fault_nothing_is_kept(
    loop: Loop, stop_at: int, error: BaseException
) -> None:
    loop.stop_at, loop.error = stop_at, error
    with pytest.raises(type(error)):
        loop.run()
    assert names_in(loop.path.parent) == []


def test_the_old_output_stays_until_the_new_one_is_whole(loop: Loop) -> None:
    fault_loop.write_hindcast(loop.path, 2)
    loop.cut()
    assert fault_loop.read_hindcast(loop.path) == 2
    loop.run()


def test_only_the_rest_needs_room(
    predict: Callable[..., Result], cut: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    cut("h.zarr")
    needs: list[int] = []
    monkeypatch.setattr(space, "check_space", lambda path, need: needs.append(need))
    assert predict("h.zarr").code == 0
    assert needs == [12 * 4 * 4 * 13 * 15], "12 forecasts of 4 steps of 13 x 15 floats are missing"


def test_netcdf_is_written_without_keeping_where_only_one_copy_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    need = fault_loop.hindcast_layout().nbytes
    monkeypatch.setattr(space, "fits", lambda path, size: size != 2 * need)
    loop = Loop(tmp_path / "h.nc", stop_at=4)
    with warned(caplog), pytest.raises(KeyboardInterrupt):
        loop.run()
    assert "no room to keep finished forecasts" in caplog.text
    assert names_in(tmp_path) == []
    loop.stop_at = None
    assert len(loop.run()) == 3


def test_the_rest_is_shared_by_any_number_of_processes(tmp_path: Path) -> None:
    layout, alone = fault_loop.hindcast_layout(), Processes()
    begun = unfinished.Unfinished(Loop(tmp_path / "h.zarr").cut(), layout)
    (begun.folder / "journal-0.jsonl").write_text("")
    for rank, block in ((0, (0, 2)), (2, (4, 5))):
        with begun.writing(rank) as keep:
            frames = fault_loop.Hindcast(1).frames(*block)
            keep(block, frames, unfinished.sha256(frames))
    kept = begun.kept(alone)
    assert sorted(kept) == [(0, 2), (4, 5)]
    shares = [hindcast._Blocks(layout, begun, kept, Processes(rank, 2)).mine() for rank in range(2)]
    assert shares == [[(0, 2)], [(2, 4), (4, 5)]], "in the order of their inits"


def started(arguments: list[str | Path], processes: int = 0) -> subprocess.Popen:
    """`pdr arguments...` in a process group of its own, by torchrun in several processes."""
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, *several, "-m", "pdr_cli", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
    )  # fmt: skip


def killed_after(process: subprocess.Popen, lines: int) -> bool:
    """Kill a run and its children once its journals have that many lines; False if it ended before."""
    while process.poll() is None:
        found = unfinished.folders(Path("h.zarr")) + unfinished.folders(Path("h.nc"))
        if sum(len(unfinished._lines(folder)) for folder in found) >= lines:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return True
        time.sleep(0.005)
    _, err = process.communicate()
    assert process.returncode == 0, err
    return False


@pytest.mark.slow
@BOTH
def test_killed_again_and_again_it_ends_with_the_same_numbers(weather: Path, weather_run: Path, name: str) -> None:
    # 400 steps of 13 x 15 are 312 kB, so 13 of the 157 forecasts make a chunk of 4 MiB: 13 blocks.
    arguments: list[str | Path] = ["predict", weather, "--every-init", "-m", weather_run, "--steps", "400"]
    process = started([*arguments, "-o", "whole.zarr"])
    _, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    kills = 0
    while killed_after(started([*arguments, "-o", name]), lines=3 * (kills + 1)):
        kills += 1
        assert not Path(name).exists()
    assert kills == 4
    assert stored.sha256_of(Path(name)) == stored.sha256_of(Path("whole.zarr"))
    assert sorted(p for p in names_in(Path()) if p != "whole.zarr") == [name]


@pytest.mark.slow
def test_processes_continue_what_another_number_of_them_began(weather: Path, weather_run: Path) -> None:
    arguments: list[str | Path] = ["predict", weather, "--every-init", "-m", weather_run, "--steps", "400"]
    process = started([*arguments, "-o", "whole.zarr"])
    process.communicate(timeout=500)
    arguments += ["-o", "h.zarr"]
    assert killed_after(started(arguments, 2), lines=3)
    assert killed_after(started(arguments), lines=6)
    process = started(arguments, 3)
    _, err = process.communicate(timeout=500)
    assert (process.returncode, "of 157 forecasts kept" in err) == (0, True), err
    assert stored.sha256_of(Path("h.zarr")) == stored.sha256_of(Path("whole.zarr"))
    assert names_in(Path()) == ["h.zarr", "whole.zarr"]


def test_folders_of_other_outputs_are_not_touched(tmp_path: Path) -> None:
    for other in (".h.zarr.0123abcd.unfinished", ".h.zarr.x.0123abcd.unfinished", ".g.zarr.0123abcd.unfinished"):
        (tmp_path / other).mkdir()
    assert [p.name for p in unfinished.folders(tmp_path / "h.zarr")] == [".h.zarr.0123abcd.unfinished"]
