"""Splits: training, validation and test of series, and the windows of each part.

An honest split keeps parts apart in time or by whole clips. Benchmarks that define a test set keep it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pdr_cli.data import partnames, periods, published, windows
from pdr_cli.data import times as time_axis
from pdr_cli.data.arrays import OPTION
from pdr_cli.data.rules import Rules
from pdr_cli.data.series import Series
from pdr_cli.data.times import Step
from pdr_cli.data.windows import FrameCache, Windows
from pdr_cli.errors import DataError, TimeError
from pdr_cli.schema import DataConfig
from pdr_cli.system.logs import log

FRACTIONS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45)  # shares for validation that messages propose
CLIPS_TO_SPLIT = 3  # with fewer clips than this, each is split in time

Period = tuple[int, int, int]  # series number, first frame, one past the last


@dataclass(frozen=True)
class Split:
    """Periods of each part.

    Args:
        train: periods of training.
        val: of validation.
        test: of the test.
        gap: steps between parts of one series that belong to no part.
        rule: how the series were divided, in words.
    """

    train: list[Period]
    val: list[Period]
    test: list[Period]
    gap: int
    rule: str

    def part(self, name: str) -> list[Period]:
        """The periods of "train", "val" or "test"."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]


def split(series: Sequence[Series], rules: Rules) -> Split:
    """Training, validation and test, by the first of these rules that applies.

    * Series with a `part` keep it; if none is for validation, the last `val_fraction` of the training persons, clips or
      windows validates.
    * Periods divide series with dates; parts without a period go by the fractions.
    * Several clips are split as wholes, in order.
    * A single series is split in time.

    Under the honest protocol parts of one series lie a window apart, so that no frame of a validation or test window is
    within reach of a training window. Under "openstl" validation is the test set and there is no gap.

    Raises:
        TimeError: too few steps for a window in each part, or periods that the series do not have.
    """
    parts = divide(series, rules)
    _warn_of_joined_parts(series, rules)
    if not parts.train or not parts.val:
        raise _too_short(series, rules, parts)
    return parts


def part_windows(
    series: Sequence[Series], data: DataConfig, parts: Split, part: str, step: Step, cache: FrameCache
) -> Windows:
    """The windows of "train", "val" or "test".

    Training windows start every `data.stride` steps, validation windows at every step, and test windows of a KTH clip
    one after another, so that all persons can be scored. Under protocol "openstl" the windows are the published ones.
    """
    rules = Rules.of(data)
    if rules.published:
        return published.cut(series, parts.part(part), rules, step, cache)
    stride = data.stride if part == "train" else 1
    found = windows.cut(series, parts.part(part), rules.in_steps, rules.out_steps, step, cache, stride)
    return apart(found) if part == "test" else found


def apart(found: Windows) -> Windows:
    """The windows, but of each KTH clip only windows that do not overlap."""
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
    """The published windows of one part, for any series of a benchmark, whatever `data.protocol` is.

    Series without the other parts, such as the test years alone, are accepted.

    Args:
        series: as `formats.open_series` returns them.
        data: of the model's configuration: window, periods, fractions.
        part: "train", "val" or "test"; the published validation is the test set.
        cache: of these series.

    Raises:
        TimeError: no window in this part.
    """
    rules = replace(Rules.of(data), protocol="openstl")
    parts = divide(series, rules)
    where = str(series[0].attrs["files"][0])
    step = time_axis.find_step(series[0].time.values, where)
    found = published.cut(series, parts.part(part), rules, step, cache)
    if not len(found):
        raise TimeError(
            f"{where}: no published window of {rules.in_steps} + {rules.out_steps} steps is {part} data ({parts.rule})"
        )
    return found


