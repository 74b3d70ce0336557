"""Depth-wise convolutions, made fast to train on a CPU.

oneDNN has fast kernels for channels-last depth-wise convolutions, with exceptions: the weight gradient is twenty times
slower for kernels wider than three columns, and twice as slow in bfloat16; dilation slows all passes. A compiled kernel
takes these. Where it
cannot be built, there is a detour by oneDNN: it takes the weight gradient a few columns at a time, and turns a convolution
dilated by r into one without dilation on the r·r planes of every r-th row and column. In all three ways the sums have the
same terms in another order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from pdr_cli.splat import depthwise as kernel
from pdr_cli.splat import native

NARROW = 3  # columns of the widest kernel with a fast weight gradient


class DepthwiseConv(nn.Conv2d):
    """A convolution of each channel by itself that keeps the grid. [B, d, H', W'] → the same shape."""

    def __init__(self, dim: int, kernel_size: int | tuple[int, int], dilation: int = 1, bias: bool = True) -> None:
        rows, columns = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        padding = (dilation * (rows // 2), dilation * (columns // 2))
        super().__init__(dim, dim, (rows, columns), padding=padding, dilation=dilation, groups=dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (int(p) for p in self.padding)
        return depthwise(x, self.weight, self.bias, (rows, columns), self.dilation[0])


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], dilation: int) -> Tensor:
    """`conv2d` of each channel by itself, the fastest way; under autocast in its precision.

    x: [B, d, H', W'], weight: [d, 1, rows, columns]; padding: of rows and columns.
    """
    if takes_kernel(x, weight):
        x = x.bfloat16() if in_bfloat16() else x
        if weight.shape[3] > NARROW or dilation > 1:
            return kernel.depthwise(x, weight, bias, padding, dilation)
        if x.dtype == torch.bfloat16:
            return _Narrow.apply(x, weight, bias, padding)
    if takes_detour(x, weight) and keeps_grid(weight, padding, dilation):
        return _Detour.apply(x, weight, bias, dilation)
    return conv2d(x, weight, bias, 1, padding, dilation, len(weight))


def takes_kernel(x: Tensor, weight: Tensor) -> bool:
    """True for float32 and bfloat16 in channels-last layout on a CPU; only training uses this layout."""
    if not native.usable_on_cpu() or not channels_last(x) or weight.dtype != torch.float32:
        return False
    if torch.is_autocast_enabled("cpu") and not in_bfloat16():
        return False
    return x.dtype in (torch.float32, torch.bfloat16)


def in_bfloat16() -> bool:
    """True under autocast to bfloat16."""
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def channels_last(x: Tensor) -> bool:
    """True for frames on a CPU whose channels are neighbours in memory, and split from others or not."""
    return x.device.type == "cpu" and x.stride(1) == 1 and x.stride(3) > 1


def takes_detour(x: Tensor, weight: Tensor) -> bool:
    """True for wide kernels in channels-last layout on a CPU: for float32, and without gradients under autocast too."""
    rounded = torch.is_autocast_enabled("cpu")
    return (
        weight.shape[3] > NARROW
        and not torch.compiler.is_compiling()
        and channels_last(x)
        and weight.dtype == torch.float32
        and (not torch.is_grad_enabled() if rounded else x.dtype == torch.float32)
    )


def keeps_grid(weight: Tensor, padding: tuple[int, int], dilation: int) -> bool:
    """True for a square kernel that is padded by half its reach."""
    rows, columns = weight.shape[2:]
    return rows == columns and padding == (dilation * (rows // 2), dilation * (columns // 2))


class _Narrow(torch.autograd.Function):
    """`conv2d` in bfloat16 without dilation, by oneDNN but for the gradients of weight and bias, where it is slow."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        offset = None if bias is None else bias.to(x.dtype)
        return conv2d(x, weight.to(x.dtype), offset, padding=padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        by_x, by_weight, by_bias, _ = ctx.needs_input_grad
        grad_x = gradients(grad, x, weight.to(x.dtype), ctx.padding, of_input=True) if by_x else None
        grad_weight, grad_bias = (
            kernel.weight_gradients(grad, x, weight, ctx.padding, 1) if by_weight or by_bias else (None, None)
        )
        return grad_x, grad_weight, grad_bias if by_bias else None, None


class _Detour(torch.autograd.Function):
    """`conv2d(x, weight, bias, padding="same", dilation=dilation, groups=d)`, weight [d, 1, k, k], k odd."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        out = conv2d(split_phases(x, dilation), weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))
        return join_phases(out, dilation, x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        split = split_phases(grad.contiguous(memory_format=torch.channels_last), ctx.dilation)
        if ctx.needs_input_grad[0]:
            reach = weight.shape[-1] // 2
            grad_x = gradients(split, split, weight, (reach, reach), of_input=True)
            grad_x = join_phases(grad_x, ctx.dilation, x.shape)
        if ctx.needs_input_grad[1]:
            grad_weight = weight_gradient(split, split_phases(x, ctx.dilation), weight)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum(dim=(0, 2, 3))
        return grad_x, grad_weight, grad_bias, None


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Weight gradient of a convolution without dilation, `NARROW` columns of the kernel at a time. [d, 1, k, k]."""
    k, W = weight.shape[-1], x.shape[-1]
    padded = pad(x, [k // 2] * 4)
    pieces = []
    for first in range(0, k, NARROW):
        columns = weight[..., first : first + NARROW]
        seen = padded[..., first : first + W + columns.shape[-1] - 1].contiguous(memory_format=torch.channels_last)
        pieces.append(gradients(grad, seen, columns.contiguous(), (0, 0), of_input=False))
    return torch.cat(pieces, dim=-1)


def gradients(grad: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int], *, of_input: bool) -> Tensor:
    """Gradient of a depth-wise convolution with respect to its input or its weights."""
    mask = [of_input, not of_input, False]
    stride, zeros = [1, 1], [0, 0]
    found = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, [1, 1], False, zeros, len(weight), mask
    )
    return found[0 if of_input else 1]


def split_phases(x: Tensor, r: int) -> Tensor:
    """The planes of every r-th row and column, padded with zeros to one size. → [B·r·r, d, ⌈H'/r⌉, ⌈W'/r⌉]."""
    if r == 1:
        return x
    x = pad(x, [0, -x.shape[3] % r, 0, -x.shape[2] % r])
    phases = x.unflatten(3, (-1, r)).unflatten(2, (-1, r))  # [B, d, h, r, w, r]
    return phases.permute(0, 3, 5, 2, 4, 1).flatten(0, 2).permute(0, 3, 1, 2)


def join_phases(phases: Tensor, r: int, shape: torch.Size) -> Tensor:
    """The inverse of `split_phases`, cropped to `shape`."""
    if r == 1:
        return phases
    planes = phases.permute(0, 2, 3, 1).unflatten(0, (-1, r, r))  # [B, r, r, h, w, d]
    whole = planes.permute(0, 3, 1, 4, 2, 5).flatten(3, 4).flatten(1, 2)  # [B, r·h, r·w, d]
    return whole[:, : shape[2], : shape[3]].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
