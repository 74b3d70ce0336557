"""Time axes: their step, their gaps, and the times that follow them.

Times are `datetime64` (standard calendars), `cftime` objects (noleap, 360_day, ...) or plain numbers of seconds
(video). Arithmetic is done on numbers; results have the type of the arguments.
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
UNITS = (DAY, 3600.0, 1800.0, 900.0, 600.0, 300.0, 60.0, 1.0)  # that rounded stamps are brought back to, seconds
EPOCH = "microseconds since 1970-01-01"


@dataclass(frozen=True)
class Step:
    """Spacing of a time axis: `count` seconds, or `count` calendar months where months differ in length.

    Args:
        count: seconds or months.
        unit: "s" or "month".
        anchor: what keeps its distance in each month: the time from the start of the month, from its end, or its middle.
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
        """True if both are the same spacing, up to the rounding of time stamps."""
        return self.unit == other.unit and abs(self.count - other.count) <= 1e-3 * self.count


def seconds(times: np.ndarray) -> np.ndarray:
    """Times as float64 seconds since 1970-01-01 of their own calendar; numbers stay as they are: [T]."""
    if np.issubdtype(times.dtype, np.datetime64):
        return times.astype("datetime64[us]").astype(np.int64) / 1e6
    if times.dtype == object:
        import cftime

        numbers = cftime.date2num(list(times), EPOCH, calendar=times[0].calendar)
        return np.asarray(numbers, dtype=np.float64) / 1e6
    return times.astype(np.float64)


def calendar(times: np.ndarray) -> str:
    """The calendar of dates, by its name in CF; "" for seconds."""
    if np.issubdtype(times.dtype, np.datetime64):
        return "standard"
    return str(times[0].calendar) if times.dtype == object else ""


def months(times: np.ndarray) -> np.ndarray:
    """Calendar months as numbers, of which multiples of 12 are Januaries: [T]."""
    if np.issubdtype(times.dtype, np.datetime64):
        return times.astype("datetime64[M]").astype(np.int64)
    return np.array([t.year * 12 + t.month - 1 for t in times])


def year_fraction(times: np.ndarray) -> np.ndarray:
    """Elapsed fraction of the calendar year at each time, in [0, 1): [T]."""
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


def find_step(times: np.ndarray, where: str = "") -> Step:
    """The spacing that most neighbours have; `where` names the file in messages.

    Raises:
        TimeError: fewer than two times, repeated or descending times, or spacings that are not multiples of one step.
    """
    try:
        return _find_step(times)
    except TimeError as error:
        raise (error.at(where) if where else error) from None


def _find_step(times: np.ndarray) -> Step:
    if len(times) < 2:
        raise TimeError(f"{len(times)} time step{'s' if len(times) != 1 else ''}", "at least 2")
    spacing = np.diff(seconds(times))
    if np.any(spacing <= 0):
        at = int(np.argmax(spacing <= 0))
        what = "is repeated" if spacing[at] == 0 else "goes backwards"
        found = f"time {what} at step {at + 1} ({label(times[at + 1])})"
        raise TimeError(found, way_out="sort the file and drop duplicates first")
    step = _monthly(times) or Step(_most_common(spacing) if _are_dates(times) else _fitted(spacing))
    in_steps = np.diff(positions(times, step))
    if np.any(np.abs(in_steps - np.round(in_steps)) > TOLERANCE):
        steps = ", ".join(sorted({str(Step(float(s))) for s in np.unique(np.round(spacing, 3))[:6]}))
        found = f"irregular times: steps of {steps} between {label(times[0])} and {label(times[-1])}"
        raise TimeError(found, way_out="interpolate them to one step first")
    return step


def rounded(times: np.ndarray, tolerance: float) -> tuple[np.ndarray, float]:
    """Times without the rounding of their stored type, and the largest change in seconds.

    They become whole days, hours, minutes or seconds where all of them lie within `tolerance` of these, or else multiples
    of a whole step from a whole minute. A unit that is not much longer than the tolerance proves nothing.

    Args:
        times: dates, [T].
        tolerance: largest error of a stored stamp, seconds.
    """
    ticks = seconds(times)
    exact = _whole(ticks, tolerance)
    exact = _lattice(ticks, tolerance) if exact is None else exact
    if exact is None or len(np.unique(exact)) < len(np.unique(ticks)):
        return times, 0.0
    change = float(np.abs(exact - ticks).max(initial=0))
    return (times, 0.0) if change == 0 else (_dates(exact, times), change)


def _whole(ticks: np.ndarray, tolerance: float) -> np.ndarray | None:
    """Multiples of the longest unit that all stamps lie within `tolerance` of; None if there is no such unit."""
    for unit in UNITS:
        exact = np.round(ticks / unit) * unit
        if unit > 3 * tolerance and np.all(np.abs(ticks - exact) <= tolerance):
            return exact
    return None


