"""Structural similarity by a compiled CPU kernel, with its gradient by the forecast, which the same pass gives.

    predgsplat::similarity(x, y, weight, span, window, gradient) -> sums, totals, grad

x, y, weight: [planes, H, W]; span: [C], C dividing the planes; sums, totals: [planes]; grad: that of sums by x, and empty
unless `gradient`. `models.similarity.ssim_map` is the specification. There is no second derivative.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def sums(
    pred: Tensor, target: Tensor, weight: Tensor | None, data_range: Tensor, window: Tensor
) -> tuple[Tensor, Tensor]:
    """Sums over windows of their similarity times their weight, and of their weights; each [..., C].

    Equivalent to sums over the last two axes of `ssim_map(pred, target, data_range) * w` and of w, the mean weight of a
    window, and 0 where one of its pixels has weight 0; w is 1 without weights. pred, target, weight: [..., C, H, W].
    """
    planes = [None if x is None else x.float().flatten(0, -3) for x in (pred, target, weight)]
    arguments = (*planes, data_range.float(), window.float(), pred.requires_grad)
    similar, totals, _ = torch.ops.predgsplat.similarity.default(*arguments)
    return similar.view(pred.shape[:-2]), totals.view(pred.shape[:-2])


def describe_to_torch() -> None:
    """Register shapes and the gradient of the operator, for autograd."""
    torch.library.register_fake("predgsplat::similarity", _shapes)
    torch.library.register_autograd("predgsplat::similarity", _backward, setup_context=_keep)


def _shapes(
    x: Tensor, y: Tensor, weight: Tensor | None, span: Tensor, window: Tensor, gradient: bool
) -> tuple[Tensor, Tensor, Tensor]:
    planes = x.shape[:1]
    return x.new_empty(planes), x.new_empty(planes), x.new_empty(x.shape if gradient else (0, *x.shape[1:]))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(output[2])


def _backward(ctx: Any, by_sums: Tensor, *others: Any) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():
        raise RuntimeError("the compiled SSIM has no second derivative; use ssim_map with create_graph=True")
    return ctx.saved_tensors[0] * by_sums[:, None, None], None, None, None, None, None
