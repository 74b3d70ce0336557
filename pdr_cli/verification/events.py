"""Events: whether a threshold is crossed, and how well forecasts say so, at each cell and in its neighbourhood.

Counts are summed over cells and windows before any score is made of them, so that rare events count once for each time that they
happen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pdr_cli.errors import UsageError, did_you_mean
from pdr_cli.verification import sections
from pdr_cli.verification.statistics import quotient

SIDES = (1, 3, 5, 9, 17)  # of the neighbourhoods of FSS, cells
BINS = 10  # of forecast probabilities
LIKELY = 0.5  # share of members from which an ensemble forecasts an event


@dataclass(frozen=True)
class Event:
    """A threshold of one variable that is crossed upwards or downwards.

    Args:
        channel: number of the variable.
        threshold: in the data's units.
        above: True if values above the threshold are the event.
        name: as it was written, such as "air>273.15".
    """

    channel: int
    threshold: float
    above: bool
    name: str

    @classmethod
    def parse(cls, text: str, variables: Sequence[str]) -> Event:
        """The event of `NAME>NUMBER` or `NAME<NUMBER`; the name may be left out of the only variable.

        Raises:
            UsageError: another text, or an unknown variable.
        """
        match = re.fullmatch(r"\s*(.*?)\s*([<>])\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*", text)
        if match is None:
            raise UsageError(f"--events {text!r}", "a variable, > or <, and a number, such as 'air>273.15'")
        name, sign, number = match.groups()
        name = name or (variables[0] if len(variables) == 1 else "")
        if name not in variables:
            found = f"--events {text!r}: {name!r} is not a variable.{did_you_mean(name, variables)}"
            raise UsageError(
                found if name else f"--events {text!r} names no variable", f"one of {', '.join(variables)}"
            )
        return cls(list(variables).index(name), float(number), sign == ">", f"{name}{sign}{number}")

    def happens(self, frames: np.ndarray) -> np.ndarray:
        """Where it happens: [..., C, H, W] → [..., H, W]; False where a value is missing."""
        values = frames[..., self.channel, :, :]
        with np.errstate(invalid="ignore"):
            return np.asarray(values > self.threshold if self.above else values < self.threshold)


class Tallied:
    """The running counts of one event and one forecaster.

    Args:
        event: counted.
        leads: τ.
        size: (H, W).
    """

    def __init__(self, event: Event, leads: int, size: tuple[int, int]) -> None:
        self.event, self.sides = event, [side for side in SIDES if side <= min(size)]
        self.counts = np.zeros((leads, 4))  # hits, false alarms, misses, neither
        self.fractions = np.zeros(
            (len(self.sides), leads, 2)
        )  # squared differences of fractions, and sums of their squares
        self.squares, self.values = np.zeros(leads), np.zeros(leads)
        self.bins = np.zeros((BINS + 1, 3))  # sum of probabilities, events, cases
        self.ranked: dict[float, np.ndarray] = {}  # probability: [cases without the event, cases with it]
        self.members = 1

    def add(self, truth: np.ndarray, frames: np.ndarray) -> None:
        """Count a batch: truth [B, τ, C, H, W] and forecasts of it, or members [M, B, τ, C, H, W]."""
        known = np.isfinite(truth[..., self.event.channel, :, :])
        happened = self.event.happens(truth)
        ensemble = frames if frames.ndim > truth.ndim else frames[None]
        self.members = max(self.members, len(ensemble))
        share = self.event.happens(ensemble).mean(axis=0)
        self._count(share >= LIKELY, happened, known)
        self._count_neighbours(share, happened)
        self._count_probabilities(share, happened, known)

    def _count(self, forecast: np.ndarray, happened: np.ndarray, known: np.ndarray) -> None:
        cases = (forecast & happened, forecast & ~happened, ~forecast & happened, ~forecast & ~happened)
        self.counts += np.stack([(case & known).sum(axis=(0, 2, 3)) for case in cases], axis=-1)

    def _count_neighbours(self, share: np.ndarray, happened: np.ndarray) -> None:
        for row, side in enumerate(self.sides):
            ours, theirs = (window_means(x.astype(np.float64), side) for x in (share, happened))
            self.fractions[row, :, 0] += ((ours - theirs) ** 2).sum(axis=(0, 2, 3))
            self.fractions[row, :, 1] += (ours**2 + theirs**2).sum(axis=(0, 2, 3))

    def _count_probabilities(self, share: np.ndarray, happened: np.ndarray, known: np.ndarray) -> None:
        self.squares += (((share - happened) ** 2) * known).sum(axis=(0, 2, 3))
        self.values += known.sum(axis=(0, 2, 3))
        p, y = share[known], happened[known]
        place = np.minimum((p * BINS).astype(int), BINS)
        for column, weights in enumerate((p, y.astype(float), np.ones(len(p)))):
            self.bins[:, column] += np.bincount(place, weights, BINS + 1)
        for value in np.unique(p):
            mine = y[p == value]
            counted = np.array([(~mine).sum(), mine.sum()])
            self.ranked[float(value)] = self.ranked.get(float(value), np.zeros(2)) + counted

    def section(self) -> sections.EventScores:
        """The scores of the event."""
        overall, lead = categorical(self.counts.sum(axis=0)), categorical(self.counts)
        scores = {name: sections.ByLead(float(overall[name]), lead[name].tolist()) for name in overall}
        scores["brier"] = sections.ByLead.of_sums(self.squares, self.values)
        for row, side in enumerate(self.sides):
            apart, both = self.fractions[row].T
            scores[f"fss_{side}"] = sections.ByLead(
                float(1 - quotient(apart.sum(), both.sum())), (1 - quotient(apart, both)).tolist()
            )
        return sections.EventScores(scores, **(self._probabilities() if self.members > 1 else {}))

    def _probabilities(self) -> dict[str, Any]:
        used = self.bins[self.bins[:, 2] > 0]
        reliability = sections.Calibration(
            (used[:, 0] / used[:, 2]).tolist(), (used[:, 1] / used[:, 2]).tolist(), used[:, 2].astype(int).tolist()
        )
        return {"reliability": reliability, "roc_area": roc_area(self.ranked)}


def categorical(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of hits, false alarms, misses and neither, [..., 4]; NaN where a score is not defined (Wilks, 2019, chapter 9)."""
    hits, false, misses, _ = np.moveaxis(counts, -1, 0)
    events, forecasts, cases = hits + misses, hits + false, counts.sum(axis=-1)
    chance = quotient(events * forecasts, cases)
    return {
        "rate": quotient(events, cases),
        "csi": quotient(hits, hits + misses + false),
        "pod": quotient(hits, events),
        "far": quotient(false, forecasts),
        "ets": quotient(hits - chance, hits + misses + false - chance),
    }


def roc_area(ranked: dict[float, np.ndarray]) -> float:
    """The area under the curve of hit rate against false-alarm rate, by trapezoids; NaN if the event always or never happens.

    Args:
        ranked: cases without and with the event, by forecast probability.
    """
    cases = np.array([ranked[p] for p in sorted(ranked, reverse=True)])
    total = cases.sum(axis=0)
    if not total.all():
        return float("nan")
    false, hit = np.concatenate([np.zeros((1, 2)), np.cumsum(cases, axis=0) / total]).T
    return float(np.trapezoid(hit, false))


def window_means(frames: np.ndarray, side: int) -> np.ndarray:
    """Means over the squares of `side` cells that lie inside: [..., H, W] → [..., H − side + 1, W − side + 1]."""
    sums = np.pad(frames.cumsum(axis=-2).cumsum(axis=-1), [(0, 0)] * (frames.ndim - 2) + [(1, 0), (1, 0)])
    last, first = slice(side, None), slice(None, -side)
    inside = sums[..., last, last] - sums[..., first, last] - sums[..., last, first] + sums[..., first, first]
    return np.asarray(inside / side**2)
