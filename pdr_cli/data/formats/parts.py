"""The channels of one file that share their axes, as a Series."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import xarray as xr

from pdr_cli.data import kinds, suspects
from pdr_cli.data.formats.axes import OTHER_NAMES, Axes, AxisFinder, listed
from pdr_cli.data.formats.channels import UNFINISHED, Opened, Source, level_of, places_along
from pdr_cli.data.formats.time_roles import is_lead, is_time
from pdr_cli.data.series import LazyFrames, Series, make_series
from pdr_cli.errors import DataError, GridError, TimeError
from pdr_cli.system.damage import first_line
from pdr_cli.system.logs import log

VALID = ("valid_min", "valid_max", "valid_range")
Scalars = dict[str, tuple[Any, dict[str, Any]]]


@dataclass(frozen=True)
class Channel:
    """A channel in one file.

    Args:
        name: of the channel.
        variable: of the file.
        axes: of the variable.
        chosen: {further dimension: index}.
        lead: index of the lead, where each lead has times of its own.
        places: variables of the latitude and longitude of each cell.
    """

    name: str
    variable: str
    axes: Axes
    chosen: Mapping[str, int]
    lead: int
    places: tuple[str, ...]

    @classmethod
    def of(cls, one: Opened, name: str, source: Source) -> Channel:
        """The channel that a source gives.

        Raises:
            VariableError: no such level, or a further dimension of which no value is chosen.
        """
        axes = cast(Axes, one.finder.axes(source.name))  # `channels.choose` takes gridded variables only
        chosen = places_along(one, source)
        lead = chosen.get(one.finder.times[axes.time].lead_dim, 0)
        return cls(name, source.name, axes, chosen, lead, places_of(one.finder, source.name, axes))

    @property
    def signature(self) -> tuple[Axes, int, tuple[str, ...]]:
        """Channels of equal signatures have the same times and places."""
        return self.axes, self.lead, self.places


def part(one: Opened, channels: Sequence[Channel], missing_values: Sequence[str] = ()) -> Series:
    """Channels of one file with the same times and places, read lazily; `missing_values`: see `ReadOptions`.

    Raises:
        TimeError: no times, or missing ones.
        GridError: coordinates with missing values.
    """
    dataset, path, first = one.dataset, one.path, channels[0]
    axes, axis = first.axes, one.finder.times[first.axes.time]
    times = axis.at(first.lead)
    _check_times_known(times, one)
    if axis.change:
        log.info("times   %s: stamps rounded by up to %.3g s, to what they were stored from", path, axis.change)
    if axis.is_init:
        log.warning(
            "times   %s: %s is when forecasts began, and the file has no lead; taken as valid times", path, axis.source
        )
    arrays = [_plane(dataset, c) for c in channels]
    shape = (len(times), len(channels), dataset.sizes[axes.y], dataset.sizes[axes.x])
    variables = {c.name: _attributes(one, c) for c in channels}
    series = make_series(
        LazyFrames(shape, np.float32, _reader(arrays, axes.time, one, [_missing(c, missing_values) for c in channels])),
        times,
        variables,
        _coordinates(one, first),
        kind=kinds.of_fields(str(a.get("units", "")) for a in variables.values()).name,
        files=[path],
        file_attrs=dict(dataset.attrs),
    )
    scalars = {c.name: _scalars(one, c) for c in channels}
    labels = {c.name: _labels(dataset[c.variable]) for c in channels}
    return series.assign_attrs(may_lack=True, scalars=scalars, labels=labels, **_grid_attributes(dataset, first))


def _check_times_known(times: np.ndarray, one: Opened) -> None:
    if len(times) == 0:
        raise TimeError(f"{one.path} has no time steps", way_out=UNFINISHED)
    if times.dtype.kind == "M" and np.isnat(times).any():
        absent = np.flatnonzero(np.isnat(times))
        raise TimeError(
            f"{one.path}: {len(absent)} of {len(times)} times are missing (NaT), first that of step {absent[0]}"
        )


def _plane(dataset: xr.Dataset, channel: Channel) -> xr.DataArray:
    """A variable as (time, y, x) at its level, or as (y, x) in a file of a single frame."""
    axes = channel.axes
    return dataset[channel.variable].isel(channel.chosen).transpose(*filter(None, (axes.time, axes.y, axes.x)))


def _missing(channel: Channel, missing_values: Sequence[str]) -> np.ndarray:
    """The numbers that stand for missing values of a channel, as float32."""
    given = (text.rpartition("=") for text in missing_values if text != suspects.NONE)
    names = ("", channel.name, channel.variable)
    return np.array([float(number) for name, _, number in given if name in names], np.float32)


def _reader(
    arrays: list[xr.DataArray], time: str, one: Opened, missing: list[np.ndarray]
) -> Callable[[int, int], np.ndarray]:
    """A function that reads frames [start, stop) of variables; NaN are values outside of their valid range, and `missing`."""
    ranges = [valid_range(a) for a in arrays]

    def frames(start: int, stop: int) -> np.ndarray:
        try:
            planes = [a.isel({time: slice(start, stop)}).values if time else a.values[None][start:stop] for a in arrays]
        except (OSError, RuntimeError, ValueError) as error:
            proof = not isinstance(error, ValueError) or "checksum" in str(error)
            why = ", the file is damaged" if proof else ""
            what = f"steps {start} to {stop - 1} cannot be read{why}: {first_line(error)}"
            raise DataError(f"{one.path}: {what}") from error
        planes = [
            p if r is None else np.where((p >= r[0]) & (p <= r[1]), p, np.nan)
            for p, r in zip(planes, ranges, strict=True)
        ]
        planes = [np.asarray(p, np.float32) for p in planes]
        planes = [
            np.where(np.isin(p, m), np.float32(np.nan), p) if m.size else p
            for p, m in zip(planes, missing, strict=True)
        ]
        return np.stack(planes, axis=1)

    return frames


def _coordinates(one: Opened, channel: Channel) -> dict[str, Any]:
    """Coordinates along y and x, and latitudes and longitudes on both.

    Raises:
        GridError: a coordinate along y or x has missing values.
    """
    dataset, axes = one.dataset, channel.axes
    coords: dict[str, Any] = {}
    for dim, side in (("y", axes.y), ("x", axes.x)):
        if side not in dataset.coords:
            coords[side] = (dim, np.arange(dataset.sizes[side]), {})
            continue
        values = dataset[side].values
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            count = int((~np.isfinite(values)).sum())
            raise GridError(f"{one.path}: {count} of {len(values)} values of the coordinate {side} are missing")
        coords[side] = (dim, values, dict(dataset[side].attrs))
    found = {n: (("y", "x"), cells(dataset[n], axes), dict(dataset[n].attrs)) for n in channel.places}
    if not found and not any(s in dataset.variables for s in (axes.y, axes.x)):
        log.info("grid    %s: %s and %s are taken as y and x", one.path, axes.y, axes.x)
    return coords | found


def places_of(finder: AxisFinder, name: str, axes: Axes) -> tuple[str, ...]:
    """The variables that hold latitude and longitude of each cell of a field, where the file has one of each on y and x."""
    dataset, found = finder.dataset, dict[str, str]()
    field = dataset[name]
    for place in dict.fromkeys((*listed(field), *map(str, field.coords), *finder.geographic)):
        which = finder.geographic.get(place)
        if which and which not in found and _is_place(dataset[place], axes):
            found[which] = place
    return tuple(found.values()) if set(found) == {"latitude", "longitude"} else ()


def cells(variable: xr.DataArray, axes: Axes) -> np.ndarray:
    """The values of a variable on y and x, also if it is repeated at every time: [H, W]."""
    return variable.isel({d: 0 for d in variable.dims if d == axes.time}).transpose(axes.y, axes.x).values


def _is_place(variable: xr.DataArray, axes: Axes) -> bool:
    """True for a variable on y and x, also if it is repeated unchanged at every time."""
    if variable.dtype.kind != "f" or set(variable.dims) - {axes.time} != {axes.y, axes.x}:
        return False
    if axes.time not in variable.dims:
        return True
    first, last = (variable.isel({axes.time: n}).values for n in (0, -1))
    return np.array_equal(first, last, equal_nan=True)


def _scalars(one: Opened, channel: Channel) -> Scalars:
    """Scalar coordinates of a channel: those of its variable, such as a height, and its level. Times are not among them."""
    variable = one.dataset[channel.variable]
    mappings, mine = _mappings(variable), listed(variable)
    found: Scalars = {}
    for name, scalar in variable.coords.items():
        if name in one.finder.listed and name not in mine:
            continue
        numeric = scalar.ndim == 0 and scalar.dtype.kind in "fiu" and not is_time(scalar)
        if numeric and str(name) not in mappings and not is_lead(str(name), scalar):
            found[str(name)] = (scalar.values, dict(scalar.attrs))
    for dim, index in channel.chosen.items():
        if (level := level_of(one, dim, index)) is not None:
            found[dim] = level
    return found


def _labels(variable: xr.DataArray) -> dict[str, str]:
    """Scalar coordinates of words that tell a member or a level, such as `member_id`: `r1i1p1f1`."""
    texts = {str(n): c for n, c in variable.coords.items() if c.size == 1 and c.dtype.kind in "SUO" and not is_time(c)}
    named = {n: c.values.ravel()[0] for n, c in texts.items() if n.lower() in (*OTHER_NAMES, "member_id")}
    return {n: t.decode("latin-1").strip() if isinstance(t, bytes) else str(t).strip() for n, t in named.items()}


def _mappings(variable: xr.DataArray) -> dict[str, list[str]]:
    """{grid mapping: coordinates that it is for} of a variable; the long form of CF names them, `crs: x y other: lat lon`."""
    text = str(variable.encoding.get("grid_mapping") or variable.attrs.get("grid_mapping") or "")
    if ":" not in text:
        return {text: []} if text else {}
    found: dict[str, list[str]] = {}
    name = ""
    for word in text.replace(":", ": ").split():
        if word.endswith(":"):
            name = word[:-1]
            found[name] = []
        elif name:
            found[name].append(word)
    return found


def _grid_attributes(dataset: xr.Dataset, channel: Channel) -> dict[str, Any]:
    """The grid mapping of y and x, and the bounds of the coordinates, where the file has them."""
    found: dict[str, Any] = {}
    if mapping := mapping_of(dataset, channel.variable, channel.axes):
        found["grid_mapping"] = (mapping, dict(dataset[mapping].attrs))
    if bounds := _bounds(dataset, channel):
        found["bounds"] = bounds
    return found


def mapping_of(dataset: xr.Dataset, name: str, axes: Axes) -> str:
    """The grid mapping of a field's y and x; "" where the file has none."""
    mappings = {n: c for n, c in _mappings(dataset[name]).items() if n in dataset.variables}
    ours = [n for n, coordinates in mappings.items() if {axes.y, axes.x} & set(coordinates)] or list(mappings)
    return ours[0] if ours else ""


