"""PoolFormer (Yu et al., CVPR 2022): the mean of the neighbours instead of attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pdr_cli.models.predictors.translators.metaformer import (
    MetaFormer,
    StagePlan,
    StochasticDepth,
    init_truncated,
    pointwise_mlp,
)
from pdr_cli.models.predictors.translators.options import TranslatorOptions

LAYER_SCALE = 1e-5


class PoolFormerBlock(nn.Module):
    """x + s1·(pool − 1)(GN x), then x + s2·mlp(GN x). x: [B, d, H', W']."""

    def __init__(self, dim: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.layer_scale_1 = nn.Parameter(torch.full((dim,), LAYER_SCALE))
        self.layer_scale_2 = nn.Parameter(torch.full((dim,), LAYER_SCALE))
        self.norm1 = nn.GroupNorm(1, dim)
        self.norm2 = nn.GroupNorm(1, dim)
        self.mlp = pointwise_mlp(dim, hidden)
        self.drop_path = StochasticDepth(drop_path)
        init_truncated(self, nn.Conv2d)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.layer_scale_1[:, None, None] * from_neighbours(self.norm1(x)))
        return x + self.drop_path(self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x)))


def from_neighbours(h: Tensor) -> Tensor:
    """The mean over 3×3 minus the value itself; cells outside the plane do not count."""
    return nn.functional.avg_pool2d(h, 3, stride=1, padding=1, count_include_pad=False) - h


def poolformer_translator(options: TranslatorOptions) -> MetaFormer:
    """The PoolFormer translator."""

    def block(plan: StagePlan) -> PoolFormerBlock:
        return PoolFormerBlock(plan.inputs, options.hidden(plan.inputs), plan.drop_path)

    return MetaFormer(options, block)
