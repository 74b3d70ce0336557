"""Each layout is written as its producer writes it, holding `known` numbers, and read back by init and valid time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cftime
import netCDF4
import numpy as np
import pytest
import xarray as xr

from pdr_cli.data import formats
from pdr_cli.data.formats import forecasts
from pdr_cli.data.series import side
from pdr_cli.errors import DataError, GridError, PdrError, TimeError, VariableError
from tests.builders import video_file, weather_file
from tests.cli import pdr

INITS = np.array(["2024-01-30T00", "2024-01-30T12", "2024-01-31T00"], "datetime64[ns]")
LEADS = np.array([6, 12, 18, 24])  # hours
LAT, LON = np.array([50.0, 47.5, 45.0]), np.array([0.0, 2.5, 5.0, 7.5])
HOUR = np.timedelta64(3600 * 10**9, "ns")
SINCE_1970 = "seconds since 1970-01-01 00:00:00"


def known(init: int, hours: np.ndarray = LEADS) -> np.ndarray:
    """280 + 100 x number of the init + its lead in hours, growing by 1/8 from cell to cell: [τ, y, x]."""
    cells = np.arange(12).reshape(3, 4) / 8
    return (280 + 100 * init + hours[:, None, None] + cells).astype(np.float32)


ALL = np.stack([known(i) for i in range(3)])  # [init, lead, y, x]
K = {"units": "K"}
SIDES = {"latitude": ("latitude", LAT), "longitude": ("longitude", LON)}


def epoch(times: np.ndarray) -> np.ndarray:
    return times.astype("datetime64[s]").astype(np.int64)


def write(path: Path, variables: dict[str, tuple[Any, ...]], sizes: dict[str, int]) -> Path:
    """NetCDF by hand: {name: (type, dims, values, attributes)}."""
    with netCDF4.Dataset(path, "w") as out:
        for name, size in sizes.items():
            out.createDimension(name, size)
        for name, (kind, dims, values, attrs) in variables.items():
            variable = out.createVariable(name, kind, dims)
            variable.setncatts(attrs)
            variable[...] = values
    return path


GRID = {
    "latitude": ("f8", ("latitude",), LAT, {"units": "degrees_north"}),
    "longitude": ("f8", ("longitude",), LON, {"units": "degrees_east"}),
}
GRID_SIZES = {"latitude": 3, "longitude": 4}


def cf_many(folder: Path) -> list[Path]:
    """Both axes as dimensions, valid time on both: what CF archives of many inits do."""
    valid = INITS[:, None] + LEADS * HOUR
    frt = {"standard_name": "forecast_reference_time", "units": SINCE_1970}
    fields = {
        "forecast_reference_time": ("f8", ("forecast_reference_time",), epoch(INITS), frt),
        "forecast_period": ("f8", ("forecast_period",), LEADS, {"standard_name": "forecast_period", "units": "hours"}),
        "time": (
            "f8",
            ("forecast_reference_time", "forecast_period"),
            epoch(valid),
            {"units": SINCE_1970, "standard_name": "time"},
        ),
        "t2m": ("f4", ("forecast_reference_time", "forecast_period", "latitude", "longitude"), ALL, K),
    }
    return [
        write(folder / "many.nc", fields | GRID, {"forecast_reference_time": 3, "forecast_period": 4, **GRID_SIZES})
    ]


def cf_records(folder: Path) -> list[Path]:
    """One dimension with both times on it, the form that CF prefers for several inits; out of order."""
    order = np.random.default_rng(0).permutation(12)
    frt = {"standard_name": "forecast_reference_time", "units": SINCE_1970}
    valid = (INITS[:, None] + LEADS * HOUR).ravel()
    fields = {
        "forecast_reference_time": ("f8", ("record",), epoch(np.repeat(INITS, 4))[order], frt),
        "time": ("f8", ("record",), epoch(valid)[order], {"units": SINCE_1970, "standard_name": "time"}),
        "t2m": ("f4", ("record", "latitude", "longitude"), ALL.reshape(12, 3, 4)[order], K),
    }
    return [write(folder / "records.nc", fields | GRID, {"record": 12, **GRID_SIZES})]


def single_frames(folder: Path) -> list[Path]:
    """A file for each frame, its two times scalars."""
    paths = []
    for i, init in enumerate(INITS):
        for n, lead in enumerate(LEADS * HOUR):
            coords = {"forecast_reference_time": ((), init), "time": ((), init + lead), **SIDES}
            paths.append(folder / f"single{i}{n}.nc")
            xr.Dataset({"t2m": (("latitude", "longitude"), ALL[i, n], K)}, coords=coords).to_netcdf(paths[-1])
    return paths


def weatherbench(folder: Path) -> list[Path]:
    """`time` is the init; longitude before latitude, as in its archives."""
    data = xr.Dataset(
        {"t2m": (("time", "prediction_timedelta", "longitude", "latitude"), ALL.transpose(0, 1, 3, 2))},
        coords={"time": INITS, "prediction_timedelta": LEADS * HOUR, **SIDES},
    )
    data.to_netcdf(folder / "wb2.nc")
    return [folder / "wb2.nc"]


def weatherbench_hours(folder: Path) -> list[Path]:
    """The same with leads as float32 hours from 0 on, whose frame is the analysis."""
    leads = np.array([0, 6, 12, 18, 24], np.float32)
    values = np.concatenate([np.full((3, 1, 3, 4), -999, np.float32), ALL], axis=1)
    data = xr.Dataset(
        {"t2m": (("time", "prediction_timedelta", "latitude", "longitude"), values, K)},
        coords={"time": INITS, "prediction_timedelta": ("prediction_timedelta", leads, {"units": "hours"}), **SIDES},
    )
    data.to_netcdf(folder / "wb2.nc")
    return [folder / "wb2.nc"]


def weatherbench_nanoseconds(folder: Path) -> list[Path]:
    data = xr.Dataset(
        {"t2m": (("time", "prediction_timedelta", "latitude", "longitude"), ALL, K)},
        coords={"time": INITS, "prediction_timedelta": LEADS * HOUR, **SIDES},
    )
    encoding = {
        "prediction_timedelta": {"units": "nanoseconds", "dtype": "int64"},
        "time": {"units": "hours since 1900-01-01"},
    }
    data.to_netcdf(folder / "wb2.nc", encoding=encoding)
    return [folder / "wb2.nc"]


def earth2studio(folder: Path) -> list[Path]:
    """Inits as double hours since the year 1, leads as int64 `hour`, coordinates without attributes."""
    since = {"units": "hours since 0001-01-01 00:00:00.0", "calendar": "proleptic_gregorian"}
    dates = [cftime.datetime(2024, 1, 30), cftime.datetime(2024, 1, 30, 12), cftime.datetime(2024, 1, 31)]
    fields = {
        "time": ("f8", ("time",), cftime.date2num(dates, since["units"], since["calendar"]), since),
        "lead_time": ("i8", ("lead_time",), [0, *LEADS], {"units": "hour", "calendar": "gregorian"}),
        "lat": ("f8", ("lat",), LAT, {}),
        "lon": ("f8", ("lon",), LON, {}),
        "t2m": ("f4", ("time", "lead_time", "lat", "lon"), np.concatenate([ALL[:, :1] * 0, ALL], axis=1), {}),
    }
    return [write(folder / "e2s.nc", fields, {"time": 3, "lead_time": 5, "lat": 3, "lon": 4})]


def anemoi(folder: Path) -> list[Path]:
    """One file an init, integers of seconds, the grid as a list of points."""
    rows, columns = (a.ravel() for a in np.meshgrid(LAT, LON, indexing="ij"))
    paths = []
    for i, init in enumerate(INITS):
        frt = {"units": SINCE_1970, "standard_name": "forecast_reference_time"}
        fields = {
            "forecast_reference_time": ("i8", (), epoch(init), frt),
            "forecast_period": (
                "i8",
                ("time",),
                LEADS * 3600,
                {"units": "seconds", "standard_name": "forecast_period"},
            ),
            "time": ("i8", ("time",), epoch(init + LEADS * HOUR), {"units": SINCE_1970}),
            "latitude": ("f8", ("values",), rows, {"units": "degrees_north"}),
            "longitude": ("f8", ("values",), columns, {"units": "degrees_east"}),
            "t2m": ("f4", ("time", "values"), known(i).reshape(4, 12), K),
        }
        paths.append(write(folder / f"anemoi{i}.nc", fields, {"time": 4, "values": 12}))
    return paths


def cfgrib(folder: Path) -> list[Path]:
    """What `xarray` writes of GRIB: `time` is marked as the init, `valid_time` as the time; a member number beside."""
    time = {"standard_name": "forecast_reference_time", "long_name": "initial time of forecast"}
    data = xr.Dataset(
        {"t2m": (("number", "time", "step", "latitude", "longitude"), ALL[None], K)},
        coords={
            "number": ("number", [0]),
            "time": ("time", INITS, time),
            "step": ("step", LEADS * HOUR, {"standard_name": "forecast_period"}),
            "valid_time": (("time", "step"), INITS[:, None] + LEADS * HOUR, {"standard_name": "time"}),
            "surface": ((), 0.0),
            **SIDES,
        },
    )
    data.to_netcdf(folder / "grib.nc")
    return [folder / "grib.nc"]


def cfgrib_one_step(folder: Path) -> list[Path]:
    """A file for each lead: `step` is a scalar and `valid_time` lies on `time`."""
    paths = []
    for n, lead in enumerate(LEADS * HOUR):
        coords = {
            "time": ("time", INITS, {"standard_name": "forecast_reference_time"}),
            "step": ((), lead, {"standard_name": "forecast_period"}),
            "valid_time": ("time", INITS + lead, {"standard_name": "time"}),
            **SIDES,
        }
        paths.append(folder / f"step{n}.nc")
        xr.Dataset({"t2m": (("time", "latitude", "longitude"), ALL[:, n], K)}, coords=coords).to_netcdf(paths[-1])
    return paths


def bris(folder: Path) -> list[Path]:
    """Double seconds, no lead time, a height of size 1, projection coordinates without metres."""
    paths = []
    for i, init in enumerate(INITS):
        since = {"units": "seconds since 1970-01-01 00:00:00 +00:00"}
        fields = {
            "forecast_reference_time": ("f8", (), epoch(init), since | {"standard_name": "forecast_reference_time"}),
            "time": ("f8", ("time",), epoch(init + LEADS * HOUR), since | {"standard_name": "time"}),
            "y": ("f4", ("y",), LAT, {"standard_name": "projection_y_coordinate"}),
            "x": ("f4", ("x",), LON, {"standard_name": "projection_x_coordinate"}),
            "height": ("f4", ("height",), [2], {"units": "m"}),
            "t2m": ("f4", ("time", "height", "y", "x"), known(i)[:, None], K),
        }
        paths.append(write(folder / f"bris{i}.nc", fields, {"time": 4, "height": 1, "y": 3, "x": 4}))
    return paths


def credit(folder: Path) -> list[Path]:
    """A file for each step: its valid time and its forecast hour, from which the init follows."""
    paths = []
    for i, init in enumerate(INITS):
        for n, hours in enumerate(LEADS):
            coords = {"time": [init + hours * HOUR], "forecast_hour": ((), hours), **SIDES}
            paths.append(folder / f"credit{i}_{hours:03d}.nc")
            xr.Dataset({"t2m": (("time", "latitude", "longitude"), ALL[i, n : n + 1], K)}, coords=coords).to_netcdf(
                paths[-1]
            )
    return paths


def by_attributes(folder: Path) -> list[Path]:
    """Names of nobody's, told by CF standard names alone; valid times with the lead first."""
    valid = (INITS[:, None] + LEADS * HOUR).T
    since = {"units": SINCE_1970}
    fields = {
        "start": ("f8", ("start",), epoch(INITS), since | {"standard_name": "forecast_reference_time"}),
        "ahead": ("f8", ("ahead",), LEADS / 24, {"standard_name": "forecast_period", "units": "days"}),
        "validity": ("f8", ("ahead", "start"), epoch(valid), since | {"standard_name": "time"}),
        "n": ("f8", ("n",), LAT, {"axis": "Y"}),
        "e": ("f8", ("e",), LON, {"axis": "X"}),
        "t2m": ("f4", ("ahead", "e", "start", "n"), ALL.transpose(1, 3, 0, 2), K),
    }
    return [write(folder / "named.nc", fields, {"start": 3, "ahead": 4, "n": 3, "e": 4})]


