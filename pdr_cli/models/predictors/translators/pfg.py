"""PFGNet, peripheral frequency gating (Cai et al., CVPR 2026, arXiv 2602.20537): wide kernels, chosen cell by cell.

Module names follow the authors' code, so that their weights load as they are. As there, the blocks keep T·hid_S channels
(hid_t has no effect), the widths of the kernels are fixed, and the centre is subtracted from a wide response with a
learned share. One thing differs: the 1×1 branch of `RepDepthwise` starts as the identity of every channel, as its comment
says; the authors' initialisation is the identity of the first channel and zero elsewhere.
"""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor, nn

from pdr_cli.models.predictors.translators.depthwise import DepthwiseConv
from pdr_cli.models.predictors.translators.metaformer import StochasticDepth
from pdr_cli.models.predictors.translators.options import TranslatorOptions

ENTRY_KERNELS = (3, 5, 7)
WIDE_KERNELS = (9, 15, 31)
LAYER_SCALE = 1e-6  # initial factor of both residual branches
GROUPS = 32  # of GroupNorm, where the width allows them


class PFGTranslator(nn.Module):
    """A multi-scale entry, then n_t blocks at the width of the entry.

    Stochastic depth rises from 0.01 in the first block to drop_path in the last; without drop_path it is 0 in all.
    """

    def __init__(self, options: TranslatorOptions) -> None:
        super().__init__()
        self.cel = Entry(options.channels)
        rise = (options.drop_path - 0.01) / (options.n_t - 1)
        drops = [0.01 + rise * i if options.drop_path else 0.0 for i in range(options.n_t)]
        self.blocks = nn.Sequential(*(Block(options, drop) for drop in drops))

    def forward(self, latent: Tensor) -> Tensor:
        """latent: [B, T·hid_S, H', W'] → the same shape."""
        return self.blocks(self.cel(latent))


class Entry(nn.Module):
    """Three branches of different reach, each a third of the channels; a `tail` makes the channels left over by thirds."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        third = dim // len(ENTRY_KERNELS)
        self.branches = nn.ModuleList(entry_branch(dim, third, kernel) for kernel in ENTRY_KERNELS)
        rest = dim - third * len(ENTRY_KERNELS)
        self.tail = entry_branch(dim, rest, ENTRY_KERNELS[0]) if rest else None
        self.norm = nn.GroupNorm(1, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, d, H', W'] → the same shape."""
        branches = [*self.branches, *([] if self.tail is None else [self.tail])]
        return nn.functional.gelu(self.norm(torch.cat([branch(x) for branch in branches], dim=1)))


def entry_branch(dim: int, outputs: int, kernel: int) -> nn.Sequential:
    """Depth-wise convolutions, then 1×1 to `outputs` channels."""
    return nn.Sequential(RepDepthwise(dim, kernel), nn.Conv2d(dim, outputs, 1, bias=False))


class RepDepthwise(nn.Module):
    """The sum of three depth-wise convolutions: 1×k then k×1, 3×3, and 1×1."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.dw_h, self.dw_v = depthwise(dim, 1, kernel), depthwise(dim, kernel, 1)
        self.dw_s, self.dw_i = depthwise(dim, 3, 3), depthwise(dim, 1, 1)
        nn.init.ones_(self.dw_i.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[B, d, H', W'] → the same shape."""
        return self.dw_v(self.dw_h(x)) + self.dw_s(x) + self.dw_i(x)


class Block(nn.Module):
    """x + γ1·GRN(GELU(gated wide kernels)), then x + γ2·GRN(gated MLP); both on normalised features."""

    def __init__(self, options: TranslatorOptions, drop_path: float) -> None:
        super().__init__()
        dim = options.channels
        inside = max(dim, options.hidden(dim))
        self.norm_dw, self.norm_pw = group_norm(dim), group_norm(dim)
        self.tm = PeripheralGate(dim, options.periodic)
        self.grn_dw, self.grn_pw = ResponseNorm(dim), ResponseNorm(dim)
        self.pw_in = nn.Conv2d(dim, 2 * inside, 1)
        self.dw_v = depthwise(inside, 3, 3)
        self.pw_out = nn.Conv2d(inside, dim, 1)
        self.gamma_dw, self.gamma_pw = (nn.Parameter(torch.full((dim,), LAYER_SCALE)) for _ in range(2))
        self.drop_path = StochasticDepth(drop_path)
        init_fan_out_of_all(self)

    def forward(self, x: Tensor) -> Tensor:
        """[B, d, H', W'] → the same shape."""
        wide = self.grn_dw(nn.functional.gelu(self.tm(self.norm_dw(x))))
        x = x + self.drop_path(self.gamma_dw[:, None, None] * wide)
        gate, value = self.pw_in(self.norm_pw(x)).chunk(2, dim=1)
        mixed = self.grn_pw(self.pw_out(nn.functional.silu(gate) * self.dw_v(value)))
        return x + self.drop_path(self.gamma_pw[:, None, None] * mixed)


