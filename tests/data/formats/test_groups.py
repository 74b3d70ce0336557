"""Groups of NetCDF and Zarr files: which is read, and what it inherits."""

from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

from pdr_cli.data import formats
from pdr_cli.data.formats import ReadOptions
from pdr_cli.data.series import Series, names
from pdr_cli.errors import VariableError
from tests.builders import field, weather_file
from tests.cli import pdr

ENGINES = ("nc", "zarr")


def grouped(path: Path, groups: dict[str, list[str]], steps: int = 160, transpose: bool = False) -> Path:
    """A file whose variables and coordinates lie in groups: {group: names}; "" is the root."""
    plain = weather_file(path.with_suffix(".plain"), steps)
    with xr.open_dataset(plain) as whole:
        whole["rain"] = whole.t2m * 0 + 1
        whole = whole.transpose("time", "lon", "lat") if transpose else whole
        for group, held in groups.items():
            absent = [n for n in whole.variables if n not in held]
            part = whole.drop_vars(absent)
            if path.suffix == ".zarr":
                part.to_zarr(path, mode="a", group=group or None, consolidated=False)
            else:
                part.to_netcdf(path, mode="a" if path.exists() else "w", group=group or None)
    plain.unlink()
    return path


def opened(path: Path, variables: tuple[str, ...] = (), group: str = "") -> Series:
    (series,) = formats.open_series([path], ReadOptions(variables, group=group))
    return series


@pytest.mark.parametrize("suffix", ENGINES)
def test_the_only_group_with_fields_is_read_with_the_times_of_the_root(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = grouped(tmp_path / f"a.{suffix}", {"": ["time"], "observed": ["t2m", "lat", "lon"]})
    series = opened(path)
    assert np.array_equal(series.values[:, 0], field(160))
    assert series.time.values[0] == np.datetime64("2020-01-01")
    assert float(series.lat[0]) == 60
    result = pdr("inspect", path)
    assert result.code == 0
    assert f"group   /observed of {path} holds the fields" in result.err
    assert "t2m" in result.out


@pytest.mark.parametrize("suffix", ENGINES)
def test_several_groups_with_fields_are_named(tmp_path: Path, suffix: str) -> None:
    path = grouped(
        tmp_path / f"a.{suffix}", {"": ["time", "lat", "lon"], "era5/hourly": ["t2m"], "radar": ["rain"]}, steps=8
    )
    with pytest.raises(VariableError) as raised:
        opened(path)
    assert "has fields in 2 groups: /era5/hourly, /radar; choose one with --group /era5/hourly" in str(raised.value)
    assert names(opened(path, group="/era5/hourly")) == names(opened(path, group="era5/hourly/")) == ["t2m"]
    assert opened(path, group="/radar").values.max() == 1


def test_a_group_that_does_not_exist_is_named_with_its_neighbours(tmp_path: Path) -> None:
    path = grouped(tmp_path / "a.nc", {"": ["time"], "observed": ["t2m", "lat", "lon"]}, steps=8)
    with pytest.raises(VariableError, match=r"no group /observd; its groups are /observed. Did you mean '/observed'"):
        opened(path, group="observd")
    with pytest.raises(VariableError, match=r"has no group /observed; it has no groups.*; --group / reads"):
        opened(weather_file(tmp_path / "b.nc", 8), group="/observed")
    assert names(opened(tmp_path / "b.nc", group="/")) == ["t2m"]


def test_fields_of_the_root_come_before_those_of_groups(tmp_path: Path) -> None:
    path = grouped(tmp_path / "a.nc", {"": ["time", "lat", "lon", "t2m"], "more": ["rain", "time", "lat", "lon"]}, 8)
    assert names(opened(path)) == ["t2m"]
    assert names(opened(path, group="/more")) == ["rain"]


def test_hdf5_without_the_marks_of_netcdf_is_read_by_the_scales_in_its_group(tmp_path: Path) -> None:
    """As GPM IMERG: everything in /Grid, [time, lon, lat]."""
    import h5py

    path = grouped(tmp_path / "a.nc", {"Grid": ["time", "lat", "lon", "t2m"]}, 8, transpose=True)
    with h5py.File(path, "a") as file:
        del file.attrs["_NCProperties"]
    renamed = path.rename(tmp_path / "a.HDF5")
    assert np.array_equal(opened(renamed).values[:, 0], field(8))


def test_a_coordinate_of_the_root_along_another_dimension_is_not_inherited(tmp_path: Path) -> None:
    """The group has a dimension `time` of its own, of another length, without a coordinate."""
    path = grouped(tmp_path / "a.nc", {"": ["time"]}, 8)
    with netCDF4.Dataset(path, "a") as file:
        group = file.createGroup("observed")
        for name, size in (("time", 5), ("lat", 3), ("lon", 3)):
            group.createDimension(name, size)
        group.createVariable("t2m", "f4", ("time", "lat", "lon"))[:] = 1
    result = pdr("inspect", path, "--group", "/observed", "--var", "t2m")
    assert "no time coordinate; its dimensions are time (5), lat (3), lon (3)" in result.out


def test_auxiliary_coordinates_and_grid_mappings_of_parents_come_along(tmp_path: Path) -> None:
    path = grouped(tmp_path / "a.nc", {"": ["time", "lat", "lon"], "observed": ["t2m"]}, 8)
    with netCDF4.Dataset(path, "a") as file:
        file.createVariable("crs", "i4", ()).grid_mapping_name = "latitude_longitude"
        file["observed/t2m"].grid_mapping = "crs"
    name, attrs = opened(path).attrs["grid_mapping"]
    assert (name, attrs["grid_mapping_name"]) == ("crs", "latitude_longitude")


def test_a_model_remembers_the_group_that_it_was_trained_on(tmp_path: Path) -> None:
    groups = {"": ["time", "lat", "lon"], "a": ["t2m"], "b": ["t2m"]}
    path, run = grouped(tmp_path / "a.nc", groups), tmp_path / "run"
    made = pdr("train", "--preset", "weather-small", "--data", path, "--group", "/b", "--steps", 2, "-o", run)
    assert made.code == 0, made.err
    plain = pdr("predict", path, "-m", run, "-o", tmp_path / "c.nc")
    named = pdr("predict", path, "-m", run, "-o", tmp_path / "d.nc", "--group", "/b")
    assert (plain.code, named.code) == (0, 0), plain.err + named.err
    ids = [netCDF4.Dataset(tmp_path / f"{n}.nc").pdr_request_id for n in "cd"]
    assert ids[0] == ids[1]
    assert pdr("inspect", path, "--for", run, "--group", "/a").code == 0
    assert pdr("evaluate", path, "-m", run, "--split", "all").code == 0
    early = tmp_path / "e.nc"
    assert pdr("predict", path, "-m", run, "-o", early, "--init", "2020-02-01").code == 0
    for extra in ((), ("--var", "t2m")):
        assert pdr("evaluate", path, "-m", early, "--group", "/a", "--split", "all", *extra).code == 0