def pysteps(folder: Path) -> list[Path]:
    """The init is told by nothing but the units of time; one member."""
    paths = []
    for i, init in enumerate(INITS):
        since = f"seconds since {str(init.astype('datetime64[s]')).replace('T', ' ')}"
        fields = {
            "time": ("f8", ("time",), LEADS * 3600, {"long_name": "forecast time", "units": since}),
            "y": ("f8", ("y",), LAT, {"axis": "Y", "standard_name": "projection_y_coordinate"}),
            "x": ("f8", ("x",), LON, {"axis": "X", "standard_name": "projection_x_coordinate"}),
            "ens_number": ("i4", ("ens_number",), [1], {}),
            "t2m": ("f4", ("ens_number", "time", "y", "x"), known(i)[None], K),
        }
        paths.append(write(folder / f"pysteps{i}.nc", fields, {"time": 4, "ens_number": 1, "y": 3, "x": 4}))
        with netCDF4.Dataset(paths[-1], "a") as data:
            data.setncatts({"title": "pysteps-generated nowcast", "source": "pysteps"})
    return paths


LAYOUTS = [by_attributes, cf_many, cf_records, single_frames, weatherbench, weatherbench_hours,
           weatherbench_nanoseconds, earth2studio, anemoi, cfgrib, cfgrib_one_step, bris, credit, pysteps]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_every_layout_gives_its_frames_by_init_and_valid_time(
    layout: Callable[[Path], list[Path]], tmp_path: Path
) -> None:
    paths = layout(tmp_path)
    found = forecasts.read(paths[::-1], ["t2m"])
    assert np.array_equal(found.inits, INITS)
    assert np.array_equal(found.leads, LEADS)
    assert (np.asarray(found.grid.y.values).tolist(), np.asarray(found.grid.x.values).tolist(), found.variables) == (
        LAT.tolist(),
        LON.tolist(),
        ["t2m"],
    )
    for i, init in enumerate(INITS):
        frames = found.frames(init, init + LEADS * HOUR)
        assert frames.dtype == np.float32
        assert np.array_equal(frames[:, 0], known(i))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_times_that_a_file_does_not_hold_are_nan(layout: Callable[[Path], list[Path]], tmp_path: Path) -> None:
    found = forecasts.read(layout(tmp_path), ["t2m"])
    # The init itself, a time between two leads, and one past the last lead.
    hours = np.array([0, 6, 9, 30, 24])
    frames = found.frames(INITS[1], INITS[1] + hours * HOUR)[:, 0]
    assert np.isnan(frames[[0, 2, 3]]).all()
    assert np.array_equal(frames[[1, 4]], known(1)[[0, 3]])
    assert np.isnan(found.frames(INITS[1], INITS[1] + LEADS * HOUR + np.timedelta64(2, "s"))).all()
    assert np.isnan(found.frames(INITS[0] + 6 * HOUR, INITS[0] + LEADS * HOUR)).all()


