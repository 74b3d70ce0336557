"""One field, and the many legal ways in which files hold it: drawn by hypothesis, written by `Way.write`."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import xarray as xr
from hypothesis import strategies as st

from tests import builders

LEAD = 6.0  # hours, of files whose frames are forecasts
SCALE = 0.002  # of packed numbers, in units of the file
# Of each quantity {unit as files spell it: (factor, offset)}: value in the truth's unit = factor · value + offset.
UNITS: dict[str, dict[str, tuple[float, float]]] = {
    "K": {"K": (1, 0), "kelvin": (1, 0), "Kelvin": (1, 0), "degC": (1, 273.15), "deg_C": (1, 273.15), "°C": (1, 273.15),
          "celsius": (1, 273.15), "℃": (1, 273.15), "degrees Celsius": (1, 273.15),
          "degF": (5 / 9, 273.15 - 32 * 5 / 9), "C": (1, 273.15)},
    "mm": {"mm": (1, 0), "m": (1000, 0), "kg m-2": (1, 0), "kg/m2": (1, 0), "kg m**-2": (1, 0), "cm": (10, 0),
           "m of water equivalent": (1000, 0), "millimeters": (1, 0)},
    "Pa": {"Pa": (1, 0), "hPa": (100, 0), "mbar": (100, 0), "millibars": (100, 0), "kPa": (1000, 0), "pascal": (1, 0)},
}  # fmt: skip
STANDARD_NAMES = {"K": "air_temperature", "mm": "precipitation_amount", "Pa": "surface_air_pressure"}
# How times are counted: type in the file, units, and seconds of the unit; "": not by numbers since a date.
STAMPS: dict[str, tuple[str, str, float]] = {
    "hours": ("i4", "hours since 1970-01-01", 3600),
    "hours of 1900": ("f8", "hours since 1900-01-01 00:00:0.0", 3600),
    "seconds": ("i8", "seconds since 1970-01-01T00:00:00Z", 1),
    "float seconds": ("f8", "seconds since 2000-01-01 12:00:00", 1),
    "days": ("f8", "days since 1850-01-01", 86400),
    "single days": ("f4", "days since 2019-01-01", 86400),
    "far single days": ("f4", "days since 1900-01-01 00:00", 86400),
    "minutes": ("i4", "minutes since 2000-01-01 00:00:00 +00:00", 60),
    "zone": ("i4", "hours since 2000-01-01 05:30:00 +05:30", 3600),
    "Hours": ("f8", "Hours since 1970-1-1", 3600),
    "h": ("i4", "h since 2000-01-01 00:00:00", 3600),
    "day": ("f8", "day since 2000-01-01 00:00:00 UTC", 86400),
    "negative": ("f8", "days since 2100-01-01", 86400),
    "year one": ("f8", "days since 1-1-1 00:00:00", 86400),
    "milliseconds": ("f8", "milliseconds since 2000-01-01", 1e-3),
    "packed": ("i2", "hours since 2019-12-01", 3600),
    "absolute": ("f8", "day as %Y%m%d.%f", 0),
    "text": ("S", "", 0),
    "text of ISO": ("S", "", 0),
}
NUMBERED = [n for n, (_, _, seconds) in STAMPS.items() if seconds]
# Names of (y, x) on each kind of grid; None: no coordinates of this name are written.
NAMES: dict[str, list[tuple[str, str]]] = {
    "sphere": [("lat", "lon"), ("latitude", "longitude"), ("Latitude", "Longitude"), ("y", "x"), ("nlat", "nlon"),
               ("LAT", "LON"), ("g0_lat_1", "g0_lon_2")],
    "plane": [("y", "x"), ("Y", "X"), ("northing", "easting"), ("projection_y_coordinate", "projection_x_coordinate")],
    "rotated": [("rlat", "rlon"), ("grid_latitude", "grid_longitude"), ("y", "x")],
    "mesh": [("j", "i"), ("y", "x"), ("nj", "ni"), ("south_north", "west_east"), ("eta_rho", "xi_rho")],
}  # fmt: skip
DEGREES = {"lat": ["degrees_north", "degree_north", "degrees_N", "degreesN"],
           "lon": ["degrees_east", "degree_east", "degrees_E", "degreesE"]}  # fmt: skip
CLASSIC = ("NETCDF3_CLASSIC", "NETCDF3_64BIT")
NETCDF = (*CLASSIC, "NETCDF4", "NETCDF4_CLASSIC", "group")
ZARR = ("zarr 2", "zarr 2 plain", "zarr 3", "zarr 3 plain", "zarr 2 zero")
KINDS = (NETCDF, NETCDF, ZARR, ("gzip",))  # formats that files of one field have in common
EXTRAS = ("mask", "texts", "other grid", "flags", "counter", "dates", "number", "bools", "later")
SCALARS: dict[str, tuple[float, dict[str, Any]]] = {
    "height": (2.0, {"standard_name": "height", "units": "m", "positive": "up", "axis": "Z"}),
    "realization": (1, {"standard_name": "realization", "units": "1"}),
    "number": (0, {"standard_name": "realization", "long_name": "ensemble member numerical id", "units": "1"}),
    "surface": (0.0, {"long_name": "original GRIB coordinate for key: level(surface)", "units": "1"}),
    "step": (0.0, {"long_name": "time since forecast_reference_time", "standard_name": "forecast_period", "units": "hours"}),
}  # fmt: skip


@dataclass(frozen=True)
class Truth:
    """A field as all of its files mean it.

    Args:
        grid: "region", "globe", "plane", "rotated" or "mesh".
        unit: of the values: K, mm or Pa.
        steps: number of frames, six hours apart.
        calendar: of the times.
        gaps: whether some values are missing.
        shift: of the grid to the east, in cells.
        meridian: central one of the projection of a plane.
        pressure: of the level, hPa.
        member: number of the ensemble member.
    """

    grid: str
    unit: str = "K"
    steps: int = 8
    calendar: str = "standard"
    gaps: bool = False
    shift: float = 0.0
    meridian: float = 15.0
    pressure: float = 850.0
    member: int = 1

    @property
    def kind(self) -> str:
        """Of the grid: "sphere" for latitudes and longitudes along the axes."""
        return "sphere" if self.grid in ("region", "globe") else self.grid

    @cached_property
    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates along y and x."""
        y, x = {
            "region": (np.linspace(60, 30, 13), np.linspace(200, 235, 15)),
            "globe": (np.linspace(-80, 80, 9), 30.0 * np.arange(12)),
            "plane": (5e6 - 5e3 * np.arange(7), 3e5 + 5e3 * np.arange(9)),
            "rotated": (np.linspace(-5, 5, 6), np.linspace(-9, 5, 8)),
            "mesh": (np.arange(7.0), np.arange(9.0)),
        }[self.grid]
        return y, x + self.shift * (x[1] - x[0])

    @cached_property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Latitude and longitude of each cell of a mesh or a rotated grid: [H, W]."""
        j, i = np.meshgrid(*self.sides, indexing="ij")
        return 60 + 0.5 * j + 0.1 * np.sin(i), (-8 + 0.8 * i + 0.2 * j) % 360

    @cached_property
    def values(self) -> np.ndarray:
        """[T, H, W] in `unit`, float64; NaN in a cell, and in one frame of another, if there are gaps."""
        height, width = (len(s) for s in self.sides)
        made = builders.field(self.steps, height, width).astype(float)
        found = {"K": made, "mm": np.clip(made - 280, 0, None), "Pa": 1e5 + 100 * (made - 280)}[self.unit]
        if self.gaps:
            found[:, 1, 2] = found[-1, 2, 3] = np.nan
        return found

    @cached_property
    def times(self) -> np.ndarray:
        """Dates of cftime: [T]."""
        count = 6.0 * np.arange(self.steps)
        return np.asarray(
            cftime.num2date(count, "hours since 2020-02-27", self.calendar, only_use_cftime_datetimes=True)
        )


@dataclass(frozen=True)
class Way:
    """How one file holds its frames.

    Args:
        variable: name of the variable.
        names: of its dimensions along y and x.
        order: of the dimensions: 0 time, 1 y, 2 x, 3 a level.
        flip: whether rows and columns are in the opposite order.
        turn: columns to roll by, of a globe.
        east: lowest longitude: 0, -180, or that of the truth (None).
        repeated: whether the first column follows the last one again, of a globe.
        unit: of the values, by its spelling; "": left out where that is the truth's.
        coordinates: type of the coordinates along y and x: f4, f8 or "packed".
        kilometres: whether lengths are in km.
        marks: how the coordinates say what they are: "units", "standard_name", "both" or "axis".
        stored: type of the values, "packed" or "unsigned" for scaled bytes of two and one.
        missing: attribute that names the missing value, or "nan".
        stamp: how times are counted, see `STAMPS`.
        times: which variable holds the valid times, see `_time`.
        level: dimension of length 1, or "".
        mapping: name of the grid mapping in its "short" or "long" form, or a "coordinate"; "": none.
        listed: the attribute `coordinates`: "", "all" or "absent".
        bounds: whether coordinates have bounds.
        scalars: scalar coordinates besides.
        extras: variables besides.
        ranged: whether the values have a valid range.
        container: NetCDF or Zarr, in which version.
    """

    variable: str = "t2m"
    names: tuple[str, str] = ("lat", "lon")
    order: tuple[int, ...] = (0, 3, 1, 2)
    flip: tuple[bool, bool] = (False, False)
    turn: int = 0
    east: int | None = None
    repeated: bool = False
    unit: str = "K"
    coordinates: str = "f8"
    kilometres: bool = False
    marks: str = "both"
    stored: str = "f4"
    missing: str = "nan"
    stamp: str = "hours"
    calendar: str = "standard"
    times: str = "own"
    level: str = ""
    mapping: str = ""
    listed: str = ""
    bounds: bool = False
    scalars: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    ranged: bool = False
    container: str = "NETCDF4"

    @property
    def suffix(self) -> str:
        """Of the file."""
        return {"gzip": ".nc.gz"}.get(self.container, ".zarr" if self.container in ZARR else ".nc")


@dataclass
class Written:
    """Files that hold one field.

    Args:
        paths: in the order in which they are passed on.
        way: of the file with the first frames, whose convention is that of the whole.
        error: largest error of packing and rounding, in the truth's unit.
    """

    paths: list[Path]
    way: Way
    error: float


def _error(truth: Truth, way: Way) -> float:
    """Largest difference between the truth and what a file can hold."""
    factor, _ = UNITS[truth.unit][way.unit or truth.unit]
    rounding = 4e-7 * np.nanmax(np.abs(truth.values)) + (4e-5 if truth.unit == "K" else 0)
    step = {"packed": _packing(truth, way, 65000)[0], "unsigned": _packing(truth, way, 250)[0]}.get(way.stored, 0.0)
    return float(rounding + 0.51 * abs(factor) * step)


def _packing(truth: Truth, way: Way, levels: int) -> tuple[float, float]:
    """Scale and offset of packed numbers."""
    factor, offset = UNITS[truth.unit][way.unit or truth.unit]
    found = (truth.values - offset) / factor
    low, high = float(np.nanmin(found)), float(np.nanmax(found))
    return (high - low) / levels, (high + low) / 2


def as_dataset(truth: Truth, way: Way, steps: slice) -> xr.Dataset:
    """The frames of a file, undecoded: numbers and attributes as they are to be stored."""
    y, x = way.names
    values = orient(truth, way, truth.values[steps])
    coords = _sides(truth, way) | _places(truth, way)
    dims, stamps = _time(way, truth.times[steps])
    if way.level:
        coords[way.level] = (
            (way.level,),
            np.array([truth.pressure]),
            {"units": "hPa", "positive": "down", "standard_name": "air_pressure"},
        )
    held = {0: dims[0] if dims else "", 1: y, 2: x, 3: way.level}
    order = [i for i in way.order if held[i]]
    inner = [i for i in (0, 1, 2) if held[i]]
    values = values if dims else values[0]  # of the only frame
    array = xr.DataArray(values, dims=[held[i] for i in inner])
    array = array.expand_dims([*filter(None, [way.level]), *dims[1:]]).transpose(*dims[1:], *(held[i] for i in order))
    numbers, attrs = _stored(truth, way, array.values)
    attrs |= _attributes(truth, way, [*coords, *stamps, *way.scalars])
    every = {way.variable: (array.dims, numbers, attrs)} | stamps | coords | _besides(truth, way, dims)
    data = xr.Dataset(every)
    return data.set_coords([n for n in (*coords, *stamps, *way.scalars) if n in data.data_vars])


def orient(truth: Truth, way: Way, values: np.ndarray) -> np.ndarray:
    """Frames [..., H, W] of the truth in the order of the file."""
    values = np.roll(values, way.turn, axis=-1)
    values = np.concatenate([values, values[..., :1]], axis=-1) if way.repeated else values
    values = values[..., ::-1, :] if way.flip[0] else values
    return values[..., ::-1] if way.flip[1] else values


def along(truth: Truth, way: Way) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along y and x as the file has them."""
    y, x = truth.sides
    if truth.kind == "sphere":
        x = np.roll(x, way.turn)
        x = x if way.east is None else (x - way.east) % 360 + way.east
        if way.repeated:
            x = np.append(x, x[0] + 360)
    scale = 1e-3 if way.kilometres else 1
    return (y[::-1] if way.flip[0] else y) * scale, (x[::-1] if way.flip[1] else x) * scale


