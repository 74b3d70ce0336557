"""Time axes: their step, their gaps, and the times that follow them.

Times are `datetime64` (standard calendars), `cftime` objects (noleap, 360_day, ...) or plain numbers of seconds
(video). Arithmetic happens on numbers; what comes back has the type that went in.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from pdr_cli.errors import TimeError

# A step may differ from a whole number of steps by this share: video time stamps are rounded to milliseconds.
TOLERANCE = 0.1
DAY, WEEK, YEAR = 86400.0, 7 * 86400.0, 365.2425 * 86400.0  # seconds


@dataclass(frozen=True)
class Step:
    """Spacing of a time axis: `count` seconds, or `count` calendar months where months differ in length.

    `anchor` says from where in its month a time is counted: as far from its start, from its end, or in its middle.
    """

    count: float
    unit: Literal["s", "month"] = "s"
    anchor: Literal["start", "middle", "end"] = "start"

    def __str__(self) -> str:
        if self.unit == "month":
            return f"{self.count:g} month" + ("s" if self.count != 1 else "")
        for seconds, name in ((86400, "d"), (3600, "h"), (60, "min")):
            if self.count >= seconds and abs(self.count / seconds - round(self.count / seconds)) < 1e-9:
                return f"{round(self.count / seconds)} {name}"
        return f"{self.count:.4g} s"

    @property
    def hours(self) -> float:
        """Length in hours; a month counts as a twelfth of 365.2425 days."""
        return self.count / 3600 if self.unit == "s" else self.count * 365.2425 * 2

    def matches(self, other: Step) -> bool:
        """True if both mean the same spacing, up to the rounding of time stamps."""
        return self.unit == other.unit and abs(self.count - other.count) <= 1e-3 * self.count


def seconds(times: np.ndarray) -> np.ndarray:
    """Times as float64 seconds since 1970-01-01 of their own calendar, or as they are if already numbers: [T]."""
    if np.issubdtype(times.dtype, np.datetime64):
        return times.astype("datetime64[us]").astype(np.int64) / 1e6
    if times.dtype == object:
        import cftime

        numbers = cftime.date2num(list(times), "microseconds since 1970-01-01", calendar=times[0].calendar)
        return np.asarray(numbers, dtype=np.float64) / 1e6
    return times.astype(np.float64)


def months(times: np.ndarray) -> np.ndarray:
    """Calendar months, counted so that a multiple of 12 is a January: [T]."""
    if np.issubdtype(times.dtype, np.datetime64):
        return times.astype("datetime64[M]").astype(np.int64)
    return np.array([t.year * 12 + t.month - 1 for t in times])


def year_fraction(times: np.ndarray) -> np.ndarray:
    """The part of its calendar's year that has passed at each time, from 0 on 1 January to nearly 1: [T]."""
    if np.issubdtype(times.dtype, np.datetime64):
        year = times.astype("datetime64[Y]")
        first, end = seconds(year), seconds(year + 1)
    else:
        first = seconds(np.array([_new_year(t, 0) for t in times], dtype=object))
        end = seconds(np.array([_new_year(t, 1) for t in times], dtype=object))
    return (seconds(times) - first) / (end - first)


def positions(times: np.ndarray, step: Step) -> np.ndarray:
    """Times in units of `step` from the first one: [T]."""
    if step.unit == "month":
        return (months(times) - months(times)[0]) / step.count
    ticks = seconds(times)
    return (ticks - ticks[0]) / step.count


def find_step(times: np.ndarray, where: str = "the time axis") -> Step:
    """The spacing that most neighbours have; `where` names the axis in messages.

    Raises:
        TimeError: fewer than two times, repeated or descending times, or spacings that are no multiples of one step.
    """
    if len(times) < 2:
        raise TimeError(f"{where} has {len(times)} time step{'s' if len(times) != 1 else ''}; at least 2 are needed")
    ticks = seconds(times)
    spacing = np.diff(ticks)
    if np.any(spacing <= 0):
        at = int(np.argmax(spacing <= 0))
        what = "is repeated" if spacing[at] == 0 else "goes backwards"
        raise TimeError(
            f"{where}: time {what} at step {at + 1} ({label(times[at + 1])}); sort the file and drop duplicates first"
        )
    step = _monthly(times) or Step(_most_common(spacing))
    in_steps = np.diff(positions(times, step))
    if np.any(np.abs(in_steps - np.round(in_steps)) > TOLERANCE):
        kinds = sorted({str(Step(float(s))) for s in np.unique(np.round(spacing, 3))[:6]})
        raise TimeError(
            f"{where} has irregular times: steps of {', '.join(kinds)} between {label(times[0])} and {label(times[-1])}; "
            "interpolate them to one step first"
        )
    return step


def segments(times: np.ndarray, step: Step) -> list[tuple[int, int]]:
    """Runs [start, stop) of the axis in which every neighbour is one step away."""
    if len(times) == 0:
        return []
    breaks = np.flatnonzero(np.abs(np.diff(positions(times, step)) - 1) > TOLERANCE) + 1
    edges = [0, *breaks.tolist(), len(times)]
    return list(pairwise(edges))