def _bounds(dataset: xr.Dataset, channel: Channel) -> dict[str, tuple[str, np.ndarray]]:
    """{coordinate: (name of its bounds, their values)}: [n, 2] of an axis, [H, W, corners] of the place of each cell."""
    axes, found = channel.axes, {}
    sides = [s for s in (axes.y, axes.x) if s in dataset.coords]
    for name, dims in [(s, (s,)) for s in sides] + [(n, (axes.y, axes.x)) for n in channel.places]:
        attrs = dataset[name].attrs | dataset[name].encoding
        bounds = dataset.variables.get(str(attrs.get("bounds", "")))
        if bounds is None or bounds.ndim != len(dims) + 1 or set(bounds.dims[:-1]) != set(dims):
            continue
        if len(dims) == 1 and bounds.shape[1] != 2:
            continue
        found[name] = (str(attrs["bounds"]), bounds.transpose(*dims, bounds.dims[-1]).values)
    return found


def valid_range(variable: xr.DataArray) -> tuple[float, float] | None:
    """Lowest and highest value that counts as valid: those of the attributes, with room for rounding; None: no attributes."""
    found = _valid_ends(variable)
    if found is None:
        return None
    (low, high), slack = found
    return (low - slack, high + slack) if np.isfinite(slack) else (low, high)