def test_fractions_of_hours_in_float32_meet_exact_dates(tmp_path: Path) -> None:
    # Steps of 10 minutes, to ten days ahead: in float32 hours the last is off by up to 240 * 2**-24 h = 0.05 s.
    minutes = np.array([10, 20, 14390, 14400])
    leads = (minutes / 60).astype(np.float32)
    coords = {"time": INITS[:1], "lead_time": ("lead_time", leads, {"units": "h"}), **SIDES}
    xr.Dataset({"t2m": (("time", "lead_time", "latitude", "longitude"), ALL[:1], K)}, coords=coords).to_netcdf("f.nc")
    valid = INITS[0] + minutes * np.timedelta64(60, "s")
    assert np.array_equal(forecasts.read([Path("f.nc")], ["t2m"]).frames(INITS[0], valid)[:, 0], known(0))


@pytest.fixture(scope="module")
def forecast_of_pdr(weather: Path, weather_run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("forecast")
    for init in ("2020-01-20 00:00", "2020-01-21 06:00"):
        result = pdr("predict", weather, "-m", weather_run, "--init", init, "-o", folder / f"{init[8:10]}.nc")
        assert result.code == 0, result.err
    return sorted(folder.glob("*.nc"))


def test_what_predict_writes_is_read_back(weather: Path, forecast_of_pdr: list[Path]) -> None:
    found = forecasts.read(forecast_of_pdr, ["t2m"])
    assert found.inits.tolist() == np.array(["2020-01-20T00", "2020-01-21T06"], "datetime64[ns]").tolist()
    assert (found.leads.tolist(), found.units) == ([6, 12, 18, 24], ["K"])
    assert found.layout == "init forecast_reference_time, valid time"
    with xr.open_dataset(forecast_of_pdr[1]) as written:
        assert np.array_equal(found.frames(found.inits[1], written.time.values)[:, 0], written.t2m.values)
    truth = formats.open_series([weather])[0]
    frames = found.frames(found.inits[0], found.inits[0] + LEADS * HOUR)
    assert np.array_equal(found.fit(truth).apply(frames), frames)
    with pytest.raises(TimeError, match="has no init time"):
        forecasts.read([weather], ["t2m"])


def test_a_clips_forecast_is_read_back(clip: Path, video_run: Path) -> None:
    assert pdr("predict", clip, "-m", video_run, "-o", "f.nc").code == 0
    found = forecasts.read([Path("f.nc")], ["gray"])
    with xr.open_dataset("f.nc", decode_times=False) as written:
        assert found.inits.tolist() == [float(written.forecast_reference_time)]
        assert np.array_equal(found.frames(found.inits[0], written.time.values)[:, 0], written.gray.values)
        # 25 frames a second; half a frame off is another time.
        assert found.leads == pytest.approx(0.04 * np.arange(1, len(found.leads) + 1))
        assert np.isnan(found.frames(found.inits[0], written.time.values + 0.02)).all()
    assert found.fit(formats.open_series([clip])[0]).roll_x == 0


def test_another_orientation_is_turned_to_the_truths(tmp_path: Path) -> None:
    truth = formats.open_series([weather_file(tmp_path / "truth.nc", 8, size=(3, 4))])[0]
    lat, lon = (side(truth, d).values.astype(float) for d in "yx")  # type: ignore[union-attr]
    # The forecast runs from south to north and from -180 to 180 degrees east; the truth from 60 N and 200 E on.
    coords = {"time": INITS, "lead_time": ("lead_time", LEADS, {"units": "h"}), "lat": lat[::-1], "lon": lon - 360}
    xr.Dataset({"t2m": (("time", "lead_time", "lat", "lon"), ALL[:, :, ::-1], K)}, coords=coords).to_netcdf("f.nc")
    found = forecasts.read([Path("f.nc")], ["t2m"])
    turned = found.fit(truth).apply(found.frames(INITS[0], INITS[0] + LEADS * HOUR))
    assert np.array_equal(turned[:, 0], known(0))


def one_file(path: Path = Path("f.nc"), attrs: dict[str, str] = K, lat: np.ndarray = LAT, name: str = "t2m") -> Path:
    coords = {"time": INITS, "lead_time": ("lead_time", LEADS, {"units": "h"}), "lat": lat, "lon": LON}
    xr.Dataset({name: (("time", "lead_time", "lat", "lon"), ALL, attrs)}, coords=coords).to_netcdf(path)
    return path


def truth_on(lat: np.ndarray, units: str = "K") -> Any:
    coords = {"time": INITS, "lat": lat, "lon": LON}
    xr.Dataset({"t2m": (("time", "lat", "lon"), ALL[:, 0], {"units": units})}, coords=coords).to_netcdf("truth.nc")
    return formats.open_series([Path("truth.nc")])[0]


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ("K", "kelvin"), ("m s**-1", "m s-1"), ("m/s", "m s-1"), ("kg m^-2", "kg m-2"), ("", "K"), ("mbar", "hPa"),
        ("degC", "degrees_Celsius"), ("m s-1", "meters per second"), ("kg m-2 s-1", "mm s-1"), ("furlong", "furlong"),
    ],
)  # fmt: skip
def test_spellings_of_a_unit_are_one_unit(mine: str, theirs: str) -> None:
    found = forecasts.read([one_file(attrs={"units": mine})], ["t2m"])
    assert not found.fit(truth_on(LAT, theirs)).flip_y


