"""Noise from which members of an ensemble are drawn: of each window from a seed of its own, the same in any batch."""

from __future__ import annotations

from functools import partial
from math import sqrt

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pdr_cli.errors import ConfigError
from pdr_cli.models.layers import ChannelNorm

BEGINNING = 0.1  # standard deviation of scales and shifts before training

Norm = _BatchNorm | nn.GroupNorm | nn.LayerNorm


def normal(seeds: Tensor, step: int, *shape: int) -> Tensor:
    """Standard normal numbers of each window, [B, *shape], from its seed, int64 [B], and the number of the draw.

    They are drawn on the CPU, so that they are the same on any device.
    """
    drawn = np.empty((len(seeds), *shape), np.float32)
    for window, seed in enumerate(seeds.tolist()):
        key = np.array([seed, step], np.int64).view(np.uint64)
        drawn[window] = np.random.Generator(np.random.Philox(key=key)).standard_normal(shape, np.float32)
    return torch.from_numpy(drawn).to(seeds.device)


class NormNoise(nn.Module):
    """Makes a predictor stochastic: noise scales and shifts the output of each of its norms (FGN, Alet et al. 2025).

    All cells of a window share a noise of few numbers, so that a member differs from another by fields that hang together.
    Each pass of a roll-out draws anew. Without seeds, the norms are as they are.

    Args:
        predictor: with norms, whose names and weights stay.
        width: numbers of noise in a window.

    Raises:
        ConfigError: the predictor has no norms.
    """

    def __init__(self, predictor: nn.Module, width: int) -> None:
        super().__init__()
        norms = [module for module in predictor.modules() if isinstance(module, Norm)]
        if not norms:
            raise ConfigError(
                f"model.noise is {width}, and {type(predictor).__name__} has no norms that noise could enter by",
                way_out="take another --backbone, such as unet or tau",
            )
        self.width = width
        shifts = [nn.Linear(width, 2 * _layout(norm)[0], bias=False) for norm in norms]
        self.shifts = nn.ModuleList(shifts)
        self._drawn: Tensor | None = None
        for norm, shift in zip(norms, shifts, strict=True):
            nn.init.normal_(shift.weight, std=BEGINNING / sqrt(width))
            norm.register_forward_hook(partial(self._disturb, shift))

    def draw(self, seeds: Tensor | None, step: int) -> None:
        """Draw the noise of a pass that begins `step` frames after the last observed one; seeds: [B]."""
        if seeds is not None or self._drawn is not None:
            self._drawn = None if seeds is None else normal(seeds, step, self.width)

    def _disturb(self, shift: nn.Linear, norm: Norm, _: object, output: Tensor) -> Tensor:
        """The output of a norm, whose first dimension is B or, with the windows in order, a multiple of it."""
        if self._drawn is None:
            return output
        channels, axis = _layout(norm)
        shape = [1] * output.ndim
        shape[0], shape[axis] = len(output), channels
        rows = shift(self._drawn).repeat_interleave(len(output) // len(self._drawn), dim=0)
        scale, offset = (part.reshape(shape) for part in rows.chunk(2, dim=-1))
        return output * (1 + scale) + offset


def _layout(norm: Norm) -> tuple[int, int]:
    """Channels of a norm's output, and the dimension that they are along."""
    if isinstance(norm, nn.GroupNorm):
        return norm.num_channels, 1
    if isinstance(norm, _BatchNorm):
        return norm.num_features, 1
    first_of_several = isinstance(norm, ChannelNorm) or len(norm.normalized_shape) > 1
    return int(norm.normalized_shape[0]), 1 if first_of_several else -1
