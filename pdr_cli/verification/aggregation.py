"""Aggregation: sums of statistics by block of windows; from them means, scores, intervals and skill.

Neighbouring windows share frames, so their errors are not independent. Blocks of consecutive windows are, nearly;
resampling blocks with replacement shows how far a score could have come out differently (block bootstrap, Künsch,
1989). Every forecaster is resampled alike, so the interval of a skill is that of a paired comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pdr_cli.verification.document import Bootstrap, Skill
from pdr_cli.verification.scores import BoundScore
from pdr_cli.verification.sections import ByLead
from pdr_cli.verification.statistics import Counted, Sample, quotient

MOST_BLOCKS = 200  # more would only cost memory
FEWEST_BLOCKS = 8  # intervals from fewer are too narrow
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

    @property
    def bootstrap(self) -> Bootstrap | None:
        """How intervals are made, for the document; None where the blocks are too few."""
        return None if self.draws is None else Bootstrap(self.count, self.longest, RESAMPLES, LEVEL)


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
    """Running sums of one forecaster's statistics, one row a block.

    Args:
        scores: by name; those that share a statistic share its sums.
        blocks: of all windows.
        scale: [C], by which errors are divided where channels of different units are taken together.
    """

    scores: Mapping[str, BoundScore]
    blocks: Blocks
    scale: np.ndarray
    sums: dict[str, Counted] = field(default_factory=dict)

    @cached_property
    def holder(self) -> dict[str, str]:
        """The score whose name the sums of each score's statistic have: the first that shares it."""
        first: dict[int, str] = {}
        return {name: first.setdefault(id(bound.statistic), name) for name, bound in self.scores.items()}

    def add(self, sample: Sample, which: np.ndarray) -> dict[str, Counted]:
        """Count the windows numbered `which`; returns what was counted, by the names of `sums`."""
        into = self.blocks.of_window[which]
        found = {name: self.scores[name].statistic.count(sample) for name in dict.fromkeys(self.holder.values())}
        for name, counted in found.items():
            if name not in self.sums:
                empty = np.zeros((self.blocks.count, *counted[0].shape[1:]))
                self.sums[name] = (empty, empty.copy())
            for total, values in zip(self.sums[name], counted, strict=True):
                np.add.at(total, into, values)
        return found

    def by_window(self, name: str, counted: Mapping[str, Counted]) -> np.ndarray:
        """One score of each window of a batch, from what `add` returned: [B]; NaN where nothing counts."""
        above, below = (values.sum(axis=(1, 2)) for values in counted[self.holder[name]])
        return self.scores[name].score.finish(quotient(above, below))

    def result(self, channels: Sequence[str]) -> dict[str, ByLead]:
        """{score: values}; with several channels also {"score:channel": values}."""
        out = {}
        for name in self.scores:
            above, below = self.sums[self.holder[name]]
            out[name] = self._values(name, *self.pooled(name))
            if len(channels) > 1 and above.shape[-1] == len(channels):
                for i, channel in enumerate(channels):
                    out[f"{name}:{channel}"] = self._values(name, above[..., i], below[..., i])
        return out

    def pooled(self, name: str) -> Counted:
        """The sums of one score over all channels and their counts: [blocks, τ] each."""
        above, below = self.sums[self.holder[name]]
        if above.shape[-1] == len(self.scale):
            above = above / self.scale ** self.scores[name].statistic.power
        return above.sum(axis=-1), below.sum(axis=-1)

    def _values(self, name: str, above: np.ndarray, below: np.ndarray) -> ByLead:
        finish = self.scores[name].score.finish
        overall, lead = (
            finish(quotient(above.sum(), below.sum())),
            finish(quotient(above.sum(axis=0), below.sum(axis=0))),
        )
        if self.blocks.draws is None:
            return ByLead(float(overall), lead.tolist())
        low, high = interval(finish(quotient(self.blocks.draws @ above, self.blocks.draws @ below)))
        return ByLead(float(overall), lead.tolist(), low.tolist(), high.tolist())


def skill(model: Tally, rival: Tally, name: str = "mse") -> Skill:
    """The skill score 1 - MSE / MSE of the rival (Murphy, 1988): 1 perfect, 0 as good as the rival, below 0 worse.

    Both tallies hold the score `name`, "mse" or "crps", and the same blocks. Without blocks enough the skill has no interval.
    """
    (mine, n), (theirs, m) = model.pooled(name), rival.pooled(name)
    overall = float(ratio_skill(quotient(mine.sum(), n.sum()), quotient(theirs.sum(), m.sum())))
    lead = ratio_skill(quotient(mine.sum(axis=0), n.sum(axis=0)), quotient(theirs.sum(axis=0), m.sum(axis=0))).tolist()
    draws = model.blocks.draws
    if draws is None:
        return Skill(overall, lead)
    by_lead = ratio_skill(quotient(draws @ mine, draws @ n), quotient(draws @ theirs, draws @ m))
    own = quotient(draws @ mine.sum(axis=1), draws @ n.sum(axis=1))
    others = quotient(draws @ theirs.sum(axis=1), draws @ m.sum(axis=1))
    low, high = (float(end) for end in interval(ratio_skill(own, others)))
    by_low, by_high = (end.tolist() for end in interval(by_lead))
    return Skill(overall, lead, by_low, by_high, interval=[low, high], significant=low > 0 or high < 0)


def ratio_skill(mse: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """1 - mse / reference; 0 where both are 0, -inf where the reference alone is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = 1 - np.asarray(mse) / np.asarray(reference)
    return np.where((np.asarray(reference) == 0) & (np.asarray(mse) == 0), 0.0, ratio)


def interval(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The middle 95 % of resamples [R, ...]."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high