class PeripheralGate(nn.Module):
    """Wide kernels minus their centre, weighted in each cell by what its neighbourhood looks like.

    Args:
        dim: d, channels.
        periodic: True if the last column is a neighbour of the first.
    """

    def __init__(self, dim: int, periodic: bool) -> None:
        super().__init__()
        self.branches = nn.ModuleList(Ring(dim, kernel) for kernel in WIDE_KERNELS)
        self.gate_head = nn.Conv2d(3, len(WIDE_KERNELS), 1)
        self.periodic = periodic

    def forward(self, x: Tensor) -> Tensor:
        """[B, d, H', W'] → the same shape."""
        shares = self.gate_head(texture(x, self.periodic)).softmax(dim=1)  # [B, kernels, H', W']
        rings = torch.stack([ring(x) for ring in self.branches], dim=1)  # [B, kernels, d, H', W']
        return (rings * shares[:, :, None]).sum(dim=1)


class Ring(nn.Module):
    """1×k then k×1, minus tanh(β) of a 3×3 convolution: the surroundings without their centre."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.dw_h, self.dw_v, self.dw_c = (depthwise(dim, *k) for k in ((1, kernel), (kernel, 1), (3, 3)))
        self.beta = nn.Parameter(torch.zeros(1, dim, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, d, H', W'] → the same shape."""
        return self.dw_v(self.dw_h(x)) - torch.tanh(self.beta) * self.dw_c(x)


class ResponseNorm(nn.Module):
    """x + γ·x / ‖x‖ + β, the norm of each channel over the grid; γ starts at 1."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(1, dim, 1, 1)), nn.Parameter(torch.zeros(1, dim, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, d, H', W'] → the same shape."""
        norm = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)
        return x + self.gamma * (x / (norm + 1e-6)) + self.beta


def texture(x: Tensor, periodic: bool) -> Tensor:
    """How rough each neighbourhood of 3 × 3 cells is: [B, d, H', W'] → [B, 3, H', W'].

    The means over channels of the Sobel gradient, of the absolute Laplacian and of the variance. Zeros lie beyond the edges.
    """
    around = with_margin(x, periodic)
    rows = around[..., :-2, :], around[..., 1:-1, :], around[..., 2:, :]  # each [B, d, H', W' + 2]
    smoothed = rows[0] + 2 * rows[1] + rows[2]
    across = smoothed[..., 2:] - smoothed[..., :-2]
    above, centre, below = (columns(row) for row in rows)
    down = below[0] + 2 * below[1] + below[2] - above[0] - 2 * above[1] - above[2]
    gradient = (across.square() + down.square() + 1e-6).sqrt()
    laplacian = above[1] + below[1] + centre[0] + centre[2] - 4 * x
    mean, of_squares = (nn.functional.avg_pool2d(a, 3, 1) for a in (around, around.square()))
    variance = (of_squares - mean.square()).clamp(min=0)
    return torch.cat([f.mean(dim=1, keepdim=True) for f in (gradient, laplacian.abs(), variance)], dim=1)


def columns(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The left, own and right neighbours in rows with a margin: [..., W' + 2] → three of [..., W']."""
    return rows[..., :-2], rows[..., 1:-1], rows[..., 2:]


def with_margin(x: Tensor, periodic: bool) -> Tensor:
    """[B, d, H', W'] with one more cell on each side: zeros, or the other end of the rows if they are periodic."""
    if not periodic:
        return nn.functional.pad(x, [1, 1, 1, 1])
    return nn.functional.pad(torch.cat([x[..., -1:], x, x[..., :1]], dim=-1), [0, 0, 1, 1])


def group_norm(dim: int) -> nn.GroupNorm:
    """Normalisation in as many groups as the authors have; in fewer where these do not divide the channels."""
    return nn.GroupNorm(dim if dim < GROUPS else gcd(GROUPS, dim), dim)


def depthwise(dim: int, rows: int, columns: int) -> DepthwiseConv:
    """A convolution of each channel by itself that keeps the grid, without bias."""
    return DepthwiseConv(dim, (rows, columns), bias=False)


def init_fan_out_of_all(module: nn.Module) -> None:
    """Every convolution inside: weights N(0, √(2 / (k·k·out))), as if it had one group; bias 0."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)


def pfg_translator(options: TranslatorOptions) -> PFGTranslator:
    """The PFG translator."""
    return PFGTranslator(options)
