from collections.abc import Sequence
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

from pdr_cli.data import formats
from pdr_cli.data.formats import ReadOptions
from pdr_cli.data.formats.netcdf import NetCDF
from pdr_cli.data.series import Series, names, read_frames, units
from pdr_cli.errors import DataError, GridError, TimeError, VariableError
from tests.builders import field, weather_file, weatherbench_folders


def read(paths: list[Path], variables: Sequence[str] = (), rename: dict[str, str] | None = None) -> Series:
    (series,) = NetCDF().open(paths, ReadOptions(variables, rename or {}))
    return series


def test_values_and_coordinates_are_the_files_own(tmp_path: Path) -> None:
    series = read([weather_file(tmp_path / "a.nc", 20)])
    assert series.dims == ("time", "channel", "y", "x")
    assert (names(series), units(series)) == (["t2m"], ["K"])
    assert np.array_equal(read_frames(series, 3, 5)[:, 0], field(20)[3:5])
    assert series.lat.values[0] > series.lat.values[-1]
    assert series.lat.dims == ("y",)


def test_years_in_files_become_one_axis_in_order_of_time(tmp_path: Path) -> None:
    values = field(30)
    late = weather_file(tmp_path / "a_late.nc", 10, start="2020-01-06", values=values[20:])
    early = weather_file(tmp_path / "b_early.nc", 20, start="2020-01-01", values=values[:20])
    series = read([late, early])
    assert np.array_equal(read_frames(series, 18, 22)[:, 0], values[18:22])


def test_files_of_different_grids_are_refused(tmp_path: Path) -> None:
    one = weather_file(tmp_path / "a.nc", 10)
    other = weather_file(tmp_path / "b.nc", 10, start="2021-01-01", size=(12, 16))
    with pytest.raises(GridError, match="another grid"):
        read([one, other])


def test_transposed_dims_and_levels_of_one_are_put_in_order(tmp_path: Path) -> None:
    with xr.open_dataset(weather_file(tmp_path / "a.nc", 10)) as data:
        turned = data.t2m.expand_dims(level=[850]).transpose("lon", "level", "lat", "time")
        turned.to_dataset(name="t2m").to_netcdf(tmp_path / "turned.nc")
    assert np.array_equal(read_frames(read([tmp_path / "turned.nc"]), 0, 10)[:, 0], field(10))


def test_a_choice_of_levels_is_not_made_for_the_user(tmp_path: Path) -> None:
    with xr.open_dataset(weather_file(tmp_path / "a.nc", 10)) as data:
        data.t2m.expand_dims(level=[850, 500]).to_dataset(name="t2m").to_netcdf(tmp_path / "levels.nc")
    with pytest.raises(VariableError, match=r"level with 2 values .* --var t2m@850"):
        read([tmp_path / "levels.nc"])


def test_unknown_variable_names_the_nearest(tmp_path: Path) -> None:
    path = weather_file(tmp_path / "a.nc", 10)
    with pytest.raises(VariableError, match="Did you mean 't2m'"):
        read([path], ["t2"])
    assert names(read([path], ["temperature"], {"temperature": "t2m"})) == ["temperature"]
    assert names(read([path], ["air_temperature"])) == ["air_temperature"], "found by standard_name"


def test_several_variables_must_be_chosen_among(tmp_path: Path) -> None:
    with xr.open_dataset(weather_file(tmp_path / "a.nc", 10)) as data:
        data.assign(u10=data.t2m).to_netcdf(tmp_path / "two.nc")
    with pytest.raises(VariableError, match="2 gridded variables: t2m, u10"):
        read([tmp_path / "two.nc"])
    assert names(read([tmp_path / "two.nc"], ["u10", "t2m"])) == ["u10", "t2m"]


def test_packed_integers_are_decoded_and_never_inherited(tmp_path: Path) -> None:
    packed = {"t2m": {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768}}
    with xr.open_dataset(weather_file(tmp_path / "a.nc", 10)) as data:
        data.to_netcdf(tmp_path / "packed.nc", encoding=packed)
    series = read([tmp_path / "packed.nc"])
    assert np.abs(read_frames(series, 0, 10)[:, 0] - field(10)).max() <= 0.0051
    hot = series.copy(data=np.full(series.shape, 690.0, np.float32))
    formats.write(hot, tmp_path / "out.nc", {})
    with xr.open_dataset(tmp_path / "out.nc") as back:
        assert float(back.t2m.max()) == 690.0, "int16 with this scale would wrap above 607 K"


@pytest.mark.parametrize("cut", [0, 8, 100, 0.5, -1])
def test_truncated_files_are_named_with_their_size(tmp_path: Path, cut: float) -> None:
    whole = weather_file(tmp_path / "a.nc", 40).read_bytes()
    end = int(len(whole) * cut) if cut == 0.5 else int(cut) if cut >= 0 else len(whole) - 1
    (tmp_path / "cut.nc").write_bytes(whole[:end])
    with pytest.raises(DataError, match=rf"cut\.nc.*\(?{end}"):
        formats.open_series([tmp_path / "cut.nc"])


def test_a_file_whose_writer_died_after_the_header_has_no_steps(tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "dead.nc", "w") as out:
        for name, size in (("time", None), ("lat", 4), ("lon", 5)):
            out.createDimension(name, size)
        out.createVariable("time", "f8", ("time",)).units = "hours since 2000-01-01"
        out.createVariable("t", "f4", ("time", "lat", "lon"))
    with pytest.raises(TimeError, match=r"no (time )?steps"):
        read([tmp_path / "dead.nc"])


