"""The valid times of the frames of a file: which of its variables holds them, to the precision of their stored type.

A time axis is found along each dimension, in this order: a variable named `valid_time`; the dimension's own coordinate,
if it is not an init time; another variable of dates along it; the init time plus the lead. A file of a single frame may
have a scalar time. Where leads have a dimension of their own, the file holds forecasts, and valid times exist for each lead.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from pdr_cli.data import times as time_axis
from pdr_cli.data.formats.time_roles import (
    LEAD_NAMES,
    is_init,
    is_lead,
    is_time,
    is_valid_time,
    lead_seconds,
    seconds_in,
    unit_of,
)

ABSOLUTE = "%Y%m%d"  # of days such as 20200131.25, as cdo writes them
SHORTEST = 1e-3  # seconds; floats that were computed are off by so much, whatever their type could hold
SINGLE = ""  # stands for the dimension of a file of a single frame


@dataclass(frozen=True)
class TimeAxis:
    """Valid times along a dimension.

    Args:
        dim: of the file; `SINGLE`: none, the file holds one frame.
        source: the variables that hold the times, in words.
        times: [T], or [T, L] where each lead has its own.
        lead_dim: dimension of the leads, of length L; "": none.
        change: by how much the stored stamps were rounded, seconds.
        others: variables of dates that could be the valid time as well; the axis is then ambiguous.
        unclear: lead without units after init times; the valid times are then unknown.
        is_init: whether the times are those at which forecasts began, and no lead is known.
    """

    dim: str
    source: str
    times: np.ndarray
    lead_dim: str = ""
    change: float = 0.0
    others: tuple[str, ...] = ()
    unclear: str = ""
    is_init: bool = False

    def at(self, lead: int = 0) -> np.ndarray:
        """Valid times of the frames of one lead: [T]."""
        return self.times[:, lead] if self.times.ndim == 2 else self.times


def time_axes(dataset: xr.Dataset) -> dict[str, TimeAxis]:
    """The time axis along each dimension that has one, by the name of the dimension; `SINGLE` where only scalars are dates."""
    found = _Dates.of(dataset)
    axes = [found.along(dim) for dim in found.dims()] or [found.single()]
    return {axis.dim: axis for axis in axes if axis is not None}


@dataclass(frozen=True)
class _Dates:
    """The variables of a dataset that hold dates or leads, by name."""

    dates: dict[str, xr.Variable]
    leads: dict[str, xr.Variable]
    counted: dict[str, xr.Variable]  # leads by their names only, without units
    sizes: dict[str, int]
    used: frozenset[frozenset[str]]  # dimensions of each field

    @classmethod
    def of(cls, dataset: xr.Dataset) -> _Dates:
        variables = {str(n): v for n, v in dataset.variables.items()}
        edges = {str(v.attrs.get(key, "")) for v in variables.values() for key in ("bounds", "climatology")}
        edges |= {str(v.encoding.get(key, "")) for v in variables.values() for key in ("bounds", "climatology")}
        whole = {n: v for n, v in variables.items() if n not in edges and v.ndim <= 3}
        dates = {n: d for n, v in whole.items() if (d := _dates(v)) is not None}
        leads = {n: v for n, v in whole.items() if n not in dates and v.ndim <= 1 and is_lead(n, v)}
        rest = {n: v for n, v in whole.items() if n not in dates and n not in leads and v.ndim <= 1}
        counted = {
            n: v for n, v in rest.items() if n.lower() in LEAD_NAMES and v.dtype.kind in "fiu" and not unit_of(v)
        }
        used = frozenset(frozenset(map(str, v.dims)) for v in dataset.data_vars.values())
        return cls(dates, leads, counted, {str(d): n for d, n in dataset.sizes.items()}, used)

    def dims(self) -> list[str]:
        """Dimensions along which frames have dates: those of dates, or else those of leads after a scalar init."""
        found = dict.fromkeys(d for n in self.dates for d in self._long(n)[:1] if self._long(n) == (d,))
        one_dimensional = dict.fromkeys(str(v.dims[0]) for v in self.dates.values() if v.ndim == 1)
        found = one_dimensional | found
        if not found and any(v.ndim == 0 for v in self.dates.values()):
            found = dict.fromkeys(str(v.dims[0]) for v in self.leads.values() if v.ndim == 1)
        # Leads along a dimension with an init along another: the former is no time axis of its own.
        return [d for d in found if not self._is_only_lead(d, found)]

    def along(self, dim: str) -> TimeAxis | None:
        """The time axis along a dimension."""
        lead = self._lead_beside(dim)
        dated = [n for n in self.dates if self._long(n) == (dim,) or self.dates[n].dims == (dim,)]
        if self.sizes[dim] == 1 and "valid_time" in self.dates and not self._long("valid_time"):
            dated = list(dict.fromkeys([*dated, "valid_time"]))  # of a single message, as a scalar
        if lead is not None and not any(self._is_marked(n) and n == "valid_time" for n in dated):
            return self._of_each_lead(dim, dated, lead)
        found, unclear = self._of(dim, dated), self._counted_beside(dim)
        return replace(found, unclear=unclear) if found is not None and unclear else found

    def single(self) -> TimeAxis | None:
        """The time of a file whose dates are all scalar."""
        return self._of(SINGLE, [n for n in self.dates if self._long(n) == ()])

    def _of(self, dim: str, dated: list[str]) -> TimeAxis | None:
        """The axis that one of the dates along `dim` gives, or an init and its lead."""
        best, others = self._best(dim, dated)
        if best is not None:
            times, change = _exact(self.dates[best], self._values(best, dim))
            return TimeAxis(dim, best, times, "", change, others)
        inits = [n for n in dated if n not in others] or [n for n in self.dates if self.dates[n].ndim == 0]
        if not inits:
            return None
        init, lead = inits[0], self._lead_of(dim)
        began, change = _exact(self.dates[init], self._values(init, dim))
        if lead is None:
            return TimeAxis(dim, init, began, "", change, (), self._without_unit(dim), is_init=True)
        ahead = lead_seconds(self.leads[lead], lead)
        return TimeAxis(dim, f"{init} plus {lead}", _later(began, np.atleast_1d(ahead)), "", change)

    def _of_each_lead(self, dim: str, dated: list[str], lead: str) -> TimeAxis | None:
        """Valid times [T, L] along an init time and the leads after it."""
        across = str(self.leads[lead].dims[0])
        both = [n for n, v in self.dates.items() if set(v.dims) == {dim, across} and not is_init(n, v.attrs)]
        if both:
            values = self.dates[both[0]].transpose(dim, across).values
            source = both[0]
        elif dated:
            began, _ = _exact(self.dates[dated[0]], self._values(dated[0], dim))
            values = np.stack([_later(began, s) for s in lead_seconds(self.leads[lead], lead)], axis=1)
            source = f"{dated[0]} plus {lead}"
        else:
            return None
        if self.sizes[across] == 1:
            return TimeAxis(dim, source, values[:, 0])
        return TimeAxis(dim, source, values, across)

    def _best(self, dim: str, dated: list[str]) -> tuple[str | None, tuple[str, ...]]:
        """The variable of valid times among those along a dimension, and others that might be it as well."""
        valid = [n for n in dated if not is_init(n, self.dates[n].attrs)]
        if "valid_time" in valid:
            return "valid_time", ()
        if dim in valid:
            return dim, ()
        named = [n for n in valid if self.dates[n].attrs.get("standard_name") == "time"]
        choice = named or [n for n in valid if self._is_marked(n)] or valid
        if not choice:
            return None, ()
        first = self._values(choice[0], dim)
        different = [n for n in choice[1:] if not np.array_equal(self._values(n, dim), first)]
        return choice[0], tuple(different)

    def _is_marked(self, name: str) -> bool:
        return is_valid_time(name, self.dates[name].attrs)

    def _long(self, name: str) -> tuple[str, ...]:
        """Dimensions of a variable without those of length 1."""
        return tuple(str(d) for d in self.dates[name].dims if self.sizes[str(d)] > 1)

    def _values(self, name: str, dim: str) -> np.ndarray:
        """Dates of a variable along one dimension, [T]; of none, [1]."""
        variable = self.dates[name]
        others = {d: 0 for d in variable.dims if d != dim}
        return np.atleast_1d(variable.isel(others).values)

    def _lead_of(self, dim: str) -> str | None:
        """The lead that every frame along a dimension has, or one for all of them."""
        found = [n for n, v in self.leads.items() if v.dims == (dim,)]
        return next(iter(found + [n for n, v in self.leads.items() if v.size == 1]), None)

    def _without_unit(self, dim: str) -> str:
        """A lead of the frames along a dimension that is not zero and has no unit; "": none."""
        found = [n for n, v in self.counted.items() if (v.dims == (dim,) or v.size == 1) and np.any(v.values != 0)]
        return next(iter(found), "")

    def _lead_beside(self, dim: str) -> str | None:
        """The lead along another dimension that fields have besides `dim`."""
        for name, lead in self.leads.items():
            if lead.ndim == 1 and lead.dims != (dim,) and any({dim, str(lead.dims[0])} <= dims for dims in self.used):
                return name
        return None

    def _counted_beside(self, dim: str) -> str:
        """A lead without units along another dimension of the fields; "": none, or valid times along both dimensions."""
        for name, lead in self.counted.items():
            both = {dim, *map(str, lead.dims)}
            dated = any(set(v.dims) == both and not is_init(n, v.attrs) for n, v in self.dates.items())
            if (
                len(both) == 2
                and name != "step"
                and not dated
                and any(both <= dims for dims in self.used)
                and lead.values.any()
            ):
                return name
        return ""

    def _is_only_lead(self, dim: str, dims: Iterable[str]) -> bool:
        others = [d for d in dims if d != dim]
        of_leads = any(v.dims == (dim,) for v in self.leads.values())
        return of_leads and any({dim, d} <= used for d in others for used in self.used)


def _dates(variable: xr.Variable) -> xr.Variable | None:
    """A variable of dates as it is, or decoded where xarray does not know its form; None of another variable."""
    if is_time(variable):
        return variable
    unit = str(variable.attrs.get("units", ""))
    if unit.replace(" ", "").lower().startswith(f"dayas{ABSOLUTE}".lower()) and variable.dtype.kind in "fiu":
        return xr.Variable(variable.dims, _of_days(variable.values), _without_units(variable), variable.encoding)
    if unit.lower().startswith(("months since ", "month since ")) and variable.dtype.kind in "fiu":
        values = _of_months(variable)
        return None if values is None else xr.Variable(variable.dims, values, _without_units(variable))
    if variable.ndim == 1 and variable.size and variable.dtype.kind in "SUO":
        values = _of_texts(variable.values)
        return None if values is None else xr.Variable(variable.dims, values, dict(variable.attrs))
    return None


def _without_units(variable: xr.Variable) -> dict[Any, Any]:
    return {k: v for k, v in variable.attrs.items() if k != "units"}


def _of_days(days: np.ndarray) -> np.ndarray:
    """Dates of numbers such as 20200131.25."""
    whole = np.floor(days).astype(np.int64)
    start = [np.datetime64(f"{d // 10000:04d}-{d // 100 % 100:02d}-{d % 100:02d}", "ns") for d in whole.ravel()]
    ticks = np.round((days - whole).astype(np.float64) * time_axis.DAY * 1e3).astype("timedelta64[ms]")
    return np.asarray(np.array(start).reshape(days.shape) + ticks)


def _of_months(variable: xr.Variable) -> np.ndarray | None:
    """Dates of whole calendar months, or of their middles, since a date; None of other fractions, which have no length."""
    months = np.asarray(variable.values, np.float64)
    whole = np.floor(months)
    if not (np.isfinite(months).all() and np.isin(months - whole, (0, 0.5)).all()):
        return None
    calendar = str(variable.attrs.get("calendar", "standard")).lower().replace("360_day", "360")
    counted = {"units": re.sub("months?", "days", str(variable.attrs["units"]).lower(), count=1)}
    counted["calendar"] = "360_day" if calendar == "360" else calendar
    try:
        start = xr.conventions.decode_cf_variable("start", xr.Variable((), 0, counted)).values[()]
    except ValueError:
        return None
    if int(time_axis.label(start)[8:10]) > 28:
        return None  # not every month has such a day
    dates = [time_axis.shift(start, time_axis.Step(1, "month"), int(n)) for n in whole.ravel()]
    later = [time_axis.shift(start, time_axis.Step(1, "month"), int(n) + 1) for n in whole.ravel()]
    half = (months - whole).ravel() > 0
    found = [d + (e - d) / 2 if h else d for d, e, h in zip(dates, later, half, strict=True)]
    return np.array(found).reshape(months.shape)


def _of_texts(texts: np.ndarray) -> np.ndarray | None:
    """Dates of texts such as 2000-01-24_12:00:00; None if they are not dates."""
    plain = [t.decode("latin-1") if isinstance(t, bytes) else str(t) for t in texts.ravel()]
    if not all(len(t) >= 10 and t[4:5] == "-" and t[:4].isdigit() for t in plain):
        return None
    try:
        return np.array([np.datetime64(t.strip().replace("_", "T").removesuffix("Z"), "ns") for t in plain])
    except ValueError:
        return None


def _exact(variable: xr.Variable, times: np.ndarray) -> tuple[np.ndarray, float]:
    """Times without the rounding of the type that they are stored in, and the largest change in seconds."""
    tolerance = _resolution(variable)
    if tolerance == 0 or (times.dtype.kind == "M" and np.isnat(times).any()):
        return times, 0.0
    return time_axis.rounded(times, tolerance)


def _resolution(variable: xr.Variable) -> float:
    """Largest rounding error of stored stamps in seconds; 0 where they are stored as whole numbers, or not at all."""
    stored = np.dtype(variable.encoding.get("dtype", "i8"))
    if stored.kind != "f":
        return 0.0
    unit, _, origin = str(variable.encoding.get("units", "")).partition(" since ")
    factor = seconds_in(xr.Variable((), 0.0, {"units": unit}))
    if factor is None or not origin:
        return SHORTEST
    counted = {k: v for k, v in variable.encoding.items() if k in ("units", "calendar")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dates before 1678
        start = xr.conventions.decode_cf_variable("start", xr.Variable((), 0, counted)).values
    ticks = time_axis.seconds(np.atleast_1d(variable.values).ravel()) - time_axis.seconds(np.atleast_1d(start))
    largest = float(np.abs(ticks).max(initial=0)) / factor
    return max(0.5 * float(np.spacing(stored.type(largest))) * factor * 1.01, SHORTEST)


def _later(times: np.ndarray, seconds: np.ndarray | float) -> np.ndarray:
    """Times some seconds later: [T]."""
    ahead = np.broadcast_to(np.asarray(seconds, float), np.broadcast_shapes(times.shape, np.shape(seconds)))
    start = np.broadcast_to(times, ahead.shape)
    if np.issubdtype(times.dtype, np.datetime64):
        return np.asarray(start + np.round(ahead * 1e9).astype("timedelta64[ns]"))
    return np.array([time_axis.shift(t, time_axis.Step(float(s)), 1) for t, s in zip(start, ahead, strict=True)])
