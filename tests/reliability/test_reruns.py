"""Jobs that run twice, at once, again, or before their input is ready."""

import errno
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pdr_cli.errors import DataError, GridError, LockedError
from pdr_cli.inference import request
from pdr_cli.system import atomic, locks
from tests.builders import weather_file
from tests.cli import pdr
from tests.reliability.processes import LOCKS, WRITES, another_process


@pytest.fixture
def predict(weather: Path, weather_run: Path) -> Callable[..., tuple[int, str, str]]:
    """`pdr predict` of the weather to f.nc with more options: exit code, stdout and the last line of stderr."""

    def run(*more: str, data: Path = weather) -> tuple[int, str, str]:
        result = pdr("predict", data, "-o", "f.nc", "-m", weather_run, *more)
        return result.code, result.out, result.last

    return run


def test_of_two_jobs_at_once_the_second_leaves_with_75(predict: Callable[..., tuple[int, str, str]]) -> None:
    with another_process(LOCKS, "f.nc") as other:
        code, _, message = predict()
        assert (code, "E_LOCKED" in message, f"process {other.pid} on " in message) == (75, True, True), message
        assert not Path("f.nc").exists()


def test_the_lock_of_a_dead_process_is_no_lock(predict: Callable[..., tuple[int, str, str]]) -> None:
    with another_process(LOCKS, "f.nc") as other:
        other.kill()
        other.wait()
        assert Path(".f.nc.lock").is_file()
        assert predict()[0] == 0
    assert [p.name for p in Path().iterdir()] == ["f.nc"]


def test_what_a_dead_writer_left_is_swept_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".a.nc.abcdefgh.tmp.nc").touch()
    (tmp_path / ".other.nc.abcdefgh.tmp.nc").touch()
    atomic.write_text(tmp_path / "a.nc", "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".other.nc.abcdefgh.tmp.nc", "a.nc"]


def test_a_process_may_take_its_own_lock_again(tmp_path: Path) -> None:
    with locks.locked(tmp_path / "a"):
        atomic.write_text(tmp_path / "a", "x")
        assert (tmp_path / ".a.lock").is_file(), "the inner writer does not end the outer lock"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_rerun_is_up_to_date_until_something_it_depends_on_changes(
    predict: Callable[..., tuple[int, str, str]], weather: Path, weather_run: Path, tmp_path: Path
) -> None:
    assert predict()[0] == 0
    before = Path("f.nc").stat()
    assert predict("--skip-existing")[:2] == (0, "f.nc  up to date\n")
    assert Path("f.nc").stat().st_mtime_ns == before.st_mtime_ns
    # The same values in another file, older or newer, ask for the same forecast.
    (tmp_path / "copy.nc").write_bytes(weather.read_bytes())
    assert "up to date" in predict("--skip-existing", data=tmp_path / "copy.nc")[1]
    with xr.open_dataset(weather) as data:
        changed = data.load().copy(deep=True)
    changed.t2m[-1, 0, 0] += 0.5
    changed.to_netcdf(tmp_path / "changed.nc")
    for more, data in ((["--steps", "3"], weather), ([], tmp_path / "changed.nc"), ([], weather)):
        assert "up to date" not in predict("--skip-existing", *more, data=data)[1], "each differs from the one before"


def test_values_far_before_the_window_do_not_make_a_forecast_old(
    predict: Callable[..., tuple[int, str, str]], weather: Path, tmp_path: Path
) -> None:
    assert predict()[0] == 0
    with xr.open_dataset(weather) as data:
        data.isel(time=slice(20, None)).to_netcdf(tmp_path / "later.nc")
    assert "up to date" in predict("--skip-existing", data=tmp_path / "later.nc")[1]


def test_being_up_to_date_needs_no_torch(
    predict: Callable[..., tuple[int, str, str]], weather: Path, weather_run: Path
) -> None:
    assert predict()[0] == 0
    script = "import sys\nsys.modules['torch'] = None\nfrom pdr_cli.process import main\nmain()"
    arguments = ["predict", weather, "-o", "f.nc", "-m", weather_run, "--skip-existing"]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "f.nc  up to date\n"), done.stderr


@pytest.mark.parametrize("name", ["f.h5", "f.npz"])
def test_other_formats_know_their_request_too(traffic: Path, traffic_run: Path, name: str) -> None:
    arguments = ["predict", traffic, "-o", name, "-m", traffic_run, "--skip-existing"]
    assert "up to date" not in pdr(*arguments).out
    assert "up to date" in pdr(*arguments).out


@pytest.mark.parametrize("name", ["f.mp4", "f.gif"])
def test_clips_know_their_request_too(clip: Path, video_run: Path, name: str) -> None:
    arguments = ["predict", clip, "-o", name, "-m", video_run, "--skip-existing"]
    assert "up to date" not in pdr(*arguments).out
    assert "up to date" in pdr(*arguments).out


def test_an_existing_output_is_left_on_request(predict: Callable[..., tuple[int, str, str]]) -> None:
    Path("f.nc").write_bytes(b"mine")
    code, _, message = predict("--no-clobber")
    assert (code, "--no-clobber leaves it" in message) == (73, True)
    assert Path("f.nc").read_bytes() == b"mine"
    assert predict("--no-clobber", "--skip-existing")[0] == 2


@pytest.mark.parametrize("more", [(), ("--wait-input", "0.2")])
def test_an_input_that_is_being_written_is_no_damaged_one(
    predict: Callable[..., tuple[int, str, str]], tmp_path: Path, more: tuple[str, ...]
) -> None:
    data = weather_file(tmp_path / "a.nc", 20, size=(13, 15))
    with another_process(WRITES, data):
        code, _, message = predict(*more, data=data)
    assert (code, "another process is writing it" in message) == (75, True), message
    assert ("waited 0.2 s" in message) == bool(more)


