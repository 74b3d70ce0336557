from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

from pdr_cli.data import formats, netcdf
from pdr_cli.data.series import names, read_frames, units
from pdr_cli.errors import DataError, GridError, TimeError, VariableError
from tests.builders import field, weather_file


def test_values_and_coordinates_are_the_files_own(tmp_path: Path) -> None:
    series = netcdf.read([weather_file(tmp_path / "a.nc", 20)])
    assert series.dims == ("time", "channel", "y", "x")
    assert (names(series), units(series)) == (["t2m"], ["K"])
    assert np.array_equal(read_frames(series, 3, 5)[:, 0], field(20)[3:5])
    assert series.lat.values[0] > series.lat.values[-1]
    assert series.lat.dims == ("y",)


def test_years_in_files_become_one_axis_in_order_of_time(tmp_path: Path) -> None:
    values = field(30)
    late = weather_file(tmp_path / "a_late.nc", 10, start="2020-01-06", values=values[20:])
    early = weather_file(tmp_path / "b_early.nc", 20, start="2020-01-01", values=values[:20])
    series = netcdf.read([late, early])
    assert np.array_equal(read_frames(series, 18, 22)[:, 0], values[18:22])


def test_files_of_different_grids_are_refused(tmp_path: Path) -> None:
    one = weather_file(tmp_path / "a.nc", 10)
    other = weather_file(tmp_path / "b.nc", 10, start="2021-01-01", size=(12, 16))
    with pytest.raises(GridError, match="another grid"):
        netcdf.read([one, other])


def test_transposed_dims_and_levels_of_one_are_put_in_order(tmp_path: Path) -> None:
    with xr.open_dataset(weather_file(tmp_path / "a.nc", 10)) as data:
        turned = data.t2m.expand_dims(level=[850]).transpose("lon", "level", "lat", "time")
        turned.to_dataset(name="t2m").to_netcdf(tmp_path / "turned.nc")
    assert np.array_equal(read_frames(netcdf.read([tmp_path / "turned.nc"]), 0, 10)[:, 0], field(10))


def test_a_choice_of_levels_is_not_made_for_the_user(tmp_path: Path) -> None:
    with xr.open_dataset(weather_file(tmp_path / "a.nc", 10)) as data:
        data.t2m.expand_dims(level=[850, 500]).to_dataset(name="t2m").to_netcdf(tmp_path / "levels.nc")
    with pytest.raises(VariableError, match="level with 2 values"):
        netcdf.read([tmp_path / "levels.nc"])


def test_unknown_variable_names_the_nearest(tmp_path: Path) -> None:
    path = weather_file(tmp_path / "a.nc", 10)
    with pytest.raises(VariableError, match="Did you mean 't2m'"):
        netcdf.read([path], ["t2"])
    assert names(netcdf.read([path], ["temperature"], {"temperature": "t2m"})) == ["temperature"]
    assert names(netcdf.read([path], ["air_temperature"])) == ["air_temperature"], "found by standard_name"


def test_several_variables_must_be_chosen_among(tmp_path: Path) -> None:
    with xr.open_dataset(weather_file(tmp_path / "a.nc", 10)) as data:
        data.assign(u10=data.t2m).to_netcdf(tmp_path / "two.nc")
    with pytest.raises(VariableError, match="2 gridded variables: t2m, u10"):
        netcdf.read([tmp_path / "two.nc"])
    assert names(netcdf.read([tmp_path / "two.nc"], ["u10", "t2m"])) == ["u10", "t2m"]


def test_packed_integers_are_decoded_and_never_inherited(tmp_path: Path) -> None:
    packed = {"t2m": {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768}}
    with xr.open_dataset(weather_file(tmp_path / "a.nc", 10)) as data:
        data.to_netcdf(tmp_path / "packed.nc", encoding=packed)
    series = netcdf.read([tmp_path / "packed.nc"])
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
        netcdf.read([tmp_path / "dead.nc"])
