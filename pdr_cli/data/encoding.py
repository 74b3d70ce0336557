"""Encoding: frames in data units to tensors in network units (fill, scale), and back.

Training, inference, verification and export all use it, so that a window has the same meaning in each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pdr_cli.data.bounds import Bounds
from pdr_cli.data.context import Context
from pdr_cli.data.missing import Filling
from pdr_cli.data.scaling import Scaling

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Encoding:
    """Data units on the model's grid to network units, and back.

    Args:
        scaling: of each channel.
        filling: what replaces missing values in observed frames.
    """

    scaling: Scaling
    filling: Filling

    def observed(self, frames: np.ndarray, times: Sequence[np.ndarray], device: torch.device) -> Tensor:
        """Observed frames [B, T, C, H, W] in data units, NaN where missing, at `times`, [T] of each window."""
        return self.to_network(self.filling.apply(frames, times), device)

    def target(self, frames: np.ndarray, device: torch.device) -> Tensor:
        """Following frames [B, τ, C, H, W] in data units. Missing values become 0; their weight in the loss is 0."""
        scaled = self.scaling.apply(self.filling.fill_never_observed(frames))
        return _tensor(np.where(np.isfinite(scaled), scaled, np.float32(0)), device)

    def context(self, context: Context, device: torch.device) -> dict[str, Any]:
        """The fields of a network's batch that a context in data units gives, by name."""
        return {name: self.to_network(values, device) for name, values in context.arrays().items()}

    def to_network(self, frames: np.ndarray, device: torch.device) -> Tensor:
        """Data units to network units: [..., C, H, W] without missing values."""
        return _tensor(self.scaling.apply(frames), device)

    def to_data(self, frames: Tensor) -> np.ndarray:
        """Network units to data units: [..., C, H, W], NaN in cells that training never observed."""
        values = self.scaling.invert(frames.detach().float().cpu().numpy())
        absent = self.filling.never_observed
        return values if absent is None else np.where(absent, np.float32(np.nan), values)

    def bounds(self, bounds: Bounds) -> tuple[Tensor, Tensor]:
        """The lowest and highest value of each channel in network units, [C] each; infinite where there is none."""
        import torch

        low, high = (torch.from_numpy(self.scaling.apply(ends)[:, 0, 0]) for ends in bounds.ends())
        return low, high


def _tensor(values: np.ndarray, device: torch.device) -> Tensor:
    import torch

    return torch.from_numpy(values).to(device)
