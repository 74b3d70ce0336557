"""Where a Series' numbers become tensors and tensors become numbers: fill, scale, to tensor, and back.

Training, inference, verification and export all go through here, so that a window means the same in each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

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
        """Following frames [B, τ, C, H, W] in data units; missing values become 0, because their weight in a loss is 0."""
        scaled = self.scaling.apply(self.filling.land_only().apply(frames, []))
        return _tensor(np.where(np.isfinite(scaled), scaled, np.float32(0)), device)

    def to_network(self, frames: np.ndarray, device: torch.device) -> Tensor:
        """Frames [..., C, H, W] without missing values, data units to network units."""
        return _tensor(self.scaling.apply(frames), device)

    def to_data(self, frames: Tensor) -> np.ndarray:
        """Network units [..., C, H, W] to data units; NaN in cells that training never observed."""
        values = self.scaling.invert(frames.float().cpu().numpy())
        land = self.filling.land
        return values if land is None else np.where(land, np.float32(np.nan), values)


def _tensor(values: np.ndarray, device: torch.device) -> Tensor:
    import torch

    return torch.from_numpy(values).to(device)
