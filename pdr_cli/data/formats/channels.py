"""Which variable of the files, and which of its levels, is each channel."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from pdr_cli.data import units
from pdr_cli.data.formats.axes import AxisFinder, level_values
from pdr_cli.data.formats.time_roles import is_lead, lead_seconds
from pdr_cli.errors import TimeError, VariableError, did_you_mean

NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z%].*)?")
UNFINISHED = "if it is still being written, wait"
CALENDARS = (
    *("standard", "gregorian", "proleptic_gregorian", "julian", "noleap", "365_day", "all_leap", "366_day", "360_day"),
    *("utc", "tai"),
)
EXPVER = ("expver",)  # ERA5 and its preliminary values, which complete each other


@dataclass(frozen=True)
class Opened:
    """An open file."""

    path: Path
    finder: AxisFinder

    @classmethod
    def of(cls, dataset: xr.Dataset, path: Path) -> Opened:
        """A dataset and the path that messages name."""
        return cls(path, AxisFinder(dataset))

    @property
    def dataset(self) -> xr.Dataset:
        """Times decoded, no field read yet."""
        return self.finder.dataset


@dataclass(frozen=True)
class Source:
    """The source of a channel: a variable of the files and one of its levels; "" where it has one level at most."""

    name: str
    level: str = ""

    @classmethod
    def parse(cls, text: str) -> Source:
        """From `t2m`, `t@850` or `t@850hPa`."""
        name, _, level = text.partition("@")
        return cls(name, level)

    def __str__(self) -> str:
        return f"{self.name}@{self.level}" if self.level else self.name


def choose(opened: Sequence[Opened], channels: Sequence[str], rename: Mapping[str, str]) -> dict[str, Source]:
    """The source of each channel, over all files together.

    Raises:
        VariableError, TimeError: no file has a gridded variable of that name.
    """
    for one in opened:
        if (
            not channels
            or len(opened) == 1
            or any(Source.parse(rename.get(n, n)).name in one.dataset for n in channels)
        ):
            _check_usable(one)
    found = list(dict.fromkeys(n for one in opened for n in one.finder.gridded))
    if not found:
        every = dict.fromkeys(str(n) for one in opened for n in one.dataset.data_vars)
        raise VariableError(f"{_where(opened)} has no variable on (time, y, x); it has {', '.join(every) or 'none'}")
    if channels:
        return {name: _source(opened, found, name, rename.get(name, name)) for name in channels}
    if len(found) > 1:
        what = f"{_where(opened)} has {len(found)} gridded variables: {', '.join(found)}"
        raise VariableError(what, way_out="name those to use with --var")
    return {found[0]: Source(found[0])}


def _check_usable(one: Opened) -> None:
    """Refuse a file without valid times, or with nothing along a dimension.

    Raises:
        TimeError: lists the dimensions that the file has.
    """
    dataset, path, times = one.dataset, one.path, one.finder.times
    used = {d for v in dataset.data_vars.values() if v.ndim >= 2 for d in v.dims}
    empty = [str(d) for d, n in dataset.sizes.items() if n == 0 and d in used]
    if empty:
        has = "steps" if empty[0] in times or empty[0] == "time" else "values"
        raise TimeError(f"{path} has no {has}: dimension {empty[0]} has length 0", way_out=UNFINISHED)
    for axis in times.values():
        if axis.others:
            along = f"along {axis.dim}" if axis.dim else "for its one frame"
            raise TimeError(
                f"{path} has several times {along}, which differ: {', '.join((axis.source, *axis.others))}",
                "one with standard_name time",
                f"ncks -x -v {','.join(axis.others)} IN OUT keeps {axis.source}",
            )
        if axis.unclear:
            raise TimeError(
                f"{path}: the frames are dated by the time at which forecasts began, and their lead {axis.unclear} has no units",
                "hours or seconds",
                f"ncatted -a units,{axis.unclear},o,c,hours FILE, if they are hours",
            )
    if times:
        return
    counted = [n for n, v in dataset.variables.items() if " since " in str(v.attrs.get("units", ""))]
    if counted:
        raise _undecoded(dataset, path, str(counted[0]))
    dims = ", ".join(f"{d} ({n})" for d, n in dataset.sizes.items())
    raise TimeError(
        f"{path} has no time coordinate; its dimensions are {dims or 'none'}",
        "a time axis with units such as 'hours since 2000-01-01'",
        "if its frames are at equal steps, cdo -settaxis,DATE,TIME,STEP IN OUT sets one, with a step such as 1hour",
    )


def _undecoded(dataset: xr.Dataset, path: Path, name: str) -> TimeError:
    """The error for a time axis whose units are not decoded."""
    attrs = dataset[name].attrs
    unit, calendar = str(attrs["units"]), str(attrs.get("calendar", "standard"))
    found = f"{path}: the time axis cannot be decoded: {name} has units {unit!r} and calendar {calendar!r}"
    if calendar.lower() not in CALENDARS:
        way_out = f"correct it: ncatted -a calendar,{name},o,c,{_nearest_calendar(calendar)} FILE"
        return TimeError(found, f"a calendar of CF: {', '.join(CALENDARS)}", way_out)
    offset = "in UTC or with an offset such as +01:00; a month or a year has no fixed length"
    expected = f"units such as 'days since 2000-01-01', {offset}"
    return TimeError(found, expected, "write dates to the file first, for example with xarray's Dataset.assign_coords")


def _nearest_calendar(calendar: str) -> str:
    """The name in CF of what other programs call by other names."""
    plain = calendar.lower()
    if "thirty" in plain or "360" in plain:
        return "360_day"
    return "noleap" if "365" in plain or plain.startswith(("nol", "no_", "no-", "no l")) else "CALENDAR"


def _where(opened: Sequence[Opened]) -> str:
    return str(opened[0].path) if len(opened) == 1 else f"{opened[0].path} and {len(opened) - 1} more"


def _source(opened: Sequence[Opened], found: list[str], channel: str, text: str) -> Source:
    """The source of a channel: the variable named by `text`, or the only one of that standard name."""
    source = Source.parse(text)
    if source.name in found:
        return source
    if text == channel:
        matches = {
            n for o in opened for n in o.finder.gridded if o.dataset[n].attrs.get("standard_name") == source.name
        }
        if len(matches) == 1:
            return Source(matches.pop(), source.level)
    hint = did_you_mean(source.name, found) or f" It has {', '.join(found)}."
    reason = "is not on (time, y, x)" if any(source.name in o.dataset for o in opened) else "is not there"
    raise VariableError(
        f"{_where(opened)}: variable {source.name!r} {reason}.{hint}",
        way_out=f"--var {channel}=NAME takes another variable for it",
    )


def places_along(one: Opened, source: Source) -> dict[str, int]:
    """The index along each dimension of a variable that is not time, y or x: {dimension: index}.

    Raises:
        VariableError: no such level, or a dimension of which no value is chosen.
    """
    axes = one.finder.axes(source.name)
    array = one.dataset.variables[source.name]
    others = [str(d) for d in array.dims if axes is None or d not in (axes.time, axes.y, axes.x)]
    chosen = dict.fromkeys(others, 0)
    levels = [d for d in others if array.sizes[d] > 1] or [d for d in others if d in one.dataset.coords]
    if source.level:
        if len(levels) != 1:
            has = f"several further dimensions: {', '.join(levels)}" if levels else "no levels"
            raise VariableError(f"{one.path}: {source.name} has {has}, so that {source} has no meaning")
        chosen[levels[0]] = _level(one, source, levels[0])
    elif levels and array.sizes[levels[0]] > 1:
        raise _unchosen(one, source, levels[0])
    return chosen


def _unchosen(one: Opened, source: Source, dim: str) -> VariableError:
    """The error for a dimension of which no value is chosen."""
    values, name = _plain_levels(one.dataset, dim), source.name
    has = f"{one.path}: {name} has a further dimension {dim} with {len(values)} values"
    has = f"{has} ({', '.join(map(str, values[:4]))}{', ...' if len(values) > 4 else ''})"
    if dim.lower() in EXPVER:
        first, second = values[:2]
        return VariableError(
            f"{has}: final and preliminary values, each missing where the other is",
            way_out=f"merge them first, with xarray: ds.sel({dim}={first}).combine_first(ds.sel({dim}={second}))",
        )
    if _is_lead(one.dataset, dim):
        return VariableError(
            f"{has}: they are lead times, so that the file holds forecasts",
            "observations, or one lead",
            f"--var {name}@{values[0]} takes the frames of one lead, at the times for which they are valid",
        )
    return VariableError(has, way_out=f"choose one of them with --var {name}@{values[0]}")


def _is_lead(dataset: xr.Dataset, dim: str) -> bool:
    return dim in dataset.variables and is_lead(dim, dataset[dim])


def _plain_levels(dataset: xr.Dataset, dim: str) -> np.ndarray:
    """The values along a dimension, lead times of timedelta64 in hours."""
    if dim in dataset.variables and np.issubdtype(dataset[dim].dtype, np.timedelta64):
        return lead_seconds(dataset[dim]) / 3600
    return level_values(dataset, dim)


def level_of(one: Opened, dim: str, index: int) -> tuple[float, dict[str, str]] | None:
    """Value and attributes of a level, for a scalar coordinate; None where the dimension is not numbered in units."""
    if dim not in one.dataset.coords or _is_lead(one.dataset, dim):
        return None
    coordinate = one.dataset[dim]
    if coordinate.dtype.kind not in "fiu":
        return None
    value = coordinate.values[index].item()
    attrs = {str(k): v for k, v in coordinate.attrs.items() if k not in ("bounds", "formula_terms", "formula")}
    return value, attrs


def _level(one: Opened, source: Source, dim: str) -> int:
    """Index of a level by its value, in the units of its axis unless others are given; hPa are found among Pa.

    Raises:
        VariableError: no such level, which names the nearest; or a value that is a level in Pa and in hPa.
    """
    numbers, unit = _numbers(one, source, dim)
    wanted = _wanted(one, source, unit)
    found = {w: np.flatnonzero(np.isclose(numbers, w, rtol=1e-6)) for w in wanted}
    hits = [w for w, at in found.items() if len(at)]
    if len(hits) > 1:
        either = " or ".join(f"{w:g} {unit}" for w in hits)
        options = " or ".join(f"{source.name}@{source.level}{u}" for u in ("Pa", "hPa"))
        raise VariableError(
            f"{one.path}: {source} is {either}, and both are levels of {dim}", way_out=f"write {options}"
        )
    if hits:
        return int(found[hits[0]][0])
    near = sorted(numbers.tolist(), key=lambda v: abs(v - wanted[-1]))[:3]
    raise VariableError(
        f"{one.path}: {source.name} has no level {source.level} on {dim} ({len(numbers)} levels"
        f"{f' in {unit}' if unit else ''}); the nearest are {', '.join(f'{v:g}' for v in near)}"
    )


def _numbers(one: Opened, source: Source, dim: str) -> tuple[np.ndarray, str]:
    """The levels along a dimension as numbers, and their unit."""
    values = _plain_levels(one.dataset, dim)
    try:
        numbers = values.astype(np.float64)
    except ValueError:
        raise VariableError(
            f"{one.path}: {source.name}@{source.level}: {dim} has no numbers but {', '.join(map(str, values[:4]))}",
            way_out=f"select one first, with xarray: ds.sel({dim}={values[0].item()!r})",
        ) from None
    coordinate = one.dataset[dim] if dim in one.dataset.coords else None
    if coordinate is None or np.issubdtype(coordinate.dtype, np.timedelta64):
        return numbers, "" if coordinate is None else "h"
    return numbers, str(coordinate.attrs.get("units", "")).strip()


def _wanted(one: Opened, source: Source, unit: str) -> list[float]:
    """The values along the axis, in its `unit`, that a level may mean."""
    parsed = NUMBER.fullmatch(source.level.strip())
    if parsed is None:
        found = f"{one.path}: {source.level!r} is not a level of {source.name}"
        raise VariableError(found, "a number", f"write {source.name}@850 or {source.name}@850hPa")
    level, given = float(parsed[1]), parsed[2]
    if given:
        try:
            how = units.conversion(given, unit)
        except units.UnitsError:
            how = None
            if units.spelling(given) != units.spelling(unit):
                raise VariableError(f"{one.path}: levels of {source.name} are in {unit!r}, not in {given!r}") from None
        return [level if how is None else float(level * how.factor + how.offset)]
    return [level, 100 * level] if unit and units.spelling(unit) == units.spelling("Pa") else [level]
