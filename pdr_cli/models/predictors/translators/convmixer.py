"""ConvMixer (Trockman and Kolter, 2022): a large depth-wise kernel, then a 1×1 mix without a residual connection."""

from __future__ import annotations

from torch import Tensor, nn

from pdr_cli.models.predictors.translators.depthwise import DepthwiseConv
from pdr_cli.models.predictors.translators.metaformer import MetaFormer, StagePlan, init_fan_out
from pdr_cli.models.predictors.translators.options import TranslatorOptions


class ConvMixerBlock(nn.Module):
    """x + BN(GELU(DW x)), then BN(GELU(1×1)). x: [B, d, H', W']."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv_dw = DepthwiseConv(dim, 11)
        self.norm_1 = nn.BatchNorm2d(dim)
        self.conv_pw = nn.Conv2d(dim, dim, 1)
        self.norm_2 = nn.BatchNorm2d(dim)
        init_fan_out(self)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.norm_1(nn.functional.gelu(self.conv_dw(x)))
        return self.norm_2(nn.functional.gelu(self.conv_pw(x)))


def convmixer_translator(options: TranslatorOptions) -> MetaFormer:
    """The ConvMixer translator; it has no MLP and no stochastic depth, so mlp_ratio and drop_path have no effect."""

    def block(plan: StagePlan) -> ConvMixerBlock:
        return ConvMixerBlock(plan.inputs)

    return MetaFormer(options, block)
