"""The kind of data decides, not the file format: counts in NetCDF are traffic from the training to the picture."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from pdr_cli.data import formats
from pdr_cli.data.formats import ReadOptions
from pdr_cli.data.series import Series, names
from pdr_cli.runs import modelfile
from pdr_cli.runs.modelfile import ModelCard
from tests.builders import traffic_file
from tests.cli import pdr
from tests.conftest import tiny_settings


@dataclass(frozen=True)
class Results:
    """Of one file: the header of the model trained on it, its scores, and the colours of the cells of a forecast."""

    card: ModelCard
    scores: dict[str, Any]
    colours: set[tuple[int, ...]]


def opened(path: Path) -> Series:
    return formats.open_series([path], ReadOptions(["inflow", "outflow"]))[0]


def in_netcdf(source: Path, path: Path, units: str) -> Path:
    series = opened(source)
    frames, attrs = series.values, series.attrs["variables"]
    made = {n: (("time", "y", "x"), frames[:, c], attrs[n] | {"units": units}) for c, n in enumerate(names(series))}
    xr.Dataset(made, coords={"time": series.time.values}).to_netcdf(path)
    return path


def results(data: Path, folder: Path, *settings: str) -> Results:
    """Train on a file, score the model on it, and draw a forecast."""
    network = ("model.backbone=tau", "model.fusion=concat", "model.anchor=none", "train.batch=8", "model.n_s=2")
    options = tiny_settings("data.variables=inflow,outflow", "data.scaling=auto", *network, *settings)
    run = folder / "run"
    trained = pdr("train", "--preset", "traffic-small", "--data", data, "-o", run, "--steps", "3", "-q", *options)
    assert trained.code == 0, trained.err
    scored = pdr("evaluate", data, "-m", run, "--against", "climatology", "--json")
    assert scored.code == 0, scored.err
    drawn = pdr("export", "-m", run, "--input", data, "-o", folder / "layers.png")
    assert drawn.code == 0, drawn.err
    card = modelfile.read_header(run / "model.safetensors").card
    return Results(card, json.loads(scored.out), colours_of(folder / "layers.png"))


def colours_of(path: Path) -> set[tuple[int, ...]]:
    """Colours of areas: a cell has some 1500 pixels, a letter or line fewer than 1000."""
    # As one number each, which are sorted 20 times as fast as rows of four.
    pixels = np.ascontiguousarray(Image.open(path)).view(np.uint32)
    found, counts = np.unique(pixels, return_counts=True)
    return set(map(tuple, found[counts > 1000].view(np.uint8).reshape(-1, 4).tolist()))


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 days of hourly counts: 30 days of training, more than the 3 weeks that a weekly climatology needs."""
    return traffic_file(tmp_path_factory.mktemp("kinds") / "city.h5", days=40)


@pytest.fixture(scope="module")
def in_hdf5(city: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results(city, tmp_path_factory.mktemp("h5"))


def test_traffic_is_scaled_by_its_extremes_and_has_a_weekly_climatology(city: Path, in_hdf5: Results) -> None:
    counts = opened(city).values[: 24 * 30]
    low, high = counts.min(axis=(0, 2, 3)), counts.max(axis=(0, 2, 3))
    assert in_hdf5.card.scaling.offset == pytest.approx(low)
    assert in_hdf5.card.scaling.scale == pytest.approx(high - low)
    assert in_hdf5.scores["card"]["climatology"] == "hour of day and day of week, 4 weeks of training"


@pytest.mark.parametrize(
    ("units", "kind"), [("count", "any"), ("", "traffic")], ids=["by its units", "by the preset's kind"]
)
def test_traffic_in_netcdf_is_traffic(city: Path, in_hdf5: Results, tmp_path: Path, units: str, kind: str) -> None:
    found = results(in_netcdf(city, tmp_path / "city.nc", units), tmp_path, f"data.kind={kind}")
    assert found.card.kind == "traffic"
    assert (found.card.scaling, found.card.seen) == (in_hdf5.card.scaling, in_hdf5.card.seen)
    for key in ("scores", "metrics", "n_windows", "lead", "lead_units"):
        assert found.scores[key] == in_hdf5.scores[key], key
    assert found.scores["card"]["climatology"] == in_hdf5.scores["card"]["climatology"]
    assert found.colours == in_hdf5.colours, "the palette, and a scale that begins at 0"


def test_the_same_file_is_weather_if_the_preset_is_for_weather(city: Path, in_hdf5: Results, tmp_path: Path) -> None:
    found = results(in_netcdf(city, tmp_path / "city.nc", "count"), tmp_path, "data.kind=weather")
    assert found.card.kind == "weather"
    assert found.card.scaling.scale != in_hdf5.card.scaling.scale
    assert found.scores["card"]["climatology"] == "hour of day, 4 weeks of training"
    assert found.colours != in_hdf5.colours