def test_an_input_that_becomes_ready_is_waited_for(
    predict: Callable[..., tuple[int, str, str]], weather: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = weather.read_bytes()
    (tmp_path / "a.nc").write_bytes(content[: len(content) // 2])
    monkeypatch.setattr(time, "sleep", lambda _: (tmp_path / "a.nc").write_bytes(content))
    assert predict("--wait-input", "60", data=tmp_path / "a.nc")[0] == 0


def test_an_input_that_stays_unreadable_is_told_at_the_end(
    predict: Callable[..., tuple[int, str, str]], weather: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.nc").write_bytes(weather.read_bytes()[:5000])
    code, _, message = predict("--wait-input", "0.1", data=tmp_path / "a.nc")
    assert (code, "5000 bytes" in message) == (75, True)
    assert predict(data=tmp_path / "a.nc")[0] == 65, "without waiting it is damaged"


def test_another_grid_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("waited"))

    def refuse() -> None:
        raise GridError("another grid")

    with pytest.raises(GridError):
        request.when_ready(refuse, [], wait=60)


def test_a_file_that_grows_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_text("")
    read: list[int] = []

    def ask() -> int:
        read.append(path.stat().st_size)
        if len(read) < 3:
            path.write_text("x" * len(read))
        return read[-1]

    monkeypatch.setattr(time, "sleep", lambda _: None)
    assert request.when_ready(ask, [path], wait=60) == 2  # bytes, after two changes


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EBADFD, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    (tmp_path / "a.nc").touch()

    def refuse(*_: object) -> None:
        raise OSError(number, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with pytest.raises(LockedError, match="HDF5_USE_FILE_LOCKING=FALSE"), locks.inputs_in_use([tmp_path / "a.nc"]):
        raise DataError("NetCDF: HDF error")

    def write_as_hdf5_does() -> None:
        with atomic.atomic_output(tmp_path / "b.nc"):
            raise OSError(13, "Permission denied")

    with pytest.raises(LockedError, match="HDF5_USE_FILE_LOCKING=FALSE"):
        write_as_hdf5_does()


def test_without_locks_files_are_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    atomic.write_text(tmp_path / "a", "x")
    assert (tmp_path / "a").read_text() == "x"


def test_a_forecast_is_verified(predict: Callable[..., tuple[int, str, str]]) -> None:
    assert predict()[0] == 0
    result = pdr("verify", "f.nc", "--json")
    report = json.loads(result.out)
    assert (result.code, report["kind"], report["sound"]) == (0, "forecast", True)
    assert {row["level"] for row in report["findings"]} == {"ok"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t2m: t2m + 1, "differ from the SHA-256"),
        (lambda t2m: t2m.where(t2m.time != t2m.time[1]), "1 of 4 frames of t2m hold no value"),
        (lambda t2m: xr.where(t2m == t2m.max(), np.inf, t2m, keep_attrs=True), "1 values of t2m are infinite"),
        (lambda t2m: t2m - 273.15, "780 values of t2m are not between"),
    ],
)
def test_a_forecast_that_is_not_as_it_was_written_is_found(
    predict: Callable[..., tuple[int, str, str]], change: Callable[[xr.DataArray], xr.DataArray], says: str
) -> None:
    assert predict()[0] == 0
    with xr.open_dataset("f.nc") as made:
        altered = made.load().assign(t2m=lambda d: change(d.t2m).transpose("time", "lat", "lon"))
    altered.to_netcdf("f.nc")
    result = pdr("verify", "f.nc")
    assert (result.code, says in result.out) == (65, True), result.out
    assert "make it again" in result.out


@pytest.mark.parametrize("name", ["f.nc", "f.zarr"])
@pytest.mark.parametrize("many", [False, True])
def test_coordinates_that_are_not_as_they_were_written_are_found(
    weather: Path, weather_run: Path, name: str, many: bool
) -> None:
    assert pdr("predict", weather, "-m", weather_run, "-o", name, *(["--every-init"] if many else [])).code == 0
    assert pdr("verify", name).code == 0
    store = name.endswith("zarr")
    with xr.open_dataset(name, decode_times=False, engine="zarr" if store else "netcdf4") as made:
        altered = made.load().assign_coords(lat=made.lat + 0.5)
    shutil.rmtree(name) if store else Path(name).unlink()
    altered.to_zarr(name) if store else altered.to_netcdf(name)
    result = pdr("verify", name)
    assert (result.code, "the coordinates differ from the SHA-256" in result.out) == (65, True), result.out


def test_uneven_lead_times_are_found(predict: Callable[..., tuple[int, str, str]]) -> None:
    assert predict()[0] == 0
    with xr.open_dataset("f.nc") as made:
        made.load().isel(time=[0, 1, 3]).to_netcdf("g.nc")
    result = pdr("verify", "g.nc")
    assert (result.code, "lead times are uneven: 6, 12, 24 h" in result.out) == (65, True), result.out


def test_a_truncated_forecast_and_no_forecast_are_told_apart(weather: Path) -> None:
    Path("f.nc").write_bytes(weather.read_bytes()[:3000])
    assert pdr("verify", "f.nc").code == 65
    assert pdr("verify", "g.nc").code == 66


def test_a_run_is_verified_with_all_it_needs_to_go_on(weather_run: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(weather_run, "run")
    result = pdr("verify", "run")
    assert (result.code, "state of step 3" in result.out) == (0, True), result.err
    content = bytearray(Path("run/state/last.safetensors").read_bytes())
    content[-1000] ^= 4
    Path("run/state/last.safetensors").write_bytes(content)
    result = pdr("verify", "run")
    assert (result.code, "--resume continues from the previous state" in result.out) == (65, True)
