"""Analyses of whole distributions: ranks of the truth among members, and what intervals hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pdr_cli.inference.loaded import LoadedModel
from pdr_cli.runs.adaptive import Adaptive
from pdr_cli.verification import sections
from pdr_cli.verification.statistics import quotient

SHARES = (0.8, 0.95)  # of the truths that intervals should hold
FIXED, ADAPTIVE = "fixed", "adaptive"


def known(model: LoadedModel, leads: int) -> bool:
    """Whether intervals of a model are known at so many lead times."""
    return model.calibration is not None and model.calibration.steps >= leads and model.calibration.holds(SHARES[0])


class Ranks:
    """How often the truth has each rank among the members of one ensemble; ties are shared among their ranks."""

    def __init__(self) -> None:
        self.counts = np.zeros(0)

    def add(self, truth: np.ndarray, members: np.ndarray) -> None:
        """Count a batch: truth [B, τ, C, H, W] and members [M, B, τ, C, H, W]."""
        known = np.isfinite(truth)
        y, x = truth[known], members[:, known]
        below, equal = (x < y).sum(axis=0), (x == y).sum(axis=0)
        M = len(members)
        self.counts = self.counts if len(self.counts) else np.zeros(M + 1)
        self.counts += np.bincount(below[equal == 0], minlength=M + 1)
        for low, ties in zip(below[equal > 0], equal[equal > 0], strict=True):
            self.counts[low : low + ties + 1] += 1 / (ties + 1)

    def section(self) -> sections.Ranks:
        """The section of the document."""
        share = self.counts / max(self.counts.sum(), 1)
        return sections.Ranks(share.tolist(), float(share[0] + share[-1]), 2 / len(share))


@dataclass(frozen=True)
class Inits:
    """When the windows of an evaluation start.

    Args:
        places: number of the series and time in steps of the init of each window, in order of time in each series.
        seasons: the windows in each season, True for them, [n]; none where all lie in one.
    """

    places: Sequence[tuple[int, int]]
    seasons: Mapping[str, np.ndarray] = field(default_factory=dict)


class Intervals:
    """What the intervals of one calibrated model hold, in each season too, and what adaptive ones would hold.

    Args:
        ends: offsets of the lower and the upper end from the forecast, [2, τ, C, H, W], of the share asked for at each lead
            time, [τ].
        adaptive: a new adaptation of the shares that intervals should hold; each series of windows has one, as a hindcast of
            it would.
        inits: of the windows.
        bounds: lowest and highest value of the model's forecasts, [C] each; None without any.
        scale: [C], by which widths are divided where channels have different units.
    """

    def __init__(
        self,
        ends: Callable[[np.ndarray], np.ndarray],
        adaptive: Callable[[], Adaptive],
        inits: Inits,
        bounds: tuple[np.ndarray, np.ndarray] | None,
        scale: np.ndarray,
    ) -> None:
        self.ends, self.inits, self.bounds, self.scale = ends, inits, bounds, scale[:, None, None]
        self.adaptations = defaultdict[int, Adaptive](adaptive)
        start = adaptive()
        self.shares, shape = start.shares, start.nominal.shape
        self.fixed = np.stack([ends(share) for share in start.nominal])
        # Of each share and lead time: truths inside, widths, penalties, and truths in all.
        self.sums = {label: np.zeros((*shape, 4)) for label in (FIXED, ADAPTIVE, *inits.seasons)}

    def add(self, truth: np.ndarray, forecast: np.ndarray, which: np.ndarray) -> None:
        """Count the windows numbered `which`, [B, τ, C, H, W] each."""
        counted = self._counted(truth, forecast, self.fixed)
        self.sums[FIXED] += counted.sum(axis=0)
        for label, chosen in self.inits.seasons.items():
            self.sums[label] += counted[chosen[which]].sum(axis=0)
        for row, window in enumerate(which):
            self._adapt(truth[row : row + 1], forecast[row : row + 1], *self.inits.places[window])

    def _adapt(self, truth: np.ndarray, forecast: np.ndarray, series: int, init: int) -> None:
        """Count one window with adaptive intervals, [1, τ, C, H, W] each."""
        adaptation = self.adaptations[series]
        asked = np.stack([self.ends(share) for share in adaptation.asked(init)])
        (counted,) = self._counted(truth, forecast, asked)
        self.sums[ADAPTIVE] += counted
        adaptation.learn(init, quotient(counted[..., 0], counted[..., 3]))

    def _counted(self, truth: np.ndarray, forecast: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """What intervals with ends [L, 2, τ, C, H, W] from the forecast hold, as in `sums`: [B, L, τ, 4]."""
        each = [self._of_share(truth, forecast, *pair) for pair in zip(self.shares, offsets, strict=True)]
        return np.stack(each, axis=1)

    def _of_share(self, truth: np.ndarray, forecast: np.ndarray, share: float, offsets: np.ndarray) -> np.ndarray:
        low, high = (self._bounded(forecast + end) for end in offsets)
        known = np.isfinite(truth) & np.isfinite(low) & np.isfinite(high)
        with np.errstate(invalid="ignore"):
            inside = (truth >= low) & (truth <= high)
            beyond = np.maximum(low - truth, 0) + np.maximum(truth - high, 0)
        penalty = 2 / (1 - share) * beyond
        columns = (inside, (high - low) / self.scale, penalty / self.scale, known)
        return np.stack([np.where(known, x, 0.0).sum(axis=(2, 3, 4), dtype=np.float64) for x in columns], axis=-1)

    def _bounded(self, frames: np.ndarray) -> np.ndarray:
        if self.bounds is None:
            return frames
        low, high = (np.asarray(end).reshape(-1, 1, 1) for end in self.bounds)
        return np.clip(frames, low, high)

    @property
    def counted(self) -> bool:
        """True once there was a value."""
        return bool(self.sums[FIXED].any())

    def section(self) -> list[sections.Intervals]:
        """The section of the document."""
        return [self._section(number, float(share)) for number, share in enumerate(self.shares)]

    def _section(self, number: int, share: float) -> sections.Intervals:
        held, adaptive = (_held(self.sums[label][number]) for label in (FIXED, ADAPTIVE))
        seasons = {label: _mean(self.sums[label][number], [0]) for label in self.inits.seasons}
        return sections.Intervals(share, held.coverage, held.width, held.score, seasons or None, adaptive)


def _held(sums: np.ndarray) -> sections.Held:
    """What intervals of one share hold, from their sums [τ, 4]."""
    return sections.Held(_mean(sums, [0]), _mean(sums, [1]), _mean(sums, [1, 2]))


def _mean(sums: np.ndarray, columns: Sequence[int]) -> sections.ByLead:
    """The mean of some columns of sums [τ, 4] over the truths in all, the last."""
    return sections.ByLead.of_sums(sums[:, columns].sum(axis=1), sums[:, 3])
