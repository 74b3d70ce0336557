"""Files are UTF-8 whatever the locale is, and the names of files may be any bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr

import pdr_cli
from pdr_cli.config import presets_folder
from pdr_cli.runs import modelfile
from tests.builders import traffic_file, video_file
from tests.cli import Result, pdr
from tests.conftest import tiny_settings

BYTES = os.fsdecode(b"caf\xe9 \xff")  # of Latin-1
SHOWN = r"caf\xe9 \xff"


def fine(result: Result) -> str:
    assert result.code == 0, result.err
    return result.out


def test_a_name_of_any_bytes_goes_through_all_commands(weather: Path) -> None:
    data, run, made = f"{BYTES}.nc", f"run {BYTES}", f"forecast {BYTES}"
    shutil.copy(weather, data)
    fine(pdr("inspect", data))
    fine(pdr("train", "--preset", "demo", "--data", data, "-o", run, "--steps", "2", *tiny_settings()))
    fine(pdr("train", "--resume", "-o", run, "--steps", "3"))
    fine(pdr("inspect", run, "--json"))
    fine(pdr("verify", run))
    for suffix in (".nc", ".zarr", ".npz"):
        fine(pdr("predict", data, "-m", run, "-o", made + suffix, "--log-json"))
        fine(pdr("verify", made + suffix))
        assert "up to date" in fine(pdr("predict", data, "-m", run, "-o", made + suffix, "--skip-existing"))
    fine(pdr("predict", data, "-m", run, "-o", f"all {BYTES}.nc", "--every-init"))
    fine(pdr("evaluate", data, "-m", run, "-o", f"{BYTES}.json", "--report", f"{BYTES}.html"))
    shutil.copy(f"{made}.nc", "plain.nc")
    with xr.open_dataset("plain.nc") as forecast:
        assert forecast.attrs["comment"] == f"from {SHOWN}.nc"
        assert SHOWN in forecast.attrs["history"]
    assert modelfile.read_header(Path(run, "model.safetensors")).card.data[0]["name"] == data
    assert json.loads(Path(f"{BYTES}.json").read_text(encoding="utf-8"))["scores"]


@pytest.mark.slow
def test_a_program_of_such_a_name_is_written_and_run(weather: Path, weather_run: Path) -> None:
    pytest.importorskip("onnxruntime")
    fine(pdr("export", "-m", weather_run, "-o", f"{BYTES}.onnx"))
    fine(pdr("predict", weather, "-m", f"{BYTES}.onnx", "-o", "f.nc"))


@pytest.mark.parametrize("kind", ["traffic", "video"])
def test_other_formats_of_such_a_name_are_read(kind: str) -> None:
    make, suffix = (traffic_file, ".h5") if kind == "traffic" else (video_file, ".mp4")
    shutil.move(make(Path(f"plain{suffix}"), 12), f"{BYTES}{suffix}")
    fine(pdr("inspect", f"{BYTES}{suffix}"))


def test_a_locale_of_ascii_changes_nothing(weather: Path) -> None:
    environment = {"PYTHONPATH": str(Path(pdr_cli.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    def run(*arguments: str) -> bytes:
        command = [sys.executable, "-m", "pdr_cli", *arguments]
        done = subprocess.run(
            command, capture_output=True, env=os.environ | environment | ascii_only, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("presets", "demo") == (presets_folder() / "demo.toml").read_bytes(), "to copy, so UTF-8 in a pipe"
    run("presets")
    Path("mine.toml").write_text('# größer\nextends = "demo"\n', encoding="utf-8")
    run("train", "--preset", "mine.toml", "--data", str(weather), "--dry-run")
