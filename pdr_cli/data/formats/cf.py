"""The layout of forecast files by CF-1.11: dimensions, coordinates, variables and attributes, for NetCDF and Zarr alike.

A `Layout` describes a file without the numbers of its fields, so that a file larger than memory can be laid out first and
filled later, piece by piece and by several processes.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pdr_cli.data import times as time_axis
from pdr_cli.data.bounds import BOUNDED
from pdr_cli.data.grid import geographic, is_latitude, is_longitude, unwrapped
from pdr_cli.data.intervals import INTERVALS
from pdr_cli.data.series import MEMBERS, Series, names, places, side

FILL = np.float32(
    9.96921e36
)  # NetCDF's default fill value for floats, written explicitly for readers that do not know it
TIME_UNITS = "seconds since 1970-01-01 00:00:00"
COORDINATES = "pdr_coordinates_sha256"
TIME_LAYOUTS = ("cf", "wb2")
CHUNK_BYTES = 4 * 2**20  # of a variable; a chunk holds whole forecasts, at least one
# Attributes that describe the storage of the input's numbers, or name variables that a forecast does not have.
STORAGE_ATTRS = {"actual_range", "valid_range", "valid_min", "valid_max", "scale_factor", "add_offset", "missing_value",
                 "precision", "least_significant_digit", "coordinates", "grid_mapping", "cell_methods", "bounds",
                 "ancillary_variables", "cell_measures", "formula_terms", "climatology", "compress"}  # fmt: skip
TEMPERATURES = ("k", "degk", "kelvin", "degc", "celsius", "degree_celsius", "degrees_celsius")
DEGREES = {"latitude": "degrees_north", "longitude": "degrees_east"}
LEAD_UNITS = {"hours": 3600.0, "minutes": 60.0, "seconds": 1.0, "milliseconds": 1e-3, "microseconds": 1e-6}


@dataclass(frozen=True)
class Coordinate:
    """A variable whose numbers are written when a file is laid out."""

    name: str
    dims: tuple[str, ...]
    values: np.ndarray
    attrs: dict[str, Any]


@dataclass(frozen=True)
class Layout:
    """A file without the numbers of its fields.

    Attributes:
        sizes: of every dimension, by name.
        coordinates: variables with their numbers.
        dims: of every field; frames are written along the first.
        chunks: of every field, along `dims`.
        fields: attributes of each float32 field by its name in the file, in the order of the channels.
        attrs: global attributes.
        unlimited: the dimension that other programs may append to, or "".
    """

    sizes: dict[str, int]
    coordinates: list[Coordinate]
    dims: tuple[str, ...]
    chunks: tuple[int, ...]
    fields: dict[str, dict[str, Any]]
    attrs: dict[str, str]
    unlimited: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of every field."""
        return tuple(self.sizes[d] for d in self.dims)

    @property
    def nbytes(self) -> int:
        """Of all fields, uncompressed."""
        return 4 * len(self.fields) * math.prod(self.shape)


def forecast_layout(series: Series, provenance: Mapping[str, str]) -> Layout:
    """One forecast, or any other series: `time` is the valid time (CF 1.11, example 5.14).

    Args:
        series: dims (time, channel, y, x), of an ensemble after `realization`; with scalar coordinate
            `forecast_reference_time` and `forecast_period`(time) in hours if it is a forecast.
        provenance: global attributes: title, source, history and the pdr_* hashes.
    """
    coordinates = [*_members(series), *forecast_times(series)]
    return replace(_layout(series, coordinates, (1,) * (series.ndim - 3), provenance), unlimited="time")


def valid_time(times: np.ndarray) -> Coordinate:
    """The coordinate of valid times."""
    return Coordinate("time", ("time",), time_axis.seconds(times), _time_attributes(times) | {"axis": "T"})


def forecast_times(series: Series) -> list[Coordinate]:
    """The valid times of one forecast, its init time and its lead times; of any other series its times."""
    times = series.time.values
    if "forecast_reference_time" not in series.coords:
        return [valid_time(times)]
    began = Coordinate("forecast_reference_time", (), _seconds([init_of(series)])[0], _init_of(times))
    return [valid_time(times), began, _period(series, "time")]


