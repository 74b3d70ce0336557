"""PhyDNet (Le Guen and Thome, CVPR 2020): dynamics of a partial differential equation, and a ConvLSTM for the residual.

The published model ends in a sigmoid, for pictures in [0, 1]; this one ends in a linear layer, because fields may be
standardised.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError
from pdr_cli.models.interfaces import Batch, Frames, Terms
from pdr_cli.models.predictors.recurrent.sequence import Recurrent, patch_size, same_conv, zeros

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig

DERIVATIVES = 7  # q: orders of derivative below 7 along each axis, by filters of 7 × 7
CONV_FILTER = 3
TEACHING_SPAN = 1 / 3  # of the run, over which teacher forcing fades out (the authors: 334 of 1001 epochs)


class Memory(NamedTuple):
    """The physical state [B, 2·hid_s, H', W'], and hidden state and cell of each ConvLSTM."""

    physical: Tensor
    h: list[Tensor]
    c: list[Tensor]


class PhyDNet(Recurrent):
    """A PhyCell and n_t ConvLSTMs (hid_t channels, the last 2·hid_s) on a grid of 1/2^(n_s/2).

    OpenSTL: hid_s = 32, hid_t = 128, n_t = 3; n_s = 2 or 4.
    """

    moments: Tensor

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        hid_s, n_s = options.hid_s, options.n_s
        super().__init__(1, patch_size(n_s))
        if n_s > 4:
            raise ConfigError(f"model.n_s is {n_s}", "2 (half the grid) or 4 (a quarter) for phydnet")
        latent, last = 2 * hid_s, self.multiple // 2
        self.encoder = nn.Sequential(down(frames.channels, hid_s, 2), down(hid_s, hid_s, 1), down(hid_s, latent, last))
        self.encode_physical = nn.Sequential(down(latent, latent, 1), down(latent, latent, 1))
        self.encode_residual = nn.Sequential(down(latent, latent, 1), down(latent, latent, 1))
        self.physical = PhyCell(latent)
        widths = [latent, *[options.hid_t] * (options.n_t - 1), latent]
        self.widths = widths[1:]
        self.residual = nn.ModuleList(ConvLSTMCell(a, b) for a, b in itertools.pairwise(widths))
        self.decode_physical = nn.Sequential(up(latent, latent, 1), up(latent, latent, 1))
        self.decode_residual = nn.Sequential(up(latent, latent, 1), up(latent, latent, 1))
        self.decoder = nn.Sequential(
            up(latent, hid_s, 2), up(hid_s, hid_s, 1), transposed(hid_s, frames.channels, last)
        )
        self.register_buffer("moments", moment_matrix(DERIVATIVES), persistent=False)

    def begin(self, frame: Tensor) -> Memory:
        B, _, H, W = frame.shape
        grid = frame.new_zeros(B, 1, H // self.multiple, W // self.multiple)
        blank = [zeros(grid, width) for width in self.widths]
        return Memory(blank[-1], blank, blank)

    def step(self, frame: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        latent = self.encoder(frame)
        physical = self.physical(self.encode_physical(latent), memory.physical)
        h, hs, cs = self.encode_residual(latent), [], []
        for cell, before, c in zip(self.residual, memory.h, memory.c, strict=True):
            h, c = cell(h, before, c)
            hs.append(h)
            cs.append(c)
        decoded = self.decode_physical(physical) + self.decode_residual(h)
        return self.decoder(decoded), Memory(physical, hs, cs)

    def training_terms(self, memory: Memory) -> Terms:
        """The moment constraint: filter k of PhyCell is the k-th partial derivative, for every channel.

        Mean squared difference of a filter's moments from those of the derivative, summed over channels (Eq. 6).
        """
        q = DERIVATIVES
        filters = self.physical.derivatives.weight.double()  # [q², latent, q, q]
        found = self.moments @ filters @ self.moments.T  # of order i down and j across
        exact = torch.eye(q * q, dtype=found.dtype, device=found.device).view(q * q, 1, q, q)
        return {"moments": ((found - exact) ** 2).mean(dim=(0, 2, 3)).sum().float()}

    def teacher_mask(self, batch: Batch) -> Tensor:
        """Teacher forcing: in a share of the batches that falls linearly from 1 to 0, all true frames are fed in."""
        B, T = batch.observed.shape[:2]
        forced = torch.rand(1, device=batch.observed.device) < 1 - batch.progress / TEACHING_SPAN
        return torch.cat([forced.new_ones(B, T), forced.expand(B, batch.steps - 1)], dim=1)


class PhyCell(nn.Module):
    """Prediction from a sum of derivatives, then correction by the frame: h ← h + Φ(h), h ← h + K·(x − h)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.derivatives = same_conv(hidden, DERIVATIVES**2, DERIVATIVES, bias=True)
        self.norm = nn.GroupNorm(DERIVATIVES, DERIVATIVES**2)
        self.combine = nn.Conv2d(DERIVATIVES**2, hidden, 1)
        self.gain = same_conv(2 * hidden, hidden, 3, bias=True)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """x and h: [B, hidden, H', W'] → the new h."""
        gain = torch.sigmoid(self.gain(torch.cat([x, h], dim=1)))
        predicted = h + self.combine(self.norm(self.derivatives(h)))
        return predicted + gain * (x - predicted)


class ConvLSTMCell(nn.Module):
    """A ConvLSTM with one convolution of x and h together, with biases."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.conv = same_conv(inputs + hidden, 4 * hidden, CONV_FILTER, bias=True)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """x: [B, inputs, H', W'], h and c: [B, hidden, H', W'] → the new h and c."""
        i, f, o, g = self.conv(torch.cat([x, h], dim=1)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


def moment_matrix(size: int) -> Tensor:
    """M with M[i, u] = (u − centre)^i / i!, so that M·k·Mᵀ holds the moments of a filter k. [size, size], float64."""
    places = torch.arange(size, dtype=torch.float64) - (size - 1) // 2
    return torch.stack([places**i / math.factorial(i) for i in range(size)])


def down(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """3×3 convolution, GroupNorm, leaky ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), norm(outputs), nn.LeakyReLU(0.2))


def up(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """3×3 transposed convolution, GroupNorm, leaky ReLU."""
    return nn.Sequential(transposed(inputs, outputs, stride), norm(outputs), nn.LeakyReLU(0.2))


def transposed(inputs: int, outputs: int, stride: int) -> nn.ConvTranspose2d:
    """3×3 transposed convolution to `stride` times the grid."""
    return nn.ConvTranspose2d(inputs, outputs, 3, stride, 1, output_padding=stride - 1)


def norm(channels: int) -> nn.GroupNorm:
    """GroupNorm of 16 groups, or of the greatest common divisor of 16 and the channels."""
    return nn.GroupNorm(math.gcd(16, channels), channels)
