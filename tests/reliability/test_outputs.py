"""Outputs that cannot be written are refused before anything is computed, and odd names are names."""

import resource
import sys
from pathlib import Path

import pytest
import xarray as xr

from pdr_cli.errors import OutputError, StorageError
from pdr_cli.inference import model as inference
from pdr_cli.system import atomic, space
from tests.builders import video_file
from tests.cli import pdr
from tests.reliability.processes import environment, run


@pytest.fixture
def nothing_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a model is a bug in these tests."""

    def fail(*_: object) -> None:
        raise AssertionError("a model was loaded for an output that cannot be written")

    monkeypatch.setattr(inference, "load", fail)


@pytest.mark.usefixtures("nothing_computed")
@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("folder.nc", "is a directory"),
        ("nowhere/f.nc", "mkdir -p"),
        ("dangling.nc", "is a link to"),
        ("/proc/f.nc", "/proc"),
    ],
)
def test_an_impossible_output_is_refused_before_any_compute(
    weather: Path, weather_run: Path, output: str, says: str
) -> None:
    Path("folder.nc").mkdir()
    Path("dangling.nc").symlink_to("gone.nc")
    result = pdr("predict", weather, "-o", output, "-m", weather_run)
    assert (result.code, "E_OUTPUT" in result.last, says in result.last) == (73, True, True), result.last


@pytest.mark.usefixtures("nothing_computed")
def test_a_folder_without_permission_is_refused(
    weather: Path, weather_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Permissions do not bind root, as whom tests may run, so the question is answered for the system.
    asked = space.os.access
    monkeypatch.setattr(space.os, "access", lambda p, mode: Path(p) != tmp_path and asked(p, mode))
    result = pdr("predict", weather, "-o", "f.nc", "-m", weather_run)
    assert (result.code, "no permission to write" in result.last) == (73, True)


@pytest.mark.usefixtures("nothing_computed")
def test_an_input_is_never_an_output(weather: Path, weather_run: Path) -> None:
    Path("same.nc").symlink_to(weather)
    result = pdr("predict", weather, "-o", "same.nc", "-m", weather_run)
    assert (result.code, "also an input" in result.last) == (2, True)


def test_a_disk_without_room_is_named_before_any_compute(
    weather: Path, weather_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = space.os.statvfs_result((4096, 4096, 100, 0, 0, 0, 0, 0, 0, 255))  # 100 blocks, none of them free
    monkeypatch.setattr(space.os, "statvfs", lambda _: small)
    monkeypatch.setattr(inference.Model, "run", lambda *_: pytest.fail("computed for a full disk"))
    result = pdr("predict", weather, "-o", "f.nc", "-m", weather_run)
    # 4 steps of 13 x 15 float32 are 3120 bytes, and a fifth more to be safe.
    assert (result.code, "E_IO" in result.last, "needs about 0.0 MB" in result.last) == (74, True, True)
    assert "0.0 MB are free" in result.last


def test_space_is_estimated_with_a_fifth_to_spare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = space.os.statvfs_result((2**20, 2**20, 1000, 12, 12, 0, 0, 0, 0, 255))  # 12 blocks of 1 MB are free
    monkeypatch.setattr(space.os, "statvfs", lambda _: free)
    space.check_space(tmp_path / "a", 10 * 2**20)
    with pytest.raises(StorageError, match=r"needs about 12\.1 MB, but 12\.0 MB are free"):
        space.check_space(tmp_path / "a", int(10.1 * 2**20))


def limit_files(size: int) -> None:
    """Let this process write no larger files; what Python compiles must not be among them, or it is cut off for good."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("name", ["f.nc", pytest.param("f.npz", marks=pytest.mark.slow)])
def test_a_limit_on_the_size_of_files_leaves_the_old_forecast(weather: Path, weather_run: Path, name: str) -> None:
    arguments = ["predict", weather, "-o", name, "-m", weather_run]
    assert pdr(*arguments).code == 0
    before = Path(name).read_bytes()
    limit = 2000  # bytes, of a forecast of some 20 kB
    done = run(arguments, preexec_fn=lambda: limit_files(limit), env=environment(PYTHONDONTWRITEBYTECODE="1"))
    # The C library of NetCDF would die of it; the room is asked for before it writes.
    assert (done.returncode, "cannot write" in done.stderr) == (74, True), done.stderr
    assert Path(name).read_bytes() == before
    assert pdr(*arguments).code == 0
    assert [p.name for p in Path().iterdir()] == [name], "nothing is left beside it"


def test_a_limit_on_the_size_of_files_leaves_the_old_state(weather: Path, weather_run: Path) -> None:
    import shutil

    shutil.copytree(weather_run, "run")
    before = {p: p.read_bytes() for p in Path("run").rglob("*.safetensors")}
    limit = 20000
    more = ["train", "--resume", "-o", "run", "--steps", "6", "-q"]
    done = run(more, preexec_fn=lambda: limit_files(limit), env=environment(PYTHONDONTWRITEBYTECODE="1"))
    assert (done.returncode, "E_IO" in done.stderr) == (74, True), done.stderr
    after = {p: p.read_bytes() for p in Path("run").rglob("*.safetensors")}
    assert all(after[p] == before[p] for p in before)
    assert pdr(*more).code == 0


NAMES = [
    "with space.nc",
    "línea ☂ 気温.nc",
    "two\nlines.nc",
    "-leading.nc",
    "12:00.nc",
    "a#b[0]%20.nc",
    "n" * 197 + ".nc",
]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_are_names(weather: Path, weather_run: Path, name: str) -> None:
    Path(name).write_bytes(weather.read_bytes())
    output = Path("out") / name
    output.parent.mkdir()
    result = pdr("predict", "-m", weather_run, "-o", output, "--", name)
    assert result.code == 0, result.err
    with xr.open_dataset(output.absolute()) as made:
        assert made.sizes["time"] == 4
    assert [p.name for p in output.parent.iterdir()] == [name]


def test_an_output_may_begin_with_a_dash(weather: Path, weather_run: Path) -> None:
    assert pdr("predict", weather, "-m", weather_run, "-o", "-out.nc").code == 0
    assert Path("-out.nc").is_file()


@pytest.mark.parametrize("name", ["12:00.mp4", "-clip ☂.mp4"])
def test_odd_names_of_clips_are_names(video_run: Path, name: str) -> None:
    video_file(Path.cwd() / "plain.mp4", 20)
    Path("plain.mp4").rename(name)
    result = pdr("predict", "-m", video_run, "-o", f"o{name}", "--", name)
    assert result.code == 0, result.err


@pytest.mark.parametrize("name", ["é" * 127, "x." + "y" * 200])
def test_the_longest_names_have_room_for_what_lies_beside_them(tmp_path: Path, name: str) -> None:
    atomic.write_text(tmp_path / name, "a")
    atomic.write_text(tmp_path / name, "b")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(name, "b")]


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").touch()
    with pytest.raises(OutputError, match="not made by this command"), atomic.atomic_folder(tmp_path / "a"):
        pytest.fail("the body ran")
    assert (tmp_path / "a" / "thesis.tex").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_behind_stdout_is_told() -> None:
    with open("/dev/full", "w") as full:
        import subprocess

        command = [sys.executable, "-m", "pdr_cli", "presets", "taxibj"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.strip().endswith("[E_IO, exit 74]")) == (74, True), done.stderr
