"""Forecast files pass the IOOS compliance checker for CF-1.11, strictly, and keep what the input says of itself."""

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

from pdr_cli.data import formats
from pdr_cli.data.formats import cf, netcdf
from pdr_cli.data.intervals import Ends, with_ends
from pdr_cli.data.series import Series, make_series, with_members
from tests.builders import field, weather_file

SIZE = (7, 9)
HINDCAST = ("forecast_reference_time", "forecast_period")
T2M = {"units": "K", "standard_name": "air_temperature", "long_name": "temperature at 2 m"}
WIND = {"units": "m s-1", "standard_name": "eastward_wind", "long_name": "wind at 10 m"}
ABOUT = {
    "Conventions": "CF-1.11", "title": "Forecast", "institution": "tests", "source": "pdr", "references": "none",
    "comment": "from a test", "history": "2020-01-01T00:00:00Z pdr predict",
}  # fmt: skip


def times(count: int, calendar: str = "standard") -> np.ndarray:
    """Six-hourly from the end of January on, of the type that xarray gives times of this calendar."""
    cftimes = calendar != "standard"
    return xr.date_range("2020-01-30", periods=count, freq="6h", calendar=calendar, use_cftime=cftimes).values


HEIGHT = (np.float64(2), {"units": "m", "positive": "up", "standard_name": "height", "axis": "Z"})


def forecast(calendar: str = "standard", variables: dict | None = None, grid: str = "latlon") -> Series:
    """A forecast of 3 steps; `grid`: latlon (descending latitude), plain (numbers without attributes) or none."""
    when = times(4, calendar)
    lead = {"units": "hours"}
    coords = {"forecast_reference_time": ((), when[0], {}), "forecast_period": ("time", [6.0, 12.0, 18.0], lead)}
    if grid == "latlon":
        coords["lat"] = ("y", np.linspace(60, 45, 7, dtype=np.float32), {"units": "degrees_north"})
        coords["lon"] = ("x", np.linspace(-10, 10, 9, dtype=np.float32), {"units": "degrees_east"})
    if grid == "plain":
        coords["y"], coords["x"] = ("y", np.arange(7.0), {}), ("x", np.arange(9.0), {})
    variables = variables or {"t2m": T2M}
    values = np.stack([field(3, *SIZE) + i for i in range(len(variables))], axis=1)
    made = make_series(values, when[1:], variables, coords, kind="weather", files=["input.nc"])
    return made.assign_attrs(scalars=dict.fromkeys(variables, {"height": HEIGHT} if grid == "latlon" else {}))


def hindcast(path: Path, one: Series, inits: np.ndarray, time_layout: str = "cf") -> Path:
    """A file with the same forecast from every init."""
    layout = cf.hindcast_layout(one, inits, ABOUT, time_layout)
    store = formats.field_store(path)
    store.create(path, layout, 4)
    with store.writing(path, layout) as put:
        put(0, np.broadcast_to(one.values, (len(inits), *one.shape)))
    return path


def findings(path: Path) -> str:
    """What the checker says against a file; nothing if all tests pass."""
    from compliance_checker.runner import CheckSuite, ComplianceChecker

    CheckSuite.load_all_available_checkers()
    said = io.StringIO()
    with redirect_stdout(said):
        passed, errors = ComplianceChecker.run_checker(
            str(path), ["cf:1.11"], verbose=0, criteria="strict", output_format="text", output_filename="-"
        )
    return "" if passed and not errors and "All tests passed!" in said.getvalue() else said.getvalue()


def with_crs() -> Series:
    """A forecast whose input said which earth its latitudes are of."""
    radius = {"grid_mapping_name": "latitude_longitude", "earth_radius": 6371229.0}
    return forecast().assign_attrs(grid_mapping=("crs", radius))


CASES = {
    "the input's grid mapping": with_crs,
    "descending latitude": forecast,
    "two variables": lambda: forecast(variables={"t2m": T2M, "u10": WIND}),
    "360_day calendar": lambda: forecast("360_day"),
    "coordinates of which nothing is said": lambda: forecast(grid="plain"),
    "traffic, without latitude and longitude": lambda: forecast(
        variables={n: {"units": "count", "long_name": f"{n} per cell"} for n in ("inflow", "outflow")}, grid="none"
    ),
}


@pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
def test_one_forecast_passes_the_checker(make: Callable[[], Series], tmp_path: Path) -> None:
    formats.write(make(), tmp_path / "f.nc", ABOUT)
    assert findings(tmp_path / "f.nc") == ""


@pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
def test_many_forecasts_pass_the_checker(make: Callable[[], Series], tmp_path: Path) -> None:
    one = make()
    calendar = "standard" if one.time.values.dtype.kind == "M" else one.time.values[0].calendar
    assert findings(hindcast(tmp_path / "h.nc", one, times(5, calendar))) == ""


def ensemble(members: int = 3) -> Series:
    """An ensemble of 3 steps."""
    one = forecast()
    return with_members(one, np.stack([one.values + m for m in range(members)]))


def test_an_ensemble_passes_the_checker_and_has_its_members_first(tmp_path: Path) -> None:
    formats.write(ensemble(), tmp_path / "f.nc", ABOUT)
    assert findings(tmp_path / "f.nc") == ""
    with xr.open_dataset(tmp_path / "f.nc") as back:
        assert back.t2m.dims == ("realization", "time", "lat", "lon")
        assert back.realization.values.tolist() == [0, 1, 2]
        assert back.realization.attrs["standard_name"] == "realization"
        assert np.array_equal(back.t2m.values, ensemble().values[:, :, 0])


def with_intervals(one: Series) -> Series:
    """A forecast with an interval of 80 %, two wide."""
    return with_ends(one, Ends([0.8], np.stack([one.values - 1, one.values + 1])[None], "by hand"))


@pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
def test_intervals_pass_the_checker_as_ancillary_variables(make: Callable[[], Series], tmp_path: Path) -> None:
    one = make()
    calendar = "standard" if one.time.values.dtype.kind == "M" else one.time.values[0].calendar
    formats.write(with_intervals(one), tmp_path / "f.nc", ABOUT)
    assert findings(tmp_path / "f.nc") == ""
    assert findings(hindcast(tmp_path / "h.nc", with_intervals(one), times(5, calendar))) == ""
    name = str(one.channel.values[-1])
    with xr.open_dataset(tmp_path / "f.nc", decode_times=False) as back:
        assert back[name].attrs["ancillary_variables"] == f"{name}_lower_80 {name}_upper_80"
        lower = back[f"{name}_lower_80"]
        assert np.allclose(lower.values, back[name].values - 1)
        assert lower.attrs["units"] == back[name].attrs["units"]
        assert lower.attrs.get("standard_name") == back[name].attrs.get("standard_name")
        assert lower.attrs["comment"] == "by hand"
        assert set(back[name].coords) == set(lower.coords)


@pytest.mark.parametrize("time_layout", ["cf", "wb2"])
def test_ensembles_from_many_inits_have_their_members_second(tmp_path: Path, time_layout: str) -> None:
    path = hindcast(tmp_path / "h.nc", ensemble(), times(5), time_layout)
    init, lead = ("time", "prediction_timedelta") if time_layout == "wb2" else HINDCAST
    with xr.open_dataset(path) as back:
        assert back.t2m.dims[:3] == (init, "realization", lead)
        assert back.t2m.shape == (5, 3, 3, 7, 9)
    assert time_layout == "wb2" or findings(path) == ""


