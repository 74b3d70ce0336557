"""HorNet (Rao et al., NeurIPS 2022): recursive gated convolutions of order four."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pdr_cli.models.layers import ChannelNorm
from pdr_cli.models.predictors.translators.depthwise import DepthwiseConv
from pdr_cli.models.predictors.translators.metaformer import (
    MetaFormer,
    StagePlan,
    StochasticDepth,
    init_fan_out,
    init_truncated,
)
from pdr_cli.models.predictors.translators.options import TranslatorOptions

LAYER_SCALE = 1e-6
ORDER = 4


class RecursiveGatedConv(nn.Module):
    """Of 2d channels, the first d/8 are gated by the others in turn, each gate twice as wide as the one before."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.widths = [dim // 2**i for i in reversed(range(ORDER))]  # d/8, d/4, d/2, d
        self.proj_in = nn.Conv2d(dim, 2 * dim, 1)
        self.dwconv = DepthwiseConv(sum(self.widths), 7)
        self.pws = nn.ModuleList(nn.Conv2d(w, 2 * w, 1) for w in self.widths[:-1])
        self.proj_out = nn.Conv2d(dim, dim, 1)

    def forward(self, h: Tensor) -> Tensor:
        start, others = self.proj_in(h).split([self.widths[0], sum(self.widths)], dim=1)
        first, *gates = self.dwconv(others).split(self.widths, dim=1)
        y = start * first
        for widen, gate in zip(self.pws, gates, strict=True):
            y = widen(y) * gate
        return self.proj_out(y)


class HorNetBlock(nn.Module):
    """x + γ1·G(LN x), then x + γ2·mlp(LN x). x: [B, d, H', W']."""

    def __init__(self, dim: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.gamma1 = nn.Parameter(torch.full((dim,), LAYER_SCALE))
        self.gamma2 = nn.Parameter(torch.full((dim,), LAYER_SCALE))
        self.norm1 = ChannelNorm(dim, eps=1e-6)
        self.gnconv = RecursiveGatedConv(dim)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, hidden)
        self.pwconv2 = nn.Linear(hidden, dim)
        self.drop_path = StochasticDepth(drop_path)
        init_fan_out(self)
        init_truncated(self)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.gamma1[:, None, None] * self.gnconv(self.norm1(x)))
        h = self.norm2(x.movedim(1, -1))  # [B, H', W', d]
        h = self.gamma2 * self.pwconv2(nn.functional.gelu(self.pwconv1(h)))
        return x + self.drop_path(h.movedim(-1, 1))


def hornet_translator(options: TranslatorOptions) -> MetaFormer:
    """The HorNet translator; widths must be multiples of 8."""
    options.check_widths("hornet")

    def block(plan: StagePlan) -> HorNetBlock:
        return HorNetBlock(plan.inputs, options.hidden(plan.inputs), plan.drop_path)

    return MetaFormer(options, block)
