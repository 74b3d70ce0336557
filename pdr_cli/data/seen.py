"""What a model has seen: the periods and clips that it was trained and chosen on, and which windows are new to it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pdr_cli.data import kinds
from pdr_cli.data import times as time_axis
from pdr_cli.data.series import Series
from pdr_cli.data.splits import Split
from pdr_cli.data.times import Step
from pdr_cli.data.windows import Windows


@dataclass(frozen=True)
class Seen:
    """Training and validation data of a model, recorded so that they are recognised in any file.

    Args:
        entries: (part, identity, first second, last second) of each period; the identity is "" for series whose times
            are dates, see `identities`.
        gap_seconds: windows nearer than this to a period are not test data.
    """

    entries: tuple[tuple[str, str, float, float], ...]
    gap_seconds: float

    def part_of(self, identity: str, start: float, stop: float) -> str:
        """ "train", "val" or "test" for a window from second `start` to `stop`; "" if it touches the edge of a part.

        A window further than the gap from every period is test data.
        """
        mine = [e for e in self.entries if e[1] == identity]
        for part, _, low, high in mine:
            if start >= low and stop <= high:
                return part
        far = all(start > high + self.gap_seconds or stop < low - self.gap_seconds for _, _, low, high in mine)
        return "test" if far else ""


def identities(series: Sequence[Series], sha256: Callable[[Path], str]) -> list[str]:
    """What tells series apart: their own `identity`, or the SHA-256 of a clip's file; "" where times are dates.

    Several sequences of one clip share its hash; their times tell them apart.

    Args:
        series: to identify.
        sha256: hash of a file, such as `system.hashes.sha256`; called once for each clip.
    """
    hashed = functools.cache(sha256)

    def identity(one: Series) -> str:
        if "identity" in one.attrs:
            return str(one.attrs["identity"])
        return hashed(Path(one.attrs["files"][0])) if kinds.of(one).pictures else ""

    return [identity(one) for one in series]


def of(series: Sequence[Series], identities: Sequence[str], parts: Split, step: Step) -> Seen:
    """The training and validation periods of a split of these series."""
    entries = []
    for name in ("train", "val"):
        for number, start, stop in parts.part(name):
            ticks = time_axis.seconds(series[number].time.values[start:stop])
            entries.append((name, identities[number], float(ticks[0]), float(ticks[-1])))
    return Seen(tuple(entries), parts.gap * step.hours * 3600)


def select(windows: Windows, identities: Sequence[str], seen: Seen, part: str) -> Windows:
    """The windows of one part ("train", "val", "test" or "all") as a model's `seen` defines it."""
    if part == "all":
        return windows
    length = windows.in_steps + windows.out_steps
    ticks = [time_axis.seconds(s.time.values) for s in windows.series]
    of_clip = {i: Seen(tuple(e for e in seen.entries if e[1] == i), seen.gap_seconds) for i in set(identities)}

    def part_of(number: int, start: int) -> str:
        first, last = ticks[number][start], ticks[number][start + length - 1]
        return of_clip[identities[number]].part_of(identities[number], float(first), float(last))

    return windows.only(np.array([part_of(number, start) == part for number, start in windows.places], dtype=bool))