@pytest.mark.parametrize(
    ("mine", "theirs"), [("degC", "K"), ("Pa", "hPa"), ("mm h-1", "mm s-1"), ("K", "hPa"), ("furlong", "m")]
)
def test_other_units_are_refused_with_both_names(mine: str, theirs: str) -> None:
    found = forecasts.read([one_file(attrs={"units": mine})], ["t2m"])
    with pytest.raises(VariableError, match=f"t2m is in {mine}, but the data to compare with are in {theirs}"):
        found.fit(truth_on(LAT, theirs))


def test_files_of_different_units_are_not_joined() -> None:
    with pytest.raises(VariableError, match=r"b.nc: t2m is in degC, but in K in f.nc"):
        forecasts.read([one_file(), one_file(Path("b.nc"), attrs={"units": "degC"})], ["t2m"])


def test_other_grids_are_refused() -> None:
    found = forecasts.read([one_file()], ["t2m"])
    truth = truth_on(LAT + 1)
    with pytest.raises(GridError, match="3 values from 50 to 45; expected 3 values from 51 to 46"):
        found.fit(truth)
    with pytest.raises(GridError, match=r"3 x 4 cells; expected 2 x 4"):
        found.fit(truth[:, :, :2])
    with pytest.raises(GridError, match=r"b\.nc is on another grid than f.nc"):
        forecasts.read([Path("f.nc"), one_file(Path("b.nc"), lat=LAT + 1)], ["t2m"])


