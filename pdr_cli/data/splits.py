"""Honest splits: in time, with a gap, whole clips apart; those a benchmark comes with; and what a model has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pdr_cli.config import DataConfig, parse_days, parse_interval
from pdr_cli.data import kinds, windows
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import kth
from pdr_cli.data.series import Series
from pdr_cli.data.times import Step
from pdr_cli.data.windows import FrameCache, Windows
from pdr_cli.errors import TimeError
from pdr_cli.system.logs import log

CLIPS_TO_SPLIT = 3  # with fewer clips than this, each is split in time
DAY = 86400.0

Period = tuple[int, int, int]  # series number, first frame, one past the last


@dataclass(frozen=True)
class Split:
    """Periods of each part. Between parts of one series lie `gap` steps that belong to none."""

    train: list[Period]
    val: list[Period]
    test: list[Period]
    gap: int
    rule: str


@dataclass(frozen=True)
class Rules:
    """How a series is divided: shares, the lengths of a window, periods ("" by the shares) and the protocol."""

    val_fraction: float
    test_fraction: float
    in_steps: int
    out_steps: int
    train_period: str = ""
    val_period: str = ""
    test_period: str = ""
    protocol: str = "honest"

    @classmethod
    def of(cls, data: DataConfig) -> Rules:
        """Those of a configuration."""
        return cls(**{name: getattr(data, name) for name in cls.__dataclass_fields__})

    @property
    def length(self) -> int:
        """Frames of a window, observed and following."""
        return self.in_steps + self.out_steps

    @property
    def dated(self) -> bool:
        """True if any part is given by its dates."""
        return bool(self.train_period or self.val_period or self.test_period)

    @property
    def published(self) -> bool:
        """True where windows and validation are those of published results."""
        return self.protocol == "openstl"


def split(series: Sequence[Series], rules: Rules) -> Split:
    """Training, validation and test, by the first of these that applies.

    * Series that come with a `part` keep it: test is test, and the last `val_fraction` of the training persons, clips
      or windows validates.
    * Periods divide series with dates, and what they leave open goes by the fractions.
    * Several clips are split as wholes, in order.
    * A single series is split in time.

    Under the honest protocol parts of one series lie a window apart, so that no frame of a validation or test window is
    within reach of a training window. Under "openstl" validation is the test set and there is no gap.

    Raises:
        TimeError: too few steps for a window in each part, or periods that the series do not have.
    """
    parts = _divide(series, rules)
    if not parts.train or not parts.val:
        raise TimeError(_too_short(series, rules, parts))
    return parts


def part_windows(
    series: Sequence[Series], data: DataConfig, parts: Split, part: str, step: Step, cache: FrameCache
) -> Windows:
    """The windows of "train", "val" or "test".

    Training windows start every `data.stride` steps, the others at every step, but those of a KTH test one after
    another, so that all persons can be scored. Under protocol "openstl" the windows are the published ones.
    """
    rules = Rules.of(data)
    periods: list[Period] = getattr(parts, part)
    if rules.published:
        return _published(series, periods, rules, step, cache)
    stride = data.stride if part == "train" else 1
    found = windows.cut(series, periods, rules.in_steps, rules.out_steps, step, cache, stride)
    return apart(found) if part == "test" else found


def apart(found: Windows) -> Windows:
    """The windows, but of each KTH clip only such as follow one another, and none that overlaps its forerunner."""
    length = found.in_steps + found.out_steps
    free: dict[int, int] = {}
    keep = []
    for number, start in found.places.tolist():
        good = "person" not in found.series[number].attrs or start >= free.get(number, 0)
        keep.append(good)
        if good:
            free[number] = start + length
    return found.only(np.array(keep, dtype=bool))


def benchmark_windows(series: Sequence[Series], data: DataConfig, part: str, cache: FrameCache) -> Windows:
    """The published windows of "train", "val" or "test" for any series of a benchmark, whatever `data.protocol` says.

    Series without the other parts, such as the test years alone, are fine.

    Args:
        series: as `formats.open_series` gives them.
        data: of the model's configuration: window, periods, fractions.
        part: "train", "val" or "test"; the published validation is the test set.
        cache: of these series.

    Raises:
        TimeError: no window in this part.
    """
    rules = replace(Rules.of(data), protocol="openstl")
    parts = _divide(series, rules)
    step = time_axis.find_step(series[0].time.values, str(series[0].attrs["files"][0]))
    found = _published(series, getattr(parts, part), rules, step, cache)
    if not len(found):
        raise TimeError(
            f"{series[0].attrs['files'][0]}: no published window of {rules.in_steps} + {rules.out_steps} steps "
            f"is {part} data ({parts.rule})"
        )
    return found


def _divide(series: Sequence[Series], rules: Rules) -> Split:
    """The parts, any of which may be empty."""
    if _comes_split(series):
        return _as_given(series, rules)
    rules = _fitting(series, rules)
    if rules.dated and not np.issubdtype(series[0].time.values.dtype, np.floating):
        return _by_period(series, rules)
    found = (_by_clip if len(series) >= CLIPS_TO_SPLIT else _in_time)(series, rules)
    return replace(found, val=found.test, gap=0) if rules.published else found


def _comes_split(series: Sequence[Series]) -> bool:
    """True if the series name their parts. The clips of one training person alone are like any others."""
    if any("part" not in s.attrs for s in series):
        return False
    persons = {s.attrs.get("person") for s in series}
    return persons == {None} or len(persons) > 1 or series[0].attrs["part"] == "test"


def _as_given(series: Sequence[Series], rules: Rules) -> Split:
    whole = [(number, 0, int(s.sizes["time"])) for number, s in enumerate(series)]
    train, test = ([p for p in whole if series[p[0]].attrs["part"] == part] for part in ("train", "test"))
    if rules.published:
        return Split(train, test, test, 0, "as published, validation is the test set")
    people = sorted({str(series[n].attrs["person"]) for n, _, _ in train if "person" in series[n].attrs})
    if people:
        held = set(people[len(people) - max(1, round(len(people) * rules.val_fraction)) :])
        val = [p for p in train if series[p[0]].attrs.get("person") in held]
        kept = [p for p in train if p not in val]
        return Split(kept, val, test, 0, f"by person, {len(held)} of {len(people)} training persons validate")
    if len(train) == 1:
        kept, val, gap = _last_windows(series[train[0][0]], train[0], rules)
        how = f"{gap} steps between training and validation" if gap else "whole clips validate"
        return Split(kept, val, test, gap, f"test as the data come, {how}")
    count = max(1, round(len(train) * rules.val_fraction))
    return Split(train[:-count], train[-count:], test, 0, "test as the data come, whole clips validate")


def _last_windows(one: Series, period: Period, rules: Rules) -> tuple[list[Period], list[Period], int]:
    """The last part of a training series for validation; and the gap in steps.

    Windows that were cut beforehand may overlap as many of their neighbours as they have frames, so that many are left
    out between the parts, unless it is known where their clips begin.
    """
    number, _, stop = period
    length = int(one.attrs.get("window", 1))
    edge = round(stop * (1 - rules.val_fraction)) // length * length
    starts = [c for c in one.attrs.get("clip_starts", []) if 0 < c < stop]
    if starts:
        edge = min(starts, key=lambda c: abs(c - edge))
        return [(number, 0, edge)], [(number, edge, stop)], 0
    skipped = rules.length
    first = edge + skipped * length
    gap = skipped * (length + 1) if length > 1 else skipped
    return [(number, 0, edge)] if edge else [], [(number, first, stop)] if first < stop else [], gap


def _fitting(series: Sequence[Series], rules: Rules) -> Rules:
    """The rules without periods that are of other data; the fractions take their place, which is said.

    Last days do not fit if they are more than half of the data, dates if the data have none of them at all.
    """
    rules = _with_known_dates(series, rules)
    ticks = time_axis.seconds(series[0].time.values)
    half = (ticks[-1] - ticks[0]) / DAY / 2

    def kept(name: str, period: str) -> str:
        days = parse_days(period)
        if days is None or days <= half:
            return period
        log.warning("split   %s %s is more than half of the data; the fractions divide them instead", name, period)
        return ""

    val, test = kept("val_period", rules.val_period), kept("test_period", rules.test_period)
    return replace(rules, val_period=val, test_period=test)


def _with_known_dates(series: Sequence[Series], rules: Rules) -> Rules:
    periods = {name: getattr(rules, name) for name in ("train_period", "val_period", "test_period")}
    dated = {name: period for name, period in periods.items() if period and parse_days(period) is None}
    times = [one.time.values for one in series]
    if not dated or np.issubdtype(times[0].dtype, np.floating):
        return rules
    if any(_chosen(t, np.ones(len(t), dtype=bool), period, 1.0).any() for t in times for period in dated.values()):
        return rules
    named = ", ".join(f"{name} {period}" for name, period in dated.items())
    log.warning("split   the data have no time of %s; the fractions divide them instead", named)
    left = {name: "" if name in dated else period for name, period in periods.items()}
    return replace(
        rules, train_period=left["train_period"], val_period=left["val_period"], test_period=left["test_period"]
    )


def _by_period(series: Sequence[Series], rules: Rules) -> Split:
    parts: dict[str, list[Period]] = {"train": [], "val": [], "test": []}
    for number, one in enumerate(series):
        for part, member in _members(one, rules).items():
            parts[part] += [(number, low, high) for low, high in _runs(member)]
    gap = 0 if rules.published else rules.length
    given = {p: getattr(rules, f"{p}_period") for p in parts}
    if rules.published:
        parts["val"], given["val"] = parts["test"], ""
    absent = [f"{p}_period {given[p]}" for p in parts if given[p] and not parts[p]]
    # The other protocol's test may be all that is there; a missing part is refused by who asks for it.
    named = ", ".join(f"{p} {text}" for p, text in given.items() if text) or "by the fractions"
    how = f"{gap} steps between parts" if gap else "as published, validation is the test set"
    rule = f"{named}; {how}" + (f"; no data for {', '.join(absent)}" if absent else "")
    return Split(**parts, gap=gap, rule=rule)


def _members(one: Series, rules: Rules) -> dict[str, np.ndarray]:
    """For each part a mask [T] of the frames that belong to it."""
    times = one.time.values
    left = _whole_days(one) if rules.published else np.ones(len(times), dtype=bool)
    test = left & _chosen(times, left, rules.test_period, rules.test_fraction)
    left = left & _before(test) if _by_length(rules.test_period) else left & ~test
    val = np.zeros_like(left)
    if not rules.published:
        share = rules.val_fraction if rules.test_period else rules.val_fraction / (1 - rules.test_fraction)
        val = left & _chosen(times, left, rules.val_period, share)
        left = left & _before(val) if _by_length(rules.val_period) else left & ~val
    train = left & _chosen(times, left, rules.train_period, 1.0)
    if rules.published:
        return {"train": _fewer(one, train), "val": val, "test": _fewer(one, test)}
    return {"train": train & ~_near(val | test, rules.length), "val": val & ~_near(test, rules.length), "test": test}


def _by_length(period: str) -> bool:
    """True if a part is the last of something, by days or by a fraction, and not between dates."""
    return not period or parse_days(period) is not None


def _before(member: np.ndarray) -> np.ndarray:
    """Frames [T] before the first of a part; all if it has none."""
    return np.arange(len(member)) < (np.argmax(member) if member.any() else len(member))


def _chosen(times: np.ndarray, left: np.ndarray, period: str, share: float) -> np.ndarray:
    """Frames [T] between the dates of a period, or the last days or share of what is left."""
    if (days := parse_days(period)) is not None:
        ticks = time_axis.seconds(times)
        last = ticks[left][-1] if left.any() else 0.0
        return np.asarray(ticks > last - days * DAY)
    if (interval := parse_interval(period)) is not None:
        first, last_date = interval
        stamps = _stamps(times)
        return np.asarray(
            (stamps.astype(f"U{len(first)}") >= first) & (stamps.astype(f"U{len(last_date)}") <= last_date)
        )
    rank = np.cumsum(left)
    return np.asarray(rank > round(rank[-1] * (1 - share)))


def _stamps(times: np.ndarray) -> np.ndarray:
    """Times as ISO text, whose beginnings compare as partial dates do: [T]."""
    if times.dtype == object:
        return np.array([t.strftime("%Y-%m-%dT%H:%M") for t in times])
    return np.datetime_as_string(times, unit="m")


def _near(member: np.ndarray, reach: int) -> np.ndarray:
    """Frames [T] fewer than `reach` + 1 frames before or after any of a part."""
    near = np.zeros(len(member) + 1, dtype=np.int64)
    for low, high in _runs(member):
        near[max(low - reach, 0)] += 1
        near[min(high + reach, len(member))] -= 1
    return np.cumsum(near)[:-1] > 0


def _whole_days(one: Series) -> np.ndarray:
    """Frames [T] of days with all their slots; published loaders of traffic grids drop the others."""
    times = one.time.values
    if not kinds.of(one).weekly or np.issubdtype(times.dtype, np.floating):
        return np.ones(len(times), dtype=bool)
    _, which, counts = np.unique(times.astype("datetime64[D]"), return_inverse=True, return_counts=True)
    stated = one.attrs["file_attrs"].get("slots_per_day")
    slots = int(stated or round(DAY / time_axis.find_step(times).count))
    return np.asarray((counts == slots)[which])


def _fewer(one: Series, member: np.ndarray) -> np.ndarray:
    """A part without its last two hours, where the published weather loader ends it.

    It drops the last hour, and its range of valid times stops one before the last that would fit: L - 24 windows of
    12 + 12 from L = hours - 1.
    """
    kept = member.copy()
    if kinds.of(one) is kinds.WEATHER:
        kept[np.flatnonzero(member)[-2:]] = False
    return kept


def _runs(member: np.ndarray) -> list[tuple[int, int]]:
    """[start, stop) of the runs of a mask."""
    edges = np.diff(np.concatenate([[0], member.astype(np.int8), [0]]))
    return list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))


def _in_time(series: Sequence[Series], rules: Rules) -> Split:
    gap = 0 if rules.published else rules.length
    parts: dict[str, list[Period]] = {"train": [], "val": [], "test": []}
    for number, one in enumerate(series):
        n = int(one.sizes["time"])
        first = round(n * (1 - rules.val_fraction - rules.test_fraction))
        second = round(n * (1 - rules.test_fraction))
        edges = {"train": (0, first), "val": (first + gap, second), "test": (second + gap, n)}
        for part, (start, stop) in edges.items():
            if stop - start >= rules.length:
                parts[part].append((number, start, stop))
    return Split(**parts, gap=gap, rule=f"in time, {gap} steps between parts")


def _by_clip(series: Sequence[Series], rules: Rules) -> Split:
    n = len(series)
    val = max(1, round(n * rules.val_fraction))
    test = max(1, round(n * rules.test_fraction)) if rules.test_fraction else 0
    whole = [(number, 0, int(s.sizes["time"])) for number, s in enumerate(series)]
    return Split(
        whole[: n - val - test], whole[n - val - test : n - test], whole[n - test :], 0, "whole clips, in order"
    )


def _published(
    series: Sequence[Series], periods: Sequence[Period], rules: Rules, step: Step, cache: FrameCache
) -> Windows:
    """Windows at every step, but of KTH clips those of the published scan.

    The scan goes backwards over the frames of all clips, takes a window where its first and last frame belong to one
    clip and their numbers differ by its length less one, and then jumps back by its length, or by 3 frames if somebody
    jogs or runs. No jump of a window of three frames
    or more passes the beginning of an unbroken run, so each run can be scanned by itself.
    """
    places: list[tuple[int, int]] = []
    for number, start, stop in periods:
        for low, high in time_axis.segments(series[number].time.values[start:stop], step):
            places += [(number, first) for first in _starts(start + low, start + high, series[number], rules.length)]
    return Windows(
        series, np.array(places, dtype=np.int64).reshape(-1, 2), rules.in_steps, rules.out_steps, step, cache
    )


def _starts(low: int, high: int, one: Series, length: int) -> Sequence[int]:
    if "action" not in one.attrs:
        return range(low, high - length + 1)
    jump = 3 if one.attrs["action"] in kth.FAST else length
    return range(high - length, low - 1, -jump)[::-1]


def _too_short(series: Sequence[Series], rules: Rules, parts: Split) -> str:
    where, n = series[0].attrs["files"][0], sum(s.sizes["time"] for s in series)
    if _comes_split(series):
        held = [s.attrs["part"] for s in series]
        return (
            f"{where}: nothing is left to {'train' if not parts.train else 'validate'} on. Of the benchmark's parts there "
            f"are {held.count('train')} series to train and {held.count('test')} to test; validation takes whole "
            "persons, clips or windows of the former, never of the latter. Give more of its training data, or raise "
            "the share that validates with --set data.val_fraction=0.25"
        )
    if rules.dated and not np.issubdtype(series[0].time.values.dtype, np.floating):
        span = f"{time_axis.label(series[0].time.values[0])} to {time_axis.label(series[-1].time.values[-1])}"
        return (
            f"{where}: no steps to {'train' if not parts.train else 'validate'} on; the data run from {span} and the "
            f"split is {parts.rule}. Give other data.train_period, data.val_period and data.test_period, or none to "
            "split by the fractions: --set data.train_period= --set data.val_period= --set data.test_period="
        )
    needed = int(np.ceil(2 * rules.length / rules.val_fraction))
    return (
        f"{where}: {n} steps are too few to train and validate windows of {rules.in_steps} + {rules.out_steps}; "
        f"at least {needed} are needed with val_fraction {rules.val_fraction:g}; raise that with "
        "--set data.val_fraction=0.25, or take shorter windows"
    )


@dataclass(frozen=True)
class Seen:
    """What a model was trained and chosen on, in terms that hold for any file: clips by hash, periods by time.

    Each entry is (part, identity, first second, last second); identity is a clip's SHA-256, or "" for series
    whose times are dates.
    """

    entries: tuple[tuple[str, str, float, float], ...]
    gap_seconds: float

    def part_of(self, identity: str, start: float, stop: float) -> str:
        """ "train", "val" or "test" for a window that covers these seconds; "" if it touches a part's edge.

        Whatever lies further than the gap from everything seen is test.
        """
        mine = [e for e in self.entries if e[1] == identity]
        for part, _, low, high in mine:
            if start >= low and stop <= high:
                return part
        far = all(start > high + self.gap_seconds or stop < low - self.gap_seconds for _, _, low, high in mine)
        return "test" if far else ""


def seen(series: Sequence[Series], identities: Sequence[str], parts: Split, step: Step) -> Seen:
    """What `parts` of these series amount to; `identities` as for `Seen`."""
    entries = []
    for name, periods in (("train", parts.train), ("val", parts.val)):
        for number, start, stop in periods:
            ticks = time_axis.seconds(series[number].time.values[start:stop])
            entries.append((name, identities[number], float(ticks[0]), float(ticks[-1])))
    return Seen(tuple(entries), parts.gap * step.hours * 3600)


def select(windows: Windows, identities: Sequence[str], known: Seen, part: str) -> Windows:
    """The windows of one part ("train", "val", "test" or "all") as a model's own `Seen` defines it."""
    if part == "all":
        return windows
    length = windows.in_steps + windows.out_steps
    ticks = [time_axis.seconds(s.time.values) for s in windows.series]
    mine = {i: Seen(tuple(e for e in known.entries if e[1] == i), known.gap_seconds) for i in set(identities)}
    keep = [
        mine[identities[number]].part_of(
            identities[number], float(ticks[number][start]), float(ticks[number][start + length - 1])
        )
        == part
        for number, start in windows.places
    ]
    return windows.only(np.array(keep, dtype=bool))