def _warn_of_joined_parts(series: Sequence[Series], rules: Rules) -> None:
    """Log that files named by parts are one series, which is not divided as their names say."""
    for one in series:
        named = sorted(set(partnames.of([Path(file) for file in one.attrs["files"]])) - {""})
        if named and not any(rules.periods):
            log.warning(
                "split   %s and other files are named %s, but joined along time and divided by the fractions; to divide "
                "them as named, set data.val_period and data.test_period, or give the files of one part",
                one.attrs["files"][0], ", ".join(named),
            )  # fmt: skip


def divide(series: Sequence[Series], rules: Rules) -> Split:
    """As `split`, but any part may be empty."""
    if _has_parts(series):
        return _by_part(series, rules)
    rules = periods.applicable(series, rules)
    if any(rules.periods) and periods.has_dates(series[0]):
        return _by_period(series, rules)
    found = (_by_clip if len(series) >= CLIPS_TO_SPLIT else _in_time)(series, rules)
    return replace(found, val=found.test, gap=0) if rules.published else found


def _has_parts(series: Sequence[Series]) -> bool:
    """True if the series name their parts. The clips of a single training person are split like any others."""
    without = [s for s in series if "part" not in s.attrs]
    if without and any("named_part" in s.attrs for s in series):
        raise DataError(
            f"{without[0].attrs['files'][0]} lies in no folder called train, val or test, as other clips do",
            way_out=f"name the folders of the parts, or divide all clips in order with {OPTION} parts=none",
        )
    if without:
        return False
    persons = {s.attrs.get("person") for s in series}
    return persons == {None} or len(persons) > 1 or series[0].attrs["part"] == "test"


def _by_part(series: Sequence[Series], rules: Rules) -> Split:
    whole = _whole(series)
    train, val, test = ([p for p in whole if series[p[0]].attrs["part"] == part] for part in ("train", "val", "test"))
    if rules.published:
        return Split(train, test, test, 0, "as published, validation is the test set")
    if val:
        return Split(
            train, val, test, 0, f"{_named(series)}: {len(train)} train, {len(val)} validate, {len(test)} test"
        )
    if any("person" in series[n].attrs for n, _, _ in train):
        return _by_person(series, train, test, rules.val_fraction)
    if len(train) == 1:
        kept, val, gap = _last_windows(series[train[0][0]], train[0], rules)
        how = f"{gap} steps between training and validation" if gap else "whole clips validate"
        return Split(kept, val, test, gap, f"test {_named(series)}, {how}")
    count = max(1, round(len(train) * rules.val_fraction))
    return Split(train[:-count], train[-count:], test, 0, f"test {_named(series)}, whole clips validate")


def _named(series: Sequence[Series]) -> str:
    """What names the parts of series."""
    by_names = any("named_part" in one.attrs for one in series)
    return f"by the names of folders or files ({OPTION} parts=none: in order)" if by_names else "as the data come"


def _by_person(series: Sequence[Series], train: list[Period], test: list[Period], val_fraction: float) -> Split:
    """The last training persons validate."""
    people = sorted({str(series[n].attrs["person"]) for n, _, _ in train if "person" in series[n].attrs})
    held = set(people[len(people) - max(1, round(len(people) * val_fraction)) :])
    val = [p for p in train if series[p[0]].attrs.get("person") in held]
    kept = [p for p in train if p not in val]
    return Split(kept, val, test, 0, f"by person, {len(held)} of {len(people)} training persons validate")


def _last_windows(one: Series, period: Period, rules: Rules) -> tuple[list[Period], list[Period], int]:
    """Training and validation periods of one training series, whose last part validates; and the gap in steps.

    Windows that were cut beforehand may overlap as many neighbours as they have frames. As many are left out between the
    parts, unless the series says where its clips begin.
    """
    number, _, stop = period
    length = int(one.attrs.get("window", 1))
    edge = round(stop * (1 - rules.val_fraction)) // length * length
    starts = [c for c in one.attrs.get("clip_starts", []) if 0 < c < stop]
    if starts:
        edge = min(starts, key=lambda c: abs(c - edge))
        return [(number, 0, edge)], [(number, edge, stop)], 0
    first = edge + rules.length * length
    gap = rules.length * (length + 1) if length > 1 else rules.length
    return [(number, 0, edge)] if edge else [], [(number, first, stop)] if first < stop else [], gap


