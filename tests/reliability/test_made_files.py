"""Files that nobody thought of, made by hypothesis: refused with 65, or read as xarray and h5py read them.

`make fuzz` takes the profile `fuzz`, which makes many more of them.
"""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdr_cli.data import formats
from pdr_cli.data import times as time_axis
from pdr_cli.data.series import Series, names, read_frames, side, units
from pdr_cli.errors import DataError
from tests.cli import pdr
from tests.data.formats.test_cf import findings

LONG = settings.get_current_profile_name() == "fuzz"
TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
UNITS = (
    *("hours since 2000-01-01", "days since 1900-01-01 06:00:00", "seconds since 1970-01-01T00:00:00Z"),
    *("minutes since 2000-01-01 00:00 +05:30", "months since 2000-01-01", "days since 0001-01-01", "hours", "K"),
)
CALENDARS = ("standard", "gregorian", "proleptic_gregorian", "noleap", "360_day", "julian", "none", "maya", None)
COUNTS = (range(5), [0], [], [0, 1, 2, 3], [3, 2, 1, 0], [0, 1, 1, 2], [0, 1, 5, 6], [0, 7, 3], [-4, -2, 0], [0.5, 1.5])


def some(few: int, many: int) -> settings:
    """So many examples, the same ones each time; many more and others under the profile `fuzz`."""
    return settings(
        max_examples=many if LONG else few,
        deadline=None,
        derandomize=not LONG,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@dataclasses.dataclass(frozen=True)
class Made:
    """A file of fields to be written: its axes, how values are stored, and in which order dimensions stand."""

    lat: np.ndarray
    lon: np.ndarray
    names: tuple[str, str]
    counts: Sequence[float]
    time_units: str
    calendar: str | None
    dtype: str
    packing: dict[str, Any]
    missing: str
    order: tuple[int, ...]
    further: int

    def write(self, path: Path, values: np.ndarray, **attrs: str) -> Path:
        """NetCDF-4 of a variable `v`, values [T, H, W] as they are stored; by no library's conventions but the given."""
        y, x = self.names
        dims = [("time", "level", y, x)[i] for i in self.order if i != 1 or self.further]
        with netCDF4.Dataset(path, "w") as out:
            for name, size in (("time", len(self.counts)), (y, len(self.lat)), (x, len(self.lon))):
                out.createDimension(name, size)
            if self.further:
                out.createDimension("level", self.further)
            time = out.createVariable("time", "f8", ("time",))
            time.units = self.time_units
            if self.calendar is not None:
                time.calendar = self.calendar
            time[:] = list(self.counts)
            if y != "row":  # rows and columns have no coordinates
                for name, along in ((y, self.lat), (x, self.lon)):
                    out.createVariable(name, "f8", (name,))[:] = along
            fill = self.packing.get("_FillValue")
            variable = out.createVariable("v", self.dtype, dims, fill_value=fill)
            variable.set_auto_maskandscale(False)
            variable.setncatts({k: v for k, v in self.packing.items() if k != "_FillValue"} | attrs)
            whole = np.repeat(values[:, None], max(self.further, 1), axis=1)
            kept = [i for i in self.order if i != 1 or self.further]
            whole = whole if self.further else whole[:, 0]
            variable[...] = np.transpose(whole, kept if self.further else [[0, None, 1, 2][i] for i in kept])
        return path


def sides(draw: st.DrawFn, longitude: bool) -> np.ndarray:
    """Coordinates along a side: ascending or descending, evenly spaced or not, longitudes across the turn of a globe too."""
    size, step = draw(st.integers(1, 9)), draw(st.sampled_from([0.1, 1.0, 2.5, 40.0]))
    values = draw(st.sampled_from([-180.0, -20.0, 0.0, 200.0])) + step * np.arange(size)
    if draw(st.booleans()):
        values = values + np.sort(draw(st.sampled_from([0, 0.3])) * step * np.sin(np.arange(size)))
    if longitude and draw(st.booleans()):
        values = (values + 180) % 360 - 180
    return values[::-1].copy() if draw(st.booleans()) else values


@st.composite
def made(draw: st.DrawFn) -> Made:
    dtype = draw(st.sampled_from(TYPES))
    packing: dict[str, Any] = draw(
        st.sampled_from([{}, {"scale_factor": 0.5, "add_offset": 3.0}, {"scale_factor": 2.0}])
    )
    kind = np.dtype(dtype)
    marks: list[dict[str, Any]] = [{}, {"_FillValue": kind.type(7)}, {"missing_value": kind.type(7)}]
    if kind.kind == "f":
        marks.append({"_FillValue": kind.type(np.nan)})
    return Made(
        lat=sides(draw, longitude=False),
        lon=sides(draw, longitude=True),
        names=draw(st.sampled_from([("lat", "lon"), ("latitude", "longitude"), ("y", "x"), ("row", "spalte")])),
        counts=draw(st.sampled_from(COUNTS)),
        time_units=draw(st.sampled_from(UNITS)),
        calendar=draw(st.sampled_from(CALENDARS)),
        dtype=dtype,
        packing=packing | draw(st.sampled_from(marks)),
        missing="",
        order=draw(st.permutations(range(4)).map(tuple)),
        further=draw(st.sampled_from([0, 0, 1, 2])),
    )


def opened(path: Path) -> Series | None:
    """The one series of a file, or None where it is refused as bad data by its name."""
    refusal = ""
    try:
        return formats.open_series([path])[0]
    except DataError as error:
        refusal = str(error)
    assert str(path) in refusal
    return None


def new(folder: Path) -> Path:
    """An empty folder: what an example before has opened stays open for as long as anything refers to it."""
    return Path(tempfile.mkdtemp(dir=folder))


@some(120, 4000)
@given(made(), st.integers(0, 2**32 - 1))
def test_a_made_file_is_refused_or_read_as_xarray_does(tmp_path: Path, one: Made, seed: int) -> None:
    shape = (len(one.counts), len(one.lat), len(one.lon))
    values = np.random.default_rng(seed).integers(0, 20, shape).astype(one.dtype)
    path = one.write(new(tmp_path) / "made.nc", values, units="K")
    series = opened(path)
    if series is None:
        return
    months = one.time_units.startswith("months")  # which xarray does not read
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with xr.open_dataset(path, decode_timedelta=False, decode_times=not months) as data:
            given = data.load()
    # Dimensions that no name and no attribute tells apart are taken as they stand in the file.
    space = [d for d in given.v.dims if d in one.names] if one.names[0] == "row" else one.names
    ticks = np.asarray(one.counts, float) if months else time_axis.seconds(given.time.values)
    # Frames that are repeated unchanged are kept once.
    kept, order = np.unique(ticks, return_index=True)
    wanted = given.v.isel(time=order).squeeze([d for d in given.v.dims if d == "level"])
    found = time_axis.seconds(series.time.values)
    assert np.array_equal(np.argsort(found), np.arange(len(kept))) if months else np.array_equal(found, kept)
    assert (names(series), units(series)) == (["v"], ["K"])
    expected = np.asarray(wanted.transpose("time", *space).values, np.float32)
    assert np.array_equal(read_frames(series, 0, series.sizes["time"])[:, 0], expected, equal_nan=True)
    for dim, name in zip(("y", "x"), space, strict=True):
        along = side(series, dim)
        if name in given.coords:
            assert along is not None
            assert along.values.tobytes() == given[name].values.tobytes()


# -- through a model

GRID = (np.linspace(60, 60 - 2.5 * 12, 13), np.linspace(200, 200 + 2.5 * 14, 15))  # what `weather_run` was trained on


@st.composite
def nearly_right(draw: st.DrawFn) -> tuple[Made, dict[str, str]]:
    """A file of the grid that the model knows, in any order, with this or that wrong with it."""
    lat, lon = GRID
    lat = lat[::-1].copy() if draw(st.booleans()) else lat
    lon = draw(st.sampled_from([lon, (lon + 180) % 360 - 180, lon[::-1].copy(), lon + 1.25]))
    start = draw(st.sampled_from([0, -10000, 300000]))
    gone = draw(st.sampled_from([[], [], [], [3], [5, 6], range(5), range(12)]))
    kept = [start + 6 * n for n in range(12) if n not in gone]
    attrs = draw(st.sampled_from([{"units": "K"}, {"units": "kelvin"}, {"units": "degC"}, {"units": "Pa"}, {}]))
    further = draw(st.sampled_from([{}, {"standard_name": "air_temperature"}, {"long_name": "Temperatur, °"}]))
    return Made(
        lat,
        lon,
        draw(st.sampled_from([("lat", "lon"), ("latitude", "longitude"), ("y", "x")])),
        draw(st.sampled_from([kept, kept, kept[::-1], [*kept, *kept[-1:]]])),
        draw(st.sampled_from(["hours since 2000-01-01", "hours since 1900-01-01 06:00:00"])),
        draw(st.sampled_from(["standard", "proleptic_gregorian", "noleap", None])),
        draw(st.sampled_from(["f4", "f8"])),
        draw(st.sampled_from([{}, {"_FillValue": -999.0}])),
        draw(st.sampled_from(["", "", "", "a cell", "all"])),
        draw(st.permutations(range(4)).map(tuple)),
        draw(st.sampled_from([0, 0, 1])),
    ), attrs | further


@some(12, 400)
@given(nearly_right())
def test_what_predict_makes_of_a_made_file_is_cf_or_nothing(
    tmp_path: Path, weather_run: Path, one: tuple[Made, dict[str, str]]
) -> None:
    made, attrs = one
    values = 280 + 5 * np.sin(np.arange(len(made.counts) * 13 * 15) / 7).reshape(-1, 13, 15)
    values -= 273.15 * (attrs.get("units") == "degC")
    if made.missing and len(values):
        values[-1 if made.missing == "a cell" else slice(None), 3, 4] = made.packing.get("_FillValue", np.nan)
    path = made.write(new(tmp_path) / "made.nc", values, **attrs)
    result = pdr("predict", path, "-o", path.with_name("f.nc"), "-m", weather_run, "--var", "t2m=v")
    assert result.code in (0, 65), result.err
    assert (path.with_name("f.nc")).exists() == (result.code == 0)
    if result.code == 0:
        assert findings(path.with_name("f.nc")) == ""


# -- traffic

DATES = (b"20140101", b"20140102", b"20131231", b"20140229", b"20141301", b"00000000", b"2014-1-1", b"\xff\xfe", b"")


@st.composite
def traffic(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(0, 6))
    usual = draw(st.booleans())
    stamps = [
        (DATES[0] if usual else draw(st.sampled_from(DATES)))
        + (
            f"{n + 1:02d}".encode()
            if usual
            else draw(st.sampled_from([b"00", b"01", b"24", b"48", b"49", b"-1", b"xx", b""]))
        )
        for n in range(count)
    ]
    shape = (
        draw(st.sampled_from([count, count, count, count + 1])),
        draw(st.integers(0, 3)),
        draw(st.integers(1, 4)),
        3,
    )
    shape = draw(st.sampled_from([shape, shape, shape, shape[:3]]))
    data = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape) % 100
    found: dict[str, Any] = {"data": data.astype(draw(st.sampled_from([*TYPES, "f2", "S3", "?"])))}
    kind = draw(st.sampled_from(["S", "vlen", "int"]))
    if kind == "int" and all(s.isdigit() for s in stamps):
        found["date"] = np.array([int(s) for s in stamps], np.int64)
    elif kind == "vlen" and all(s.isascii() for s in stamps):
        found["date"] = np.array([s.decode() for s in stamps], dtype=object)
    else:
        found["date"] = np.array(stamps, dtype=f"S{max(map(len, stamps), default=1) or 1}")
    for name in draw(st.sampled_from([[], [], [], ["data"], ["date"]])):
        del found[name]
    return found | {
        "attrs": draw(st.sampled_from([{}, {}, {"slots_per_day": 24}, {"slots_per_day": 0}, {"slots_per_day": -1}]))
    }