def _sides(truth: Truth, way: Way) -> dict[str, Any]:
    """Coordinates along y and x."""
    if truth.kind == "mesh" and way.marks != "both":
        return {}
    found = {}
    for number, (name, values) in enumerate(zip(way.names, along(truth, way), strict=True)):
        attrs = _axis(truth, way, number)
        found[name] = ((name,), *_coordinate(values, way, attrs))
        if way.bounds and truth.kind != "mesh" and way.coordinates != "packed":
            half = np.gradient(values) / 2
            attrs["bounds"] = f"{name}_bnds"
            found[f"{name}_bnds"] = ((name, "bnds"), np.stack([values - half, values + half], axis=1), {})
    return found


def _coordinate(values: np.ndarray, way: Way, attrs: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """Values of a coordinate as they are stored, and their attributes."""
    if way.coordinates != "packed":
        return values.astype(way.coordinates), attrs
    step = float(np.abs(np.diff(values)).min()) / 200
    start = float(values.min())
    attrs |= {"scale_factor": step, "add_offset": start}
    return np.round((values - start) / step).astype("i2" if np.ptp(values) / step < 32000 else "i4"), attrs


def _axis(truth: Truth, way: Way, number: int) -> dict[str, Any]:
    """Attributes of the coordinate along y (0) or x (1)."""
    letter = "YX"[number]
    unit, standard = {
        "sphere": (DEGREES[("lat", "lon")[number]][len(way.variable) % 4], ("latitude", "longitude")[number]),
        "plane": ("km" if way.kilometres else "m", f"projection_{letter.lower()}_coordinate"),
        "rotated": ("degrees", ("grid_latitude", "grid_longitude")[number]),
        "mesh": ("1", ""),
    }[truth.kind]
    found = {"units": unit, "standard_name": standard, "axis": letter, "long_name": f"axis {letter}"}
    kept = {
        "units": ("units",),
        "standard_name": ("units", "standard_name"),
        "axis": ("units", "axis"),
        "both": tuple(found),
    }
    return {k: v for k, v in found.items() if k in kept[way.marks] and v}


def _places(truth: Truth, way: Way) -> dict[str, Any]:
    """Latitude and longitude of each cell, of a mesh, and of a rotated grid that lists them."""
    if truth.kind not in ("mesh", "rotated") or (truth.kind == "rotated" and way.listed != "all"):
        return {}
    lat, lon = (orient(truth, way, p) for p in truth.places)
    lon = lon if way.east is None else (lon - way.east) % 360 + way.east
    names = {"nj": ("TLAT", "TLON"), "south_north": ("XLAT", "XLONG"), "eta_rho": ("lat_rho", "lon_rho")}.get(
        way.names[0], ("nav_lat", "nav_lon") if way.flip[0] else ("latitude", "longitude")
    )
    attrs = ({"units": "degrees_north"}, {"units": "degrees_east"})
    if way.marks != "units":
        attrs = (attrs[0] | {"standard_name": "latitude"}, attrs[1] | {"standard_name": "longitude"})
    kind = "f4" if way.coordinates == "f4" else "f8"
    return {n: (way.names, v.astype(kind), a) for n, v, a in zip(names, (lat, lon), attrs, strict=True)}


def _stamps(way: Way, times: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Times as they are stored, and the attributes by which they are read."""
    kind, unit, _ = STAMPS[way.stamp]
    calendar = {"calendar": way.calendar} if way.calendar else {}
    if kind == "S":
        form = "%Y-%m-%d_%H:%M:%S" if way.stamp == "text" else "%Y-%m-%dT%H:%M:%SZ"
        return np.array([t.strftime(form).encode() for t in times]), {}
    if way.stamp == "absolute":
        numbers = [float(t.strftime("%Y%m%d")) + t.hour / 24 for t in times]
        return np.array(numbers), {"units": unit, "calendar": "proleptic_gregorian"}
    plain = unit.replace("05:30:00 +05:30", "00:00:00")
    numbers = cftime.date2num(times, plain.lower(), calendar=times[0].calendar)
    if way.stamp == "packed":
        return np.round(np.asarray(numbers) / 3).astype("i2"), {"units": unit, "scale_factor": 3.0} | calendar
    exact = np.round(numbers).astype(kind) if kind[0] == "i" else np.asarray(numbers, kind)
    return exact, {"units": unit} | calendar


def _time(way: Way, times: np.ndarray) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Dimensions of the times, (), and the variables that hold them.

    own: along the dimension of their name; other: along another one; valid: as the new archive of ERA5 has it; scalar: of the
    only frame; cfgrib: the init along `time`, and `valid_time`; message: the same of
    one frame, with a scalar `valid_time`; step: the same with a dimension of one lead; lead: the init
    and the lead of each frame; sent: valid times, and the init as a scalar.
    """
    import datetime

    values, attrs = _stamps(way, times)
    early, early_attrs = _stamps(way, times - datetime.timedelta(hours=LEAD))
    mark = {"standard_name": "time", "long_name": "time"}
    began = {"standard_name": "forecast_reference_time", "long_name": "initial time of forecast"}
    lead = {"standard_name": "forecast_period", "units": "hours", "long_name": "lead"}
    if way.times == "scalar":
        return (), {"time": ((), values[0], attrs | mark)}
    if way.times == "other":
        return ("t",), {"ocean_time": (("t",), values, attrs | mark)}
    if way.times == "valid":
        return ("valid_time",), {"valid_time": (("valid_time",), values, attrs | mark)}
    ours = {"time": (("time",), early, early_attrs | began), "step": ((), np.float64(LEAD), lead)}
    if way.times == "cfgrib":
        return ("time",), ours | {"valid_time": (("time",), values, attrs | mark)}
    if way.times == "message":
        began = {"time": (("time",), early, early_attrs)}
        return ("time",), ours | began | {"valid_time": ((), values[0], attrs | mark)}
    if way.times == "step":
        valid = (("time", "step"), values[:, None], attrs | mark)
        return ("time", "step"), ours | {"step": (("step",), np.array([LEAD]), lead), "valid_time": valid}
    if way.times == "lead":
        ours.pop("step")
        return ("time",), ours | {"leadtime": (("time",), np.full(len(times), LEAD), lead)}
    if way.times == "sent":
        ours = {"forecast_reference_time": ((), early[0], early_attrs | {"standard_name": "forecast_reference_time"})}
        return ("time",), ours | {"time": (("time",), values, attrs | mark)}
    if way.bounds and way.stamp in NUMBERED and way.stamp != "packed":
        both = np.stack([early, values], axis=1)
        return ("time",), {
            "time": (("time",), values, attrs | mark | {"bounds": "time_bnds"}),
            "time_bnds": (("time", "bnds"), both, {}),
        }
    return ("time",), {"time": (("time",), values, attrs | ({} if way.marks == "units" else mark))}


def _stored(truth: Truth, way: Way, values: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Values in the unit and type of the file."""
    factor, offset = UNITS[truth.unit][way.unit or truth.unit]
    values = (values - offset) / factor
    absent = ~np.isfinite(values)
    if way.stored in ("f4", "f8"):
        mark = {"nan": np.nan, "_FillValue": 1e20, "missing_value": -9999.0, "both": -32767.0}[way.missing]
        attrs = {} if way.missing == "nan" else {n: np.array(mark, way.stored)[()] for n in _marks(way)}
        return np.where(absent, mark, values).astype(way.stored), attrs
    levels, kind, mark = {"packed": (65000, "i2", -32768), "unsigned": (250, "u1", 255)}[way.stored]
    scale, middle = _packing(truth, way, levels)
    middle -= 125 * scale if way.stored == "unsigned" else 0
    numbers = np.where(absent, mark, np.round((np.where(absent, middle, values) - middle) / scale)).astype("i4")
    attrs = {"scale_factor": scale, "add_offset": middle} | {n: np.array(mark, kind)[()] for n in _marks(way)}
    if way.stored == "unsigned" and way.container in (*CLASSIC, "NETCDF4_CLASSIC"):
        attrs |= {"_Unsigned": "true"} | {n: np.array(mark, kind).astype("i1")[()] for n in _marks(way)}
        return numbers.astype("u1").astype("i1"), attrs
    return numbers.astype(kind), attrs


def _marks(way: Way) -> list[str]:
    return (
        ["_FillValue", "missing_value"]
        if way.missing == "both"
        else [{"nan": "_FillValue"}.get(way.missing, way.missing)]
    )


def _attributes(truth: Truth, way: Way, named: list[str]) -> dict[str, Any]:
    """Attributes of the variable besides those of its storage."""
    found: dict[str, Any] = {"standard_name": STANDARD_NAMES[truth.unit], "long_name": "température"}
    if way.unit:
        found["units"] = way.unit
    if way.mapping:
        y, x = way.names
        found["grid_mapping"] = f"crs: {y} {x}" if way.mapping == "long" else "crs"
    if way.ranged and way.stored in ("f4", "f8"):
        factor, offset = UNITS[truth.unit][way.unit or truth.unit]
        found["valid_range"] = ((np.array([-1e3, 2e5]) - offset) / factor).astype(way.stored)
    listed = {
        "": "",
        "all": " ".join(n for n in named if n not in way.names),
        "absent": " ".join(["lon lat height_above", *way.scalars]),
    }[way.listed]
    if truth.kind == "mesh" and not listed:
        listed = " ".join(n for n in named if n not in way.names and "bnds" not in n)
    return found | ({"coordinates": " ".join(n for n in listed.split() if "bnds" not in n)} if listed else {})


def _besides(truth: Truth, way: Way, dims: tuple[str, ...]) -> dict[str, Any]:
    """Variables that are not the field."""
    y, x = way.names
    height, width = (len(s) for s in along(truth, way))
    grid = np.ones((height, width))
    mapping = {
        "plane": {
            "grid_mapping_name": "transverse_mercator",
            "longitude_of_central_meridian": truth.meridian,
            "false_easting": 5e5,
        },
        "rotated": {
            "grid_mapping_name": "rotated_latitude_longitude",
            "grid_north_pole_latitude": 39.25,
            "grid_north_pole_longitude": -162.0,
        },
    }.get(truth.kind, {"grid_mapping_name": "latitude_longitude", "earth_radius": 6371229.0})
    every: dict[str, Any] = {
        "mask": ((y, x), grid.astype("i1"), {"standard_name": "land_binary_mask"}),
        "texts": (("station",), np.array([b"Berlin", b"Paris"]), {}),
        "other grid": (("lat_v", "lon_u"), np.zeros((3, 4)), {"units": "m"}),
        "flags": ((y, x), grid.astype("i2"), {"flag_values": np.array([1, 2], "i2"), "flag_meanings": "good bad"}),
        "counter": ((), np.int32(3), {}),
        "bools": ((y, x), grid.astype("i1"), {"dtype": "bool"}),
        "number": ((), np.float64(2.5), {"units": "hours"}),
    }  # fmt: skip
    found = {f"extra_{n.replace(' ', '_')}": every[n] for n in way.extras if n in every}
    scalars = [n for n in way.scalars if n != "step" or way.times in ("own", "other", "valid", "scalar")]
    given = {"realization": truth.member}
    found |= {n: ((), np.asarray(given.get(n, SCALARS[n][0])), SCALARS[n][1]) for n in scalars}
    return found | ({"crs": ((), np.int32(0), mapping)} if way.mapping else {})


def _store(data: xr.Dataset, way: Way, path: Path) -> Path:
    """Write an undecoded dataset."""
    for variable in data.variables.values():
        variable.encoding = {} if "_FillValue" in variable.attrs else {"_FillValue": None}
        if "coordinates" in variable.attrs:
            variable.encoding["coordinates"] = variable.attrs.pop("coordinates")
    if way.container in ZARR:
        return _store_zarr(data, way, path)
    group = "observed/Grid" if way.container == "group" else None
    plain = path.with_suffix("") if way.container == "gzip" else path
    form: Any = way.container if way.container.startswith("NETCDF") else "NETCDF4"
    data.to_netcdf(plain, format=form, group=group, engine="netcdf4")
    if way.container == "gzip":
        path.write_bytes(gzip.compress(plain.read_bytes(), 1))
        plain.unlink()
    return path


def _store_zarr(data: xr.Dataset, way: Way, path: Path) -> Path:
    import json

    shutil.rmtree(path, ignore_errors=True)
    version: Any = int(way.container.split()[1])
    data.to_zarr(path, zarr_format=version, consolidated="plain" not in way.container and "zero" not in way.container)
    if way.container == "zarr 2 zero":
        about = path / way.variable / ".zarray"
        described = json.loads(about.read_text())
        if described["fill_value"] is None and way.stored in ("f4", "f8"):
            about.write_text(json.dumps(described | {"fill_value": 0}))
    return path


@st.composite
def ways(draw: st.DrawFn, truth: Truth, containers: Sequence[str], variable: str, frames: int) -> Way:
    """A way to write a file of so many frames."""

    def one(*choices: Any) -> Any:
        return draw(st.sampled_from(choices))

    container = one(*containers)
    globe, sphere = truth.grid == "globe", truth.kind == "sphere"
    missing = one("nan", "_FillValue", "missing_value", "both")
    stamp = one(*(STAMPS if truth.calendar == "standard" else NUMBERED))
    calendars = (
        ("standard", "gregorian", "proleptic_gregorian", "", "Gregorian")
        if truth.calendar == "standard"
        else (truth.calendar,)
    )
    if stamp == "year one":
        calendars = ("standard", "gregorian", "") if truth.calendar == "standard" else calendars
    single = ["scalar", "message"] if frames == 1 else []
    times = [*single, "own", "own", "valid", "other", "cfgrib", "step", "lead", "sent"]
    names = one(*NAMES[truth.kind])
    return Way(
        variable=variable,
        names=names,
        order=_ordered(draw(st.permutations(range(4))), truth, names[0] == "j"),
        flip=(draw(st.booleans()), draw(st.booleans())),
        turn=draw(st.integers(0, 11)) if globe else 0,
        east=one(None, 0, -180) if sphere or truth.kind == "mesh" else None,
        repeated=globe and draw(st.booleans()),
        unit=one(*UNITS[truth.unit]),
        coordinates=one("f8", "f4", "packed"),
        kilometres=truth.kind == "plane" and draw(st.booleans()),
        marks=one("both", "units", "standard_name", "axis"),
        stored=one("f4", "f8", "packed", "unsigned"),
        missing=missing,
        stamp=stamp,
        calendar=one(*calendars),
        times=one(*times),
        level=one("", "", "level", "plev"),
        mapping=one("", "short", "long"),
        listed=one("", "all", "absent"),
        bounds=draw(st.booleans()),
        scalars=tuple(draw(st.sets(st.sampled_from(list(SCALARS)), max_size=2))),
        extras=tuple(draw(st.sets(st.sampled_from(EXTRAS), max_size=3))),
        ranged=draw(st.booleans()),
        container=container,
    )


def _ordered(order: Sequence[int], truth: Truth, nameless: bool) -> tuple[int, ...]:
    """An order of dimensions; rows of a mesh stand before its columns where nothing else tells them apart."""
    if truth.kind == "mesh" and nameless and order.index(2) < order.index(1):
        order = [{1: 2, 2: 1}.get(i, i) for i in order]
    return tuple(order)


@dataclass(frozen=True)
class Plan:
    """How a whole field is written: in which files, and each file in which way."""

    ways: tuple[Way, ...]
    cuts: tuple[tuple[int, int], ...]
    order: tuple[int, ...]

    def write(self, truth: Truth, folder: Path, last: Truth | None = None) -> Written:
        """Write the frames of each cut in its way; those of the last file are of another truth, if there is one."""
        folder.mkdir(parents=True)
        held = [truth] * (len(self.ways) - 1) + [last or truth]
        paths = [folder / f"{n:03d}{way.suffix}" for n, way in zip(self.order, self.ways, strict=True)]
        for one, way, cut, path in zip(held, self.ways, self.cuts, paths, strict=True):
            _store(as_dataset(one, way, slice(*cut)), way, path)
        return Written([paths[i] for i in np.argsort(self.order)], self.ways[0], max(map(_error, held, self.ways)))


@st.composite
def plans(draw: st.DrawFn, truth: Truth, variable: str = "t2m", kinds: Sequence[Sequence[str]] = KINDS) -> Plan:
    """One file, several that follow each other or overlap, or one a frame; each in its own way or all alike."""
    count = draw(st.sampled_from([1, 1, 1, 2, 2, 3, truth.steps]))
    edges = np.linspace(0, truth.steps, count + 1).round().astype(int)
    cuts = [(int(a), int(b)) for a, b in itertools.pairwise(edges)]
    containers = draw(st.sampled_from(kinds))
    first = draw(ways(truth, containers, variable, cuts[0][1] - cuts[0][0]))
    alike = draw(st.booleans())
    found = [first]
    for start, stop in cuts[1:]:
        other = first if alike or count == truth.steps else draw(ways(truth, containers, variable, stop - start))
        found.append(dataclasses.replace(other, level=first.level, scalars=first.scalars))
    if count in (2, 3) and draw(st.booleans()) and all(w.stored == "f8" and w.unit == "K" for w in found):
        cuts[1] = (cuts[1][0] - 1, cuts[1][1])  # the second file begins with the last time of the first one
    return Plan(tuple(found), tuple(cuts), tuple(draw(st.permutations(range(count)))))


truths = st.builds(
    Truth,
    grid=st.sampled_from(["region", "globe", "plane", "rotated", "mesh"]),
    unit=st.sampled_from(list(UNITS)),
    calendar=st.sampled_from(["standard", "standard", "noleap", "360_day", "julian"]),
    gaps=st.booleans(),
)