def missing(times: np.ndarray, step: Step) -> np.ndarray:
    """The times that a gapless axis would have and this one lacks."""
    place = np.round(positions(times, step)).astype(int)
    absent = np.setdiff1d(np.arange(place[-1] + 1), place)
    return np.array([shift(times[0], step, int(n)) for n in absent])


def following(last: Any, step: Step, n: int) -> np.ndarray:
    """The `n` times after `last`: [n]."""
    return np.array([shift(last, step, i + 1) for i in range(n)])


def shift(time: Any, step: Step, n: int) -> Any:
    """The time `n` steps after `time`, of the same type."""
    if step.unit == "s":
        if isinstance(time, np.datetime64):
            return time.astype("datetime64[ns]") + np.timedelta64(round(n * step.count * 1e9), "ns")
        if isinstance(time, (int, float, np.number)):
            return np.float64(time + n * step.count)
        import datetime

        return time + datetime.timedelta(seconds=n * step.count)
    return _in_month(time, n * round(step.count), step.anchor)


def _in_month(time: Any, months: int, anchor: str) -> Any:
    """The time at the same place of its month, so many months later."""
    start, end = _month(time, 0), _month(time, 1)
    if anchor == "middle":
        new, after = _month(time, months), _month(time, months + 1)
        return new + (after - new) / 2 if not isinstance(time, np.datetime64) else new + (after - new) // 2
    if anchor == "end":
        return _month(time, months + 1) - (end - time)
    return _month(time, months) + (time - start)


def _month(time: Any, months: int) -> Any:
    """When a time's month begins, or that of so many months later."""
    if isinstance(time, np.datetime64):
        return (time.astype("datetime64[M]") + months).astype("datetime64[ns]")
    total = time.year * 12 + time.month - 1 + months
    return time.replace(year=total // 12, month=total % 12 + 1, day=1, hour=0, minute=0, second=0, microsecond=0)


def same(times: np.ndarray, others: np.ndarray, step: Step) -> bool:
    """True if both are the same times, up to the rounding of a clip's time stamps."""
    if len(times) != len(others):
        return False
    return bool(np.all(np.abs(seconds(times) - seconds(others)) <= TOLERANCE * step.hours * 3600))


def label(time: Any) -> str:
    """A time as people write it: `2013-12-31 18:00`, or `3.37 s` into a clip."""
    if isinstance(time, np.datetime64):
        return str(time.astype("datetime64[m]")).replace("T", " ")
    if isinstance(time, (int, float, np.number)):
        return f"{float(time):.4g} s"
    return time.strftime("%Y-%m-%d %H:%M")


def parse(text: str, times: np.ndarray) -> int:
    """Index of the time that `text` names, in an axis `times`.

    Raises:
        TimeError: not a time, or not one of the axis.
    """
    like = times[0]
    try:
        if np.issubdtype(times.dtype, np.datetime64):
            wanted = seconds(np.array([np.datetime64(text.strip().removesuffix("Z"))]))[0]
        elif times.dtype == object:
            wanted = seconds(np.array([_parse_cftime(text, like)], dtype=object))[0]
        else:
            wanted = float(text.strip().removesuffix("s"))
    except ValueError:
        raise TimeError(f"{text!r} is not a time; write it like {label(like)!r}") from None
    ticks = seconds(times)
    nearest = int(np.argmin(np.abs(ticks - wanted)))
    if abs(ticks[nearest] - wanted) > 0.5 * TOLERANCE * float(np.median(np.diff(ticks))):
        raise TimeError(
            f"{text!r} is not a time of the input, which runs from {label(times[0])} to {label(times[-1])}; "
            f"the nearest is {label(times[nearest])}"
        )
    return nearest


def _parse_cftime(text: str, like: Any) -> Any:
    import re

    parts = [int(p) for p in re.findall(r"\d+", text)]
    if not 3 <= len(parts) <= 6:
        raise ValueError(text)
    return type(like)(*parts) if type(like).__name__ != "datetime" else type(like)(*parts, calendar=like.calendar)


def _new_year(time: Any, years: int) -> Any:
    return time.replace(year=time.year + years, month=1, day=1, hour=0, minute=0, second=0, microsecond=0)


def _most_common(spacing: np.ndarray) -> float:
    values, counts = np.unique(np.round(spacing, 6), return_counts=True)
    return float(values[np.argmax(counts)])


def _monthly(times: np.ndarray) -> Step | None:
    """A step of calendar months, if all times are at the same place of months that are not all equally long."""
    numbers = not np.issubdtype(times.dtype, np.datetime64) and times.dtype != object
    if numbers or len(np.unique(np.diff(seconds(times)))) == 1 or np.any(np.diff(months(times)) < 1):
        return None
    ticks = seconds(times)
    start, end = (seconds(np.array([_month(t, n) for t in times])) for n in (0, 1))
    step = float(np.min(np.diff(months(times))))
    if len(np.unique(ticks - start)) == 1:
        return Step(step, "month")
    if len(np.unique(end - ticks)) == 1:
        return Step(step, "month", "end")
    # Some count the middle to the hour, some to the day.
    return Step(step, "month", "middle") if np.all(np.abs(ticks - (start + end) / 2) <= DAY) else None