def test_other_calendars_are_refused() -> None:
    found = forecasts.read([one_file()], ["t2m"])
    truth = truth_on(LAT)
    days = np.array([cftime.datetime(2024, 1, d, calendar="noleap") for d in (1, 2, 3)])
    with pytest.raises(TimeError, match="the standard calendar, the data to compare with in the noleap calendar"):
        found.fit(truth.assign_coords(time=days))


def test_the_same_forecast_twice_is_refused() -> None:
    with pytest.raises(DataError, match=r"f.nc and b.nc hold the same forecast|b.nc and f.nc hold the same forecast"):
        forecasts.read([one_file(), one_file(Path("b.nc"))], ["t2m"])


def test_variables_are_found_as_renamed_or_by_standard_name() -> None:
    path = one_file(name="2m_temperature", attrs=K | {"standard_name": "air_temperature"})
    for wanted, rename in (
        ("t2m", {"t2m": "2m_temperature"}),
        ("air_temperature", {}),
        ("2m_temperature", {"2m_temperature": "air"}),
    ):
        assert np.array_equal(
            forecasts.read([path], [wanted], rename).frames(INITS[0], INITS[0] + LEADS * HOUR)[:, 0], known(0)
        )
    with pytest.raises(VariableError, match=r"variable 't2m' is not there.*2m_temperature.*--var t2m=NAME"):
        forecasts.read([path], ["t2m"])


