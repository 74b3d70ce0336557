"""Parts of a Series brought together: files that follow each other in time, and variables side by side.

Each part is oriented and converted before it is joined, so that no part speaks for another. What cannot be brought together
is refused, and both files are named.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from pdr_cli.data import kinds, units
from pdr_cli.data import places as locations
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats.axes import OTHER_NAMES
from pdr_cli.data.grid import UNCHANGED
from pdr_cli.data.series import (
    LazyFrames,
    Series,
    end_to_end,
    make_like,
    make_series,
    names,
    places,
    read_frames,
    reordered,
    shape,
    side,
)
from pdr_cli.errors import GridError, TimeError, VariableError
from pdr_cli.system.logs import log

ALIKE = ("standard", "gregorian", "proleptic_gregorian")  # calendars that agree since 1582
VERTICAL = ("height", "altitude", "depth", "air_pressure", "realization")  # standard names, for scalar coordinates
GRID = ("grid_mapping", "bounds", "may_lack")  # attributes that joined parts share


def join(parts: Sequence[Series]) -> Series:
    """Parts that follow each other in time, as one series in the order of its times.

    Raises:
        TimeError: different calendars, or different values for one time.
        GridError: different grids.
        UnitsError: units that cannot be converted to those of the first part.
        VariableError: the levels of a channel differ.
    """
    parts = _one_calendar(parts)
    parts = sorted(parts, key=lambda p: time_axis.seconds(p.time.values)[0])
    first = units.named_by(parts)
    _check_levels(parts)
    parts = [first, *(_like(first, part) for part in parts[1:])]
    return _in_order(_end_to_end(parts) if len(parts) > 1 else first, parts)


def _end_to_end(parts: Sequence[Series]) -> Series:
    first, (_, channels, height, width) = parts[0], shape(parts[0])
    times = np.concatenate([p.time.values for p in parts])
    frames = end_to_end([(partial(read_frames, p), p.sizes["time"]) for p in parts])
    joined = make_series(
        LazyFrames((len(times), channels, height, width), np.float32, frames),
        times,
        first.attrs["variables"],
        _sides(first),
        kind=first.attrs["kind"],
        files=[f for p in parts for f in p.attrs["files"]],
        file_attrs=first.attrs["file_attrs"],
    )
    return _described_as(joined, first, first.attrs["scalars"])


def _sides(series: Series) -> dict[str, Any]:
    """Coordinates along y and x."""
    return {str(n): (c.dims, c.values, c.attrs) for n, c in series.coords.items() if n not in ("time", "channel")}


def _described_as(made: Series, first: Series, scalars: dict[str, Any]) -> Series:
    """`made` with the attributes of `first` that describe the grid and missing values."""
    return made.assign_attrs({k: first.attrs[k] for k in GRID if k in first.attrs}, scalars=scalars)


def _like(first: Series, part: Series) -> Series:
    """A part in the orientation and units of the first one."""
    return units.to_common(_oriented(first, part), first)


def _oriented(first: Series, part: Series) -> Series:
    """A part with rows and columns in the order of the first one.

    Raises:
        GridError: the cells lie elsewhere.
    """
    try:
        how = locations.match(locations.of(part), locations.of(first))
    except GridError as error:
        raise _other_grid(first, part, error) from error
    if how == UNCHANGED:
        return part
    log.info("grid    %s: rows or columns in another order than in %s; reordered", _file(part), _file(first))

    def frames(start: int, stop: int) -> np.ndarray:
        return how.apply(read_frames(part, start, stop))

    sides = {k: v for k, v in _sides(first).items() if v[0] != ()}
    return make_like(part, LazyFrames((*shape(part)[:2], *shape(first)[2:]), np.float32, frames), sides=sides)


def _other_grid(first: Series, part: Series, error: GridError) -> GridError:
    """The error for two parts on different grids; names their files, or their variables where both are in one file."""
    if _file(first) != _file(part):
        found = f"{_file(part)} is on another grid than {_file(first)}: {error.found}"
        return GridError(found, error.expected, "regrid one of them")
    mine, theirs = (f"{', '.join(names(p))} on ({_dims(p)})" for p in (part, first))
    found = f"{_file(part)}: {mine} is on another grid than {theirs}: {error.found}"
    return GridError(found, error.expected, "bring them to one grid first, for example to the centres of the cells")


def _dims(series: Series) -> str:
    return ", ".join(str(c.name) for c in (side(series, d) for d in ("y", "x")) if c is not None)


def _file(series: Series) -> str:
    return str(series.attrs["files"][0])


def _check_levels(parts: Sequence[Series]) -> None:
    """Refuse the same channel at different heights, levels or members, by numbers or by words.

    Raises:
        VariableError: names both.
    """
    known: dict[tuple[str, str], tuple[Any, dict[str, Any], Series]] = {}
    for part in parts:
        for channel, name, value, attrs in _levels(part):
            other, others, before = known.setdefault((channel, name), (value, attrs, part))
            if _same_level((value, attrs), (other, others)):
                continue
            here, there = (f"{_plain(v)} {a.get('units', '')}".rstrip() for v, a in ((value, attrs), (other, others)))
            raise VariableError(
                f"{_file(part)}: {channel} is at {name} {here}, but at {there} in {_file(before)}",
                way_out="give files of one level and member, or name the variables apart",
            )


def _levels(part: Series) -> list[tuple[str, str, Any, dict[str, Any]]]:
    """Channel, name, value and attributes of the scalar coordinates that tell a level or a member."""
    numbers = [
        (c, n, v, a) for c, found in part.attrs["scalars"].items() for n, (v, a) in found.items() if _is_level(n, a)
    ]
    return numbers + [
        (c, n, text, {}) for c, found in part.attrs.get("labels", {}).items() for n, text in found.items()
    ]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _is_level(name: str, attrs: dict[str, Any]) -> bool:
    vertical = "positive" in attrs or attrs.get("axis") == "Z" or attrs.get("standard_name") in VERTICAL
    return vertical or name.lower() in OTHER_NAMES


def _same_level(mine: tuple[Any, dict[str, Any]], theirs: tuple[Any, dict[str, Any]]) -> bool:
    (value, attrs), (other, others) = mine, theirs
    if isinstance(value, str) or isinstance(other, str):
        return bool(value == other)
    try:
        how = units.conversion(str(attrs.get("units", "")), str(others.get("units", "")))
    except units.UnitsError:
        return False
    here = float(value) if how is None else float(value) * how.factor + how.offset
    return bool(np.isclose(here, float(other), rtol=1e-5))


def _one_calendar(parts: Sequence[Series]) -> list[Series]:
    """Parts whose times can be compared: dates of the standard calendar beyond 2262 are of another type.

    Raises:
        TimeError: different calendars.
    """
    found = {time_axis.calendar(p.time.values): p for p in parts}
    if len({"standard" if c in ALIKE else c for c in found}) > 1:
        one, other = ((c, p) for c, p in list(found.items())[:2])
        raise TimeError(
            f"{_file(one[1])} has times in the {one[0]} calendar and {_file(other[1])} in the {other[0]} calendar",
            "files of one calendar",
            "convert one of them first, for example with xarray's Dataset.convert_calendar",
        )
    if len({p.time.values.dtype.kind for p in parts}) == 1:
        return list(parts)
    return [p if p.time.dtype == object else _of_cftime(p) for p in parts]


def _of_cftime(series: Series) -> Series:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return series.convert_calendar("standard", dim="time", use_cftime=True)


def _in_order(series: Series, parts: Sequence[Series]) -> Series:
    """A series whose times ascend; frames that are repeated without a change are kept once.

    Raises:
        TimeError: different frames for one time, which names the files.
    """
    ticks = time_axis.seconds(series.time.values)
    if np.all(np.diff(ticks) > 0):
        return series
    order = np.argsort(ticks, kind="stable")
    again = np.flatnonzero(np.diff(ticks[order]) == 0)
    files = np.repeat([_file(p) for p in parts], [p.sizes["time"] for p in parts])
    for place in again:
        one, other = order[place], order[place + 1]
        mine, theirs = (read_frames(series, int(i), int(i) + 1) for i in (one, other))
        if not np.array_equal(mine, theirs, equal_nan=True):
            raise _repeated(series, len(again), one, files[[one, other]])
    if len(again):
        both = " and ".join(dict.fromkeys(files[order[[again[0], again[0] + 1]]]))
        log.info("times   %d repeated, with the same values, first %s in %s; kept once",
                 len(again), time_axis.label(series.time.values[order[again[0]]]), both)  # fmt: skip
        order = np.delete(order, again + 1)
    else:
        log.info("times   %s is not in order of time; sorted", _file(series))
    return reordered(series, order)


def _repeated(series: Series, count: int, at: int, files: np.ndarray) -> TimeError:
    when = time_axis.label(series.time.values[at])
    times = f"{count} times are" if count > 1 else "1 time is"
    where = f"{files[0]} and {files[1]}" if files[0] != files[1] else str(files[0])
    return TimeError(
        f"{where}: {times} repeated, with different values at {when}",
        way_out="leave out one of the files, or cut it: ncks -d time,FIRST,LAST IN OUT"
        if files[0] != files[1]
        else "drop duplicates first, for example with xarray's drop_duplicates('time')",
    )


def stack(parts: Sequence[Series], channels: Sequence[str]) -> Series:
    """Parts of the same times, stacked as channels.

    Raises:
        GridError, TimeError: they are on different grids or at different times.
    """
    parts = _one_calendar(parts)
    first = parts[0]
    for part in parts[1:]:
        _check_times(first, part)
    parts = [first, *(_oriented(first, part) for part in parts[1:])]
    found = [name for p in parts for name in names(p)]
    order = [found.index(name) for name in channels]

    def frames(start: int, stop: int) -> np.ndarray:
        return np.concatenate([read_frames(p, start, stop) for p in parts], axis=1)[:, order]

    height, width = first.shape[2:]
    attributes = {name: attrs for p in parts for name, attrs in p.attrs["variables"].items()}
    placed = next((p for p in parts if places(p)), first)
    stacked = make_series(
        LazyFrames((first.shape[0], len(channels), height, width), np.float32, frames),
        first.time.values,
        {name: attributes[name] for name in channels},
        _sides(placed),
        kind=kinds.of_fields(str(attributes[n].get("units", "")) for n in channels).name,
        files=list(dict.fromkeys(f for p in parts for f in p.attrs["files"])),
        file_attrs=first.attrs["file_attrs"],
    )
    scalars = {name: found for p in parts for name, found in p.attrs["scalars"].items()}
    return _described_as(stacked, placed, scalars)


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
