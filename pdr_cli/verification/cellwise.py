"""Errors of each cell: where a forecaster is off, and which way."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pdr_cli.verification.statistics import Sample


@dataclass
class CellErrors:
    """Running sums of the errors of one forecaster in each cell, over windows and lead times.

    Args:
        name: of the forecaster.
    """

    name: str
    sums: np.ndarray = field(default_factory=lambda: np.zeros(()))  # squares, errors, values: [3, C, H, W]

    def add(self, sample: Sample) -> None:
        """Count a batch."""
        known = np.isfinite(sample.error)
        error = np.where(known, sample.error, 0.0)
        self.sums = self.sums + np.stack([x.sum(axis=(0, 1)) for x in (error**2, error, known.astype(float))])

    @property
    def rmse(self) -> np.ndarray:
        """[C, H, W]; NaN where nothing was counted."""
        return np.asarray(np.sqrt(self._mean(0)))

    @property
    def bias(self) -> np.ndarray:
        """Mean of forecast - truth, [C, H, W]; NaN where nothing was counted."""
        return self._mean(1)

    @property
    def median(self) -> tuple[int, int] | None:
        """Row and column of the cell whose RMSE of the first channel is the median of all; None where nothing was counted."""
        rmse = self.rmse[0]
        known = int(np.isfinite(rmse).sum())
        order = np.argsort(rmse, axis=None, kind="stable")  # NaN last
        row, column = np.unravel_index(order[max(known - 1, 0) // 2], rmse.shape)
        return (int(row), int(column)) if known else None

    def _mean(self, which: int) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.sums[which] / self.sums[2])
