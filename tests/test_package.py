"""What is shipped is what is found: the wheel works from any folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built and unpacked into a folder of its own."""
    target = tmp_path_factory.mktemp("installed")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(target),
        str(ROOT),
    ]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def run(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "pdr_cli", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_presets_and_renderer_sources_travel_in_the_wheel(installed: Path) -> None:
    for folder in ("presets", "ext/predgsplat"):
        here = {p.name for p in (ROOT / folder).iterdir()}
        assert {p.name for p in (installed / "pdr_cli" / folder).iterdir()} == here


def test_an_installed_pdr_needs_no_checkout(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "doctor")
    assert done.returncode == 0, done.stderr
    assert str(installed / "pdr_cli" / "presets") in done.stdout
    assert "weather-small" in run(installed, tmp_path, "presets").stdout
    made = run(installed, tmp_path, "sample", "weather", "-o", "sample.nc")
    assert made.returncode == 0, made.stderr
    planned = run(installed, tmp_path, "train", "--preset", "demo", "--data", "sample.nc", "--dry-run", "-q")
    assert planned.returncode == 0, planned.stderr
