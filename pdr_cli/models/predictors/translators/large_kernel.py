"""The block that TAU, gSTA and VAN share: large-kernel attention and a convolutional MLP. Only the gate differs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pdr_cli.models.predictors.translators.depthwise import DepthwiseConv
from pdr_cli.models.predictors.translators.metaformer import MetaFormer, StagePlan, StochasticDepth, init_fan_out
from pdr_cli.models.predictors.translators.options import TranslatorOptions

LAYER_SCALE = 1e-2  # initial factor of both residual branches


class LargeKernelGate(nn.Module):
    """The context of a gate: a 21×21 receptive field as 5×5, then 7×7 dilated by 3, depth-wise; then a 1×1 mix.

    A subclass combines the context with u, the features that it was computed from.
    """

    fan_out_init = True  # False: PyTorch's own initialisation for the attention and the gate

    def __init__(self, dim: int, context: int) -> None:
        super().__init__()
        self.conv0 = DepthwiseConv(dim, 5)
        self.conv_spatial = DepthwiseConv(dim, 7, dilation=3)
        self.conv1 = nn.Conv2d(dim, context, 1)

    def forward(self, u: Tensor) -> Tensor:
        return self.gate(u, self.conv1(self.conv_spatial(self.conv0(u))))

    def gate(self, u: Tensor, context: Tensor) -> Tensor:
        """u: [B, d, H', W'], context: [B, `context`, H', W'] → [B, d, H', W']."""
        raise NotImplementedError


class LargeKernelBlock(nn.Module):
    """x + s1·A(BN x), then x + s2·M(BN x); s1 and s2 are learned per channel. x: [B, d, H', W']."""

    def __init__(self, dim: int, hidden: int, drop_path: float, gate: LargeKernelGate) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(dim)
        self.attn = Attention(dim, gate)
        self.norm2 = nn.BatchNorm2d(dim)
        self.mlp = conv_mlp(dim, hidden)
        self.drop_path = StochasticDepth(drop_path)
        self.layer_scale_1 = nn.Parameter(torch.full((dim,), LAYER_SCALE))
        self.layer_scale_2 = nn.Parameter(torch.full((dim,), LAYER_SCALE))
        init_fan_out(self if gate.fan_out_init else self.mlp)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.layer_scale_1[:, None, None] * self.attn(self.norm1(x)))
        return x + self.drop_path(self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x)))


class Attention(nn.Module):
    """1×1, GELU, gate, 1×1, plus the (normalised) input itself."""

    def __init__(self, dim: int, gate: LargeKernelGate) -> None:
        super().__init__()
        self.proj_1 = nn.Conv2d(dim, dim, 1)
        self.spatial_gating_unit = gate
        self.proj_2 = nn.Conv2d(dim, dim, 1)

    def forward(self, h: Tensor) -> Tensor:
        return self.proj_2(self.spatial_gating_unit(nn.functional.gelu(self.proj_1(h)))) + h


def conv_mlp(dim: int, hidden: int) -> nn.Sequential:
    """1×1 to `hidden`, depth-wise 3×3, GELU, 1×1 back."""
    return nn.Sequential(
        OrderedDict(
            fc1=nn.Conv2d(dim, hidden, 1),
            dwconv=nn.Sequential(OrderedDict(dwconv=DepthwiseConv(hidden, 3))),
            act=nn.GELU(),
            fc2=nn.Conv2d(hidden, dim, 1),
        )
    )


def large_kernel_translator(options: TranslatorOptions, gate: Callable[[int], LargeKernelGate]) -> MetaFormer:
    """A translator of these blocks; `gate` builds the gate of a width."""

    def block(plan: StagePlan) -> LargeKernelBlock:
        return LargeKernelBlock(plan.inputs, options.hidden(plan.inputs), plan.drop_path, gate(plan.inputs))

    return MetaFormer(options, block)
