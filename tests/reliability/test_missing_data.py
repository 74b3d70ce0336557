"""Land and gaps: a model learns from what is known, and forecasts where something is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pdr_cli.models.interfaces import Batch
from pdr_cli.models.pdr import PDR
from pdr_cli.runs import modelfile
from tests.builders import field, weather_file
from tests.cli import pdr
from tests.conftest import tiny_settings

MakeRun = Callable[..., Path]
SIZE = (13, 15)


def with_land(steps: int = 160, gaps: tuple[int, ...] = ()) -> np.ndarray:
    """A moving wave beside a coast of 4 x 5 cells; at the steps of `gaps` three more cells are missing."""
    values = field(steps, *SIZE)
    values[:, :4, :5] = np.nan
    for step in gaps:
        values[step, 8, 6:9] = np.nan
    return values


@pytest.fixture(scope="module")
def coast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weather_file(tmp_path_factory.mktemp("coast") / "coast.nc", values=with_land())


@pytest.fixture(scope="module")
def coast_run(make_run: MakeRun, coast: Path) -> Path:
    return make_run(coast)


def changed(source: Path, target: Path, change: Callable[[np.ndarray], None]) -> Path:
    """A copy of a file whose values `change` has changed."""
    with xr.open_dataset(source) as data:
        values = data.t2m.values.copy()
        change(values)
        data.assign(t2m=data.t2m.copy(data=values)).to_netcdf(target)
    return target


def forecast(path: Path, run: Path, *options: str) -> np.ndarray:
    result = pdr("predict", path, "-o", "forecast.nc", "-m", run, *options)
    assert result.code == 0, result.err
    with xr.open_dataset("forecast.nc") as made:
        return made.t2m.values


def test_land_comes_back_as_land_and_nothing_else_does(coast: Path, coast_run: Path) -> None:
    made = forecast(coast, coast_run)
    assert np.isnan(made[:, :4, :5]).all()
    assert np.isfinite(made).sum() == 4 * (13 * 15 - 20)


@pytest.mark.parametrize("name", ["f.nc", "f.zarr", "h.zarr"])
def test_land_in_a_forecast_is_no_fault_of_it(coast: Path, coast_run: Path, name: str) -> None:
    many = ["--every-init"] if name.startswith("h") else []
    assert pdr("predict", coast, "-o", name, "-m", coast_run, *many).code == 0
    result = pdr("verify", name)
    assert (result.code, "up to 20 cells of each missing" in result.out) == (0, True), result.out
    assert "the numbers are those that were written (SHA-256)" in result.out


def test_a_cell_that_one_frame_alone_lacks_is_a_fault(coast: Path, coast_run: Path) -> None:
    forecast(coast, coast_run)

    def lose(values: np.ndarray) -> None:
        values[2, 9, 9] = np.nan

    changed(Path("forecast.nc"), Path("g.nc"), lose)
    result = pdr("verify", "g.nc")
    assert (result.code, "1 of 4 frames of t2m lack other cells" in result.out) == (65, True), result.out


def test_the_model_knows_its_land(coast_run: Path) -> None:
    card = modelfile.read(coast_run / "model.safetensors").card
    assert card.land is not None
    assert np.argwhere(card.land.cells[0]).tolist() == [[y, x] for y in range(4) for x in range(5)]


def test_what_an_input_says_of_land_is_not_looked_at(coast: Path, coast_run: Path, tmp_path: Path) -> None:
    def drain(values: np.ndarray) -> None:
        values[:, :4, :5] = 285.0

    dry = changed(coast, tmp_path / "dry.nc", drain)
    assert np.array_equal(forecast(dry, coast_run), forecast(coast, coast_run), equal_nan=True)


def test_land_is_turned_with_the_grid(coast: Path, coast_run: Path, tmp_path: Path) -> None:
    with xr.open_dataset(coast) as data:
        data.isel(lat=slice(None, None, -1)).to_netcdf(tmp_path / "north_up.nc")
    assert np.isnan(forecast(tmp_path / "north_up.nc", coast_run)[:, 9:, :5]).all()


def test_only_sea_is_scored(coast: Path, coast_run: Path) -> None:
    result = pdr("evaluate", coast, "-m", coast_run, "-o", "scores.json")
    assert result.code == 0, result.err
    document = json.loads(Path("scores.json").read_text())
    assert document["missing"]["share"] == pytest.approx(20 / (13 * 15))
    assert np.isfinite(document["scores"]["run"]["rmse"]["overall"])


def test_windows_that_observe_a_gap_are_left_out_of_training(tmp_path: Path) -> None:
    # Of 160 steps 0.75 train: 120, which hold 113 windows of 4 + 4; those that start at 37 to 40 observe step 40.
    plain = weather_file(tmp_path / "coast.nc", values=with_land())
    gappy = weather_file(tmp_path / "gap.nc", values=with_land(gaps=(40,)))
    counts = []
    for path, more in ((plain, []), (gappy, []), (gappy, ["--set", "data.fill_missing=interp"])):
        result = pdr("train", "--preset", "demo", "--data", path, "--dry-run", "-q", *more, *tiny_settings())
        assert result.code == 0, result.err
        counts.append(int(result.out.split("# windows     ")[1].split()[0]))
    assert counts[1] == counts[0] - 4
    assert counts[2] == counts[0]


@pytest.mark.parametrize(
    "method", [pytest.param("persist", marks=pytest.mark.slow), pytest.param("mean", marks=pytest.mark.slow), "interp"]
)
def test_a_series_full_of_gaps_is_trained_on_and_scored_when_they_are_filled(
    make_run: MakeRun, tmp_path: Path, method: str
) -> None:
    gappy = weather_file(tmp_path / "gaps.nc", values=with_land(gaps=tuple(range(1, 160, 3))))
    run = make_run(gappy, "--set", f"data.fill_missing={method}")
    assert np.isfinite(forecast(gappy, run)[:, 4:]).all(), "filled as in training"
    result = pdr("evaluate", gappy, "-m", run, "-o", "scores.json", "--report", "report.html")
    assert result.code == 0, result.err
    assert json.loads(Path("scores.json").read_text())["missing"]["by"]["truth"] > 0


def test_unfilled_a_series_full_of_gaps_is_refused_with_the_way_out(tmp_path: Path) -> None:
    gappy = weather_file(tmp_path / "gaps.nc", values=with_land(gaps=tuple(range(1, 160, 3))))
    result = pdr("train", "--preset", "demo", "--data", gappy, "-q", *tiny_settings())
    assert (result.code, "every window for training has missing values" in result.last) == (65, True)
    assert "data.fill_missing=persist" in result.last


def test_gaps_in_a_window_are_refused_or_filled_as_asked(coast: Path, coast_run: Path, tmp_path: Path) -> None:
    def pierce(values: np.ndarray) -> None:
        values[-1, 8, 6] = np.nan  # known before: filled
        values[-4:, 10, 10] = np.nan  # in the whole window: as land

    holed = changed(coast, tmp_path / "holed.nc", pierce)
    refused = pdr("predict", holed, "-o", "f.nc", "-m", coast_run)
    # One cell in the last frame, one in each of the four; of 4 · 13 · 15 values.
    assert (refused.code, "5 of 780 values of t2m are missing (NaN)" in refused.last) == (65, True)
    assert "--fill-missing persist, mean or interp" in refused.last
    made = {}
    for method in ("persist", "mean", "interp"):
        made[method] = forecast(holed, coast_run, "--fill-missing", method)
        assert np.isfinite(made[method][:, 8, 6]).all()
        assert np.isnan(made[method][:, 10, 10]).all()
    assert not np.array_equal(made["persist"], made["mean"], equal_nan=True)
    with xr.open_dataset("forecast.nc") as written:
        assert "5 of 780 values missing, filled by interp" in written.attrs["history"].splitlines()[0]


def test_persisted_values_are_those_of_the_frame_before(coast: Path, coast_run: Path, tmp_path: Path) -> None:
    def lose(values: np.ndarray) -> None:
        values[-1, 8, 6:9] = np.nan

    def repeat(values: np.ndarray) -> None:
        values[-1, 8, 6:9] = values[-2, 8, 6:9]

    lost, repeated = changed(coast, tmp_path / "lost.nc", lose), changed(coast, tmp_path / "repeated.nc", repeat)
    filled = forecast(lost, coast_run, "--fill-missing", "persist")
    assert np.array_equal(filled, forecast(repeated, coast_run), equal_nan=True)


@pytest.mark.parametrize("backbone", ["convlstm", "dmvfn", "wast"])
def test_predictors_that_are_shown_the_truth_learn_beside_land(make_run: MakeRun, coast: Path, backbone: str) -> None:
    made = forecast(coast, make_run(coast, "--backbone", backbone))
    assert np.isnan(made[:, :4, :5]).all()
    assert np.isfinite(made).sum() == 4 * (13 * 15 - 20)


def test_true_frames_show_land_as_observed_ones_do(make_run: MakeRun, coast: Path, monkeypatch: Any) -> None:
    seen: list[Batch] = []
    usual = PDR.forward
    monkeypatch.setattr(PDR, "forward", lambda self, batch, *mode: seen.append(batch) or usual(self, batch, *mode))
    make_run(coast, "--set", "data.scaling=minmax")
    taught = [(batch.observed, batch.target) for batch in seen if batch.target is not None]
    assert taught
    for x, y in taught:
        land = x[0, 0, :, 0, 0]
        assert float(land.abs().max()) > 0, "the mean is not 0 on this scale"
        assert (y[..., :4, :5] == land[:, None, None]).all()


def test_latitude_weights_need_latitudes(traffic: Path) -> None:
    more = ["--set", "train.latitude_weights=true", "--steps", "1"]
    result = pdr("train", "--preset", "demo", "--data", traffic, "-o", "r", "-q", *more, *tiny_settings())
    assert (result.code, "has no latitudes" in result.last) == (78, True)


def test_latitude_weights_change_what_is_learnt(make_run: MakeRun, coast: Path, coast_run: Path) -> None:
    weighted = make_run(coast, "--set", "train.latitude_weights=true")
    first = [json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["loss"] for run in (coast_run, weighted)]
    assert first[0] != first[1]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "variables", "times"),
    [
        (
            "globcurrent_2002_daily_uv_nan_land.nc",
            ["eastward_eulerian_current_velocity", "northward_eulerian_current_velocity"],
            ["2003-01-02", "2003-01-05"],
        ),
        ("ersst_v5_monthly_nan_land.nc", ["sst"], ["2020-09-01", "2020-12-01"]),
    ],
)
def test_seas_with_land_are_trained_forecast_and_scored(
    shared: Path, make_run: MakeRun, name: str, variables: list[str], times: list[str]
) -> None:
    source = shared / "data" / "weather" / name
    chosen = [part for v in variables for part in ("--var", v)]
    run = make_run(source, *chosen, "--set", "data.val_fraction=0.2", "--set", "data.test_fraction=0.2")
    assert pdr("predict", source, "-o", "f.nc", "-m", run).code == 0
    with xr.open_dataset(source) as given, xr.open_dataset("f.nc") as made:
        assert [str(t)[:10] for t in made.time.values[[0, -1]]] == times
        for variable in variables:
            land = np.isnan(given[variable].values[-1])
            assert np.array_equal(np.isnan(made[variable].values), np.broadcast_to(land, made[variable].shape))
    assert pdr("evaluate", source, "-m", run, "-o", "scores.json").code == 0
    document = json.loads(Path("scores.json").read_text())
    assert document["missing"]["by"]["truth"] == document["missing"]["cells"]
