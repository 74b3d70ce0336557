"""Noise from which stochastic predictors draw: of each window from a seed of its own, the same in any batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def normal(seeds: Tensor, step: int, *shape: int) -> Tensor:
    """Standard normal numbers of each window, [B, *shape], from its seed, int64 [B], and the number of the draw.

    They are drawn on the CPU, so that they are the same on any device.
    """
    drawn = np.empty((len(seeds), *shape), np.float32)
    for window, seed in enumerate(seeds.tolist()):
        key = np.array([seed, step], np.int64).view(np.uint64)
        drawn[window] = np.random.Generator(np.random.Philox(key=key)).standard_normal(shape, np.float32)
    return torch.from_numpy(drawn).to(seeds.device)