@some(120, 4000)
@given(traffic())
def test_a_made_traffic_file_is_refused_or_read_as_its_dates_say(tmp_path: Path, one: dict[str, Any]) -> None:
    path = new(tmp_path) / "made.h5"
    with h5py.File(path, "w") as out:
        out.attrs.update(one["attrs"])
        for name in ("data", "date"):
            if name in one:
                kind = h5py.string_dtype() if one[name].dtype == object else None
                out.create_dataset(name, data=one[name], dtype=kind)
    series = opened(path)
    if series is None:
        return
    assert np.array_equal(read_frames(series, 0, len(one["date"])), one["data"].astype(np.float32))
    stamps = [s.decode() if isinstance(s, bytes) else str(s) for s in one["date"].tolist()]
    slots = [int(s[8:]) for s in stamps]
    per_day, base = series.attrs["file_attrs"]["slots_per_day"], series.attrs["file_attrs"]["first_slot"]
    for stamp, slot, time in zip(stamps, slots, series.time.values, strict=True):
        day = np.datetime64(f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}")
        assert time - day == np.timedelta64((slot - base) * 1440 // per_day, "m")
        assert 0 <= slot - base < per_day


def test_made_files_are_read_and_refused(tmp_path: Path) -> None:
    """Neither test above passes because all is refused: of some plain choices, each is read or refused as it must be."""
    plain = Made(
        np.arange(3.0), np.arange(4.0), ("lat", "lon"), range(5), UNITS[0], "standard", "f4", {}, "", (0, 1, 2, 3), 0
    )
    values = np.zeros((5, 3, 4), "f4")
    read = {
        c: opened(dataclasses.replace(plain, calendar=c).write(new(tmp_path) / "a.nc", values)) is not None
        for c in CALENDARS
    }
    assert [c for c, good in read.items() if not good] == ["none", "maya"]
    read = {
        u: opened(dataclasses.replace(plain, time_units=u).write(new(tmp_path) / "b.nc", values)) is not None
        for u in UNITS
    }
    assert [u for u, good in read.items() if not good] == ["hours", "K"]
