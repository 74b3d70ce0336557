"""Gridded files as people have them, by the situations of public bug reports; each test makes its own input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cftime
import netCDF4
import numpy as np
import pytest
import xarray as xr

from pdr_cli.data import formats, suspects
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import ReadOptions, forecasts
from pdr_cli.data.grid import UNCHANGED
from pdr_cli.data.series import Series, names, places, read_frames, shape, side, units
from pdr_cli.data.units import UnitsError
from pdr_cli.errors import DataError, GridError, MissingValuesError, PdrError, TimeError, VariableError
from tests.builders import field

HOUR = np.timedelta64(1, "h")
NORTH = {"units": "degrees_north", "standard_name": "latitude"}
EAST = {"units": "degrees_east", "standard_name": "longitude"}


def dataset(values: np.ndarray | None = None, *, start: str = "2020-01-01", hours: int = 6, name: str = "t2m",
            lat: np.ndarray | None = None, lon: np.ndarray | None = None, **attrs: Any) -> xr.Dataset:  # fmt: skip
    """One variable on (time, lat, lon), in kelvin unless `units` is passed."""
    values = field(20) if values is None else values
    steps, height, width = values.shape
    lat = np.linspace(60, 60 - 2.5 * (height - 1), height) if lat is None else lat
    lon = 10 + 2.5 * np.arange(width) if lon is None else lon
    times = np.datetime64(start, "ns") + np.arange(steps) * hours * HOUR
    coords = {"time": times, "lat": ("lat", lat, NORTH), "lon": ("lon", lon, EAST)}
    return xr.Dataset({name: (("time", "lat", "lon"), values, {"units": "K"} | attrs)}, coords)


def read(paths: Path | Sequence[Path], *variables: str, **options: Any) -> Series:
    found = formats.find_inputs([paths] if isinstance(paths, Path) else paths)
    (series,) = formats.open_series(found, ReadOptions(list(variables), **options))
    return series


def frames(series: Series) -> np.ndarray:
    return read_frames(series, 0, series.sizes["time"])


def in_two(folder: Path, first: xr.Dataset, second: xr.Dataset) -> Path:
    folder.mkdir()
    first.to_netcdf(folder / "a.nc")
    second.to_netcdf(folder / "b.nc")
    return folder


def later(values: np.ndarray, **how: Any) -> xr.Dataset:
    """The ten frames after the first ten."""
    return dataset(values, start="2020-01-03T12", **how)


# -- the first part speaks for itself only


@pytest.mark.parametrize(
    ("first", "second", "convert"),
    [("K", "degC", lambda v: v - 273.15), ("mm", "m", lambda v: v / 1000), ("Pa", "hPa", lambda v: v / 100)],
)
def test_files_in_other_units_are_joined_in_those_of_the_first(
    tmp_path: Path, first: str, second: str, convert: Callable[[np.ndarray], np.ndarray]
) -> None:
    values = field(20)
    folder = in_two(
        tmp_path / "x", dataset(values[:10], units=first), later(convert(values[10:].astype("f8")), units=second)
    )
    series = read(folder)
    assert units(series) == [first]
    assert np.allclose(frames(series)[:, 0], values, rtol=1e-6)


def test_units_that_cannot_be_converted_name_both_files(tmp_path: Path) -> None:
    folder = in_two(tmp_path / "x", dataset(field(10)), later(field(10), units="Pa"))
    with pytest.raises(UnitsError, match=r"b\.nc: t2m is in 'Pa', .* 'K' of .*a\.nc"):
        read(folder)


def test_rows_columns_and_dimensions_in_another_order_are_put_in_that_of_the_first(tmp_path: Path) -> None:
    values = field(20)
    second = later(values[10:]).isel(lat=slice(None, None, -1)).transpose("lon", "time", "lat")
    series = read(in_two(tmp_path / "x", dataset(values[:10]), second.rename(lat="latitude", lon="longitude")))
    assert np.array_equal(frames(series)[:, 0], values)
    assert side(series, "y").name == "lat"


def test_a_globe_from_180_west_joins_one_from_greenwich(tmp_path: Path) -> None:
    values, lon = field(20, 12, 36), 10.0 * np.arange(36)
    second = later(values[10:], lon=lon).assign_coords(lon=("lon", (lon + 180) % 360 - 180, EAST)).sortby("lon")
    series = read(in_two(tmp_path / "x", dataset(values[:10], lon=lon), second))
    assert np.array_equal(frames(series)[:, 0], values)


def test_a_globe_that_repeats_its_first_column_joins_one_that_does_not(tmp_path: Path) -> None:
    values, lon = field(20, 12, 36), 10.0 * np.arange(36)
    closed = np.concatenate([values, values[..., :1]], axis=-1)
    east = np.append(lon, 360)
    turned = np.roll(values, 18, axis=-1)
    one = dataset(closed[:10], lon=east)
    others = {"open": values, "turned": np.concatenate([turned, turned[..., :1]], axis=-1)}
    for name, lons in (("open", lon), ("turned", np.linspace(-180, 180, 37))):
        series = read(in_two(tmp_path / name, one, later(others[name][10:], lon=lons)))
        assert np.array_equal(frames(series)[:, 0], closed)
    series = read(in_two(tmp_path / "first", dataset(values[:10], lon=lon), later(closed[10:], lon=east)))
    assert np.array_equal(frames(series)[:, 0], values)


@pytest.mark.parametrize("other", [lambda lat: lat + 1e-13, lambda lat: lat.astype("f4")], ids=["noise", "float32"])
def test_coordinates_that_differ_by_rounding_are_one_grid(tmp_path: Path, other: Callable) -> None:
    lat = np.linspace(60, 60 - 2.3 * 11, 12)
    folder = in_two(tmp_path / "x", dataset(field(10), lat=lat), later(field(10), lat=other(lat)))
    assert read(folder).sizes["time"] == 20


def test_kilometres_and_metres_are_one_grid_and_half_a_cell_is_not(tmp_path: Path) -> None:
    def projected(x: np.ndarray, unit: str, values: np.ndarray, start: str) -> xr.Dataset:
        data = dataset(values, start=start).rename(lat="y", lon="x")
        y = 5e6 - 5e3 * np.arange(12)
        scale = 1000 if unit == "km" else 1
        return data.assign_coords(
            y=("y", y / scale, {"units": unit, "standard_name": "projection_y_coordinate"}),
            x=("x", x / scale, {"units": unit, "standard_name": "projection_x_coordinate"}),
        )

    x = 3e5 + 5e3 * np.arange(14)
    one = projected(x, "m", field(10), "2020-01-01")
    assert read(in_two(tmp_path / "km", one, projected(x, "km", field(10), "2020-01-03T12"))).sizes["time"] == 20
    with pytest.raises(GridError, match=r"b\.nc is on another grid than .*a\.nc: .* up to 2\.5e\+03 apart"):
        read(in_two(tmp_path / "half", one, projected(x + 2500, "m", field(10), "2020-01-03T12")))


def test_two_projections_with_the_same_coordinates_are_two_grids(tmp_path: Path) -> None:
    def zone(meridian: float, start: str) -> xr.Dataset:
        data = dataset(field(10), start=start).rename(lat="y", lon="x")
        metres = {"units": "m", "standard_name": "projection_{}_coordinate"}
        for d in ("y", "x"):
            data[d] = (
                d,
                1e5 + 1e3 * np.arange(data.sizes[d]),
                metres | {"standard_name": f"projection_{d}_coordinate"},
            )
        about = {"grid_mapping_name": "transverse_mercator", "longitude_of_central_meridian": meridian}
        data["crs"] = ((), 0, about)
        data.t2m.attrs["grid_mapping"] = "crs: x y"
        return data

    assert (
        read(in_two(tmp_path / "one", zone(15, "2020-01-01"), zone(15, "2020-01-03T12"))).attrs["grid_mapping"][0]
        == "crs"
    )
    with pytest.raises(GridError, match="longitude_of_central_meridian 21"):
        read(in_two(tmp_path / "two", zone(15, "2020-01-01"), zone(21, "2020-01-03T12")))


def staggered(width: int = 14, height: int = 12) -> xr.Dataset:
    u, v = field(20), field(20, seed=1)
    data = dataset(u)
    return xr.Dataset(
        {"u": (("time", "lat", "lon_u"), u[:, :, :width]), "v": (("time", "lat_v", "lon"), v[:, :height])},
        {
            "time": data.time, "lat": data.lat, "lon": data.lon,
            "lon_u": ("lon_u", data.lon.values[:width] + 1.25, EAST), "lat_v": ("lat_v", data.lat.values[:height] - 1.25, NORTH),
        },
    )  # fmt: skip


@pytest.mark.parametrize("size", [(14, 12), (13, 11)], ids=["same size", "other size"])
def test_staggered_components_are_not_stacked(tmp_path: Path, size: tuple[int, int]) -> None:
    staggered(*size).to_netcdf(tmp_path / "uv.nc")
    with pytest.raises(GridError, match=r"v on \(lat_v, lon\) is on another grid than u on \(lat, lon_u\)"):
        read(tmp_path / "uv.nc", "u", "v")


def test_staggered_components_of_two_files_are_not_stacked(tmp_path: Path) -> None:
    data = staggered()
    folder = in_two(tmp_path / "x", data[["u"]], data[["v"]])
    with pytest.raises(GridError, match=r"b\.nc is on another grid than .*a\.nc"):
        read(folder, "u", "v")


def test_two_calendars_are_refused_with_both_names(tmp_path: Path) -> None:
    second = later(field(10))
    second["time"] = xr.date_range("2020-01-03T12", periods=10, freq="6h", calendar="noleap", use_cftime=True)
    folder = in_two(tmp_path / "x", dataset(field(10)), second)
    with pytest.raises(TimeError, match=r"a\.nc has times in the standard calendar and .*b\.nc in the noleap calendar"):
        read(folder)


def test_dates_on_either_side_of_what_64_bits_hold_are_one_axis(tmp_path: Path) -> None:
    times = xr.date_range("2262-01-01", periods=20, freq="MS", calendar="standard", use_cftime=True)
    data = dataset().assign_coords(time=times)
    series = read(in_two(tmp_path / "x", data.isel(time=slice(10)), data.isel(time=slice(10, None))))
    assert str(time_axis.find_step(series.time.values)) == "1 month"
    assert series.sizes["time"] == 20


def test_heights_stay_with_their_variables(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    height = {"standard_name": "height", "units": "m", "positive": "up", "axis": "Z"}
    for n, metres in (("tas", 2.0), ("uas", 10.0), ("psl", None)):
        data = dataset(name=n)
        data = data if metres is None else data.assign_coords(height=((), metres, height))
        data.to_netcdf(tmp_path / "x" / f"{n}.nc")
    series = read(tmp_path / "x", "tas", "uas", "psl")
    assert {n: float(s["height"][0]) for n, s in series.attrs["scalars"].items() if s} == {"tas": 2, "uas": 10}
    formats.write(series, tmp_path / "out.nc", {})
    with netCDF4.Dataset(tmp_path / "out.nc") as back:
        named = {n: getattr(back[n], "coordinates", "").split() for n in ("tas", "uas", "psl")}
        heights = {n: [float(back[c][...]) for c in found if c.startswith("height")] for n, found in named.items()}
    assert heights == {"tas": [2.0], "uas": [10.0], "psl": []}


def test_one_variable_at_two_heights_is_not_joined(tmp_path: Path) -> None:
    def at(metres: float, data: xr.Dataset) -> xr.Dataset:
        return data.assign_coords(height=((), metres, {"units": "m", "positive": "up"}))

    folder = in_two(tmp_path / "x", at(2, dataset(field(10))), at(10, later(field(10))))
    with pytest.raises(VariableError, match=r"b\.nc: t2m is at height 10 m, but at 2 m in .*a\.nc"):
        read(folder)


def test_every_file_is_compared_with_the_heights_of_all_others(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for number, metres in enumerate((None, 2.0, 10.0)):
        data = dataset(field(6), start=f"2020-01-0{1 + 2 * number}")
        data = data if metres is None else data.assign_coords(height=((), metres, {"units": "m", "positive": "up"}))
        data.to_netcdf(tmp_path / "x" / f"{number}.nc")
    with pytest.raises(VariableError, match=r"2\.nc: t2m is at height 10 m, but at 2 m in .*1\.nc"):
        read(tmp_path / "x")


def test_members_that_are_named_by_words_are_not_joined(tmp_path: Path) -> None:
    first, second = (
        d.assign_coords(member_id=((), n)) for d, n in ((dataset(field(10)), "r1"), (later(field(10)), "r2"))
    )
    with pytest.raises(VariableError, match=r"b\.nc: t2m is at member_id r2, but at r1 in .*a\.nc"):
        read(in_two(tmp_path / "x", first, second))
    assert read(in_two(tmp_path / "y", first, second.assign_coords(member_id=((), "r1")))).sizes["time"] == 20


def test_a_restart_is_kept_once_and_a_clash_names_its_two_files(tmp_path: Path) -> None:
    data = dataset(field(30))
    (tmp_path / "x").mkdir()
    legs = [data.isel(time=slice(0, 10)), data.isel(time=slice(9, 20)), data.isel(time=slice(20, None))]
    for i, leg in enumerate(legs):
        leg.to_netcdf(tmp_path / "x" / f"leg{i}.nc")
    assert np.array_equal(frames(read(tmp_path / "x"))[:, 0], field(30))
    other = legs[2].assign_coords(time=legs[2].time - 6 * HOUR)
    other.to_netcdf(tmp_path / "x" / "leg3.nc")
    (tmp_path / "x" / "leg2.nc").unlink()
    with pytest.raises(TimeError, match=r"leg1\.nc and .*leg3\.nc: 2 times are repeated, with different values"):
        read(tmp_path / "x")


def test_two_meshes_of_one_file_are_two_grids(tmp_path: Path) -> None:
    data = curvilinear().drop_vars("vertices_latitude").rename(latitude="TLAT", longitude="TLONG")
    del data.TLAT.attrs["bounds"]
    corners = {n: (("i", "j"), data[t].values + 0.25, data[t].attrs) for n, t in (("ULAT", "TLAT"), ("ULONG", "TLONG"))}
    data = data.assign(corners).assign(u=data.siconc).reset_coords(["TLAT", "TLONG"])
    data.siconc.encoding["coordinates"], data.u.encoding["coordinates"] = "TLAT TLONG", "ULAT ULONG"
    data[["ULAT", "ULONG", "TLAT", "TLONG", "u", "siconc"]].to_netcdf(tmp_path / "f.nc")
    with pytest.raises(GridError, match=r"u on .* is on another grid than siconc"):
        read(tmp_path / "f.nc", "siconc", "u")
    for name, lat in (("siconc", "TLAT"), ("u", "ULAT")):
        assert lat in read(tmp_path / "f.nc", name).coords


def test_rows_and_columns_of_a_mesh_may_run_the_other_way(tmp_path: Path) -> None:
    values = field(20)
    mesh = curvilinear().drop_vars(("i", "j", "vertices_latitude"))
    del mesh.latitude.attrs["bounds"]
    mesh.isel(time=slice(10)).to_netcdf(tmp_path / "a.nc")
    mesh.isel(time=slice(10, None), i=slice(None, None, -1), j=slice(None, None, -1)).to_netcdf(tmp_path / "b.nc")
    assert np.array_equal(frames(read([tmp_path / "a.nc", tmp_path / "b.nc"]))[:, 0], values)


@pytest.mark.parametrize(
    "names",
    [
        ("grid_latitude", "grid_longitude"),
        ("projection_y_coordinate", "projection_x_coordinate"),
        ("south_north", "west_east"),
    ],
)
def test_names_tell_rows_from_columns_in_any_order(tmp_path: Path, names: tuple[str, str]) -> None:
    y, x = names
    data = dataset().drop_vars(("lat", "lon")).rename(lat=y, lon=x).transpose(x, "time", y)
    data.to_netcdf(tmp_path / "f.nc")
    assert np.array_equal(frames(read(tmp_path / "f.nc"))[:, 0], field(20))


def test_heights_of_one_file_go_by_the_attribute_of_each_variable(tmp_path: Path) -> None:
    data = dataset(name="tas").assign(uas=dataset().t2m, psl=dataset().t2m)
    about = {"units": "m", "positive": "up", "standard_name": "height"}
    data = data.assign(height2m=((), 2.0, about), height10m=((), 10.0, about))
    data.tas.encoding["coordinates"], data.uas.encoding["coordinates"] = "height2m", "height10m"
    data.to_netcdf(tmp_path / "f.nc")
    found = read(tmp_path / "f.nc", "tas", "uas", "psl").attrs["scalars"]
    assert {n: list(s) for n, s in found.items()} == {"tas": ["height2m"], "uas": ["height10m"], "psl": []}


# -- valid times and their step


def stamped(path: Path, numbers: np.ndarray, unit: str, kind: str, calendar: str = "") -> Path:
    dataset(field(len(numbers))).drop_vars("time").to_netcdf(path)
    with netCDF4.Dataset(path, "a") as out:
        time = out.createVariable("time", kind, ("time",))
        time.units, time[:] = unit, numbers
        if calendar:
            time.calendar = calendar
    return path


@pytest.mark.parametrize(
    ("numbers", "unit", "kind", "step"),
    [
        ((25700 + np.arange(200) / 24).astype("f4"), "days since 1950-01-01", "f4", "1 h"),
        ((3652 + np.arange(200) / 24).astype("f4"), "days since 2010-01-01", "f4", "1 h"),
        (438288 + np.arange(200) - 1e-7, "hours since 1970-01-01", "f8", "1 h"),
        ((25700 + np.arange(200) * 3 / 1440).astype("f4"), "days since 1950-01-01", "f4", "3 min"),
        ((25700 + np.arange(200) / 8 + 1 / 48).astype("f4"), "days since 1950-01-01", "f4", "3 h"),
    ],
    ids=["float32 days", "nearer float32 days", "short hours", "three minutes", "half past"],
)
def test_stamps_are_what_they_were_rounded_from(
    tmp_path: Path, numbers: np.ndarray, unit: str, kind: str, step: str
) -> None:
    series = read(stamped(tmp_path / "f.nc", numbers, unit, kind))
    times = series.time.values
    assert str(time_axis.find_step(times)) == step
    assert len(np.unique(np.diff(times))) == 1
    assert np.all(times.astype("datetime64[m]") == times)


def test_stamps_of_whole_numbers_stay_as_they_are(tmp_path: Path) -> None:
    numbers = np.array([0, 3600, 7201, 10800], "i4")
    series = read(stamped(tmp_path / "f.nc", numbers, "seconds since 2020-01-01", "i4"))
    assert time_axis.seconds(series.time.values - series.time.values[0]).tolist() == numbers.tolist() or np.array_equal(
        (series.time.values - series.time.values[0]) / np.timedelta64(1, "s"), numbers
    )


def test_an_unknown_calendar_is_named_with_the_one_of_cf(tmp_path: Path) -> None:
    path = stamped(tmp_path / "f.nc", 7200 + np.arange(200) / 24, "days since 2000-01-01", "f8", "THIRTY_DAY_MONTHS")
    with pytest.raises(TimeError, match=r"calendar 'THIRTY_DAY_MONTHS'.*ncatted -a calendar,time,o,c,360_day"):
        read(path)


@pytest.mark.parametrize(
    ("unit", "numbers", "first", "last"),
    [
        ("months since 1960-01-01", np.arange(24), "1960-01-01T00", "1961-12-01T00"),
        ("months since 1960-01-01", np.arange(24) + 0.5, "1960-01-16T12", "1961-12-16T12"),
        ("day as %Y%m%d.%f", 20200101 + np.arange(24) + 0.25, "2020-01-01T06", "2020-01-24T06"),
    ],
)
def test_months_and_days_as_people_count_them(
    tmp_path: Path, unit: str, numbers: np.ndarray, first: str, last: str
) -> None:
    times = read(stamped(tmp_path / "f.nc", numbers, unit, "f8")).time.values
    assert (times[0], times[-1]) == (np.datetime64(first, "ns"), np.datetime64(last, "ns"))


@pytest.mark.parametrize(
    "unit", ["HOURS SINCE 2020-01-01", "hour since 2020-1-1", "Hours  since 2020-01-01 05:30 +05:30"]
)
def test_units_of_time_in_other_spellings(tmp_path: Path, unit: str) -> None:
    series = read(stamped(tmp_path / "f.nc", 6.0 * np.arange(20), unit, "f8", " standard "))
    assert np.array_equal(series.time.values, dataset().time.values)


@pytest.mark.parametrize("unit", ["hours since 2020-01-01 00:00 CET", "hours since 02/01/2020", "days since 1-1-1 BC"])
def test_dates_that_could_be_others_are_not_guessed(tmp_path: Path, unit: str) -> None:
    with pytest.raises(TimeError, match="the time axis cannot be decoded: time has units"):
        read(stamped(tmp_path / "f.nc", 6.0 * np.arange(20), unit, "f8"))


def test_months_from_a_day_that_not_every_month_has_are_not_counted(tmp_path: Path) -> None:
    with pytest.raises(TimeError, match="cannot be decoded"):
        read(stamped(tmp_path / "f.nc", np.arange(20.0), "months since 2020-01-31", "f8"))
    assert (
        str(
            time_axis.find_step(
                read(stamped(tmp_path / "g.nc", np.arange(20.0), "month since 2020-01-01", "f8")).time.values
            )
        )
        == "1 month"
    )


def test_no_calendar_is_not_called_noleap(tmp_path: Path) -> None:
    with pytest.raises(TimeError) as refused:
        read(stamped(tmp_path / "f.nc", np.arange(20.0), "days since 2000-01-01", "f8", "none"))
    assert "noleap FILE" not in str(refused.value)


REFERENCE = {"standard_name": "forecast_reference_time"}


@pytest.mark.parametrize("along", ["time", "leadtime"])
def test_leads_without_units_are_not_guessed(tmp_path: Path, along: str) -> None:
    data = dataset()
    data["time"] = ("time", data.time.values, REFERENCE)
    if along == "time":
        data = data.assign_coords(leadtime=("time", np.full(20, 6.0)))
    else:
        data = data.expand_dims(leadtime=[6.0], axis=1)
    data.to_netcdf(tmp_path / "f.nc")
    with pytest.raises(TimeError, match=r"their lead leadtime has no units.*ncatted -a units,leadtime,o,c,hours"):
        read(tmp_path / "f.nc")
    data["leadtime"].attrs["units"] = "hours"
    data.to_netcdf(tmp_path / "g.nc")
    assert np.array_equal(read(tmp_path / "g.nc").time.values, data.time.values + 6 * HOUR)
    (data * 1).assign_coords(leadtime=data.leadtime * 0).to_netcdf(tmp_path / "h.nc")
    assert np.array_equal(read(tmp_path / "h.nc").time.values, data.time.values)


def test_init_times_without_leads_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = dataset()
    data["time"] = ("time", data.time.values, REFERENCE)
    data.to_netcdf(tmp_path / "f.nc")
    with caplog.at_level("WARNING"):
        read(tmp_path / "f.nc")
    assert "time is when forecasts began, and the file has no lead; taken as valid times" in caplog.text


def test_a_time_of_that_standard_name_goes_before_other_times(tmp_path: Path) -> None:
    data = dataset().rename(time="t")
    data = data.assign_coords(
        sent=("t", data.t.values + HOUR, {"axis": "T"}), seen=("t", data.t.values, {"standard_name": "time"})
    )
    data.drop_vars("t").to_netcdf(tmp_path / "f.nc")
    assert np.array_equal(read(tmp_path / "f.nc").time.values, dataset().time.values)


def of_cfgrib(times: np.ndarray, leads: Sequence[int], marked: bool) -> dict[str, Any]:
    """The coordinates of cfgrib: `time` is the reference time."""
    steps = np.asarray(leads, float)
    init = {"standard_name": "forecast_reference_time" if marked else "time", "long_name": "initial time of forecast"}
    lead = {"units": "hours", "standard_name": "forecast_period", "long_name": "time since forecast_reference_time"}
    valid = times[:, None] + (steps * 3600).astype("timedelta64[s]")
    about = {"standard_name": "time", "long_name": "time"}
    return {
        "time": ("time", times, init),
        "step": ("step", steps, lead),
        "valid_time": (("time", "step"), valid, about),
    }


@pytest.mark.parametrize("marked", [True, False], ids=["reference time", "marked as time"])
@pytest.mark.parametrize("kept", ["scalar", "of one", "without valid_time"])
def test_frames_of_forecasts_are_dated_by_their_valid_times(tmp_path: Path, kept: str, marked: bool) -> None:
    data = dataset()
    full = data.t2m.drop_vars("time").expand_dims("step", axis=1).to_dataset()
    full = full.assign_coords(of_cfgrib(data.time.values, [6], marked))
    full = full if kept == "of one" else full.isel(step=0)
    full = full.drop_vars("valid_time") if kept == "without valid_time" else full
    full.to_netcdf(tmp_path / "f.nc")
    series = read(tmp_path / "f.nc")
    assert np.array_equal(series.time.values, data.time.values + 6 * HOUR)
    formats.write(series, tmp_path / "out.nc", {})
    with xr.open_dataset(tmp_path / "out.nc", decode_timedelta=False) as back:
        assert "step" not in back.variables


def test_the_scalar_valid_time_of_a_single_message_goes_before_its_init(tmp_path: Path) -> None:
    data = dataset(field(1))
    valid = ((), data.time.values[0] + 6 * HOUR, {"standard_name": "time"})
    data.assign_coords(valid_time=valid, step=((), 6.0, {"units": "hours"})).to_netcdf(tmp_path / "f.nc")
    assert np.array_equal(read(tmp_path / "f.nc").time.values, data.time.values + 6 * HOUR)


def test_one_lead_of_many_forecasts_is_dated_by_its_valid_times(tmp_path: Path) -> None:
    times, values = dataset().time.values[::2], np.stack([field(10), field(10, seed=1)], axis=1)
    data = dataset(field(10)).drop_vars(("time", "t2m"))
    data["t2m"] = (("time", "step", "lat", "lon"), values)
    data.assign_coords(of_cfgrib(times, [0, 6], True)).to_netcdf(tmp_path / "f.nc")
    with pytest.raises(VariableError, match=r"lead times, so that the file holds forecasts.*--var t2m@0\.0"):
        read(tmp_path / "f.nc")
    series = read(tmp_path / "f.nc", "t2m@6")
    assert np.array_equal(series.time.values, times + 6 * HOUR)
    assert np.array_equal(frames(series)[:, 0], field(10, seed=1))


def test_frames_of_a_file_each_with_a_scalar_time_are_one_axis(tmp_path: Path) -> None:
    data = dataset(field(12), hours=1)
    (tmp_path / "x").mkdir()
    for i in range(12):
        data.isel(time=11 - i).to_netcdf(tmp_path / "x" / f"abi_{i:03d}.nc")
    series = read(tmp_path / "x")
    assert str(time_axis.find_step(series.time.values)) == "1 h"
    assert np.array_equal(frames(series)[:, 0], field(12))


def test_a_time_under_another_name_than_its_dimension(tmp_path: Path) -> None:
    data = dataset().rename(time="t")
    data = data.assign_coords(ocean_time=("t", data.t.values, {"standard_name": "time"})).drop_vars("t")
    data.to_netcdf(tmp_path / "f.nc")
    assert np.array_equal(read(tmp_path / "f.nc").time.values, dataset().time.values)


def test_times_in_words_as_wrf_writes_them(tmp_path: Path) -> None:
    data = dataset()
    words = [str(t.astype("datetime64[s]")).replace("T", "_") for t in data.time.values]
    data = data.drop_vars("time").rename(time="Time")
    data["Times"] = ("Time", np.array(words, "S19"))
    data.to_netcdf(tmp_path / "f.nc")
    assert np.array_equal(read(tmp_path / "f.nc").time.values, dataset().time.values)


def test_several_times_that_differ_are_not_chosen_from(tmp_path: Path) -> None:
    data = dataset().rename(time="t")
    data = data.assign_coords(seen=("t", data.t.values), sent=("t", data.t.values + HOUR)).drop_vars("t")
    data.to_netcdf(tmp_path / "f.nc")
    with pytest.raises(TimeError, match=r"several times along t, which differ: seen, sent"):
        read(tmp_path / "f.nc")


# -- levels and other choices


def of_levels(values: Sequence[float], unit: str) -> xr.Dataset:
    """ta = 200 K + level / 1000."""
    levels = np.asarray(values, float)
    about = {"units": unit, "standard_name": "air_pressure", "positive": "down", "axis": "Z"}
    data = dataset(field(20, 8, 10) * 0)
    frames = np.broadcast_to(200 + levels[None, :, None, None] / 1000, (20, len(levels), 8, 10))
    return (
        data.assign(ta=(("time", "plev", "lat", "lon"), frames))
        .assign_coords(plev=("plev", levels, about))
        .drop_vars("t2m")
    )


def test_a_level_in_hectopascals_that_is_one_in_pascals_too_is_not_chosen_for_the_user(tmp_path: Path) -> None:
    of_levels([100000, 85000, 50000, 1000, 500], "Pa").to_netcdf(tmp_path / "f.nc")
    with pytest.raises(VariableError, match=r"ta@500 is 500 Pa or 50000 Pa.*write ta@500Pa or ta@500hPa"):
        read(tmp_path / "f.nc", "ta@500")
    for text, pascals in (("ta@850", 85000), ("ta@500hPa", 50000), ("ta@500Pa", 500), ("ta@50000", 50000)):
        series = read(tmp_path / "f.nc", text)
        assert np.allclose(frames(series), 200 + pascals / 1000)
        value, attrs = series.attrs["scalars"][text]["plev"]
        assert (value, attrs["units"]) == (pascals, "Pa")


def test_the_only_level_stays_a_scalar_coordinate(tmp_path: Path) -> None:
    of_levels([850], "hPa").to_netcdf(tmp_path / "f.nc")
    formats.write(read(tmp_path / "f.nc"), tmp_path / "out.nc", {})
    with xr.open_dataset(tmp_path / "out.nc") as back:
        assert (float(back.ta.plev), back.plev.attrs["units"]) == (850.0, "hPa")


def test_final_and_preliminary_values_are_to_be_merged(tmp_path: Path) -> None:
    data = xr.concat([dataset(), dataset()], xr.Variable("expver", [1, 5])).transpose("time", "expver", "lat", "lon")
    data.to_netcdf(tmp_path / "f.nc")
    with pytest.raises(VariableError, match=r"combine_first\(ds\.sel\(expver=5\)\)"):
        read(tmp_path / "f.nc")


@pytest.mark.parametrize(
    "coords",
    [
        {
            "station": ["a", "b", "c"],
            "depth_of_soil": ("depth_of_soil", [0.1, 0.5], {"units": "m", "positive": "down"}),
        },
        {
            "frequency": ("frequency", [0.1, 0.2, 0.3], {"units": "s-1"}),
            "dirs": ("dirs", [0.0, 90.0], {"units": "degrees"}),
        },
        {"obs": [1, 2, 3], "layer": [1, 2]},
    ],
    ids=["stations", "spectra", "lists"],
)
def test_two_long_dimensions_are_not_always_a_grid(tmp_path: Path, coords: dict[str, Any]) -> None:
    a, b = coords
    data = xr.Dataset({"v": (("time", a, b), np.zeros((20, 3, 2), "f4"))}, {"time": dataset().time.values, **coords})
    data.to_netcdf(tmp_path / "f.nc")
    with pytest.raises(VariableError, match="no variable on"):
        read(tmp_path / "f.nc")


# -- numbers that are not what they seem


def test_numbers_that_stand_for_missing_values_are_named(tmp_path: Path) -> None:
    rain = np.where(field(64) > 280, field(64) - 280, -99).astype("f4")
    rain[:, :2, :3] = -999
    dataset(rain, name="tprate", units="mm/h").to_netcdf(tmp_path / "f.nc")
    series = read(tmp_path / "f.nc")
    with pytest.raises(MissingValuesError, match=r"are -999, \d+ % -99, .*--missing-value=-999 --missing-value=-99"):
        suspects.check(frames(series), series)
    masked = read(tmp_path / "f.nc", missing_values=("-999", "tprate=-99"))
    assert np.array_equal(np.isnan(frames(masked)[:, 0]), rain < 0)
    suspects.check(frames(masked), masked)
    suspects.check(frames(series), read(tmp_path / "f.nc", missing_values=("none",)))


def test_land_of_any_number_is_named_if_it_is_far_from_all_others(tmp_path: Path) -> None:
    sea = field(20)
    sea[:, 5:7, 5:9] = 0
    dataset(sea, name="sst").to_netcdf(tmp_path / "f.nc")
    series = read(tmp_path / "f.nc")
    with pytest.raises(MissingValuesError, match="of sst are 0, and the next is 27"):
        suspects.check(frames(series), series)


@pytest.mark.parametrize(
    "values",
    [
        np.where(field(20) > 280, 20 + 5 * (field(20) - 280), -32),  # the floor of a radar, in dBZ
        np.clip(field(20) - 280, 0, None),  # dry cells
        (field(20) > 280).astype("f4"),  # a mask
        np.where(field(20) > 284, 9.0, np.round(field(20) - 280)),
        field(20) - 280,
    ],
    ids=["reflectivity", "rain", "mask", "nines among others", "around zero"],
)
def test_numbers_that_are_values_are_not_suspected(tmp_path: Path, values: np.ndarray) -> None:
    dataset(values.astype("f4"), units="1").to_netcdf(tmp_path / "f.nc")
    series = read(tmp_path / "f.nc")
    suspects.check(frames(series), series)


@pytest.mark.parametrize("mark", [np.float64(1e20), np.float64(-9999.1), "-999", np.int32(-9999)])
def test_a_missing_value_of_another_type_is_missing(tmp_path: Path, mark: Any) -> None:
    values = field(20)
    values[:, 0, 0] = np.float32(mark)
    dataset(values).to_netcdf(tmp_path / "f.nc")
    with netCDF4.Dataset(tmp_path / "f.nc", "a") as out:
        out["t2m"].setncattr("missing_value", mark)
    assert np.isnan(frames(read(tmp_path / "f.nc"))[:, 0, 0, 0]).all()


@pytest.mark.parametrize("mark", ["_FillValue", "missing_value"])
def test_unsigned_bytes_of_a_classic_file(tmp_path: Path, mark: str) -> None:
    numbers = np.arange(20 * 12 * 14, dtype="u1").reshape(20, 12, 14)
    dataset().drop_vars("t2m").to_netcdf(tmp_path / "f.nc", format="NETCDF3_CLASSIC")
    with netCDF4.Dataset(tmp_path / "f.nc", "a") as out:
        fill = np.int8(-1) if mark == "_FillValue" else None
        v = out.createVariable("t2m", "i1", ("time", "lat", "lon"), fill_value=fill)
        v.set_auto_maskandscale(False)
        v.setncatts({"units": "K", "scale_factor": 0.5, "add_offset": 200.0, "_Unsigned": "true"})
        v.setncattr("valid_range", np.array([0, -6], "i1"))  # 0 to 250
        if fill is None:
            v.missing_value = np.int8(-1)
        v[...] = numbers.astype("i1")
    found = frames(read(tmp_path / "f.nc"))[:, 0]
    assert np.array_equal(found, np.where(numbers <= 250, 200 + 0.5 * numbers, np.nan), equal_nan=True)


def test_packed_numbers_that_were_never_written_are_missing(tmp_path: Path) -> None:
    dataset().drop_vars("t2m").to_netcdf(tmp_path / "f.nc")
    with netCDF4.Dataset(tmp_path / "f.nc", "a") as out:
        v = out.createVariable("t2m", "i2", ("time", "lat", "lon"))
        v.setncatts({"units": "K", "scale_factor": 0.01, "add_offset": 280.0})
        v[:, 1:] = field(20)[:, 1:]
    found = frames(read(tmp_path / "f.nc"))[:, 0]
    assert np.isnan(found[:, 0]).all()
    assert np.allclose(found[:, 1:], field(20)[:, 1:], atol=0.0051)


def test_sums_that_start_again_each_day_are_known(tmp_path: Path) -> None:
    rain = np.clip(field(96) - 280, 0, None)
    sums = np.concatenate([np.cumsum(rain[i : i + 24], axis=0) for i in range(0, 96, 24)])
    dataset(sums, name="tp", units="mm", hours=1, start="2020-01-01T01").to_netcdf(tmp_path / "sums.nc")
    dataset(rain, name="tp", units="mm", hours=1, start="2020-01-01T01").to_netcdf(tmp_path / "rain.nc")
    assert suspects.restarts(read(tmp_path / "sums.nc")) == ["tp"]
    assert suspects.restarts(read(tmp_path / "rain.nc")) == []


# -- Zarr


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zeros_of_a_store_are_values(tmp_path: Path, zarr_format: int) -> None:
    import zarr

    rain = np.clip(field(20) - 280, 0, None)
    data = dataset(rain, name="tp", units="mm")
    group = zarr.open_group(tmp_path / "f.zarr", mode="w", zarr_format=zarr_format)
    for name in ("tp", "lat", "lon", "time"):
        values = data[name].values if name != "time" else 438288 + 6 * np.arange(20)
        attrs = {"units": "hours since 1970-01-01"} if name == "time" else dict(data[name].attrs)
        dims = {"dimension_names": data[name].dims} if zarr_format == 3 else {}
        array = group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=values.shape, **dims)
        array[...] = values
        array.attrs.update(attrs | ({"_ARRAY_DIMENSIONS": list(data[name].dims)} if zarr_format == 2 else {}))
    assert np.array_equal(frames(read(tmp_path / "f.zarr"))[:, 0], rain)


def test_what_xarray_masks_in_a_store_is_missing(tmp_path: Path) -> None:
    values = field(20)
    values[:, 0, 0] = np.nan
    packed = {"t2m": {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": 0}}
    for name, encoding in (("plain", {}), ("number", {"t2m": {"_FillValue": -9999.0}}), ("packed", packed)):
        dataset(values).to_zarr(tmp_path / f"{name}.zarr", zarr_format=2, encoding=encoding)
        found = frames(read(tmp_path / f"{name}.zarr"))[:, 0]
        assert np.isnan(found[:, 0, 0]).all()


def test_a_stale_copy_of_the_metadata_is_not_read(tmp_path: Path) -> None:
    import zarr

    dataset().to_zarr(tmp_path / "f.zarr", zarr_format=2, consolidated=True)
    zarr.open_group(tmp_path / "f.zarr", use_consolidated=False)["t2m"].attrs["units"] = "degC"
    assert units(read(tmp_path / "f.zarr")) == ["degC"]


# -- places


def curvilinear(shift: float = 0.0) -> xr.Dataset:
    i, j = np.mgrid[:12, :14].astype(float)
    data = dataset(field(20), name="siconc", units="%").rename(lat="i", lon="j").drop_vars(("i", "j"))
    corner = np.stack([i, i + 1, i + 1, i], axis=-1)
    return data.assign_coords(
        i=("i", np.arange(12), {"long_name": "cell index along first dimension", "units": "1"}),
        j=("j", np.arange(14), {"long_name": "cell index along second dimension", "units": "1"}),
        latitude=(("i", "j"), 70 + i / 2 + np.sin(j / 3) / 10 + shift, NORTH | {"bounds": "vertices_latitude"}),
        longitude=(("i", "j"), 10 + 0.8 * j + 0.2 * i + shift, EAST),
    ).assign(vertices_latitude=(("i", "j", "vertices"), 70 + corner))


def test_the_place_of_each_cell_travels_with_the_field(tmp_path: Path) -> None:
    curvilinear().to_netcdf(tmp_path / "f.nc")
    series = read(tmp_path / "f.nc")
    assert shape(series) == (20, 1, 12, 14)
    assert {str(c.name) for c in places(series)} == {"latitude", "longitude"}
    formats.write(series, tmp_path / "out.nc", {})
    with xr.open_dataset(tmp_path / "out.nc") as back, xr.open_dataset(tmp_path / "f.nc") as given:
        assert back.siconc.dims == ("time", "i", "j")
        for name in ("latitude", "longitude", "vertices_latitude"):
            assert np.array_equal(back[name].values, given[name].values)
        assert back.latitude.attrs["bounds"] == "vertices_latitude"


def test_another_mesh_of_the_same_shape_is_another_grid(tmp_path: Path) -> None:
    second = curvilinear(40)
    second["time"] = second.time + 200 * 6 * HOUR
    with pytest.raises(GridError, match=r"its l\w+s run from"):
        read(in_two(tmp_path / "x", curvilinear(), second))


def test_forecasts_on_another_mesh_are_not_compared(tmp_path: Path) -> None:
    def forecast(shift: float) -> Path:
        mesh = curvilinear(shift).drop_vars("vertices_latitude")
        del mesh.latitude.attrs["bounds"]
        began = ((), mesh.time.values[0] - 6 * HOUR, REFERENCE)
        mesh.assign_coords(forecast_reference_time=began).to_netcdf(tmp_path / f"{shift}.nc")
        return tmp_path / f"{shift}.nc"

    curvilinear().to_netcdf(tmp_path / "f.nc")
    truth = read(tmp_path / "f.nc")
    assert forecasts.read([forecast(0.0)], ["siconc"]).fit(truth) == UNCHANGED
    with pytest.raises(GridError, match="not on the grid of the data to compare with: its latitudes run from"):
        forecasts.read([forecast(40.0)], ["siconc"]).fit(truth)


def test_missing_coordinates_are_refused(tmp_path: Path) -> None:
    lat = np.linspace(60, 32.5, 12)
    lat[3] = np.nan
    dataset(lat=lat).to_netcdf(tmp_path / "f.nc")
    with pytest.raises(GridError, match="1 of 12 values of the coordinate lat are missing"):
        read(tmp_path / "f.nc")


@pytest.mark.parametrize(
    ("lon", "cell"),
    [
        ((350 + 2.5 * np.arange(14)) % 360, [358.75, 361.25]),
        ((170 + 2.5 * np.arange(14) + 180) % 360 - 180, [178.75, 181.25]),
    ],
    ids=["Greenwich", "date line"],
)
def test_cells_across_a_jump_of_longitudes_are_as_wide_as_the_others(
    tmp_path: Path, lon: np.ndarray, cell: list[float]
) -> None:
    dataset(lon=lon).to_netcdf(tmp_path / "f.nc")
    formats.write(read(tmp_path / "f.nc"), tmp_path / "out.nc", {})
    with xr.open_dataset(tmp_path / "out.nc") as back:
        assert np.allclose(np.diff(back.lon_bnds, axis=1), 2.5)
        assert np.allclose(back.lon_bnds.values[4], cell)


def test_a_grid_mapping_that_is_a_coordinate_is_written_once(tmp_path: Path) -> None:
    data = dataset().assign_coords(
        spatial_ref=((), 0, {"grid_mapping_name": "latitude_longitude", "GeoTransform": "1 2"})
    )
    data.t2m.attrs["grid_mapping"] = "spatial_ref"
    data.to_netcdf(tmp_path / "f.nc")
    for name in ("out.nc", "out.zarr"):
        formats.write(read(tmp_path / "f.nc"), tmp_path / name, {})
        back = formats.open_fields(tmp_path / name)
        assert back.spatial_ref.attrs["GeoTransform"] == "1 2"
        assert back.t2m.encoding.get("grid_mapping", back.t2m.attrs.get("grid_mapping")) == "spatial_ref"


# -- messages


def test_a_dimension_of_length_zero_is_named(tmp_path: Path) -> None:
    dataset().isel(lat=slice(0)).to_netcdf(tmp_path / "f.nc")
    with pytest.raises(TimeError, match="no values: dimension lat has length 0"):
        read(tmp_path / "f.nc")


def test_a_dimension_of_length_zero_that_no_field_has_is_nothing(tmp_path: Path) -> None:
    dataset().assign(seen=("obs", np.zeros(0))).to_netcdf(tmp_path / "f.nc")
    assert np.array_equal(frames(read(tmp_path / "f.nc"))[:, 0], field(20))


def test_no_message_of_a_sound_file_calls_it_damaged(tmp_path: Path) -> None:
    staggered(13, 11).to_netcdf(tmp_path / "a.nc")
    (dataset().drop_vars("time")).to_netcdf(tmp_path / "b.nc")
    dataset()[["time"]].to_netcdf(tmp_path / "c.nc")
    for path, variables in (("a.nc", ["u", "v"]), ("b.nc", []), ("c.nc", [])):
        with pytest.raises(PdrError) as refused:
            read(tmp_path / path, *variables)
        assert isinstance(refused.value, DataError)
        assert "damaged" not in str(refused.value)


def test_whole_windows_of_nothing_are_not_to_be_filled(tmp_path: Path) -> None:
    from pdr_cli.data import missing

    dataset(field(20) * np.nan).to_netcdf(tmp_path / "f.nc")
    series = read(tmp_path / "f.nc")
    with pytest.raises(MissingValuesError, match="give data that have values there") as refused:
        missing.check(frames(series), series, 0)
    assert "--fill-missing" not in str(refused.value)


def test_names_and_calendars_of_channels_stay(tmp_path: Path) -> None:
    data = dataset()
    data["time"] = xr.date_range("2020-01-01", periods=20, freq="6h", calendar="360_day", use_cftime=True)
    data.to_netcdf(tmp_path / "f.nc")
    series = read(tmp_path / "f.nc")
    assert names(series) == ["t2m"]
    assert isinstance(series.time.values[0], cftime.Datetime360Day)
