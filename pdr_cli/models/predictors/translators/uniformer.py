"""UniFormer (Li et al., ICLR 2022): convolutional blocks at the ends, attention between them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pdr_cli.models.predictors.translators.depthwise import DepthwiseConv
from pdr_cli.models.predictors.translators.metaformer import (
    MetaFormer,
    StagePlan,
    StochasticDepth,
    init_fan_out,
    init_truncated,
    pointwise_mlp,
)
from pdr_cli.models.predictors.translators.options import TranslatorOptions
from pdr_cli.models.predictors.translators.tokens import SelfAttention, to_plane, to_tokens, token_mlp

LAYER_SCALE = 1e-6


class LocalBlock(nn.Module):
    """x + DW x, then x + local mixing(BN x), then x + mlp(BN x). x: [B, d, H', W']."""

    def __init__(self, dim: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.pos_embed = DepthwiseConv(dim, 3)
        self.norm1 = nn.BatchNorm2d(dim)
        self.conv1 = nn.Conv2d(dim, dim, 1)
        self.attn = DepthwiseConv(dim, 5)
        self.conv2 = nn.Conv2d(dim, dim, 1)
        self.norm2 = nn.BatchNorm2d(dim)
        self.mlp = pointwise_mlp(dim, hidden)
        self.drop_path = StochasticDepth(drop_path)
        init_fan_out(self)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pos_embed(x)
        x = x + self.drop_path(self.conv2(self.attn(self.conv1(self.norm1(x)))))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class GlobalBlock(nn.Module):
    """x + DW x, then t + γ1·attention(LN t), then t + γ2·mlp(LN t), t the tokens of x: [B, d, H', W']."""

    def __init__(self, dim: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.gamma_1 = nn.Parameter(torch.full((dim,), LAYER_SCALE))
        self.gamma_2 = nn.Parameter(torch.full((dim,), LAYER_SCALE))
        self.pos_embed = DepthwiseConv(dim, 3)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = SelfAttention(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = token_mlp(dim, hidden)
        self.drop_path = StochasticDepth(drop_path)
        init_truncated(self)

    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(x + self.pos_embed(x))
        tokens = tokens + self.drop_path(self.gamma_1 * self.attn(self.norm1(tokens)))
        tokens = tokens + self.drop_path(self.gamma_2 * self.mlp(self.norm2(tokens)))
        return to_plane(tokens, x.shape[2:])


def uniformer_translator(options: TranslatorOptions) -> MetaFormer:
    """The UniFormer translator; widths must be multiples of 8. A last stage that keeps its width has attention, too."""
    options.check_widths("uniformer")

    def block(plan: StagePlan) -> nn.Module:
        kind = GlobalBlock if plan.stage > 0 and plan.inputs == plan.outputs else LocalBlock
        return kind(plan.inputs, options.hidden(plan.inputs), plan.drop_path)

    return MetaFormer(options, block)
