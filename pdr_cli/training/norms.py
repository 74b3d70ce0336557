"""Batch norms of a training on several ranks: their means are those of the windows of all ranks, as in one process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pdr_cli.training.ranks import Ranks


def pool(norms: Sequence[nn.Module], ranks: Ranks) -> None:
    """Let batch norms in training take their means over all ranks."""
    if not ranks.alone:
        for norm in norms:
            norm.forward = partial(_forward, norm, ranks, norm.forward)


def _forward(norm: Any, ranks: Ranks, alone: Any, x: Tensor) -> Tensor:
    """What `norm` makes of [B, C, ...]; `alone`: its own forward pass, in evaluation."""
    if not norm.training:
        made: Tensor = alone(x)
        return made
    weight, bias = norm.weight, norm.bias
    if weight is None:
        weight, bias = x.new_ones(x.shape[1]), x.new_zeros(x.shape[1])
    out, mean, variance, count = _Pooled.apply(x, weight, bias, norm.eps, ranks)
    if norm.track_running_stats and norm.running_mean is not None:
        norm.num_batches_tracked.add_(1)
        share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
        norm.running_mean.lerp_(mean.to(norm.running_mean), share)
        norm.running_var.lerp_((variance * count / max(1.0, float(count) - 1)).to(norm.running_var), share)
    return out


class _Pooled(torch.autograd.Function):
    """A batch norm over all ranks: one exchange of means and variances (Chan et al. 1979), in the backward pass one of sums."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, ranks: Ranks
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values = x.float()
        over = [0, *range(2, x.ndim)]
        local = torch.var_mean(values, over, correction=0)
        n, C = values.numel() / values.shape[1], values.shape[1]
        told = torch.tensor(ranks.exchange(n, *torch.cat(local).tolist()), dtype=torch.float64, device=x.device)
        counts, variances, means = told[:, :1], told[:, 1 : 1 + C], told[:, 1 + C :]
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        variance = (counts * (variances + (means - mean) ** 2)).sum(0) / count
        scale = (variance + eps).rsqrt().float()
        normal = (values - _wide(mean.float(), x)) * _wide(scale, x)
        ctx.save_for_backward(normal, weight, scale, count)
        ctx.ranks, ctx.over, ctx.dtype = ranks, over, x.dtype
        ctx.mark_non_differentiable(mean, variance, count)
        return (normal * _wide(weight, x) + _wide(bias, x)).to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        normal, weight, scale, count = ctx.saved_tensors
        above = gradients[0].float()
        sums = torch.stack([above.sum(ctx.over), (above * normal).sum(ctx.over)])
        told = torch.tensor(ctx.ranks.exchange(*sums.flatten().tolist()), dtype=torch.float64, device=above.device)
        first, second = (told.sum(0).view(2, -1) / count).float()
        inside = above - _wide(first, above) - normal * _wide(second, above)
        return (inside * _wide(weight * scale, above)).to(ctx.dtype), sums[1], sums[0], None, None


def _wide(channels: Tensor, like: Tensor) -> Tensor:
    """[C] → [1, C, 1, ...], as `like` has dimensions."""
    return channels.view(1, -1, *[1] * (like.ndim - 2))