def _valid_ends(variable: xr.DataArray) -> tuple[tuple[float, float], float] | None:
    """Lowest and highest valid value, by valid_range, valid_min and valid_max (CF-1.11, §2.5.1), and their rounding.

    They are packed as the data are, unless they have the unpacked type. None: no such attributes.
    """
    attrs = variable.attrs
    if not set(VALID) & set(attrs):
        return None
    ends = np.atleast_1d(attrs.get("valid_range", [attrs.get("valid_min", -np.inf), attrs.get("valid_max", np.inf)]))
    if len(ends) != 2 or ends.dtype.kind not in "fiu":
        return None
    stored = np.dtype(variable.encoding.get("dtype", variable.dtype))
    factor, offset = (variable.encoding.get(key) for key in ("scale_factor", "add_offset"))
    packed = stored.kind in "iu" and (factor is not None or offset is not None) and ends.dtype.kind in "iu"
    unsigned = stored.kind == "u" or str(variable.encoding.get("_Unsigned", attrs.get("_Unsigned"))).lower() == "true"
    if packed and unsigned and ends.dtype.kind == "i":
        ends = ends.astype(ends.dtype.str.replace("i", "u"))
    low, high = sorted(float(e) * (factor or 1) + (offset or 0) if packed else float(e) for e in ends)
    slack = 0.5 * abs(factor) if packed and factor is not None else 1e-6 * max(abs(low), abs(high))
    return (low, high), slack


def _attributes(one: Opened, channel: Channel) -> dict[str, Any]:
    """Attributes of a channel, with its level in the long name and units from where they are."""
    variable = one.dataset[channel.variable]
    attrs = {k: v for k, v in variable.attrs.items() if k not in VALID} | _decoded(variable)
    for dim, index in channel.chosen.items():
        if one.dataset.sizes[dim] > 1:
            level = level_of(one, dim, index) or (one.dataset[dim].values[index] if dim in one.dataset else index, {})
            unit = str(level[1].get("units", ""))
            attrs["long_name"] = f"{attrs.get('long_name', variable.name)} at {level[0]:g} {unit}".rstrip()
    if "units" not in attrs and "units" in variable.encoding:
        attrs["units"] = variable.encoding["units"]
    return attrs


def _decoded(variable: xr.DataArray) -> dict[str, float]:
    """The valid range as valid_min and valid_max in the units of the decoded data."""
    found = _valid_ends(variable)
    return {} if found is None else {k: v for k, v in zip(VALID, found[0], strict=False) if np.isfinite(v)}
