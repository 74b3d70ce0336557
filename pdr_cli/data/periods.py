"""Division by dates: which frames of a series belong to each part. Members of a part are masks [T] over the frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pdr_cli.data import times as time_axis
from pdr_cli.data.rules import Rules
from pdr_cli.data.series import Series
from pdr_cli.data.times import DAY
from pdr_cli.settings import parse_days, parse_interval
from pdr_cli.system.logs import log


def has_dates(series: Series) -> bool:
    """True if times are dates; those of clips are seconds."""
    return not np.issubdtype(series.time.values.dtype, np.floating)


def applicable(series: Sequence[Series], rules: Rules) -> Rules:
    """The rules without the periods that do not fit the data, which go by the fractions; each is logged.

    Last days do not fit if they are more than half of the data, dates if the data have none of them at all.
    """
    rules = _without_absent_dates(series, rules)
    ticks = time_axis.seconds(series[0].time.values)
    half = (ticks[-1] - ticks[0]) / DAY / 2
    for part, period in (("val", rules.periods.val), ("test", rules.periods.test)):
        days = parse_days(period)
        if days is not None and days > half:
            name = f"{part}_period"
            log.warning("split   %s %s is more than half of the data; the fractions divide them instead", name, period)
            rules = rules.without(part)
    return rules


def _without_absent_dates(series: Sequence[Series], rules: Rules) -> Rules:
    dated = {part: p for part, p in rules.periods._asdict().items() if p and parse_days(p) is None}
    times = [one.time.values for one in series]
    if not dated or not has_dates(series[0]):
        return rules
    if any(chosen(t, np.ones(len(t), dtype=bool), period, 1.0).any() for t in times for period in dated.values()):
        return rules
    named = ", ".join(f"{part}_period {period}" for part, period in dated.items())
    log.warning("split   the data have no time of %s; the fractions divide them instead", named)
    return rules.without(*dated)


def members(one: Series, rules: Rules) -> dict[str, np.ndarray]:
    """The frames of "train", "val" and "test", a window apart: the earlier part gives up the frames in between."""
    times, periods = one.time.values, rules.periods
    left = np.ones(len(times), dtype=bool)
    test = chosen(times, left, periods.test, rules.test_fraction)
    left = rest(left, test, periods.test)
    share = rules.val_fraction if periods.test else rules.val_fraction / (1 - rules.test_fraction)
    val = left & chosen(times, left, periods.val, share)
    left = rest(left, val, periods.val)
    train = left & chosen(times, left, periods.train, 1.0)
    return {"train": train & ~_near(val | test, rules.length), "val": val & ~_near(test, rules.length), "test": test}


def chosen(times: np.ndarray, left: np.ndarray, period: str, share: float) -> np.ndarray:
    """Frames between the dates of a period, or the last days or share of the frames that are `left`."""
    if (days := parse_days(period)) is not None:
        ticks = time_axis.seconds(times)
        last = ticks[left][-1] if left.any() else 0.0
        return np.asarray(ticks > last - days * DAY)
    if (interval := parse_interval(period)) is not None:
        first, end = interval
        stamps = _stamps(times)
        return np.asarray((stamps.astype(f"U{len(first)}") >= first) & (stamps.astype(f"U{len(end)}") <= end))
    rank = np.cumsum(left)
    return np.asarray(rank > round(rank[-1] * (1 - share)))


def rest(left: np.ndarray, part: np.ndarray, period: str) -> np.ndarray:
    """The frames that a part leaves to the others: those before it, or all others if it lies between dates."""
    if period and parse_days(period) is None:
        return left & ~part
    return left & (np.arange(len(part)) < (np.argmax(part) if part.any() else len(part)))


def runs(part: np.ndarray) -> list[tuple[int, int]]:
    """[start, stop) of the runs of a mask."""
    edges = np.diff(np.concatenate([[0], part.astype(np.int8), [0]]))
    return list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))


def _stamps(times: np.ndarray) -> np.ndarray:
    """Times as ISO text, whose beginnings compare as partial dates do: [T]."""
    if times.dtype == object:
        return np.array([t.strftime("%Y-%m-%dT%H:%M") for t in times])
    return np.datetime_as_string(times, unit="m")


def _near(part: np.ndarray, reach: int) -> np.ndarray:
    """Frames at most `reach` frames before or after any frame of a part."""
    near = np.zeros(len(part) + 1, dtype=np.int64)
    for low, high in runs(part):
        near[max(low - reach, 0)] += 1
        near[min(high + reach, len(part))] -= 1
    return np.cumsum(near)[:-1] > 0
