"""From open datasets to a Series: channels chosen, levels taken, files joined along time or stacked as channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import xarray as xr

from pdr_cli.data import kinds
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import selection
from pdr_cli.data.formats.axes import Axes, axes_of, gridded, is_time
from pdr_cli.data.series import LazyFrames, Series, end_to_end, make_series, names, read_frames, reordered
from pdr_cli.errors import DataError, GridError, TimeError, VariableError, did_you_mean
from pdr_cli.system.damage import first_line
from pdr_cli.system.logs import log

Opened = Sequence[tuple[xr.Dataset, Path]]
UNFINISHED = "if it is still being written, wait"


@dataclass(frozen=True)
class _Source:
    """The source of a channel: a variable of the files and one of its levels; "" where it has one level at most."""

    name: str
    level: str = ""

    @classmethod
    def parse(cls, text: str) -> _Source:
        """From `t2m`, or `t@850`."""
        name, _, level = text.partition("@")
        return cls(name, level)


def from_datasets(opened: Opened, variables: Sequence[str] = (), rename: Mapping[str, str] | None = None) -> Series:
    """One lazy Series of open files.

    Args:
        opened: datasets of one grid, and their paths for messages. Those that hold the same variable are joined along
            time in the order of their first times; variables from different files are stacked as channels.
        variables: names to read as channels, `t@850` for the level 850 of t; "all": see `selection.chosen`; empty: the
            only gridded variable.
        rename: {channel: name in the files}.

    Raises:
        DataError: damaged.
        VariableError: a variable is missing, or must be chosen among several.
        TimeError: no usable time axis, a repeated time, or variables at different times.
        GridError: the files have different grids.
    """
    sources = _choose(opened, selection.chosen(opened, variables), dict(rename or {}))
    together: dict[tuple[int, ...], dict[str, _Source]] = {}
    for channel, source in sources.items():
        holders = tuple(i for i, (dataset, _) in enumerate(opened) if source.name in gridded(dataset))
        together.setdefault(holders, {})[channel] = source
    unused = [path for i, (_, path) in enumerate(opened) if not any(i in holders for holders in together)]
    if unused:
        log.info("fields  %d of %d files hold none of %s", len(unused), len(opened), ", ".join(sources))
    parts = [_in_order(_join([_part(*opened[i], chosen) for i in holders])) for holders, chosen in together.items()]
    return parts[0] if len(parts) == 1 else _stack(parts, list(sources))


def _choose(opened: Opened, channels: list[str], rename: dict[str, str]) -> dict[str, _Source]:
    """The source of each channel, over all files together.

    Raises:
        VariableError, TimeError: no file has a gridded variable of that name.
    """
    for dataset, path in opened:
        if not channels or any(_Source.parse(rename.get(n, n)).name in dataset for n in channels) or len(opened) == 1:
            _check_time(dataset, path)
    found = list(dict.fromkeys(n for dataset, _ in opened for n in gridded(dataset)))
    if not found:
        every = dict.fromkeys(str(n) for dataset, _ in opened for n in dataset.data_vars)
        raise VariableError(f"{_where(opened)} has no variable on (time, y, x); it has {', '.join(every) or 'none'}")
    if channels:
        return {name: _source(opened, found, name, rename.get(name, name)) for name in channels}
    if len(found) > 1:
        what = f"{_where(opened)} has {len(found)} gridded variables: {', '.join(found)}"
        raise VariableError(what, way_out="name those to use with --var")
    return {found[0]: _Source(found[0])}


def _check_time(dataset: xr.Dataset, path: Path) -> None:
    """Refuse a file without a decoded time axis.

    Raises:
        TimeError: lists the dimensions that the file has.
    """
    if any(is_time(c) for c in dataset.coords.values() if c.ndim == 1):
        return
    empty = [str(d) for d, n in dataset.sizes.items() if n == 0]
    if empty:
        raise TimeError(f"{path} has no steps: dimension {empty[0]} is empty", way_out=UNFINISHED)
    dims = ", ".join(f"{d} ({n})" for d, n in dataset.sizes.items())
    raise TimeError(
        f"{path} has no time coordinate; its dimensions are {dims}",
        "a time axis with units such as 'hours since 2000-01-01'",
        "cdo -settaxis,2000-01-01,00:00,1hour sets one",
    )


def _where(opened: Opened) -> str:
    return str(opened[0][1]) if len(opened) == 1 else f"{opened[0][1]} and {len(opened) - 1} more"


def _source(opened: Opened, found: list[str], channel: str, text: str) -> _Source:
    """The source of a channel: the variable named by `text`, or the only one of that standard name."""
    source = _Source.parse(text)
    if source.name in found:
        return source
    if text == channel:
        matches = {n for d, _ in opened for n in gridded(d) if d[n].attrs.get("standard_name") == source.name}
        if len(matches) == 1:
            return _Source(matches.pop(), source.level)
    hint = did_you_mean(source.name, found) or f" It has {', '.join(found)}."
    reason = "is not on (time, y, x)" if any(source.name in d for d, _ in opened) else "is not there"
    raise VariableError(
        f"{_where(opened)}: variable {source.name!r} {reason}.{hint}",
        way_out=f"--var {channel}=NAME takes another variable for it",
    )


def _part(dataset: xr.Dataset, path: Path, sources: dict[str, _Source]) -> Series:
    """The channels that one file holds."""
    first = next(iter(sources.values())).name
    arrays = [_plane(dataset, path, source) for source in sources.values()]
    axes = _axes(dataset, first)
    times = dataset[axes.time].values
    _check_times_known(times, path)
    shape = (len(times), len(sources), dataset.sizes[axes.y], dataset.sizes[axes.x])
    variables = {name: _attributes(dataset[source.name], source.level) for name, source in sources.items()}
    series = make_series(
        LazyFrames(shape, np.float32, _reader(arrays, axes.time, path)),
        times,
        variables,
        _coordinates(dataset, first, axes),
        kind=kinds.of_fields(str(a.get("units", "")) for a in variables.values()).name,
        files=[path],
        file_attrs=dict(dataset.attrs),
    )
    return series.assign_attrs(may_lack=True, **_grid_attributes(dataset, first, axes))


def _check_times_known(times: np.ndarray, path: Path) -> None:
    if len(times) == 0:
        raise TimeError(f"{path} has no time steps", way_out=UNFINISHED)
    if times.dtype.kind == "M" and np.isnat(times).any():
        absent = np.flatnonzero(np.isnat(times))
        raise TimeError(
            f"{path}: {len(absent)} of {len(times)} times are missing (NaT), first that of step {absent[0]}"
        )


def _reader(arrays: list[xr.DataArray], time: str, path: Path) -> Callable[[int, int], np.ndarray]:
    """A function that reads frames [start, stop) of variables [time, y, x]; values outside of their range are NaN."""
    ranges = [_valid_range(a) for a in arrays]

    def frames(start: int, stop: int) -> np.ndarray:
        try:
            planes = [a.isel({time: slice(start, stop)}).values for a in arrays]
        except (OSError, RuntimeError, ValueError) as error:
            what = f"steps {start} to {stop - 1} cannot be read, the file is damaged: {first_line(error)}"
            raise DataError(f"{path}: {what}") from error
        planes = [
            p if r is None else np.where((p >= r[0]) & (p <= r[1]), p, np.nan)
            for p, r in zip(planes, ranges, strict=True)
        ]
        return np.stack([np.asarray(p, np.float32) for p in planes], axis=1)

    return frames


def _coordinates(dataset: xr.Dataset, name: str, axes: Axes) -> dict[str, Any]:
    """Coordinates along y and x, and the scalar ones of a variable."""
    coords: dict[str, Any] = {}
    for dim, side in (("y", axes.y), ("x", axes.x)):
        if side in dataset.coords:
            coords[side] = (dim, dataset[side].values, dict(dataset[side].attrs))
        else:
            coords[side] = (dim, np.arange(dataset.sizes[side]), {})
    for key, scalar in dataset[name].coords.items():
        if scalar.ndim == 0 and scalar.dtype.kind in "fiu":
            coords[str(key)] = ((), scalar.values, dict(scalar.attrs))
    return coords


def _grid_attributes(dataset: xr.Dataset, name: str, axes: Axes) -> dict[str, Any]:
    """The grid mapping and the bounds of the axes, where the file has them."""
    found: dict[str, Any] = {}
    mapping = dataset[name].encoding.get("grid_mapping") or dataset[name].attrs.get("grid_mapping")
    if mapping in dataset:
        found["grid_mapping"] = (mapping, dict(dataset[mapping].attrs))
    if bounds := _bounds(dataset, (axes.y, axes.x)):
        found["bounds"] = bounds
    return found


def _valid_range(variable: xr.DataArray) -> tuple[float, float] | None:
    """Lowest and highest valid value, by valid_range, valid_min and valid_max (CF-1.11, §2.5.1); None: no such attributes.

    They are packed as the data are, unless they have the unpacked type.
    """
    attrs = variable.attrs
    if not {"valid_range", "valid_min", "valid_max"} & set(attrs):
        return None
    ends = np.atleast_1d(attrs.get("valid_range", [attrs.get("valid_min", -np.inf), attrs.get("valid_max", np.inf)]))
    if len(ends) != 2 or ends.dtype.kind not in "fiu":
        return None
    stored = np.dtype(variable.encoding.get("dtype", variable.dtype))
    factor, offset = (variable.encoding.get(key) for key in ("scale_factor", "add_offset"))
    packed = stored.kind in "iu" and (factor is not None or offset is not None) and ends.dtype.kind in "iu"
    if packed and stored.kind == "u" and ends.dtype.kind == "i":
        ends = ends.astype(ends.dtype.str.replace("i", "u"))
    low, high = sorted(float(e) * (factor or 1) + (offset or 0) if packed else float(e) for e in ends)
    slack = 0.5 * abs(factor) if packed and factor is not None else 1e-6 * max(abs(low), abs(high))
    return (low - slack, high + slack) if np.isfinite(slack) else (low, high)


def _in_order(series: Series) -> Series:
    """A series whose times ascend.

    Raises:
        TimeError: a time is repeated.
    """
    ticks = time_axis.seconds(series.time.values)
    if np.all(np.diff(ticks) > 0):
        return series
    order = np.argsort(ticks, kind="stable")
    again = np.flatnonzero(np.diff(ticks[order]) == 0)
    if len(again):
        raise TimeError(
            f"{series.attrs['files'][0]}: {len(again)} time{'s are' if len(again) > 1 else ' is'} repeated, first "
            f"{time_axis.label(series.time.values[order[again[0]]])}",
            way_out="drop duplicates first, for example with xarray's drop_duplicates('time')",
        )
    log.info("times   %s is not in order of time; sorted", series.attrs["files"][0])
    return reordered(series, order)


def _bounds(dataset: xr.Dataset, sides: Sequence[str]) -> dict[str, tuple[str, np.ndarray]]:
    """{axis: (name of its bounds, their values [n, 2])} of the axes that have bounds."""
    named = {side: str(dataset[side].attrs.get("bounds", "")) for side in sides if side in dataset.coords}
    found = {side: name for side, name in named.items() if name in dataset.variables}
    return {
        side: (name, dataset[name].values)
        for side, name in found.items()
        if dataset[name].dims[:1] == (side,) and dataset[name].shape[1:] == (2,)
    }


def _attributes(variable: xr.DataArray, level: str = "") -> dict[str, Any]:
    attrs = dict(variable.attrs)
    if level:
        attrs["long_name"] = f"{attrs.get('long_name', variable.name)} at level {level}"
    if "units" not in attrs and "units" in variable.encoding:
        attrs["units"] = variable.encoding["units"]
    return attrs


def _axes(dataset: xr.Dataset, name: str) -> Axes:
    return cast(Axes, axes_of(dataset, name))  # `_choose` takes gridded variables only


def _plane(dataset: xr.Dataset, path: Path, source: _Source) -> xr.DataArray:
    """A variable as (time, y, x), at its level, without dimensions of size 1.

    Raises:
        VariableError: no such level, or a further dimension of which no value is chosen.
    """
    name = source.name
    axes = _axes(dataset, name)
    array = dataset[name]
    others = [d for d in array.dims if d not in (axes.time, axes.y, axes.x)]
    levels = [d for d in others if array.sizes[d] > 1] or [d for d in others if d in dataset.coords]
    chosen: dict[Any, int] = dict.fromkeys(others, 0)
    if source.level:
        if len(levels) != 1:
            has = f"several further dimensions: {', '.join(map(str, levels))}" if levels else "no levels"
            raise VariableError(f"{path}: {name} has {has}, so that {name}@{source.level} has no meaning")
        chosen[levels[0]] = _level(dataset, path, source, str(levels[0]))
    elif others and (dim := next((d for d in others if array.sizes[d] > 1), None)) is not None:
        values = _level_values(dataset, str(dim))
        raise VariableError(
            f"{path}: {name} has a further dimension {dim} with {array.sizes[dim]} values "
            f"({', '.join(map(str, values[:4]))}, ...)",
            way_out=f"choose one of them with --var {name}@{values[0]}",
        )
    return array.isel(chosen).transpose(axes.time, axes.y, axes.x)


def _level_values(dataset: xr.Dataset, dim: str) -> np.ndarray:
    return np.asarray(dataset[dim].values if dim in dataset.coords else np.arange(dataset.sizes[dim]))


def _level(dataset: xr.Dataset, path: Path, source: _Source, dim: str) -> int:
    """Index of a level by its value; a level in hPa is found among values in Pa.

    Raises:
        VariableError: no such level; names the nearest.
    """
    values = _level_values(dataset, dim)
    try:
        level = float(source.level)
        numbers = values.astype(np.float64)
    except ValueError:
        raise VariableError(
            f"{path}: {source.level!r} is not a level of {source.name}", "a number", f"write {source.name}@850"
        ) from None
    factor = 100.0 if dim in dataset.coords and dataset[dim].attrs.get("units") == "Pa" else 1.0
    for candidate in (level, level * factor):
        found = np.flatnonzero(np.isclose(numbers, candidate, rtol=1e-6))
        if len(found):
            return int(found[0])
    near = sorted(values.tolist(), key=lambda v: abs(float(v) - level * factor))[:3]
    raise VariableError(
        f"{path}: {source.name} has no level {source.level} on {dim} ({len(values)} levels); "
        f"the nearest are {', '.join(f'{v:g}' for v in near)}"
    )


def _join(parts: list[Series]) -> Series:
    """Parts that follow each other, joined along time."""
    parts = sorted(parts, key=lambda p: time_axis.seconds(p.time.values)[0])
    first = parts[0]
    if len(parts) == 1:
        return first
    _check_grids(parts)
    times = np.concatenate([p.time.values for p in parts])
    frames = end_to_end([(partial(read_frames, p), p.sizes["time"]) for p in parts])
    channels, height, width = first.shape[1:]
    joined = make_series(
        LazyFrames((len(times), channels, height, width), np.float32, frames),
        times,
        first.attrs["variables"],
        {str(n): (c.dims, c.values, c.attrs) for n, c in first.coords.items() if n not in ("time", "channel")},
        kind=first.attrs["kind"],
        files=[f for p in parts for f in p.attrs["files"]],
        file_attrs=first.attrs["file_attrs"],
    )
    return _on_the_grid_of(first, joined)


def _on_the_grid_of(first: Series, made: Series) -> Series:
    """`made` with the attributes of `first` that describe the grid and missing values."""
    return made.assign_attrs({k: first.attrs[k] for k in ("grid_mapping", "bounds", "may_lack") if k in first.attrs})


def _check_grids(parts: list[Series]) -> None:
    first = parts[0]
    for part in parts[1:]:
        same = all(
            np.array_equal(part.coords[c].values, first.coords[c].values)
            for c in first.coords
            if c in part.coords and first.coords[c].dims in (("y",), ("x",))
        )
        if part.shape[2:] != first.shape[2:] or not same:
            raise GridError(
                f"{part.attrs['files'][0]} is on another grid than {first.attrs['files'][0]}",
                way_out="regrid one of them",
            )


def _stack(parts: list[Series], channels: list[str]) -> Series:
    """Parts of the same times, stacked as channels.

    Raises:
        GridError, TimeError: they are on different grids or at different times.
    """
    _check_grids(parts)
    for part in parts[1:]:
        _check_times(parts[0], part)
    found = [name for p in parts for name in names(p)]
    order = [found.index(name) for name in channels]

    def frames(start: int, stop: int) -> np.ndarray:
        return np.concatenate([read_frames(p, start, stop) for p in parts], axis=1)[:, order]

    first = parts[0]
    height, width = first.shape[2:]
    attributes = {name: attrs for p in parts for name, attrs in p.attrs["variables"].items()}
    stacked = make_series(
        LazyFrames((first.shape[0], len(channels), height, width), np.float32, frames),
        first.time.values,
        {name: attributes[name] for name in channels},
        {str(n): (c.dims, c.values, c.attrs) for n, c in first.coords.items() if n not in ("time", "channel")},
        kind=first.attrs["kind"],
        files=list(dict.fromkeys(f for p in parts for f in p.attrs["files"])),
        file_attrs=first.attrs["file_attrs"],
    )
    return _on_the_grid_of(first, stacked)


def _check_times(series: Series, other: Series) -> None:
    """Refuse variables at different times.

    Raises:
        TimeError: says which times are missing.
    """
    ticks, others = time_axis.seconds(series.time.values), time_axis.seconds(other.time.values)
    if np.array_equal(ticks, others):
        return
    _check_holds(series, other, ~np.isin(ticks, others))
    _check_holds(other, series, ~np.isin(others, ticks))
    raise TimeError(f"the times of {', '.join(names(other))} are those of {', '.join(names(series))} in another order")


def _check_holds(series: Series, other: Series, absent: np.ndarray) -> None:
    """Refuse `other` where it lacks times of `series`, `absent` [T]."""
    lacking = np.flatnonzero(absent)
    if len(lacking):
        raise TimeError(
            f"{', '.join(names(series))} has {len(absent)} times and {', '.join(names(other))} "
            f"{other.sizes['time']}; the latter lacks {len(lacking)} of them, first "
            f"{time_axis.label(series.time.values[lacking[0]])}",
            "files of the same times for all variables",
        )
