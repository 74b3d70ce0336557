"""Analyses of whole distributions: ranks of the truth among members, and what intervals hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pdr_cli.inference.model import Model
from pdr_cli.verification import sections

SHARES = (0.8, 0.95)  # of the truths that intervals should hold


def known(model: Model, leads: int) -> bool:
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


class Intervals:
    """What the intervals of one calibrated model hold.

    Args:
        ends: offsets of the lower and the upper end from the forecast by the share that they should hold, each [2, τ, C, H, W].
        low, high: bounds of the model's forecasts, [C]; None without any.
        scale: [C], by which widths are divided where channels have different units.
    """

    def __init__(
        self, ends: Mapping[float, np.ndarray], bounds: tuple[np.ndarray, np.ndarray] | None, scale: np.ndarray
    ) -> None:
        self.ends, self.bounds, self.scale = ends, bounds, scale[:, None, None]
        leads = next(iter(ends.values())).shape[1]
        self.sums = {share: np.zeros((leads, 4)) for share in ends}  # inside, width, penalty, count

    def add(self, truth: np.ndarray, forecast: np.ndarray) -> None:
        """Count a batch, [B, τ, C, H, W] each."""
        for share, offsets in self.ends.items():
            low, high = (self._bounded(forecast + end) for end in offsets)
            known = np.isfinite(truth) & np.isfinite(low) & np.isfinite(high)
            with np.errstate(invalid="ignore"):
                inside = (truth >= low) & (truth <= high)
                beyond = np.maximum(low - truth, 0) + np.maximum(truth - high, 0)
            penalty = 2 / (1 - share) * beyond
            for column, values in enumerate((inside, (high - low) / self.scale, penalty / self.scale, known)):
                self.sums[share][:, column] += np.where(known, values, 0.0).sum(axis=(0, 2, 3, 4), dtype=np.float64)

    def _bounded(self, frames: np.ndarray) -> np.ndarray:
        if self.bounds is None:
            return frames
        low, high = (np.asarray(end).reshape(-1, 1, 1) for end in self.bounds)
        return np.clip(frames, low, high)

    @property
    def counted(self) -> bool:
        """True once there was a value."""
        return any(sums.any() for sums in self.sums.values())

    def section(self) -> list[sections.Intervals]:
        """The section of the document."""
        return [self._of(share, sums) for share, sums in self.sums.items()]

    def _of(self, share: float, sums: np.ndarray) -> sections.Intervals:
        def by_lead(columns: Sequence[int]) -> sections.ByLead:
            above, below = sums[:, columns].sum(axis=1), sums[:, 3]
            with np.errstate(divide="ignore", invalid="ignore"):
                return sections.ByLead(float(above.sum() / below.sum()), (above / below).tolist())

        return sections.Intervals(share, by_lead([0]), by_lead([1]), by_lead([1, 2]))