def _lattice(ticks: np.ndarray, tolerance: float) -> np.ndarray | None:
    """The multiples of one whole step that all stamps lie within `tolerance` of; None if there is no such step."""
    if len(ticks) < 3:
        return None
    count = np.arange(len(ticks))
    step = float(ticks[-1] - ticks[0]) / count[-1]
    for unit in UNITS:
        whole = round(step / unit) * unit
        start = round(float(np.median(ticks - count * whole)) / 60) * 60
        if whole > 0 and np.all(np.abs(start + count * whole - ticks) <= tolerance):
            return np.asarray(start + count * whole, np.float64)
    return None


def _dates(ticks: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Dates of the type of `like` from seconds since 1970-01-01 of their calendar: [T]."""
    if np.issubdtype(like.dtype, np.datetime64):
        return np.round(ticks * 1e6).astype(np.int64).astype("datetime64[us]").astype(like.dtype)
    import cftime

    found = cftime.num2date(np.round(ticks * 1e6).astype(np.int64), EPOCH, calendar=like[0].calendar)
    return np.asarray(found, dtype=object)


def segments(times: np.ndarray, step: Step) -> list[tuple[int, int]]:
    """Runs [start, stop) of the axis in which every neighbour is one step away."""
    if len(times) == 0:
        return []
    breaks = np.flatnonzero(np.abs(np.diff(positions(times, step)) - 1) > TOLERANCE) + 1
    edges = [0, *breaks.tolist(), len(times)]
    return list(pairwise(edges))


def missing(times: np.ndarray, step: Step) -> np.ndarray:
    """The times that are absent between the first and the last."""
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
    """The time `months` months later, at the same place of its month."""
    start, end = _month(time, 0), _month(time, 1)
    if anchor == "middle":
        new, after = _month(time, months), _month(time, months + 1)
        return new + (after - new) / 2 if not isinstance(time, np.datetime64) else new + (after - new) // 2
    if anchor == "end":
        return _month(time, months + 1) - (end - time)
    return _month(time, months) + (time - start)


def _month(time: Any, months: int) -> Any:
    """The start of a time's month, or of the month `months` later."""
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
    """A time for messages and pictures: `2013-12-31 18:00`, or `3.37 s` into a clip."""
    if isinstance(time, np.datetime64):
        return str(time.astype("datetime64[m]")).replace("T", " ")
    if isinstance(time, (int, float, np.number)):
        return f"{float(time):.4g} s"
    return time.strftime("%Y-%m-%d %H:%M")


def parse(text: str, times: np.ndarray) -> int:
    """Index in the axis `times` of the time that `text` names.

    Raises:
        TimeError: not a time, or not one of the axis.
    """
    try:
        requested = _parse_seconds(text.strip(), times)
    except ValueError:
        raise TimeError(f"{text!r} is not a time", way_out=f"write it like {label(times[0])!r}") from None
    ticks = seconds(times)
    nearest = int(np.argmin(np.abs(ticks - requested)))
    if abs(ticks[nearest] - requested) > 0.5 * TOLERANCE * float(np.median(np.diff(ticks))):
        raise TimeError(
            f"{text!r} is not a time of the input, which runs from {label(times[0])} to {label(times[-1])}",
            way_out=f"the nearest is {label(times[nearest])}",
        )
    return nearest


def _parse_seconds(text: str, times: np.ndarray) -> float:
    if np.issubdtype(times.dtype, np.datetime64):
        return float(seconds(np.array([np.datetime64(text.removesuffix("Z"))]))[0])
    if times.dtype == object:
        return float(seconds(np.array([_parse_cftime(text, times[0])], dtype=object))[0])
    return float(text.removesuffix("s"))


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


def _fitted(spacing: np.ndarray) -> float:
    """The spacing of a clip's frames, fitted to all of them: stamps in milliseconds of 24 frames a second are 41 or 42 apart."""
    common = _most_common(spacing)
    near = float(spacing[np.abs(spacing - common) < common / 2].mean())
    fitted = float(spacing.sum() / max(np.round(spacing / near).sum(), 1))
    return common if abs(fitted - common) <= 1e-9 * common else fitted


def _are_dates(times: np.ndarray) -> bool:
    return bool(np.issubdtype(times.dtype, np.datetime64)) or times.dtype == object


def _monthly(times: np.ndarray) -> Step | None:
    """A step of calendar months, if months differ in length and all times have the same place in their month."""
    if not _are_dates(times) or len(np.unique(np.diff(seconds(times)))) == 1 or np.any(np.diff(months(times)) < 1):
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