def test_a_chunk_of_a_large_hindcast_holds_some_members(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, chunks in ((10, (3, 3, 3, 7, 9)), (2, (1, 2, 3, 7, 9))):
        monkeypatch.setattr(cf, "CHUNK_BYTES", limit * 4 * 3 * 7 * 9)
        assert cf.hindcast_layout(ensemble(), times(5), ABOUT).chunks == chunks


def test_the_checker_finds_what_is_wrong(tmp_path: Path) -> None:
    formats.write(forecast(variables={"t2m": T2M | {"units": "m"}}), tmp_path / "f.nc", ABOUT)
    assert "t2m" in findings(tmp_path / "f.nc"), "air_temperature is no length"


def test_many_forecasts_have_init_and_lead_dimensions_and_their_valid_time(tmp_path: Path) -> None:
    inits = times(5)
    with xr.open_dataset(hindcast(tmp_path / "h.nc", forecast(), inits)) as back:
        assert back.t2m.dims == ("forecast_reference_time", "forecast_period", "lat", "lon")
        assert back.time.dims == ("forecast_reference_time", "forecast_period")
        # The third init is 12 hours after the first, and the second lead 12 hours after the init.
        assert back.time.values[2, 1] == inits[0] + np.timedelta64(24, "h")
        assert (back.forecast_reference_time.values == inits).all()


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_weatherbench_names_are_read_by_xarray_as_dates_and_timedeltas(tmp_path: Path, suffix: str) -> None:
    path = hindcast(tmp_path / f"h{suffix}", forecast(), times(5), "wb2")
    with xr.open_zarr(path, chunks=None) if suffix == ".zarr" else xr.open_dataset(path) as back:
        assert back.t2m.dims == ("time", "prediction_timedelta", "latitude", "longitude")
        assert set(back.data_vars) == {"t2m", "height"} - set(back.coords)
        assert (back.time.values == times(5)).all()
        assert (back.prediction_timedelta.values == np.array([6, 12, 18], "timedelta64[h]")).all()


def test_leads_of_half_hours_are_whole_minutes() -> None:
    one = forecast()
    one = one.assign_coords(time=times(1)[0] + np.array([30, 60, 90], "timedelta64[m]"))
    lead = next(c for c in cf.hindcast_layout(one, times(2), {}, "wb2").coordinates if c.name == "prediction_timedelta")
    assert (lead.values.tolist(), lead.attrs["units"]) == ([30, 60, 90], "minutes")


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("time_layout", ["cf", "wb2"])
def test_missing_land_is_a_fill_value_in_the_file_and_nan_when_read(
    tmp_path: Path, suffix: str, time_layout: str
) -> None:
    one = forecast()
    one.values[:, :, :2, :3] = np.nan
    path = tmp_path / f"f{suffix}"
    formats.write(one, path, ABOUT, time_layout=time_layout)
    with xr.open_zarr(path, chunks=None) if suffix == ".zarr" else xr.open_dataset(path) as back:
        assert np.array_equal(back.t2m.values.reshape(one.shape), one.values, equal_nan=True)
    raw = {} if suffix == ".nc" else {"engine": "zarr", "chunks": None}
    with xr.open_dataset(path, mask_and_scale=False, **raw) as back:
        assert back.t2m.attrs["_FillValue"] == cf.FILL
        assert (back.t2m.values == cf.FILL).sum() == 3 * 2 * 3, "3 steps of a land of 2 x 3"


@pytest.mark.parametrize(
    ("compress", "filters"), [(0, {"fletcher32"}), (1, {"zlib", "shuffle"}), (9, {"zlib", "shuffle"})]
)
def test_compression_is_zlib_with_shuffle_or_else_a_checksum(tmp_path: Path, compress: int, filters: set[str]) -> None:
    formats.write(forecast(), tmp_path / "f.nc", ABOUT, compress=compress)
    with netCDF4.Dataset(tmp_path / "f.nc") as back:
        found = back["t2m"].filters()
        assert {n for n in ("zlib", "shuffle", "fletcher32") if found[n]} == filters
        assert found["complevel"] == compress
        assert back["t2m"].chunking() == [1, *SIZE]


def test_variables_and_attributes_stand_in_the_order_of_the_layout(tmp_path: Path) -> None:
    formats.write(forecast(), tmp_path / "f.nc", ABOUT)
    layout = cf.forecast_layout(forecast(), ABOUT)
    with netCDF4.Dataset(tmp_path / "f.nc") as back:
        assert list(back.variables) == [*(c.name for c in layout.coordinates), *layout.fields]
        assert back.ncattrs() == list(layout.attrs)


def test_without_room_in_memory_the_same_file_is_made_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    formats.write(forecast(), tmp_path / "a.nc", ABOUT)
    monkeypatch.setattr(netcdf, "MEMORY", tmp_path / "none")
    formats.write(forecast(), tmp_path / "b.nc", ABOUT)
    one, other = (xr.open_dataset(tmp_path / name) for name in ("a.nc", "b.nc"))
    assert one.identical(other)


def test_a_file_that_lacks_its_last_byte_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "f.nc"
    formats.write(forecast(), path, ABOUT)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(OSError, match="HDF error"):
        netCDF4.Dataset(path)


@pytest.mark.parametrize("compress", [0, 4])
def test_a_damaged_chunk_of_zarr_is_found_by_its_checksum(tmp_path: Path, compress: int) -> None:
    from pdr_cli.errors import DataError

    path = tmp_path / "f.zarr"
    formats.write(forecast(), path, ABOUT, compress=compress)
    chunk = sorted((path / "t2m" / "c" / "1").rglob("*"))[-1]
    whole = bytearray(chunk.read_bytes())
    whole[len(whole) // 2] ^= 1
    chunk.write_bytes(whole)
    series = formats.open_series([path])[0]
    series[0].load()
    with pytest.raises(DataError, match=r"f\.zarr: steps 1 to 1 cannot be read, the file is damaged"):
        series[1].load()


def test_the_inputs_own_bounds_and_scalars_come_back_bit_for_bit(tmp_path: Path) -> None:
    weather_file(tmp_path / "plain.nc", 10)
    with xr.open_dataset(tmp_path / "plain.nc") as data:
        cells = np.stack([data.lat.values + 1.0, data.lat.values - 1.5], axis=1)
        height = ((), np.float32(2), {"units": "m", "positive": "up", "standard_name": "height"})
        given = data.load().assign(edges=(("lat", "nv"), cells)).assign_coords(height=height)
        given.lat.attrs["bounds"] = "edges"
        given.to_netcdf(tmp_path / "given.nc")
    formats.write(
        formats.open_series([tmp_path / "given.nc"], formats.ReadOptions(["t2m"]))[0], tmp_path / "out.nc", ABOUT
    )
    with xr.open_dataset(tmp_path / "given.nc") as given, xr.open_dataset(tmp_path / "out.nc") as back:
        assert (back.lat.attrs["bounds"], back.edges.values.tobytes()) == ("edges", given.edges.values.tobytes())
        assert back.height.values.tobytes() == given.height.values.tobytes()
        assert back.height.attrs == given.height.attrs
        assert back.lat.values.tobytes() == given.lat.values.tobytes()


def test_cells_end_halfway_between_their_centres_and_at_the_pole(tmp_path: Path) -> None:
    one = forecast().assign_coords(lat=("y", np.array([90, 80, 70, 60, 50, 40, 30.0]), {"units": "degrees_north"}))
    formats.write(one, tmp_path / "f.nc", ABOUT)
    with xr.open_dataset(tmp_path / "f.nc") as back:
        # The first centre is the pole itself, so its cell ends there and not at 95 degrees.
        assert back.lat_bnds.values[:2].tolist() == [[90, 85], [85, 75]]


def test_the_method_of_an_average_is_kept_and_one_of_absent_axes_is_not(tmp_path: Path) -> None:
    ways = {"a": "time: mean (interval: 1 hour)", "b": "member: mean time: point", "c": "area: time: mean"}
    given = {name: T2M | {"cell_methods": way} for name, way in ways.items()}
    formats.write(forecast(variables=given), tmp_path / "f.nc", ABOUT)
    with xr.open_dataset(tmp_path / "f.nc") as back:
        kept = {name: back[name].attrs.get("cell_methods") for name in ways}
    assert kept == {"a": ways["a"], "b": None, "c": ways["c"]}


def with_sides(y: tuple[str, dict], x: tuple[str, dict]) -> Series:
    """The forecast on a grid whose coordinates have these names and attributes."""
    one = forecast().rename(lat=y[0], lon=x[0])
    one[y[0]].attrs, one[x[0]].attrs = y[1], x[1]
    return one


def test_latitudes_are_known_by_their_units_whatever_they_are_called(tmp_path: Path) -> None:
    one = with_sides(("rows", {"units": "degrees_north"}), ("columns", {"units": "degree_E"}))
    formats.write(one, tmp_path / "f.nc", ABOUT)
    with xr.open_dataset(tmp_path / "f.nc") as back:
        assert (back.rows.attrs["standard_name"], back["columns"].attrs["standard_name"]) == ("latitude", "longitude")
        assert back.rows_bnds.shape == (7, 2)
    with xr.open_dataset(hindcast(tmp_path / "h.nc", one, times(2), "wb2")) as back:
        assert back.t2m.dims[2:] == ("latitude", "longitude")


def test_rotated_latitudes_are_not_latitudes(tmp_path: Path) -> None:
    sides = [
        (n, {"standard_name": f"grid_{long}", "units": "degrees"})
        for n, long in (("lat", "latitude"), ("lon", "longitude"))
    ]
    one = with_sides(*sides)
    formats.write(one, tmp_path / "f.nc", ABOUT)
    with xr.open_dataset(tmp_path / "f.nc") as back:
        assert back.lat.attrs == {"axis": "Y", **sides[0][1]}
        assert "lat_bnds" not in back.variables
    with xr.open_dataset(hindcast(tmp_path / "h.nc", one, times(2), "wb2")) as back:
        assert back.t2m.dims[2:] == ("lat", "lon")
