"""Sums of scores by block of windows, and what follows from them: means, intervals, skill.

Neighbouring windows share frames, so their errors are not independent. Blocks of consecutive windows are, nearly;
resampling blocks with replacement shows how far a score could have come out differently (block bootstrap, Künsch,
1989). Every forecaster is resampled alike, so the interval of a skill is that of a paired comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pdr_cli.verification.scores import Sample, Score

MOST_BLOCKS = 200  # more would only cost memory
FEWEST_BLOCKS = 8  # with fewer, an interval would promise too much
RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Blocks:
    """Which block each window belongs to: `of_window` [n]; `longest` windows at most in one."""

    of_window: np.ndarray

    @property
    def count(self) -> int:
        return int(self.of_window[-1]) + 1

    @property
    def longest(self) -> int:
        return int(np.bincount(self.of_window).max())

    @cached_property
    def draws(self) -> np.ndarray | None:
        """How often each resample takes each block: [RESAMPLES, blocks]; None where there are too few."""
        if self.count < FEWEST_BLOCKS:
            return None
        share = np.full(self.count, 1 / self.count)
        return np.random.default_rng(0).multinomial(self.count, share, size=RESAMPLES).astype(np.float64)


def blocks(places: np.ndarray, length: int) -> Blocks:
    """Blocks of windows that start within `length` frames of each other; neighbours joined where there are too many.

    Args:
        places: [n, 2] series number and first frame of each window, in order.
        length: frames of a window, observed and following.
    """
    ids = np.stack([places[:, 0], places[:, 1] // length], axis=1)
    of_window = np.concatenate([[0], np.cumsum(np.any(np.diff(ids, axis=0) != 0, axis=1))])
    count = int(of_window[-1]) + 1
    if count > MOST_BLOCKS:
        of_window = of_window * MOST_BLOCKS // count
    return Blocks(of_window)


@dataclass
class Tally:
    """Running sums of one forecaster's scores, one row a block.

    Args:
        scores: by name.
        blocks: of all windows.
        scale: [C], by which errors are divided where channels of different units are taken together.
    """

    scores: Mapping[str, Score]
    blocks: Blocks
    scale: np.ndarray
    sums: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def add(self, sample: Sample, which: np.ndarray) -> None:
        """Score the windows numbered `which`."""
        into = self.blocks.of_window[which]
        for name, score in self.scores.items():
            counted = score.per_frame(sample)
            if name not in self.sums:
                empty = np.zeros((self.blocks.count, *counted[0].shape[1:]))
                self.sums[name] = (empty, empty.copy())
            for total, values in zip(self.sums[name], counted, strict=True):
                np.add.at(total, into, values)

    def result(self, channels: Sequence[str]) -> dict[str, dict[str, float | list[float]]]:
        """{score: {"overall", "lead", "low", "high"}}; with several channels also {"score:channel": ...}."""
        out = {}
        for name, score in self.scores.items():
            above, below = self.sums[name]
            out[name] = self._values(score, *self._pooled(name))
            if len(channels) > 1 and above.shape[-1] == len(channels):
                for i, channel in enumerate(channels):
                    out[f"{name}:{channel}"] = self._values(score, above[..., i], below[..., i])
        return out

    def _pooled(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Numerators and denominators over all channels: [blocks, τ]."""
        above, below = self.sums[name]
        if above.shape[-1] == len(self.scale):
            above = above / self.scale ** self.scores[name].power
        return above.sum(axis=-1), below.sum(axis=-1)

    def _values(self, score: Score, above: np.ndarray, below: np.ndarray) -> dict[str, float | list[float]]:
        overall = score.finish(_mean(above.sum(), below.sum()))
        lead = score.finish(_mean(above.sum(axis=0), below.sum(axis=0)))
        values: dict[str, float | list[float]] = {"overall": float(overall), "lead": lead.tolist()}
        if self.blocks.draws is not None:
            drawn = score.finish(_mean(self.blocks.draws @ above, self.blocks.draws @ below))
            values["low"], values["high"] = (side.tolist() for side in interval(drawn))
        return values

    def squares(self) -> tuple[np.ndarray, np.ndarray]:
        """Squared errors and their count: [blocks, τ] each."""
        return self._pooled("mse")


def skill(model: Tally, rival: Tally) -> dict[str, object]:
    """MSE skill score 1 - MSE / MSE of the rival (Murphy, 1988): 1 perfect, 0 as good as the rival, below 0 worse.

    {"overall", "lead"} and, where there are blocks enough, "interval" of the overall skill, "low" and "high" by lead and
    "significant": whether that interval leaves out 0.
    """
    (mine, n), (theirs, m) = model.squares(), rival.squares()
    out: dict[str, object] = {
        "overall": float(ratio_skill(_mean(mine.sum(), n.sum()), _mean(theirs.sum(), m.sum()))),
        "lead": ratio_skill(_mean(mine.sum(axis=0), n.sum(axis=0)), _mean(theirs.sum(axis=0), m.sum(axis=0))).tolist(),
    }
    draws = model.blocks.draws
    if draws is None:
        return out
    by_lead = ratio_skill(_mean(draws @ mine, draws @ n), _mean(draws @ theirs, draws @ m))
    overall = ratio_skill(
        _mean(draws @ mine.sum(axis=1), draws @ n.sum(axis=1)), _mean(draws @ theirs.sum(axis=1), draws @ m.sum(axis=1))
    )
    low, high = interval(overall)
    by_low, by_high = interval(by_lead)
    out |= {"interval": [float(low), float(high)], "significant": bool(low > 0 or high < 0)}
    return out | {"low": by_low.tolist(), "high": by_high.tolist()}


def ratio_skill(mse: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """1 - mse / reference; 0 where both are 0, -inf where the reference alone is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = 1 - np.asarray(mse) / np.asarray(reference)
    return np.where((np.asarray(reference) == 0) & (np.asarray(mse) == 0), 0.0, ratio)


def interval(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The middle 95 % of resamples [R, ...]."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


def _mean(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below; NaN where nothing was counted."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(above) / np.asarray(below)
