"""Depth-wise convolutions by a compiled CPU kernel, and their gradients.

    predgsplat::depthwise(x, weight, bias, padding_rows, padding_columns, dilation) -> out
    predgsplat::depthwise_weights(grad, x, weight, padding_rows, padding_columns, dilation) -> grad_weight, grad_bias

The gradient by x is a convolution of the output's gradient with the kernel turned round, so that two operators give all
derivatives, of any order. x and out: [B, C, H, W] in float32 or bfloat16; weight: [C, 1, rows, columns] in float32, with
stride 1 and a padding of at most the kernel's reach. Sums are taken in float32 and an order that depends on shapes alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pdr_cli.splat.depthwise_operator import convolve

Padding = tuple[int, int]  # rows above and below, columns left and right


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Padding, dilation: int) -> Tensor:
    """Equivalent to `reference`, channels-last; where `native.usable_on_cpu`."""
    bias = None if bias is None else bias.float()
    return convolve(x, weight.float(), bias, *padding, dilation)


def reference(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Padding, dilation: int) -> Tensor:
    """The specification: PyTorch's convolution in float32, or float64 for weights in float64."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    bias = None if bias is None else bias.to(dtype)
    out = torch.nn.functional.conv2d(x.to(dtype), weight.to(dtype), bias, 1, padding, dilation, len(weight))
    return out.to(x.dtype)


def weight_gradients(grad: Tensor, x: Tensor, weight: Tensor, padding: Padding, dilation: int) -> tuple[Tensor, Tensor]:
    """The gradients of weight and bias in float32, from that of the output; where `native.usable_on_cpu`."""
    found: tuple[Tensor, Tensor] = torch.ops.predgsplat.depthwise_weights.default(grad, x, weight, *padding, dilation)
    return found
