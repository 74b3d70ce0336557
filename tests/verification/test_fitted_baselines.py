"""Baselines that training fits: they forecast as the anchors do, on any grid that the model takes, for any model."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from pdr_cli.inference import model as models
from pdr_cli.verification import sources
from pdr_cli.verification.sources import Reading
from tests.cli import pdr
from tests.conftest import BASELINES

PERSISTENCE = (*BASELINES, "--set", "model.anchor=persistence")
ALONE = [*BASELINES, "--set", "model.backbone=none", "--set", "model.fusion=none"]


def scores(data: Path, *arguments: object) -> dict[str, Any]:
    """The document of an evaluation."""
    result = pdr("evaluate", data, *arguments, "--json")
    assert result.code == 0, result.err
    document: dict[str, Any] = json.loads(result.out)
    return document


@pytest.fixture(scope="module")
def ridge_run(make_run: Callable[..., Path], weather: Path) -> Path:
    """A run on `weather` whose forecast is the ridge's alone."""
    return make_run(weather, *ALONE, "--set", "model.anchor=ridge")


def test_the_default_baselines_are_those_that_training_has_fitted(
    weather: Path, weather_run: Path, traffic: Path, traffic_run: Path, clip: Path, video_run: Path
) -> None:
    both = ["persistence", "climatology", "anomaly", "ridge"]
    assert list(scores(weather, "-m", weather_run)["scores"]) == ["run", *both]
    assert list(scores(traffic, "-m", traffic_run)["scores"]) == ["run", *both]
    assert list(scores(clip, "-m", video_run)["scores"]) == ["run", *both[:2], "damped-flow"]


def test_a_fitted_baseline_forecasts_as_the_model_that_is_the_anchor_alone(
    make_run: Callable[..., Path], weather: Path, ridge_run: Path
) -> None:
    document = scores(weather, "-m", make_run(weather, *PERSISTENCE), "-m", ridge_run, "--against", "ridge")
    assert document["scores"]["ridge"]["rmse"] == document["scores"]["run'"]["rmse"]
    assert document["skill"]["run'"]["ridge"]["overall"] == 0


def test_the_networks_own_anchor_is_a_baseline_too(weather: Path, ridge_run: Path) -> None:
    document = scores(weather, "-m", ridge_run)
    assert list(document["scores"]) == ["run", "persistence", "climatology", "anomaly", "ridge"]
    assert document["scores"]["ridge"]["rmse"] == document["scores"]["run"]["rmse"]


def test_orientation_and_further_leads_are_those_of_the_model(weather: Path, weather_run: Path, tmp_path: Path) -> None:
    with xr.open_dataset(weather) as data:
        data.isel(lat=slice(None, None, -1)).to_netcdf(tmp_path / "north_up.nc")
    one, other = (
        scores(path, "-m", weather_run, "--steps", 6)["scores"] for path in (weather, tmp_path / "north_up.nc")
    )
    for name in ("anomaly", "ridge"):
        assert len(one[name]["rmse"]["lead"]) == 6
        assert one[name]["rmse"]["lead"] == pytest.approx(other[name]["rmse"]["lead"], rel=1e-5)


def test_the_counts_of_a_fitted_baseline_are_within_the_bounds_of_the_model(traffic: Path, traffic_run: Path) -> None:
    task = sources.task_of([traffic], [str(traffic_run)], Reading())
    request, truth = task.batch(np.arange(len(task.windows)))
    # No trip at all, so that the departures would go below zero at night.
    low = replace(request, observed=0 * request.observed)
    for name in ("anomaly", "ridge"):
        frames = task.fitted[name](low)
        assert frames.shape == truth.shape
        assert frames.min() >= 0
        network = task.models["run"].baselines[name].network
        assert network.bounded.low.flatten().tolist() == task.models["run"].network.bounded.low.flatten().tolist()


def test_values_that_the_truth_lacks_are_the_only_ones_that_a_fitted_baseline_lacks(
    weather: Path, weather_run: Path, tmp_path: Path
) -> None:
    with xr.open_dataset(weather) as data:
        holed = data.load().copy(deep=True)
    holed.t2m[156:, 2:5, 3:6] = np.nan  # of the last windows' truth
    holed.to_netcdf(tmp_path / "holed.nc")
    document = scores(tmp_path / "holed.nc", "-m", weather_run, "--against", "anomaly,ridge")
    assert set(document["missing"]["by"]) == {"truth"}


def test_fewer_leads_than_were_fitted_are_the_first_of_them(weather: Path, ridge_run: Path) -> None:
    model = models.load(ridge_run / "model.safetensors", "cpu")
    batch = model.card.frames.blank(batch=3)._replace(
        normal=torch.randn(3, 8, 1, 13, 15), observed=torch.randn(3, 4, 1, 13, 15)
    )
    whole = model.network(batch).fused
    part = model.network(batch._replace(steps=2, normal=batch.normal[:, :6])).fused
    assert torch.allclose(part, whole[:, :2])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--against", "ridge"], "--against ridge: run has none; it was trained before baselines were kept"),
        (["--against", "anomaly"], "train again"),
    ],
)
def test_a_model_without_fitted_baselines_is_compared_with_the_others_alone(
    make_run: Callable[..., Path], weather: Path, arguments: list[str], says: str
) -> None:
    run = make_run(weather, *PERSISTENCE, "--set", "train.baselines=false")
    assert list(scores(weather, "-m", run)["scores"]) == ["run", "persistence", "climatology"]
    result = pdr("evaluate", weather, "-m", run, *arguments)
    assert (result.code, says in result.last) == (2, True), result.last


def test_what_no_training_has_fitted_is_refused_without_a_model(weather: Path, weather_run: Path) -> None:
    assert pdr("predict", weather, "--every-init", "-m", weather_run, "-o", "theirs.nc").code == 0
    result = pdr("evaluate", weather, "-m", "theirs.nc", "--against", "ridge")
    assert (result.code, "name a model with -m" in result.last) == (2, True), result.last


def test_the_table_and_the_page_are_against_the_best_baseline(weather: Path, weather_run: Path, tmp_path: Path) -> None:
    result = pdr("evaluate", weather, "-m", weather_run, "-o", "scores.json", "--report", "page.html")
    document = json.loads((tmp_path / "scores.json").read_text())
    errors = {name: document["scores"][name]["rmse"]["overall"] for name in document["skill"]["run"]}
    best = min(errors, key=errors.__getitem__)
    assert document["best_baseline"] == best
    assert f"skill vs {best}" in result.out
    others = [name for name in errors if name != best]
    assert all(f"all vs {name}" in result.out for name in others)
    way = "better" if document["skill"]["run"][best]["overall"] > 0 else "worse"
    assert f"{way} than {best}, the best simple forecast" in result.out.replace("\n", " ")
    assert f"{way} than {best}, the best simple forecast" in (tmp_path / "page.html").read_text()
