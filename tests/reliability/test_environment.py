"""Signals, clocks, closed streams and bare environments."""

import importlib.util
import json
import os
import py_compile
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pdr_cli import process
from pdr_cli.inference import model as inference
from pdr_cli.system import logs
from tests.builders import weather_file
from tests.cli import pdr
from tests.reliability.processes import environment, run


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)])
def test_a_signal_in_predict_changes_no_output(
    weather: Path, weather_run: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    Path("f.nc").write_bytes(b"old")
    before = signal.getsignal(number)
    monkeypatch.setattr(inference.Model, "run", lambda *_: os.kill(os.getpid(), number))
    result = pdr("predict", weather, "-o", "f.nc", "-m", weather_run)
    assert (result.code, "E_INTERRUPTED" in result.last) == (code, True)
    assert [(p.name, p.read_bytes()) for p in Path().iterdir()] == [("f.nc", b"old")], "no lock, no temporary"
    assert signal.getsignal(number) is before


def test_a_compiled_module_that_is_cut_off_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pdr_cli.commands import presets

    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path))
    compiled = Path(importlib.util.cache_from_source(presets.__file__))
    py_compile.compile(presets.__file__, cfile=str(compiled))
    compiled.write_bytes(compiled.read_bytes()[:1000])
    result = run(["presets"], env=environment(PYTHONPYCACHEPREFIX=str(tmp_path), PYTHONDONTWRITEBYTECODE="1"))
    assert result.returncode == 74
    assert f"error: {compiled} is cut off" in result.stderr
    assert len(result.stderr.splitlines()) == 2  # typer puts an empty one before it


def test_a_signal_while_the_file_is_written_changes_no_output(
    weather: Path, weather_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pdr_cli.data.formats.netcdf import NetCDF

    Path("f.nc").write_bytes(b"old")
    monkeypatch.setattr(NetCDF, "reading_back", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert pdr("predict", weather, "-o", "f.nc", "-m", weather_run).code == 143
    assert [(p.name, p.read_bytes()) for p in Path().iterdir()] == [("f.nc", b"old")]


def test_times_come_from_the_data_whatever_the_clock_says(
    weather: Path, weather_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "gmtime", lambda *_: time.struct_time((1970, 1, 1, 0, 0, 0, 3, 1, 0)))
    assert pdr("predict", weather, "-o", "f.nc", "-m", weather_run).code == 0
    with xr.open_dataset(weather) as given, xr.open_dataset("f.nc") as made:
        assert made.forecast_reference_time.values == given.time.values[-1]
        assert made.attrs["date_created"] == "1970-01-01T00:00:00Z"
    assert pdr("predict", weather, "-o", "f.nc", "-m", weather_run, "--skip-existing").out == "f.nc  up to date\n"


def test_the_night_of_a_clock_change_is_as_long_as_any(
    tmp_path: Path, weather_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In Berlin, 29 March 2020 had no hour from 2 to 3.
    data = weather_file(tmp_path / "a.nc", 40, start="2020-03-22", size=(13, 15))
    with monkeypatch.context() as there:
        there.setenv("TZ", "Europe/Berlin")
        time.tzset()
        assert pdr("predict", data, "-o", "f.nc", "-m", weather_run, "--init", "2020-03-28 18:00").code == 0
    time.tzset()
    with xr.open_dataset("f.nc") as made:
        assert made.time.values[0] == np.datetime64("2020-03-29T00:00")
        assert set(np.diff(made.time.values)) == {np.timedelta64(6, "h")}


def test_a_cron_jobs_bare_environment_is_enough(weather: Path, weather_run: Path) -> None:
    bare = {"PATH": os.environ["PATH"], "LANG": "C", "TZ": "Pacific/Auckland", "TERM": "dumb"}
    bare |= {k: os.environ[k] for k in ("PYTHONPATH", "OMP_NUM_THREADS") if k in os.environ}
    arguments = ["predict", weather, "-o", "f☂.nc", "-m", weather_run, "--preview", "f.png"]
    done = run(arguments, env=bare, encoding="utf-8")
    assert (done.returncode, done.stderr) == (0, "")
    with xr.open_dataset(weather) as given, xr.open_dataset("f☂.nc") as made:
        assert made.forecast_reference_time.values == given.time.values[-1], "the zone of the machine is not the data's"


@pytest.mark.parametrize("stream", [1, 2])
def test_a_closed_stream_is_no_error(stream: int) -> None:
    done = run(["presets", "demo"], preexec_fn=lambda: os.close(stream))
    assert done.returncode == 0, done.stderr


def test_an_error_without_stderr_keeps_its_code() -> None:
    assert run(["inspect", "nowhere.nc"], preexec_fn=lambda: os.close(2)).returncode == 66


def test_a_reader_that_has_enough_is_no_error() -> None:
    script = f"{sys.executable} -m pdr_cli presets taxibj | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("changes", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": None}])
def test_no_terminal_gets_no_escapes(changes: dict[str, str | None]) -> None:
    done = run(["presets"], env=environment(**changes))
    assert (done.returncode, "\x1b" in done.stdout + done.stderr) == (0, False)


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    logs.setup(quiet=False, verbose=False, as_json=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert not logs.plain_output()
    monkeypatch.setenv("TERM", "dumb")
    assert logs.plain_output()


@pytest.mark.parametrize(
    ("arguments", "code", "name"),
    [
        (["inspect", "nowhere.nc"], 66, "E_NOT_FOUND"),
        (["predict", "--log-jso"], 2, "E_USAGE"),
        (["train", "--preset", "taxi"], 78, "E_CONFIG"),
        (["presets", "x", "y"], 2, "E_USAGE"),
    ],
)
def test_the_last_json_line_carries_code_and_name(arguments: list[str], code: int, name: str) -> None:
    result = pdr(*arguments, "--log-json")
    line = json.loads(result.last)
    assert (result.code, line["code"], line["name"]) == (code, code, name)


@pytest.mark.parametrize(
    "bug", [KeyError("nothing"), EOFError("nothing")]
)  # typer takes the second for a user's Ctrl-D
def test_a_bug_says_so_with_its_traceback(
    bug: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pdr_cli.commands import presets

    def run(*_: object) -> None:
        raise bug

    monkeypatch.setattr(presets, "run", run)
    monkeypatch.setattr(sys, "argv", ["pdr", "presets"])
    with pytest.raises(SystemExit) as stopped:
        process.main()
    lines = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == 1
    assert "Traceback (most recent call last):" in lines[0]
    assert lines[-1].endswith(f"{type(bug).__name__}: {bug} [E_BUG, exit 1]")
