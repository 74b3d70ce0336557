"""Anomalies: departures from the climatology in units of their spread, in which predictors can run."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pdr_cli.models.interfaces import Batch


class Anomalies(nn.Module):
    """(frame − climatology) / spread of each cell, and back.

    Args:
        shape: (C, H, W).
    """

    spread: Tensor

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("spread", torch.ones(shape))

    def forward(self, frames: Tensor, normal: Tensor) -> Tensor:
        """Frames [B, T, C, H, W] and the climatology at their times → anomalies."""
        return (frames - normal) / self.spread

    def back(self, anomalies: Tensor, normal: Tensor) -> Tensor:
        """Anomalies [B, T, C, H, W] and the climatology at their times → frames."""
        return anomalies * self.spread + normal


class Space:
    """The space that the predictor runs in: that of the frames, or of their anomalies.

    Args:
        outside: the batch, in network units.
        anomalies: None: both spaces are the same.
    """

    def __init__(self, outside: Batch, anomalies: Anomalies | None) -> None:
        self.outside, self.anomalies = outside, anomalies
        self.in_steps = outside.observed.shape[1]

    def batch(self) -> Batch:
        """The batch as the predictor reads it."""
        batch = self.outside
        if self.anomalies is None:
            return batch
        target = None if batch.target is None else self.into(batch.target, self.in_steps)
        # The flow is that of the frames, and a predictor of anomalies forecasts by theirs.
        return batch._replace(observed=self.into(batch.observed, 0), target=target, flow=None)

    def into(self, frames: Tensor, start: int) -> Tensor:
        """Frames [B, n, C, H, W], of which the first is `start` steps after the first observed one, as anomalies."""
        return frames if self.anomalies is None else self.anomalies(frames, self._normal(frames, start))

    def out(self, frames: Tensor, start: int) -> Tensor:
        """The inverse of `into`."""
        return frames if self.anomalies is None else self.anomalies.back(frames, self._normal(frames, start))

    def _normal(self, frames: Tensor, start: int) -> Tensor:
        if self.outside.normal is None:
            raise ValueError("a network that runs on anomalies needs Batch.normal")
        return self.outside.normal[:, start : start + frames.shape[1]]