def test_folders_of_years_are_joined_by_variable_and_stacked(tmp_path: Path) -> None:
    root = weatherbench_folders(tmp_path, ("t2m", "u10", "v10"), (2017, 2016))
    paths = formats.find_inputs([root])
    assert len(paths) == 6
    series = read(paths, ["v10", "u10"])
    assert (names(series), series.shape) == (["v10", "u10"], (144, 2, 8, 16))
    # 72 hours of 2016, then 72 of 2017; u10 is 100 above t2m and v10 200 above it.
    late, early = field(72, 8, 16, seed=2017), field(72, 8, 16, seed=2016)
    assert np.allclose(read_frames(series, 71, 73)[:, 1], [early[71] + 100, late[0] + 100], atol=1e-3)
    assert np.allclose(read_frames(series, 72, 73)[0, 0], late[0] + 200, atol=1e-3)
    assert len(series.attrs["files"]) == 4
    assert names(read(paths, ["t2m"])) == ["t2m"]


def test_channels_stand_in_the_order_asked_for_whatever_files_hold_them(tmp_path: Path) -> None:
    weather_file(tmp_path / "b.nc", 10, values=field(10) + 100, name="u10")
    with xr.open_dataset(weather_file(tmp_path / "base.nc", 10)) as data:
        data.assign(v10=data.t2m + 200).to_netcdf(tmp_path / "a.nc")
    series = read([tmp_path / "a.nc", tmp_path / "b.nc"], ["t2m", "u10", "v10"])
    assert names(series) == ["t2m", "u10", "v10"]
    frame = field(10)[3]
    assert np.allclose(read_frames(series, 3, 4)[0], [frame, frame + 100, frame + 200], atol=1e-3)
    assert series.attrs["variables"]["v10"].get("units", "") == units(series)[2]


def test_folders_of_several_variables_ask_for_a_choice(tmp_path: Path) -> None:
    paths = formats.find_inputs([weatherbench_folders(tmp_path, ("t2m", "u10"))])
    with pytest.raises(VariableError, match=r"2 gridded variables: u10, t2m; name those to use with --var"):
        read(paths)
    with pytest.raises(VariableError, match=r"and 3 more: variable 'u100' is not there\. Did you mean 'u10'"):
        read(paths, ["t2m", "u100"])


def test_variables_at_other_times_or_on_other_grids_are_not_stacked(tmp_path: Path) -> None:
    root = weatherbench_folders(tmp_path, ("t2m", "u10"))
    (root / "10m_u_component_of_wind" / "10m_u_component_of_wind_2016_5.625deg.nc").unlink()
    with pytest.raises(
        TimeError, match=r"t2m has 144 times and u10 72; the latter lacks 72 of them, first 2016-01-01 00:00"
    ):
        read(formats.find_inputs([root]), ["t2m", "u10"])
    one = weather_file(tmp_path / "a.nc", 10)
    other = weather_file(tmp_path / "b.nc", 10, size=(12, 16), name="u10")
    with pytest.raises(GridError, match="another grid"):
        read([one, other], ["t2m", "u10"])


def levels_file(path: Path, units: str, values: list[float], dim: str) -> Path:
    with xr.open_dataset(weather_file(path.with_name("base.nc"), 10)) as data:
        levels = xr.concat([data.t2m + i for i in range(len(values))], dim).assign_coords({dim: (dim, values)})
        levels[dim].attrs["units"] = units
        levels.transpose("time", dim, "lat", "lon").to_dataset(name="t").to_netcdf(path)
    return path


@pytest.mark.parametrize(
    ("units", "values", "dim"),
    [
        ("hPa", [500.0, 850.0, 1000.0], "level"),
        ("Pa", [50000.0, 85000.0, 100000.0], "plev"),
        ("millibars", [500.0, 850.0, 1000.0], "pressure_level"),
    ],
)
def test_a_level_of_a_variable_is_a_channel(tmp_path: Path, units: str, values: list[float], dim: str) -> None:
    path = levels_file(tmp_path / "t.nc", units, values, dim)
    series = read([path], ["t@850", "t@500"])
    assert names(series) == ["t@850", "t@500"]
    assert np.allclose(read_frames(series, 4, 5)[0], [field(10)[4] + 1, field(10)[4]], atol=1e-4)
    assert names(read([path], ["warm"], {"warm": "t@1000"})) == ["warm"]
    with pytest.raises(VariableError, match=r"no level 800 .*the nearest are 850(00)?, "):
        read([path], ["t@800"])
    formats.write(series.isel(time=slice(0, 2)), tmp_path / "out.nc", {})
    with xr.open_dataset(tmp_path / "out.nc") as back:
        assert {"t_850", "t_500"} <= set(back.data_vars)


def test_a_level_of_a_variable_without_levels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VariableError, match="t2m has no levels"):
        read([weather_file(tmp_path / "a.nc", 10)], ["t2m@850"])


def test_files_without_time_are_passed_over_beside_others(tmp_path: Path) -> None:
    weather_file(tmp_path / "t.nc", 10)
    xr.Dataset({"orography": (("lat", "lon"), np.zeros((12, 14)))}).to_netcdf(tmp_path / "constants.nc")
    assert names(read(formats.find_inputs([tmp_path]), ["t2m"])) == ["t2m"]
