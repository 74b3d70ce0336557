"""Noise from which members of an ensemble are drawn: of each window from a seed of its own, the same in any batch."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pdr_cli.errors import ConfigError
from pdr_cli.models.layers import ChannelNorm, NormHook

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
    """Makes a predictor stochastic: noise enters by the output of each of its norms.

    A few numbers that all cells of a window share scale and shift the channels (FGN, Alet et al. 2025), so that members
    differ by fields that hang together; and a map of noise on the norm's own grid is added to each channel with a learned
    weight (StyleGAN, Karras et al. 2019), so that they differ from place to place. Each pass of a roll-out draws anew.
    Without seeds, the norms are as they are.

    Args:
        predictor: with norms, whose names and weights stay.
        width: numbers that all cells share.

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
        self.entries = nn.ModuleList(Entry(norm, width) for norm in norms)
        self._seeds: Tensor | None = None
        self._step, self._shared = 0, torch.empty(0)
        for number, norm in enumerate(norms):
            norm.register_forward_hook(Disturbance(self, number))

    def draw(self, seeds: Tensor | None, step: int) -> None:
        """Draw the noise of a pass that begins `step` frames after the last observed one; seeds: [B]."""
        if seeds is None and self._seeds is None:
            return
        self._seeds, self._step = seeds, step
        if seeds is not None:
            self._shared = normal(seeds, step, self.width)

    def snapshot(self) -> Callable[[], None]:
        """A function that sets the noise to that of now."""
        drawn = self._seeds, self._step, self._shared

        def restore() -> None:
            self._seeds, self._step, self._shared = drawn

        return restore

    @property
    def drawn(self) -> bool:
        """Whether there is noise now."""
        return self._seeds is not None

    def disturb(self, number: int, norm: Norm, output: Tensor) -> Tensor:
        """The output of norm `number` with its noise: [B, ...], or with the windows in order a multiple of B."""
        if self._seeds is None:
            return output
        axis = _layout(norm)[1] % output.ndim
        each = len(output) // len(self._seeds)
        cells = [1 if dim == axis else size for dim, size in enumerate(output.shape)][1:]
        place = self._step * len(self.entries) + number + 1
        noise = normal(self._seeds, -place, each, *cells).flatten(0, 1)
        entry: Entry = self.entries[number]  # type: ignore[assignment]  # of a ModuleList
        return entry(output, axis, self._shared.repeat_interleave(each, dim=0), noise)


class Disturbance(NormHook):
    """Adds noise to a norm's output.

    Args:
        number: of the norm.
    """

    def __init__(self, noise: NormNoise, number: int) -> None:
        self.noise, self.number = noise, number

    @property
    def active(self) -> bool:
        return self.noise.drawn

    def __call__(self, norm: Norm, inputs: object, output: Tensor) -> Tensor:  # type: ignore[override]  # of a norm
        return self.noise.disturb(self.number, norm, output)


class Entry(nn.Module):
    """How noise enters by a norm."""

    def __init__(self, norm: Norm, width: int) -> None:
        super().__init__()
        channels = _layout(norm)[0]
        self.shift = nn.Linear(width, 2 * channels, bias=False)
        nn.init.normal_(self.shift.weight, std=BEGINNING / sqrt(width))
        self.local = nn.Parameter(torch.randn(channels) * BEGINNING)

    def forward(self, output: Tensor, axis: int, shared: Tensor, noise: Tensor) -> Tensor:
        """`output`, its channels along `axis`; shared: [N, width]; noise: as `output`, with one channel."""
        shape = [1] * output.ndim
        shape[axis] = -1
        local = self.local.reshape(shape) * noise
        shape[0] = len(output)
        scale, offset = (part.reshape(shape) for part in self.shift(shared).chunk(2, dim=-1))
        return output * (1 + scale) + offset + local


def _layout(norm: Norm) -> tuple[int, int]:
    """Channels of a norm's output, and the dimension that they are along."""
    if isinstance(norm, nn.GroupNorm):
        return norm.num_channels, 1
    if isinstance(norm, _BatchNorm):
        return norm.num_features, 1
    first_of_several = isinstance(norm, ChannelNorm) or len(norm.normalized_shape) > 1
    return int(norm.normalized_shape[0]), 1 if first_of_several else -1
