"""Calibration: the quantiles of a model's errors on windows that it was not trained on, from which intervals are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TAILS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
LEVELS = np.array([*TAILS, 0.5, *(1 - tail for tail in reversed(TAILS))])
LEAST = 9  # errors behind any quantile, and windows behind a calibration: as many as an interval of 80 % needs
ENOUGH = 200  # errors behind each quantile, which blocks of cells provide where windows are few
MOST_BYTES = 2 * 2**20  # of the offsets
AT_ONCE = 16  # windows in a pass of the network
MEMORY = 400 * 10**6  # bytes of the errors, of which windows are left out evenly where they would take more
ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Calibration:
    """The distribution of truth - forecast, per lead time, channel and cell.

    Args:
        levels: of the quantiles, ascending, [Q].
        offsets: quantiles of truth - forecast in the model's units, [Q, τ, C, h, w]; NaN where truth is not observed.
        count: windows behind each quantile; fewer where truth is missing.
        blocks: side of the square blocks of cells whose errors are pooled; 1: each cell has its own.
        about: data, period and time of the calibration, for provenance.
    """

    levels: np.ndarray
    offsets: np.ndarray
    count: int
    blocks: int = 1
    about: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_errors(cls, errors: np.ndarray, about: Mapping[str, Any] | None = None) -> Calibration:
        """The calibration of errors, truth - forecast in data units, [n, τ, C, H, W]; NaN where truth is missing.

        The quantile of level p of N errors is the one of rank ceil((N + 1) p) above the median and of rank floor((N + 1) p)
        below it, as split-conformal prediction takes it; of rank 1 or N where N is too small.
        """
        n, (height, width) = len(errors), errors.shape[-2:]
        side = block_side(n, len(LEVELS) * int(np.prod(errors.shape[1:3])), (height, width))
        each = [_quantiles(_pooled(errors[:, lead], side)) for lead in range(errors.shape[1])]
        offsets = np.stack(each, axis=1)
        # A cell has offsets at all lead times or at none, as a forecast has values.
        lacking = np.isnan(offsets).any(axis=(0, 1))
        return cls(LEVELS, np.where(lacking, np.float32(np.nan), offsets), n, side, dict(about or {}))

    @property
    def steps(self) -> int:
        """τ, the lead times that are calibrated."""
        return int(self.offsets.shape[1])

    @property
    def largest(self) -> float:
        """The largest share that an interval may hold: its tails hold a stored level and at least one window each."""
        return min(1 - 2 * float(self.levels[0]), 1 - 2 / (self.count + 1))

    def words(self) -> str:
        """Windows, period, lead times and cells, in words."""
        cells = f"blocks of {self.blocks} x {self.blocks} cells" if self.blocks > 1 else "each cell"
        period = " to ".join(self.about.get("period", ()))
        return (
            f"{self.count} windows, {period}, {self.steps} steps, {cells}; intervals up to {100 * self.largest:.3g} %"
        )

    def holds(self, share: float) -> bool:
        """Whether there are windows enough for an interval that holds this share of the truths."""
        return 0 < share <= self.largest + ROUNDING

    def at(self, levels: np.ndarray, steps: int, size: tuple[int, int]) -> np.ndarray:
        """Quantiles of truth - forecast for each cell: [q, steps, C, H, W] in the model's units.

        They are interpolated linearly between the stored levels, and lead times beyond the calibrated ones keep the last.

        Args:
            levels: of the quantiles, between 0 and 1: [q], or [q, steps] where each lead time has its own.
            steps: lead times.
            size: (H, W) of the model's grid.
        """
        asked = np.asarray(levels, np.float64)
        asked = np.broadcast_to(asked if asked.ndim > 1 else asked[:, None], (len(asked), steps))
        place = np.interp(asked, self.levels, np.arange(len(self.levels)))
        low = np.floor(place + ROUNDING).astype(int)
        high = np.minimum(low + 1, len(self.levels) - 1)
        share = np.maximum(place - low, 0).astype(np.float32)[..., None, None, None]
        leads = np.minimum(np.arange(steps), self.steps - 1)
        below, above = self.offsets[low, leads], self.offsets[high, leads]
        return self._spread(below + share * (above - below), size)

    def ends(self, share: float | np.ndarray, steps: int, size: tuple[int, int]) -> np.ndarray:
        """Offsets of the lower and the upper end of the interval that holds a share of the truths, of each lead time its own
        where it is [steps]: [2, steps, C, H, W].
        """
        return self.at(np.stack([(1 - share) / 2, (1 + share) / 2]), steps, size)

    def _spread(self, offsets: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Offsets of blocks [..., h, w] for each of their cells [..., H, W]."""
        if self.blocks == 1:
            return offsets
        rows, columns = (np.arange(length) // self.blocks for length in size)
        return offsets[..., rows[:, None], columns]

    def equals(self, other: Calibration | None) -> bool:
        """Whether another calibration has the same numbers and the same origin."""
        if other is None or self.to_json() != other.to_json():
            return False
        pairs = zip(self.to_tensors().values(), other.to_tensors().values(), strict=True)
        return all(np.array_equal(mine, theirs, equal_nan=True) for mine, theirs in pairs)

    def to_tensors(self) -> dict[str, np.ndarray]:
        """The arrays, by name, for a model file."""
        return {"levels": self.levels.astype(np.float64), "offsets": self.offsets.astype(np.float32)}

    def to_json(self) -> dict[str, Any]:
        """Everything but the arrays, for the header of a model file."""
        return {"count": self.count, "blocks": self.blocks, "about": dict(self.about)}

    @classmethod
    def of_parts(cls, tensors: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> Calibration:
        """The calibration that `to_tensors` and `to_json` were of."""
        count, blocks = int(header["count"]), int(header["blocks"])
        return cls(tensors["levels"], tensors["offsets"], count, blocks, dict(header["about"]))


def most_windows(values: int) -> int:
    """The windows whose errors fit into memory, each of so many values."""
    return max(LEAST, MEMORY // (4 * values))


def windows_needed(share: float) -> int:
    """The windows that an interval needs which holds a share of the truths: one error lies in each tail."""
    return int(np.ceil(2 / (1 - share) - 1 - ROUNDING))


def block_side(count: int, per_cell: int, size: tuple[int, int]) -> int:
    """The side of the smallest square blocks of cells with `ENOUGH` errors each and few enough bytes of offsets.

    Args:
        count: windows, which give one error to each cell.
        per_cell: numbers stored of each block.
        size: (H, W).
    """
    sides = range(1, max(size) + 1)
    return next((s for s in sides if count * s * s >= ENOUGH and _bytes(per_cell, size, s) <= MOST_BYTES), max(size))


def _bytes(per_cell: int, size: tuple[int, int], side: int) -> int:
    return 4 * per_cell * -(-size[0] // side) * -(-size[1] // side)


def _pooled(errors: np.ndarray, side: int) -> np.ndarray:
    """Errors of cells [n, C, H, W] → of blocks [C, h, w, n·side²]; blocks at the edge have fewer, the rest is NaN."""
    n, channels, height, width = errors.shape
    pad = [(0, 0), (0, 0), (0, -height % side), (0, -width % side)]
    whole = np.pad(errors, pad, constant_values=np.nan) if side > 1 else errors
    blocks = whole.reshape(n, channels, whole.shape[2] // side, side, whole.shape[3] // side, side)
    return blocks.transpose(1, 2, 4, 0, 3, 5).reshape(channels, *blocks.shape[2:5:2], -1)


def _quantiles(errors: np.ndarray) -> np.ndarray:
    """Quantiles of errors [C, h, w, N] at `LEVELS`: [Q, C, h, w]; NaN of fewer than `LEAST` errors."""
    ordered = np.sort(errors, axis=-1)  # NaN last
    known = np.isfinite(errors).sum(axis=-1)
    found = [np.take_along_axis(ordered, _rank(level, known)[..., None] - 1, axis=-1)[..., 0] for level in LEVELS]
    return np.where(known < LEAST, np.float32(np.nan), np.stack(found)).astype(np.float32)


def _rank(level: float, known: np.ndarray) -> np.ndarray:
    """The rank, from 1, of the quantile of a level among so many errors."""
    place = (known + 1) * level
    if abs(level - 0.5) < ROUNDING:
        rank = np.round(place)
    else:
        rank = np.ceil(place - ROUNDING) if level > 0.5 else np.floor(place + ROUNDING)
    return np.clip(rank, 1, np.maximum(known, 1)).astype(int)