def hindcast_layout(
    example: Series, inits: np.ndarray, provenance: Mapping[str, str], time_layout: str = "cf"
) -> Layout:
    """Forecasts from many init times.

    Args:
        example: the forecast from the first init time; its members, lead times and grid are those of all.
        inits: init times [n], of the type of the example's times.
        provenance: as for `forecast_layout`.
        time_layout: "cf": dims (forecast_reference_time, forecast_period, y, x) and the valid `time` along the first two;
            "wb2": as WeatherBench2, (time, prediction_timedelta, latitude, longitude), where `time` is the init time.
            The members of ensembles are the second dimension, `realization`.
    """
    leads = time_axis.seconds(example.time.values) - _seconds([init_of(example)])[0]
    members, chunks = _members(example), _chunks(example, len(inits))
    if time_layout == "wb2":
        began = Coordinate("time", ("time",), _seconds(inits), _init_of(inits))
        made = _layout(_renamed(example), [began, *members, _timedelta(leads)], chunks, provenance, cells=False)
        return replace(made, unlimited="time")
    name, lead = "forecast_reference_time", "forecast_period"
    began = Coordinate(name, (name,), _seconds(inits), _init_of(inits))
    valid = Coordinate("time", (name, lead), _seconds(inits)[:, None] + leads, _time_attributes(inits))
    coordinates = [began, *members, _period(example, lead), valid]
    return replace(_layout(example, coordinates, chunks, provenance), unlimited=name)