def test_the_members_of_an_ensemble_are_read_each_by_itself() -> None:
    coords = {"number": [0, 1], "time": INITS, "lead_time": ("lead_time", LEADS, {"units": "h"}), **SIDES}
    values = np.stack([ALL, ALL + 1])
    xr.Dataset({"t2m": (("number", "time", "lead_time", "latitude", "longitude"), values, K)}, coords=coords).to_netcdf(
        "e.nc"
    )
    found = forecasts.read([Path("e.nc")], ["t2m"])
    assert found.members == 2
    valid = INITS[0] + np.array(LEADS, "timedelta64[h]")
    first, second = (member.frames(INITS[0], valid) for member in (found, *found.further))
    np.testing.assert_allclose(second, first + 1)
    alone = forecasts.read([Path("e.nc")], ["t2m"], member=1)
    assert alone.members == 1
    np.testing.assert_array_equal(alone.frames(INITS[0], valid), second)


def test_files_of_one_ensemble_have_the_same_number_of_members() -> None:
    for name, count in (("two.nc", 2), ("three.nc", 3)):
        coords = {"number": range(count), "time": INITS, "lead_time": ("lead_time", LEADS, {"units": "h"}), **SIDES}
        dims = ("number", "time", "lead_time", "latitude", "longitude")
        xr.Dataset({"t2m": (dims, np.stack([ALL] * count), K)}, coords=coords).to_netcdf(name)
    with pytest.raises(VariableError, match=r"three.nc has 3 members and two.nc has 2"):
        forecasts.read([Path("two.nc"), Path("three.nc")], ["t2m"])


