"""What is shipped is what is found: the wheel works from any folder."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import pdr_cli

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


def test_coastlines_travel_in_the_wheel(installed: Path) -> None:
    assert 10_000 < (installed / "pdr_cli" / "drawing" / "coastlines.npz").stat().st_size < 60_000


def test_an_installed_pdr_needs_no_checkout(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "doctor")
    assert done.returncode == 0, done.stderr
    assert str(installed / "pdr_cli" / "presets") in done.stdout
    assert "weather-small" in run(installed, tmp_path, "presets").stdout
    made = run(installed, tmp_path, "sample", "weather", "-o", "sample.nc")
    assert made.returncode == 0, made.stderr
    planned = run(installed, tmp_path, "train", "--preset", "demo", "--data", "sample.nc", "--dry-run", "-q")
    assert planned.returncode == 0, planned.stderr


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    recipe = yaml.safe_load((ROOT / "docs/packaging/recipe.yaml").read_text(encoding="utf-8"))
    assert citation["version"] == recipe["context"]["version"] == pdr_cli.__version__


def test_the_conda_recipe_wants_what_the_package_wants() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    recipe = yaml.safe_load((ROOT / "docs/packaging/recipe.yaml").read_text(encoding="utf-8"))
    other = {"torch": "pytorch", "netCDF4": "netcdf4"}  # names of conda-forge

    def known(requirement: str) -> str:
        name, _, version = requirement.partition(">=")
        return f"{other.get(name, name)} >={version}"

    wanted = {f"python {project['requires-python']}", *map(known, project["dependencies"])}
    assert set(recipe["requirements"]["run"]) == wanted


def test_types_travel_in_the_wheel(installed: Path) -> None:
    assert (installed / "pdr_cli" / "py.typed").is_file()