def coordinates_sha256(values: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the values of coordinates by name, independent of their type and order."""
    digest = hashlib.sha256()
    for name in sorted(values):
        digest.update(f"{name} {values[name].shape} ".encode())
        text = values[name].dtype.kind in "OSU"
        digest.update(
            "\n".join(values[name].ravel()).encode()
            if text
            else np.ascontiguousarray(values[name], np.float64).tobytes()
        )
    return digest.hexdigest()


def legal_name(name: str) -> str:
    """A variable name of letters, digits and underscores that begins with a letter, as CF asks: 2t becomes var_2t."""
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    return name if name[:1].isalpha() else f"var_{name}"


def init_of(forecast: Series) -> Any:
    """The init time of a forecast, of the type of its times."""
    value = forecast.coords["forecast_reference_time"].values
    return value.item() if value.dtype == object else value[()]


def _members(series: Series) -> list[Coordinate]:
    """The numbers of the members of an ensemble."""
    if MEMBERS not in series.dims:
        return []
    attrs = {"standard_name": "realization", "long_name": "member of the ensemble", "units": "1"}
    return [Coordinate(MEMBERS, (MEMBERS,), np.arange(series.sizes[MEMBERS], dtype=np.int32), attrs)]


def _chunks(example: Series, inits: int) -> tuple[int, ...]:
    """Chunks of a hindcast along its inits, members and lead times: whole forecasts, of a large ensemble some members."""
    leads = example.sizes["time"]
    forecast = 4 * leads * example.sizes["y"] * example.sizes["x"]
    members = example.sizes[MEMBERS] if MEMBERS in example.dims else 1
    along = min(inits, max(1, CHUNK_BYTES // (members * forecast)))
    some = min(members, max(1, CHUNK_BYTES // forecast))
    return (along, some, leads) if MEMBERS in example.dims else (along, leads)


def _seconds(times: Any) -> np.ndarray:
    return time_axis.seconds(np.asarray(times))


def _layout(
    series: Series, times: list[Coordinate], chunks: tuple[int, ...], provenance: Mapping[str, str], cells: bool = True
) -> Layout:
    """Dimensions are the time coordinates along themselves, then the grid; `cells`: with the bounds of its cells."""
    sides = [_side(series, dim) for dim in ("y", "x")]
    located = [*sides, *_places(series, sides)]
    bounds = {c.name: b for c in located if cells and (b := _bounds(series, c)) is not None}
    sizes = {c.name: len(c.values) for c in times if c.dims == (c.name,)}
    auxiliary = [c.name for c in (*times, *located[2:]) if c.name not in sizes]
    sizes |= {s.name: series.sizes[d] for d, s in zip(("y", "x"), sides, strict=True)}
    taken = {*sizes, *auxiliary, *(b.name for b in bounds.values()), *map(legal_name, names(series))}
    single, of_channels = scalars(series, taken)
    mapping = _grid_mapping(series, {*taken, *(s.name for s in single)})
    shared = {"grid_mapping": " ".join(m.name for m in mapping)} if mapping else {}
    coordinates = [*times, *_bounded(located, bounds), *bounds.values(), *single, *mapping]
    attrs = {k: v for k, v in provenance.items() if v}
    if "pdr_version" in attrs:
        attrs[COORDINATES] = coordinates_sha256({c.name: c.values for c in coordinates})
    named = {"time", "area", *sizes, *auxiliary, *(s.name for s in single)}
    fields = {}
    for name in names(series):
        listed = {"coordinates": " ".join([*auxiliary, *of_channels[name]])}
        fields[legal_name(name)] = field_attributes(series, name, named) | {
            k: v for k, v in (listed | shared).items() if v
        }
    corners = {b.dims[-1]: b.values.shape[-1] for b in bounds.values()}
    return Layout(
        sizes=sizes | corners,
        coordinates=coordinates,
        dims=tuple(sizes),
        chunks=(*chunks, series.sizes["y"], series.sizes["x"]),
        fields=fields,
        attrs=attrs,
    )


def field_attributes(series: Series, name: str, named: set[str]) -> dict[str, Any]:
    """The input's attributes of a channel, with those that CF-1.11 needs."""
    own = series.attrs["variables"].get(name, {})
    attrs = _lasting(own)
    attrs.setdefault("long_name", legal_name(name))
    attrs.setdefault("units", "1")
    # CF-1.11 asks whether a temperature is a point on the scale or a difference.
    if str(attrs["units"]).lower() in TEMPERATURES:
        attrs.setdefault("units_metadata", "temperature: on_scale")
    methods = str(own.get("cell_methods", ""))
    if methods and set(re.findall(r"(\w+):", re.sub(r"\(.*?\)", "", methods))) <= named:
        attrs["cell_methods"] = methods
    if ends := series.attrs.get(INTERVALS, {}).get(name):
        attrs["ancillary_variables"] = " ".join(map(legal_name, ends))
    return attrs | _valid(series, name)


def _valid(series: Series, name: str) -> dict[str, np.float32]:
    """The bounds of a forecast's channel, as CF has them."""
    if BOUNDED not in series.attrs:
        return {}
    low, high = (side[names(series).index(name)] for side in (series.attrs[BOUNDED].low, series.attrs[BOUNDED].high))
    return {key: np.float32(v) for key, v in (("valid_min", low), ("valid_max", high)) if v is not None}


def _lasting(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes without those of storage and those of libraries, which begin with an underscore."""
    return {k: v for k, v in attrs.items() if k not in STORAGE_ATTRS and not k.startswith("_")}


def _side(series: Series, dim: str) -> Coordinate:
    """The coordinate along y or x, without numbers where the input has none."""
    coordinate = side(series, dim)
    if coordinate is None:
        return Coordinate(dim, (dim,), np.empty(0), {})
    name = str(coordinate.name)
    return Coordinate(name, (name,), coordinate.values, axis_attributes(name, dim, _lasting(coordinate.attrs)))


def axis_attributes(name: str, dim: str, attrs: dict[str, Any]) -> dict[str, Any]:
    """The input's attributes, with those that CF needs of a latitude, a longitude or another side of the grid."""
    side_of_earth = geographic(name, attrs)
    if side_of_earth:
        attrs = {"standard_name": side_of_earth, "units": DEGREES[side_of_earth]} | attrs
        if not dim:  # the latitude or longitude of each cell is no side of the grid
            return attrs
    elif attrs.get("units", "1") in ("", "1") and "standard_name" not in attrs:
        # Without `axis`: by CF, grids with that attribute also have true latitudes and longitudes.
        return {"long_name": f"{dim} index of the grid", "units": "1"} | attrs
    return {"axis": dim.upper()} | attrs


def _bounds(series: Series, along: Coordinate) -> Coordinate | None:
    """The edges of the cells [n, 2]: the input's own, or else for latitudes and longitudes halfway between centres."""
    own = series.attrs.get("bounds", {}).get(along.name)
    if own is not None:
        return Coordinate(own[0], (*along.dims, "bnds" if len(along.dims) == 1 else "vertices"), own[1], {})
    if len(along.dims) > 1:
        return None
    degrees = str(along.attrs.get("units", "")).startswith("degree")
    if not degrees or geographic(along.name, along.attrs) is None or along.values.size < 2:
        return None
    centres = along.values.astype(np.float64)
    if is_longitude(along.name, along.attrs):
        centres = unwrapped(centres)  # 357.5 and 0 are neighbours, and so are 180 and -177.5
    inner = (centres[1:] + centres[:-1]) / 2
    edges = np.concatenate([[2 * centres[0] - inner[0]], inner, [2 * centres[-1] - inner[-1]]])
    if is_latitude(along.name, along.attrs):
        edges = edges.clip(-90, 90)
    cells = np.stack([edges[:-1], edges[1:]], axis=1).astype(along.values.dtype)
    return Coordinate(f"{along.name}_bnds", (along.name, "bnds"), cells, {})


def _bounded(located: list[Coordinate], bounds: Mapping[str, Coordinate]) -> list[Coordinate]:
    """The coordinates of the places of cells that have numbers, each with the name of its bounds."""
    found = {coordinate: {"bounds": b.name} for coordinate, b in bounds.items()}
    return [replace(c, attrs=c.attrs | found.get(c.name, {})) for c in located if c.values.size]


def _places(series: Series, sides: list[Coordinate]) -> list[Coordinate]:
    """Latitude and longitude of each cell, of a grid that is not rectangular on the globe."""
    dims = tuple(s.name for s in sides)
    found = [(str(c.name), c) for c in places(series)]
    return [Coordinate(n, dims, c.values, axis_attributes(n, "", _lasting(c.attrs))) for n, c in found]


def scalars(series: Series, taken: set[str]) -> tuple[list[Coordinate], dict[str, list[str]]]:
    """Scalar coordinates of the input, such as a height of 2 m, and the names of those of each channel.

    One that differs between channels is written for each of them, as `height_uas`; so is one whose name is `taken`.
    """
    owned = series.attrs.get("scalars", {})
    written: dict[str, Coordinate] = {}
    of_channels: dict[str, list[str]] = {channel: [] for channel in names(series)}
    for channel in of_channels:
        for name, (value, attrs) in owned.get(channel, {}).items():
            made = Coordinate(legal_name(name), (), np.asarray(value), _lasting(attrs))
            if made.name in taken or not _equal(written.get(made.name, made), made):
                made = replace(made, name=f"{made.name}_{legal_name(channel)}")
            written[made.name] = made
            of_channels[channel].append(made.name)
    return list(written.values()), of_channels


def _equal(one: Coordinate, other: Coordinate) -> bool:
    return bool(one.values == other.values) and one.attrs.get("units") == other.attrs.get("units")


def _grid_mapping(series: Series, taken: set[str]) -> list[Coordinate]:
    """The input's grid mapping; without one, no radius of the earth is assumed."""
    if "grid_mapping" not in series.attrs:
        return []
    name, attrs = series.attrs["grid_mapping"]
    name = legal_name(str(name))
    return [Coordinate(f"{name}_mapping" if name in taken else name, (), np.asarray(0, np.int32), _lasting(attrs))]


def _renamed(series: Series) -> Series:
    """Latitude and longitude by WeatherBench2's names."""
    sides = [c for c in (side(series, dim) for dim in ("y", "x")) if c is not None]
    found = {str(c.name): geographic(str(c.name), c.attrs) for c in sides}
    return series.rename({name: axis for name, axis in found.items() if axis and name != axis})


def _time_attributes(times: np.ndarray) -> dict[str, str]:
    if np.issubdtype(times.dtype, np.floating):
        return {"long_name": "seconds since the first frame of the clip", "units": "s"}
    calendar = "standard" if np.issubdtype(times.dtype, np.datetime64) else times[0].calendar
    attrs = {"standard_name": "time", "long_name": "valid time", "units": TIME_UNITS, "calendar": calendar}
    return attrs | ({"units_metadata": "leap_seconds: none"} if calendar == "standard" else {})


def _init_of(times: np.ndarray) -> dict[str, str]:
    """Attributes of an init time of the same type as `times`."""
    attrs = _time_attributes(times)
    named = {"standard_name": "forecast_reference_time"} if "calendar" in attrs else {}
    return attrs | named | {"long_name": "time of the last observation used"}


def _period(series: Series, dim: str) -> Coordinate:
    attrs = {"standard_name": "forecast_period", "long_name": "lead time", "units": "hours"}
    return Coordinate("forecast_period", (dim,), np.asarray(series.coords["forecast_period"].values), attrs)


def _timedelta(leads: np.ndarray) -> Coordinate:
    """Leads as integers of the largest unit that divides all; `dtype` makes xarray read them as timedelta64."""
    whole = (u for u, s in LEAD_UNITS.items() if np.allclose(leads / s, np.round(leads / s), rtol=0, atol=1e-6))
    unit = next(whole, "microseconds")
    attrs = {"standard_name": "forecast_period", "long_name": "lead time", "units": unit, "dtype": "timedelta64[ns]"}
    counts = np.round(leads / LEAD_UNITS[unit]).astype(np.int32)
    return Coordinate("prediction_timedelta", ("prediction_timedelta",), counts, attrs)


def filled(frames: np.ndarray) -> np.ndarray:
    """Frames as stored: float32, with the fill value where values are missing."""
    return np.where(np.isnan(frames), FILL, frames).astype(np.float32)


def unfilled(stored: np.ndarray) -> np.ndarray:
    """Stored frames with NaN where values are missing."""
    return np.where(stored == FILL, np.float32(np.nan), stored)
