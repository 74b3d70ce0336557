"""The operators of `depthwise` for torch: shapes and gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def describe_to_torch() -> None:
    """Register shapes and gradients of the operators, for torch.compile and autograd."""
    torch.library.register_fake("predgsplat::depthwise", _output)
    torch.library.register_fake("predgsplat::depthwise_weights", _weight_gradients)
    torch.library.register_autograd("predgsplat::depthwise", _backward, setup_context=_keep)
    torch.library.register_autograd("predgsplat::depthwise_weights", _backward_twice, setup_context=_keep_twice)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, rows: int, columns: int, dilation: int) -> Tensor:
    """The operator `depthwise`; `rows` and `columns` of padding."""
    out: Tensor = torch.ops.predgsplat.depthwise.default(x, weight, bias, rows, columns, dilation)
    return out


def input_gradient(grad: Tensor, weight: Tensor, rows: int, columns: int, dilation: int) -> Tensor:
    """The gradient by x: the kernel turned round meets the output padded by what the input was not."""
    reach_rows, reach_columns = (dilation * (size - 1) for size in weight.shape[2:])
    return convolve(grad, weight.flip(2, 3), None, reach_rows - rows, reach_columns - columns, dilation)


def _output(x: Tensor, weight: Tensor, bias: Tensor | None, rows: int, columns: int, dilation: int) -> Tensor:
    B, C, H, W = x.shape
    height = H + 2 * rows - dilation * (weight.shape[2] - 1)
    width = W + 2 * columns - dilation * (weight.shape[3] - 1)
    return x.new_empty_strided((B, C, height, width), (height * width * C, 1, width * C, C))


def _weight_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, rows: int, columns: int, dilation: int
) -> tuple[Tensor, Tensor]:
    return weight.new_empty(weight.shape), weight.new_empty(weight.shape[:1])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, *ctx.options = inputs
    ctx.biased = bias is not None
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    by_x, by_weight, by_bias, *_ = ctx.needs_input_grad
    grad_x = input_gradient(grad, weight, *ctx.options) if by_x else None
    grad_weight = grad_bias = None
    if by_weight or by_bias:
        grad_weight, grad_bias = torch.ops.predgsplat.depthwise_weights.default(grad, x, weight, *ctx.options)
    return grad_x, grad_weight, grad_bias if ctx.biased else None, None, None, None


def _keep_twice(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    grad, x, _, *ctx.options = inputs
    ctx.save_for_backward(grad, x)


def _backward_twice(ctx: Any, by_weight: Tensor, by_bias: Tensor) -> tuple[Tensor | None, ...]:
    grad, x = ctx.saved_tensors
    grad_grad = convolve(x, by_weight, by_bias, *ctx.options).to(grad.dtype)
    return grad_grad, input_gradient(grad, by_weight, *ctx.options).to(x.dtype), None, None, None, None