def _by_period(series: Sequence[Series], rules: Rules) -> Split:
    parts: dict[str, list[Period]] = {"train": [], "val": [], "test": []}
    for number, one in enumerate(series):
        for part, member in (published if rules.published else periods).members(one, rules).items():
            parts[part] += [(number, low, high) for low, high in periods.runs(member)]
    gap = 0 if rules.published else rules.length
    return Split(**parts, gap=gap, rule=_period_rule(parts, rules, gap))


def _period_rule(parts: dict[str, list[Period]], rules: Rules, gap: int) -> str:
    """The division in words. Parts without data are named, not refused: the test years alone can be evaluated."""
    dates = (rules.without("val") if rules.published else rules).periods._asdict()
    absent = [f"{part}_period {text}" for part, text in dates.items() if text and not parts[part]]
    named = ", ".join(f"{part} {text}" for part, text in dates.items() if text) or "by the fractions"
    how = f"{gap} steps between parts" if gap else "as published, validation is the test set"
    return f"{named}; {how}" + (f"; no data for {', '.join(absent)}" if absent else "")


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
    whole = _whole(series)
    return Split(
        whole[: n - val - test], whole[n - val - test : n - test], whole[n - test :], 0, "whole clips, in order"
    )


def _whole(series: Sequence[Series]) -> list[Period]:
    return [(number, 0, int(s.sizes["time"])) for number, s in enumerate(series)]


def _too_short(series: Sequence[Series], rules: Rules, parts: Split) -> TimeError:
    """The error for a split without training or validation data, by how the series were divided."""
    purpose = "validate" if parts.train else "train"
    if _has_parts(series):
        return _too_few_parts(series, purpose)
    if any(rules.periods) and periods.has_dates(series[0]):
        return _no_such_dates(series, purpose, parts.rule)
    n = sum(s.sizes["time"] for s in series)
    needed = int(np.ceil(2 * rules.length / rules.val_fraction))
    enough = next((f for f in FRACTIONS if f > rules.val_fraction and _is_enough(series, rules, f)), None)
    raised = f"--set data.val_fraction={enough:g}, or " if enough else ""
    return TimeError(
        f"{series[0].attrs['files'][0]}: {n} steps are too few to train and validate windows of {rules.in_steps} + "
        f"{rules.out_steps}",
        f"at least {needed} with val_fraction {rules.val_fraction:g}",
        f"{raised}take shorter windows, with --set data.in_steps and data.out_steps",
    )


def _is_enough(series: Sequence[Series], rules: Rules, val_fraction: float) -> bool:
    """True if this share for validation leaves a window to each part."""
    parts = divide(series, replace(rules, val_fraction=val_fraction))
    return bool(parts.train and parts.val)


def _too_few_parts(series: Sequence[Series], purpose: str) -> TimeError:
    held = [s.attrs["part"] for s in series]
    return TimeError(
        f"{series[0].attrs['files'][0]}: no data to {purpose} on. Of the benchmark's parts, the data hold "
        f"{held.count('train')} series to train and {held.count('test')} to test, {held.count('val')} to validate; without one "
        "of its own, validation takes whole persons, clips or windows of the training series alone",
        way_out="give more training data, or raise the share that validates with --set data.val_fraction=0.25",
    )


def _no_such_dates(series: Sequence[Series], purpose: str, rule: str) -> TimeError:
    span = f"{time_axis.label(series[0].time.values[0])} to {time_axis.label(series[-1].time.values[-1])}"
    return TimeError(
        f"{series[0].attrs['files'][0]}: no steps to {purpose} on; the data run from {span} and the split is {rule}",
        way_out="give other data.train_period, data.val_period and data.test_period, or none to split by the fractions: "
        "--set data.train_period= --set data.val_period= --set data.test_period=",
    )
