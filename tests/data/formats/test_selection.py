"""`--var all`: which variables become channels, and what the log says of the others."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pdr_cli.data import formats
from pdr_cli.data.formats import ReadOptions
from pdr_cli.data.series import names
from pdr_cli.errors import VariableError
from tests.builders import field, traffic_file
from tests.cli import pdr

LAT, LON = np.linspace(60, 32.5, 12), np.linspace(200, 232.5, 14)


def array(values: np.ndarray, times: np.ndarray, *, shift: float = 0, suffix: str = "") -> xr.DataArray:
    coords = {
        f"time{suffix}": times,
        f"lat{suffix}": (f"lat{suffix}", LAT + shift, {"units": "degrees_north"}),
        f"lon{suffix}": (f"lon{suffix}", LON, {"units": "degrees_east"}),
    }
    return xr.DataArray(values, coords, [f"{d}{suffix}" for d in ("time", "lat", "lon")], attrs={"units": "K"})


def hourly(steps: int, start: str = "2020-01-01") -> np.ndarray:
    return np.datetime64(start, "ns") + 6 * np.arange(steps) * np.timedelta64(1, "h")


def everything(steps: int = 160) -> Mapping[str, xr.DataArray]:
    """Two variables on one grid, and others on another one, at other times, with levels, and on no grid."""
    t = array(field(steps), hourly(steps))
    return {
        "t2m": t,
        "u10": t + 1,
        "shifted": array(field(steps), hourly(steps), shift=1.25, suffix="_s"),
        "late": array(field(steps), hourly(steps, "2020-01-02"), suffix="_l"),
        "q": xr.concat([t, t], "lev").assign_coords(lev=[850.0, 500.0]),
        "index": xr.DataArray(np.arange(steps), dims="time"),
    }


def test_all_variables_on_the_grid_and_times_that_most_have_become_channels(tmp_path: Path) -> None:
    xr.Dataset(everything(20)).to_netcdf(tmp_path / "a.nc")
    (series,) = formats.open_series([tmp_path / "a.nc"], ReadOptions(["all"]))
    assert names(series) == ["t2m", "u10"]
    assert np.array_equal(series.values, np.stack([field(20), field(20) + 1], axis=1))
    result = pdr("inspect", tmp_path / "a.nc", "--var", "all")
    assert result.code == 0
    for name, reason in (
        ("shifted", "it lies on another grid than most"),
        ("late", "it has other times than most"),
        ("q", "it has 2 values along lev; name those to use, such as --var q@850"),
    ):
        assert f"fields  {name} is left out of all variables: {reason}" in result.err
    assert "index is left out" not in result.err


def test_all_variables_of_several_files_are_joined_and_stacked(tmp_path: Path) -> None:
    for name in ("t2m", "u10"):
        for part in (0, 10):
            piece = everything(20)[name].isel(time=slice(part, part + 10))
            piece.to_dataset(name=name).to_netcdf(tmp_path / f"{name}_{part}.nc")
    (series,) = formats.open_series(formats.find_inputs([tmp_path]), ReadOptions(["all"]))
    assert names(series) == ["t2m", "u10"]
    assert series.sizes["time"] == 20


def test_a_variable_called_all_is_meant_by_its_name(tmp_path: Path) -> None:
    xr.Dataset({"all": everything(8)["t2m"], "t2m": everything(8)["u10"]}).to_netcdf(tmp_path / "a.nc")
    assert names(formats.open_series([tmp_path / "a.nc"], ReadOptions(["all"]))[0]) == ["all"]


def test_all_of_nothing_is_refused(tmp_path: Path) -> None:
    xr.Dataset({"index": everything(8)["index"]}).assign_coords(time=hourly(8)).to_netcdf(tmp_path / "a.nc")
    with pytest.raises(VariableError, match=r"no variable on \(time, y, x\); it has index"):
        formats.open_series([tmp_path / "a.nc"], ReadOptions(["all"]))


def test_all_channels_of_traffic_are_all(tmp_path: Path) -> None:
    path = traffic_file(tmp_path / "a.h5", 2)
    assert names(formats.open_series([path], ReadOptions(["all"]))[0]) == ["inflow", "outflow"]


def test_a_model_of_all_variables_forecasts_them(tmp_path: Path) -> None:
    path, run = tmp_path / "a.nc", tmp_path / "run"
    xr.Dataset(everything()).to_netcdf(path)
    made = pdr("train", "--preset", "weather-small", "--data", path, "--var", "all", "--steps", 2, "-o", run)
    assert made.code == 0, made.err
    assert pdr("predict", path, "-m", run, "-o", tmp_path / "fc.nc").code == 0
    with xr.open_dataset(tmp_path / "fc.nc") as forecast:
        assert {"t2m", "u10"} <= set(forecast.data_vars)
    assert pdr("train", "--resume", "-o", run, "--steps", 3).code == 0
