"""ConvNeXt (Liu et al., CVPR 2022): one residual branch, a large depth-wise kernel and an MLP over channels."""

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
    pointwise_mlp,
)
from pdr_cli.models.predictors.translators.options import TranslatorOptions

LAYER_SCALE = 1e-6


class ConvNeXtBlock(nn.Module):
    """x + γ·P(LN(DW x)). x: [B, d, H', W']."""

    def __init__(self, dim: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), LAYER_SCALE))
        self.conv_dw = DepthwiseConv(dim, 7)
        self.norm = ChannelNorm(dim, eps=1e-6)
        self.mlp = pointwise_mlp(dim, hidden)
        self.drop_path = StochasticDepth(drop_path)
        init_fan_out(self)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.gamma[:, None, None] * self.mlp(self.norm(self.conv_dw(x))))


def convnext_translator(options: TranslatorOptions) -> MetaFormer:
    """The ConvNeXt translator."""

    def block(plan: StagePlan) -> ConvNeXtBlock:
        return ConvNeXtBlock(plan.inputs, options.hidden(plan.inputs), plan.drop_path)

    return MetaFormer(options, block)