def test_points_are_a_grid_by_names_alone(tmp_path: Path) -> None:
    path = anemoi(tmp_path)[0]
    with netCDF4.Dataset(path, "a") as data:
        for long, short in (("latitude", "lat"), ("longitude", "lon")):
            data[long].delncattr("units")
            data.renameVariable(long, short)
    found = forecasts.read([path], ["t2m"])
    assert (np.asarray(found.grid.y.values).tolist(), np.asarray(found.grid.x.values).tolist()) == (
        LAT.tolist(),
        LON.tolist(),
    )


def test_scattered_points_are_no_grid(tmp_path: Path) -> None:
    path = anemoi(tmp_path)[0]
    with netCDF4.Dataset(path, "a") as data:
        data["latitude"][5] = 12.0
    with pytest.raises(GridError, match="a list of 12 points"):
        forecasts.read([path], ["t2m"])


def analysis(path: Path) -> None:
    """A reanalysis from GRIB: a step of zero and a valid time that is the time."""
    coords = {"time": ("time", INITS, {"standard_name": "forecast_reference_time"}), "step": ((), 0 * HOUR), **SIDES}
    data = xr.Dataset({"t2m": (("time", "latitude", "longitude"), ALL[:, 0], K)}, coords=coords)
    data.assign_coords(valid_time=("time", INITS)).to_netcdf(path)


def counted(path: Path) -> None:
    """Observations with a counter that happens to be called step."""
    coords = {"time": INITS, "step": ("time", [1, 2, 3]), **SIDES}
    xr.Dataset({"t2m": (("time", "latitude", "longitude"), ALL[:, 0], K)}, coords=coords).to_netcdf(path)


def undated(path: Path) -> None:
    coords = {"forecast_reference_time": ((), 5), "time": INITS, **SIDES}
    xr.Dataset({"t2m": (("time", "latitude", "longitude"), ALL[:, 0], K)}, coords=coords).to_netcdf(path)


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (lambda p: weather_file(p, 8), TimeError, "has no init time; its times are time \\(time\\)"),
        (analysis, TimeError, "none of its frames is valid after its init time"),
        (counted, TimeError, "has no init time"),
        (undated, TimeError, "its init time forecast_reference_time is not a date"),
        (
            lambda p: video_file(p.with_suffix(".mp4"), 5).rename(p),
            DataError,
            "is video; fields with their coordinates are read from .*NetCDF, Zarr",
        ),
        (lambda p: p.write_bytes(b""), DataError, "empty"),
        (lambda p: np.savez(p.open("wb"), a=1), DataError, "f.nc"),
    ],
)
def test_what_is_no_forecast_is_refused_with_the_reason(
    make: Callable[[Path], Any], kind: type[PdrError], says: str
) -> None:
    path = Path("f.nc")
    make(path)
    with pytest.raises(kind, match=says):
        forecasts.read([path], ["t2m"])
