"""Scores by season and region are those of the parts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.builders import weather_file
from tests.cli import pdr


@pytest.fixture(scope="module")
def globe(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A truth on a grid across the equator from November to March, and forecasts of one step."""
    folder = tmp_path_factory.mktemp("globe")
    truth = weather_file(folder / "truth.nc", 480, size=(9, 6))
    with xr.open_dataset(truth) as opened:
        data = opened.load()
    lat, lon = data.t2m.dims[1:]
    times = np.datetime64("2019-11-10", "ns") + np.arange(480) * np.timedelta64(6, "h")
    data = data.assign_coords({lat: (lat, np.linspace(60, -60, 9), data[lat].attrs), "time": times})
    data.to_netcdf(folder / "world.nc")
    noise = np.random.default_rng(0).normal(size=data.t2m.shape)
    made = data.t2m.isel(time=slice(5, 470)).copy()
    frames = data.t2m.values[6:471] + noise[6:471]
    out = xr.Dataset(
        {"t2m": (("time", "prediction_timedelta", lat, lon), frames[:, None], data.t2m.attrs)},
        {"time": made.time, "prediction_timedelta": np.array([6], "timedelta64[h]"), lat: data[lat], lon: data[lon]},
    )
    out.to_netcdf(folder / "forecast.nc")
    return folder / "world.nc", folder / "forecast.nc"


def evaluate(globe: tuple[Path, Path], *arguments: str) -> dict[str, Any]:
    result = pdr("evaluate", globe[0], "-m", globe[1], "--var", "t2m", *arguments, "--json")
    assert result.code == 0, result.err
    found: dict[str, Any] = json.loads(result.out)
    return found


def test_parts_have_the_scores_of_their_windows_and_cells(globe: tuple[Path, Path]) -> None:
    found = evaluate(globe, "--by", "season,region", "--metrics", "rmse,mae,crps")
    assert list(found["strata"]) == ["DJF", "MAM", "SON", "north of 20 N", "tropics", "south of 20 S"]
    with xr.open_dataset(globe[0]) as truth, xr.open_dataset(globe[1]) as made:
        error = made.t2m.values[:, 0] - truth.t2m.sel(time=made.time.values + np.timedelta64(6, "h")).values
        month = made.time.dt.month.values
        lat = truth[truth.t2m.dims[1]].values
    used = slice(len(error) - found["n_windows"], None)
    error, month = error[used], month[used]
    for label, months in (("DJF", (12, 1, 2)), ("MAM", (3,)), ("SON", (11,))):
        part = found["strata"][label]["forecast"]
        assert part["rmse"]["overall"] == pytest.approx(np.sqrt((error[np.isin(month, months)] ** 2).mean()), rel=1e-5)
    inside = np.abs(lat) <= 20
    part = found["strata"]["tropics"]["forecast"]
    assert part["rmse"]["overall"] == pytest.approx(np.sqrt((error[:, inside] ** 2).mean()), rel=1e-5)
    assert part["crps"]["overall"] == pytest.approx(np.abs(error[:, inside]).mean(), rel=1e-5)
    plain = evaluate(globe, "--metrics", "rmse,mae,crps")
    assert "strata" not in plain
    assert plain["scores"] == found["scores"]


def test_what_has_no_seasons_or_is_unknown_is_refused(globe: tuple[Path, Path]) -> None:
    result = pdr("evaluate", globe[0], "-m", globe[1], "--var", "t2m", "--by", "saeson")
    assert (result.code, "Did you mean 'season'" in result.last) == (2, True), result.last


def test_the_table_has_a_row_for_each_part(globe: tuple[Path, Path]) -> None:
    result = pdr("evaluate", globe[0], "-m", globe[1], "--var", "t2m", "--by", "region")
    assert "by season and region" in result.out
    assert "south of 20 S" in result.out
