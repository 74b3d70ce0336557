"""Parts and windows as published loaders have them (`data.protocol = "openstl"`): WeatherBench, TaxiBJ and KTH."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pdr_cli.data import kinds, periods
from pdr_cli.data import times as time_axis
from pdr_cli.data.rules import Rules
from pdr_cli.data.series import Series
from pdr_cli.data.times import DAY, Step
from pdr_cli.data.windows import FrameCache, Windows

FAST = ("jogging", "running")  # KTH actions of which the published scan takes more windows


def members(one: Series, rules: Rules) -> dict[str, np.ndarray]:
    """The frames of "train", "val" and "test", [T] each; validation is the test, and no gap lies between parts."""
    times, dates = one.time.values, rules.periods
    left = _whole_days(one)
    test = left & periods.chosen(times, left, dates.test, rules.test_fraction)
    left = periods.rest(left, test, dates.test)
    train = left & periods.chosen(times, left, dates.train, 1.0)
    test = _without_last_hours(one, test)
    return {"train": _without_last_hours(one, train), "val": test, "test": test}


def cut(
    series: Sequence[Series], parts: Sequence[tuple[int, int, int]], rules: Rules, step: Step, cache: FrameCache
) -> Windows:
    """Windows at every step of the parts (series number, start, stop), but of KTH clips those of the published scan.

    The scan goes backwards over the frames of all clips. It takes a window where the first and the last frame belong to
    one clip and their numbers differ by the window's length less one, then jumps back by that length, or by 3 frames for
    jogging and running. No jump of a window of three frames or more passes the beginning of an unbroken run, so each run
    is scanned by itself.
    """
    places: list[tuple[int, int]] = []
    for number, start, stop in parts:
        for low, high in time_axis.segments(series[number].time.values[start:stop], step):
            places += [(number, first) for first in _starts(start + low, start + high, series[number], rules.length)]
    found = np.array(places, dtype=np.int64).reshape(-1, 2)
    return Windows(series, found, rules.in_steps, rules.out_steps, step, cache)


def _starts(low: int, high: int, one: Series, length: int) -> Sequence[int]:
    if "action" not in one.attrs:
        return range(low, high - length + 1)
    jump = 3 if one.attrs["action"] in FAST else length
    return range(high - length, low - 1, -jump)[::-1]


def _whole_days(one: Series) -> np.ndarray:
    """Frames [T] of days with all their slots; published loaders of traffic grids drop the other days."""
    times = one.time.values
    if not kinds.of(one).weekly or not periods.has_dates(one):
        return np.ones(len(times), dtype=bool)
    _, which, counts = np.unique(times.astype("datetime64[D]"), return_inverse=True, return_counts=True)
    slots = one.attrs["file_attrs"].get("slots_per_day") or round(DAY / time_axis.find_step(times).count)
    return np.asarray((counts == int(slots))[which])


def _without_last_hours(one: Series, part: np.ndarray) -> np.ndarray:
    """A part [T] without its last two frames, where the published weather loader ends it.

    The loader drops the last hour, and its range of valid times stops one before the last that would fit: L - 24 windows
    of 12 + 12 from L = hours - 1.
    """
    kept = part.copy()
    if kinds.of(one) is kinds.WEATHER:
        kept[np.flatnonzero(part)[-2:]] = False
    return kept
