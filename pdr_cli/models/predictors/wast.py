"""WaST (Nie et al., AAAI 2024): 3-D wavelets instead of strided convolutions, around large-kernel blocks.

As in the paper, and unlike OpenSTL, the third axis of the wavelets is time (in OpenSTL the columns), and each residual
branch has its own scale (in OpenSTL both use the first). Stochastic depth is active from the first step; the authors begin
after 20 of 50 epochs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pdr_cli.errors import DataError
from pdr_cli.models.interfaces import Anchoring, Batch, Frames, OnePass, Terms, target_of
from pdr_cli.models.layers import drop_branch, pad_to_multiple, where_known
from pdr_cli.models.predictors.translators.depthwise import DepthwiseConv

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig

OUTER_KERNEL, INNER_KERNEL = 51, 21
FREQUENCY_WEIGHT = 0.001
LOW_FREQUENCIES = 0.1  # radius around a spectrum's corners that the frequency loss excludes, over the longer side


class WaST(OnePass):
    """One level of wavelets: n_t/4 blocks before it, n_t at half the grid, n_t/4 after it.

    Args:
        frames: T, of which an odd one is made even by repeating the last frame, and C.
        options: `hid_s` channels of a frame (the authors' TaxiBJ: 20), `n_t` blocks at half the grid (8), `mlp_ratio`
            expansion in the temporal mixer (4), `drop_path` stochastic depth of the last block, from 0 in the first (0.25).
    """

    reads_covariates = False

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        super().__init__(frames.in_steps)
        channels, hid_s, n_t = frames.channels, options.hid_s, options.n_t
        self.in_steps = frames.in_steps
        T, outer = frames.in_steps + frames.in_steps % 2, max(1, n_t // 4)
        drops = iter(options.drop_path * i / (2 * outer + n_t - 1) for i in range(2 * outer + n_t))

        def blocks(count: int, width: int, kernel: int) -> nn.Sequential:
            return nn.Sequential(*(Block(width, kernel, options.mlp_ratio, next(drops)) for _ in range(count)))

        self.enter = conv3d(channels, hid_s)
        self.before = blocks(outer, hid_s * T, OUTER_KERNEL)
        self.down = Decompose(channels, hid_s)
        self.inner = blocks(n_t, 2 * hid_s * T, INNER_KERNEL)
        self.up = Recompose(hid_s)
        self.join = nn.Conv2d(2 * hid_s * T, hid_s * T, 3, padding=1)
        self.after = blocks(outer, hid_s * T, OUTER_KERNEL)
        self.readout = nn.Sequential(nn.BatchNorm3d(hid_s), nn.GELU(), nn.Conv3d(hid_s, channels, 3, padding=1))

    def one_pass(self, seen: Tensor, covariates: Tensor | None = None) -> Tensor:
        """[B, T, C, H, W] → [B, T, C, H, W], the T frames that follow."""
        x, (B, T), (H, W) = seen, seen.shape[:2], seen.shape[-2:]
        if self.in_steps != T:
            raise DataError(f"the input has {T} frames", f"{self.in_steps}, which the model takes")
        x = torch.cat([x, x[:, -1:]], dim=1) if T % 2 else x
        frames = pad_to_multiple(x.flatten(0, 1), 2).unflatten(0, (B, -1)).transpose(1, 2)  # [B, C, T, H, W]
        skip = in_2d(self.before, self.enter(frames))
        latent, details = self.down(skip, frames)
        latent = self.up(in_2d(self.inner, latent), details)
        latent = in_2d(self.after, in_2d(self.join, torch.cat([latent, skip], dim=1), latent.shape[1]))
        return self.readout(latent).transpose(1, 2)[:, :T, :, :H, :W]

    def training_forward(self, batch: Batch, anchor: Anchoring | None = None) -> tuple[Tensor, Terms]:
        """The forecast, and the frequency loss."""
        x, target = batch.observed, target_of(batch)
        frames = self(x, batch.steps, anchor)
        made = where_known(frames, target, None if batch.known is None else batch.known[:, x.shape[1] :])
        return frames, {"frequency_loss": FREQUENCY_WEIGHT * frequency_loss(made, target)}


class Decompose(nn.Module):
    """To half the grid: the spatial averages of the features, plus an embedding of all bands of the frames."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.refine = conv3d(width, width)
        self.widen = conv3d(width, 2 * width)
        self.embed = nn.Conv3d(4 * channels, 2 * width, 3, padding=1)

    def forward(self, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """[B, width, T, H, W] and [B, C, T, H, W] → [B, 2·width, T, H/2, W/2], and details [B, 6·width, T/2, H/2, W/2]."""
        average, *details = bands(self.refine(features))
        embedded = self.embed(torch.cat([torch.cat(pair, dim=2) for pair in bands(frames)], dim=1))
        latent = self.widen(torch.cat(average, dim=2)) + embedded
        return latent, torch.cat([part for pair in details for part in pair], dim=1)


class Recompose(nn.Module):
    """Back to the full grid, with the details that `Decompose` has set aside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.narrow = conv3d(2 * width, width)
        self.refine = conv3d(6 * width, 6 * width, groups=6)

    def forward(self, latent: Tensor, details: Tensor) -> Tensor:
        """[B, 2·width, T, H/2, W/2] and [B, 6·width, T/2, H/2, W/2] → [B, width, T, H, W]."""
        average = self.narrow(latent).chunk(2, dim=2)
        parts = self.refine(details).chunk(6, dim=1)
        return from_bands([(average[0], average[1]), *zip(parts[::2], parts[1::2], strict=True)])


class Block(nn.Module):
    """Depth-wise convolutions over long strips and a small square, each with attention; then all times mixed per cell."""

    def __init__(self, width: int, kernel: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.tall, self.broad, self.small = (depthwise(width, size) for size in ((kernel, 5), (5, kernel), (5, 5)))
        self.attend_low, self.attend_high = AxisAttention(width), AxisAttention(width)
        self.mixer = temporal_mixer(width, int(width * mlp_ratio))
        self.scale1, self.scale2 = (nn.Parameter(torch.full((width, 1, 1), 1e-2)) for _ in range(2))
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, H, W] → the same shape."""
        normed = self.norm1(x)
        wide = self.attend_low(self.tall(normed) + self.broad(normed)) + self.attend_high(self.small(normed))
        x = x + drop_branch(self.scale1 * wide, self.drop_path, self.training)
        return x + drop_branch(self.scale2 * self.mixer(self.norm2(x)), self.drop_path, self.training)


class AxisAttention(nn.Module):
    """Gates for rows and columns, from the means along the other axis."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(8, width // 4)
        self.squeeze = nn.Sequential(nn.Conv2d(width, hidden, 1), nn.BatchNorm2d(hidden), nn.Hardswish())
        self.rows, self.columns = nn.Conv2d(hidden, width, 1), nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, H, W] → the same shape."""
        H, W = x.shape[-2:]
        means = torch.cat([x.mean(dim=3, keepdim=True), x.mean(dim=2).unsqueeze(3)], dim=2)  # [B, width, H + W, 1]
        rows, columns = self.squeeze(means).split([H, W], dim=2)
        return x * torch.sigmoid(self.rows(rows)) * torch.sigmoid(self.columns(columns.transpose(2, 3)))


class SqueezeExcite(nn.Module):
    """A gate for each channel from the mean over the grid."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Conv2d(width, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, width, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, H, W] → the same shape."""
        return x * self.gate(x.mean(dim=(2, 3), keepdim=True))


def temporal_mixer(width: int, inside: int) -> nn.Sequential:
    """An inverted bottleneck: expand, 7×7 depth-wise, gate the channels, project."""
    return nn.Sequential(
        *(nn.Conv2d(width, inside, 1, bias=False), nn.BatchNorm2d(inside), nn.ReLU()),
        *(DepthwiseConv(inside, 7, bias=False), nn.BatchNorm2d(inside), nn.ReLU()),
        SqueezeExcite(inside, round(inside / 4)),
        *(nn.Conv2d(inside, width, 1, bias=False), nn.BatchNorm2d(width)),
    )


def depthwise(width: int, kernel: tuple[int, int]) -> nn.Sequential:
    """Depth-wise convolution, normalised."""
    return nn.Sequential(DepthwiseConv(width, kernel), nn.BatchNorm2d(width))


def conv3d(inputs: int, outputs: int, groups: int = 1) -> nn.Sequential:
    """3×3×3 convolution, normalised, GELU."""
    return nn.Sequential(nn.Conv3d(inputs, outputs, 3, padding=1, groups=groups), nn.BatchNorm3d(outputs), nn.GELU())


def in_2d(module: nn.Module, x: Tensor, channels: int | None = None) -> Tensor:
    """`module` with the times as further channels: [B, C, T, H, W] → [B, C or `channels`, T, H, W]."""
    return module(x.flatten(1, 2)).unflatten(1, (channels or x.shape[1], -1))


def bands(x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Haar wavelets of [B, C, T, H, W] along rows and columns, averages first; each pair is low and high in time.

    All are [B, C, T/2, H/2, W/2]; their energies add up to that of x.
    """
    return [haar(part, 2) for half in haar(x, 3) for part in haar(half, 4)]


def from_bands(parts: list[tuple[Tensor, ...]]) -> Tensor:
    """The inverse of `bands`."""
    ll, lh, hl, hh = (unhaar(low, high, 2) for low, high in parts)
    return unhaar(unhaar(ll, lh, 4), unhaar(hl, hh, 4), 3)


def haar(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Sums and differences of neighbours along `dim`, over √2."""
    even, odd = x.unflatten(dim, (-1, 2)).unbind(dim + 1)
    return (even + odd) / math.sqrt(2), (even - odd) / math.sqrt(2)


def unhaar(low: Tensor, high: Tensor, dim: int) -> Tensor:
    """The inverse of `haar`."""
    return torch.stack([low + high, low - high], dim=dim + 1).flatten(dim, dim + 1) / math.sqrt(2)


def frequency_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Squared difference of spectra, weighted by itself and without the lowest frequencies (focal frequency loss).

    The spectra are of Haar averages over 2 × 2 pixels; pred and target: [B, T, C, H, W].
    """
    average = (haar(haar(pad_to_multiple(f.flatten(0, 1).float(), 2), 2)[0], 3)[0] for f in (pred, target))
    p, q = (torch.fft.fft2(frames, norm="ortho") for frames in average)
    squared = (p - q).abs().square()
    weight = torch.log1p(squared.detach().sqrt())
    weight = weight / weight.amax(dim=(-2, -1), keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
    return (weight * squared * high_frequencies(*squared.shape[-2:]).to(squared)).mean()


def high_frequencies(H: int, W: int) -> Tensor:
    """0 near the four corners of a spectrum, the low frequencies, and 1 elsewhere. [H, W]."""
    y, x = torch.arange(H)[:, None], torch.arange(W)
    to_row, to_column = torch.minimum(y, H - 1 - y), torch.minimum(x, W - 1 - x)
    return (torch.sqrt(to_row**2 + to_column**2) > LOW_FREQUENCIES * max(H, W)).float()
