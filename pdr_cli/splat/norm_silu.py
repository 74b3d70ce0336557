"""GroupNorm followed by SiLU by a compiled CPU kernel, with its gradients.

    predgsplat::norm_silu(x, weight, bias, groups, eps) -> out, mean, inverse
    predgsplat::norm_silu_backward(grad, x, weight, bias, mean, inverse) -> grad_x, grad_weight, grad_bias

x, out: float32 [B, C, H, W], channels-last or contiguous; weight, bias: [C]; mean, inverse: of the groups and of their standard
deviations, [B, groups]. Means and variances are joined in an order that depends on shapes alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import group_norm, silu


def norm_silu(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
    """Equivalent to `reference`; where `native.usable_on_cpu`."""
    out: Tensor = torch.ops.predgsplat.norm_silu.default(x, weight, bias, groups, eps)[0]
    return out


def reference(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
    """The specification."""
    return silu(group_norm(x, groups, weight, bias, eps))


def describe_to_torch() -> None:
    """Register shapes and gradients of the operator, for autograd."""
    torch.library.register_fake("predgsplat::norm_silu", _shapes)
    torch.library.register_fake("predgsplat::norm_silu_backward", _gradients)
    torch.library.register_autograd("predgsplat::norm_silu", _backward, setup_context=_keep)


def _shapes(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(len(x), groups), x.new_empty(len(x), groups)


def _gradients(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, ctx.groups, ctx.eps = inputs
    _, mean, inverse = output
    ctx.mark_non_differentiable(mean, inverse)
    ctx.save_for_backward(x, weight, bias, mean, inverse)


def _backward(ctx: Any, grad: Tensor, *others: Any) -> tuple[Tensor | None, ...]:
    x, weight, bias, mean, inverse = ctx.saved_tensors
    if torch.is_grad_enabled():  # for derivatives of higher order
        wanted = [value for value, needed in zip((x, weight, bias), ctx.needs_input_grad, strict=False) if needed]
        out = reference(x, weight, bias, ctx.groups, ctx.eps)
        found = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
        return *(next(found) if needed else None for needed in ctx.needs_input_grad[:3]), None, None
    return *torch.ops.predgsplat.norm_silu_backward.default(grad, x, weight, bias, mean, inverse), None, None
