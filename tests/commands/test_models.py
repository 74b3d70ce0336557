"""Models by name: those that come with pdr, the list of all, and training that continues from one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pdr_cli import config
from pdr_cli.runs import folder as runs
from pdr_cli.runs import modelfile
from tests.builders import traffic_file, weather_file
from tests.cli import pdr
from tests.conftest import tiny_settings

DEMOS = ("traffic", "video", "weather")
MEGABYTES = 3e6


@pytest.fixture(scope="module")
def run(make_run: Callable[..., Path], weather: Path) -> Path:
    return make_run(weather, "--backbone", "unet", "--set", "fusion=none")


def test_three_models_come_with_pdr_and_are_small() -> None:
    assert tuple(folder.name for folder in runs.demos()) == DEMOS
    for folder in runs.demos():
        assert (folder / "model.safetensors").stat().st_size < MEGABYTES
        done = pdr("verify", folder / "model.safetensors")
        assert done.code == 0, done.err
        card = (folder / "README.md").read_text()
        assert modelfile.read_header(folder / "model.safetensors").sha256 in card
        assert "pdr train" in card


def like_the_training(path: Path) -> Path:
    """A file of 40 steps on the grid of demo:weather."""
    card = modelfile.read_header(runs.find_model("demo:weather")).card
    assert card.y is not None
    assert card.x is not None
    frames = np.random.default_rng(0).normal(0, 2, (40, *card.size)) + np.asarray(card.limits.mean)[:, None, None]  # type: ignore[union-attr]
    values = xr.DataArray(
        frames.astype("f4"),
        dims=("time", "lat", "lon"),
        coords={
            "time": np.datetime64("2014-03-01") + 6 * np.arange(40) * np.timedelta64(1, "h"),
            "lat": ("lat", np.asarray(card.y.values), {"units": "degrees_north"}),
            "lon": ("lon", np.asarray(card.x.values), {"units": "degrees_east"}),
        },
        attrs={"units": "degK"},
        name=next(iter(card.variables)),
    )
    values.to_netcdf(path)
    return path


def test_a_forecast_without_training(tmp_path: Path) -> None:
    data = like_the_training(tmp_path / "air.nc")
    done = pdr("predict", data, "-m", "demo:weather", "-o", tmp_path / "f.nc")
    assert done.code == 0, done.err
    assert "model demo:weather" in done.out
    assert pdr("verify", tmp_path / "f.nc").code == 0


def test_a_misspelt_name_is_refused_with_the_nearest(weather: Path) -> None:
    done = pdr("predict", weather, "-m", "demo:wether", "-o", "f.nc")
    assert done.code == 66
    assert "Did you mean 'demo:weather'" in done.err


def test_a_model_that_comes_with_pdr_is_not_calibrated(weather: Path) -> None:
    done = pdr("calibrate", "demo:weather", weather)
    assert done.code == 2
    assert "stays as it comes" in done.err


def test_the_list_has_runs_and_demos(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "runs" / "night")
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "model.safetensors").write_bytes(b"\0" * 100)
    done = pdr("models", "--json")
    assert done.code == 0, done.err
    found = {one["model"]: one for one in json.loads(done.out)}
    assert list(found) == ["night", *(f"demo:{name}" for name in DEMOS)]
    assert (found["night"]["kind"], found["night"]["grid"]) == ("weather", "13 x 15")
    assert "broken is left out" in done.err
    shown = pdr("models").out
    assert "night" in shown
    assert "[K]" in shown


def test_fine_tuning_continues_on_another_grid_with_the_models_network(run: Path, tmp_path: Path) -> None:
    other = weather_file(tmp_path / "other.nc", size=(10, 12))
    arguments = ("--fine-tune", run, "--data", other, "--steps", "2", "-o", tmp_path / "tuned", "--set", "log_every=1")
    done = pdr("train", *arguments)
    assert done.code == 0, done.err
    before, after = (config.load(str(folder / "config.toml")) for folder in (run, tmp_path / "tuned"))
    assert after.model == before.model
    assert after.train.lr == pytest.approx(before.train.lr / 4)
    assert "static begins anew" in done.err
    start = json.loads((tmp_path / "tuned" / "state" / "start.json").read_text())
    assert start["init_from"]["sha256"] == modelfile.read_header(run / "model.safetensors").sha256
    assert modelfile.read_header(tmp_path / "tuned" / "model.safetensors").card.size == (10, 12)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "name them with --data"),
        (("--data", "DATA", "--preset", "demo"), "leave out --preset"),
        (("--data", "DATA", "--init-from", "x.safetensors"), "leave out --init-from"),
    ],
)
def test_what_contradicts_fine_tuning_is_refused(run: Path, weather: Path, more: tuple[str, ...], said: str) -> None:
    done = pdr("train", "--fine-tune", run, *(str(weather) if word == "DATA" else word for word in more))
    assert done.code == 2
    assert said in done.err


def test_an_anchor_alone_has_nothing_to_continue_from(make_run: Callable[..., Path], weather: Path) -> None:
    anchor = make_run(weather, "--set", "backbone=none", "--set", "fusion=none")
    done = pdr("train", "--fine-tune", anchor, "--data", weather)
    assert done.code == 2
    assert "has no network" in done.err


def test_other_channels_and_other_kinds_are_refused_with_the_reason(run: Path, tmp_path: Path) -> None:
    city = traffic_file(tmp_path / "city.h5")
    done = pdr("train", "--fine-tune", run, "--data", city, "-o", tmp_path / "tuned", *tiny_settings())
    assert done.code in (65, 78), done.err
    assert "Traceback" not in done.err
