"""MogaNet (Li et al., ICLR 2024): gated aggregation of depth-wise kernels of three reaches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pdr_cli.models.predictors.translators.depthwise import DepthwiseConv
from pdr_cli.models.predictors.translators.metaformer import MetaFormer, StagePlan, StochasticDepth, init_fan_out
from pdr_cli.models.predictors.translators.options import TranslatorOptions

SCALE = 1e-5  # initial factor of residual branches and decompositions


def scales(dim: int) -> nn.Parameter:
    """One factor a channel, [1, d, 1, 1]."""
    return nn.Parameter(torch.full((1, dim, 1, 1), SCALE))


class MultiOrderConv(nn.Module):
    """5×5 on all channels; then 5×5 dilated by 2 on 3d/8 of them and 7×7 dilated by 3 on d/2; then a 1×1 mix."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.split = [dim // 8, dim * 3 // 8, dim // 2]
        self.DW_conv0 = DepthwiseConv(dim, 5)
        self.DW_conv1 = DepthwiseConv(self.split[1], 5, dilation=2)
        self.DW_conv2 = DepthwiseConv(self.split[2], 7, dilation=3)
        self.PW_conv = nn.Conv2d(dim, dim, 1)

    def forward(self, h: Tensor) -> Tensor:
        near, middle, far = self.DW_conv0(h).split(self.split, dim=1)
        return self.PW_conv(torch.cat([near, self.DW_conv1(middle), self.DW_conv2(far)], dim=1))


class GatedAggregation(nn.Module):
    """Amplifies differences from the mean of the plane; then a gate times its context, plus the input itself."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.sigma = scales(dim)
        self.proj_1 = nn.Conv2d(dim, dim, 1)
        self.gate = nn.Conv2d(dim, dim, 1)
        self.value = MultiOrderConv(dim)
        self.proj_2 = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.proj_1(x)
        h = nn.functional.silu(h + self.sigma * (h - h.mean(dim=(2, 3), keepdim=True)))
        return self.proj_2(nn.functional.silu(self.gate(h)) * nn.functional.silu(self.value(h))) + x


class ChannelAggregation(nn.Module):
    """An MLP that amplifies differences from one map, decomposed from all hidden channels."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.sigma = scales(hidden)
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.dwconv = DepthwiseConv(hidden, 3)
        self.fc2 = nn.Conv2d(hidden, dim, 1)
        self.decompose = nn.Conv2d(hidden, 1, 1)

    def forward(self, h: Tensor) -> Tensor:
        z = nn.functional.gelu(self.dwconv(self.fc1(h)))
        return self.fc2(z + self.sigma * (z - nn.functional.gelu(self.decompose(z))))


class MogaNetBlock(nn.Module):
    """x + s1·A(BN x), then x + s2·M(BN x). x: [B, d, H', W']."""

    def __init__(self, dim: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.layer_scale_1 = scales(dim)
        self.layer_scale_2 = scales(dim)
        self.norm1 = nn.BatchNorm2d(dim)
        self.attn = GatedAggregation(dim)
        self.norm2 = nn.BatchNorm2d(dim)
        self.mlp = ChannelAggregation(dim, hidden)
        self.drop_path = StochasticDepth(drop_path)
        init_fan_out(self)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.layer_scale_1 * self.attn(self.norm1(x)))
        return x + self.drop_path(self.layer_scale_2 * self.mlp(self.norm2(x)))


def moganet_translator(options: TranslatorOptions) -> MetaFormer:
    """The MogaNet translator; widths must be multiples of 8."""
    options.check_widths("moganet")

    def block(plan: StagePlan) -> MogaNetBlock:
        return MogaNetBlock(plan.inputs, options.hidden(plan.inputs), plan.drop_path)

    return MetaFormer(options, block)
