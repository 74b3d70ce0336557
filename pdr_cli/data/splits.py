"""Honest splits: in time, with a gap, whole clips apart; and what of a file a model has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pdr_cli.data import times as time_axis
from pdr_cli.data.series import Series
from pdr_cli.data.times import Step
from pdr_cli.data.windows import Windows
from pdr_cli.errors import TimeError

CLIPS_TO_SPLIT = 3  # with fewer clips than this, each is split in time

Period = tuple[int, int, int]  # series number, first frame, one past the last


@dataclass(frozen=True)
class Split:
    """Periods of each part. Between parts of one series lie `gap` frames that belong to none."""

    train: list[Period]
    val: list[Period]
    test: list[Period]
    gap: int
    rule: str


def split(series: Sequence[Series], val_fraction: float, test_fraction: float, in_steps: int, out_steps: int) -> Split:
    """First part for training, then validation, last part for test.

    A single series is split in time, with a gap of one window between the parts, so that no frame of a
    validation or test window is within reach of a training window. Several clips are split as wholes, in order.

    Raises:
        TimeError: too few steps for a window in each part.
    """
    gap = in_steps + out_steps
    if len(series) >= CLIPS_TO_SPLIT:
        return _by_clip(series, val_fraction, test_fraction)
    parts: dict[str, list[Period]] = {"train": [], "val": [], "test": []}
    for number, one in enumerate(series):
        n = int(one.sizes["time"])
        first, second = round(n * (1 - val_fraction - test_fraction)), round(n * (1 - test_fraction))
        edges = {"train": (0, first), "val": (first + gap, second), "test": (second + gap, n)}
        for part, (start, stop) in edges.items():
            if stop - start >= gap:
                parts[part].append((number, start, stop))
    if not parts["train"] or not parts["val"]:
        n = sum(s.sizes["time"] for s in series)
        needed = int(np.ceil(2 * gap / val_fraction))
        raise TimeError(
            f"{series[0].attrs['files'][0]}: {n} steps are too few to train and validate windows of {in_steps} + {out_steps}; "
            f"at least {needed} are needed with val_fraction {val_fraction:g}; raise that with "
            "--set data.val_fraction=0.25, or take shorter windows"
        )
    return Split(**parts, gap=gap, rule=f"in time, {gap} steps between parts")


def _by_clip(series: Sequence[Series], val_fraction: float, test_fraction: float) -> Split:
    n = len(series)
    val = max(1, round(n * val_fraction))
    test = max(1, round(n * test_fraction)) if test_fraction else 0
    whole = [(number, 0, int(s.sizes["time"])) for number, s in enumerate(series)]
    return Split(
        whole[: n - val - test], whole[n - val - test : n - test], whole[n - test :], 0, "whole clips, in order"
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
    keep = [
        known.part_of(identities[number], float(ticks[number][start]), float(ticks[number][start + length - 1])) == part
        for number, start in windows.places
    ]
    return windows.only(np.array(keep, dtype=bool))
