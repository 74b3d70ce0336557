"""Models whose forecast starts from an anchor, or is the anchor's: trained, used, exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import pdr_cli
from pdr_cli.models import motion
from tests.builders import traffic_file, weather_file
from tests.cli import pdr

ALONE = ("--backbone", "none", "--fusion", "none")


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """35 days of hourly slots: 25 to train on, which are three weeks."""
    return traffic_file(tmp_path_factory.mktemp("city") / "city.h5", 35)


@pytest.fixture(scope="module")
def ridge_run(make_run: Callable[..., Path], city: Path) -> Path:
    """A ridge alone, which reads a day and a week before."""
    return make_run(city, *ALONE, "--set", "anchor=ridge", "--set", "data.back=auto")


def test_a_ridge_alone_forecasts_better_than_persistence(city: Path, ridge_run: Path) -> None:
    found = pdr_cli.evaluate(city, ridge_run)
    name = ridge_run.name
    assert found.scores[name]["rmse"].overall < 0.5 * found.scores["persistence"]["rmse"].overall


def test_it_reads_frames_a_week_before_and_does_without_them(city: Path, ridge_run: Path, tmp_path: Path) -> None:
    model = pdr_cli.load(ridge_run)
    assert model.loaded.card.cycles == (24, 168)
    assert pdr("predict", city, "-m", ridge_run, "-o", "whole.h5").code == 0
    week = traffic_file(tmp_path / "short.h5", 35, drop_days=range(33))
    assert pdr("predict", week, "-m", ridge_run, "-o", "short.h5.h5").code == 0


def test_what_it_read_decides_whether_a_forecast_is_up_to_date(city: Path, ridge_run: Path) -> None:
    arguments = ("predict", city, "-m", ridge_run, "-o", "out.h5", "--skip-existing")
    assert pdr(*arguments).code == 0
    before = Path("out.h5").read_bytes()
    assert "up to date" in pdr(*arguments).out
    assert Path("out.h5").read_bytes() == before


def test_hindcasts_equal_single_forecasts(make_run: Callable[..., Path], tmp_path: Path) -> None:
    data = weather_file(tmp_path / "air.nc", 200, size=(8, 9))
    run = make_run(data, "--set", "anchor=ridge", "--set", "data.back=1d", "--set", "model.inputs=anomalies")
    model = pdr_cli.load(run)
    with xr.open_dataset(data) as opened:
        every = model.predict(opened, every_init=True)
        single = model.predict(opened, init=str(every.forecast_reference_time.values[40]))
    assert np.allclose(every.t2m.values[40], single.t2m.values, atol=1e-3)


@pytest.mark.parametrize(
    "anchor",
    [
        "persistence",
        "climatology",
        "anomaly",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("ridge", "flow")),
    ],
)
def test_every_anchor_alone_is_a_model_and_leaves_as_a_graph(
    make_run: Callable[..., Path], weather: Path, anchor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(motion, "WARPS", 1)  # a graph of five takes five times as long to write
    run = make_run(weather, *ALONE, "--set", f"anchor={anchor}")
    assert (run / "model.safetensors").stat().st_size < 5e6
    assert pdr("predict", weather, "-m", run, "-o", "out.nc", "--steps", "9").code == 0
    pytest.importorskip("onnxruntime")
    result = pdr("export", "-m", run, "-o", "model.onnx", "-q")
    assert (result.code, "verified in ONNX Runtime" in result.out) == (0, True), result.err


@pytest.mark.slow
def test_the_graph_of_a_ridge_forecasts_from_times_and_earlier_frames(city: Path, ridge_run: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    assert pdr("export", "-m", ridge_run, "-o", "model.onnx", "-q").code == 0
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    data = opened(city)
    values, times = data["data"].values.astype(np.float32), data["time"].values
    last = len(values) - 1
    ages = [[-lead % cycle for lead in range(1, 5)] for cycle in (24, 168)]
    inputs = {
        "observed": values[last - 3 :][None],
        "times": (times[last].astype("M8[s]").astype(np.int64) + 3600 * np.arange(-3, 5))[None],
        "earlier": np.stack([np.stack([values[last - age] for age in row]) for row in ages])[None],
    }
    (made,) = session.run(None, inputs)
    assert pdr("predict", city, "-m", ridge_run, "-o", "out.h5").code == 0
    assert np.abs(made[0] - opened(Path("out.h5"))["data"].values).max() < 1e-2


def opened(path: Path) -> xr.Dataset:
    """Counts and times of a file of the layout of TaxiBJ."""
    from pdr_cli.data import formats

    (series,) = formats.open_series([path], formats.ReadOptions())
    return xr.Dataset({"data": (("time", "channel", "y", "x"), series.values)}, coords={"time": series.time.values})


def test_without_an_anchor_there_is_nothing_to_forecast_with(weather: Path) -> None:
    result = pdr("train", "--preset", "demo", "--data", weather, "-o", "run", *ALONE, "--anchor", "none")
    assert (result.code, "--anchor persistence, climatology" in result.last) == (78, True), result.last


def test_an_unknown_anchor_is_refused_by_name(weather: Path) -> None:
    result = pdr("train", "--preset", "demo", "--data", weather, "-o", "run", "--anchor", "rigde")
    assert (result.code, "Did you mean 'ridge'" in result.last) == (78, True), result.last
