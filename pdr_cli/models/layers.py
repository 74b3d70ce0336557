"""Operations that predictors and adapters share. All are differentiable and deterministic on GPUs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def rollout(
    one_pass: Callable[[Tensor, int], Tensor],
    x: Tensor,
    steps: int,
    anchor: Callable[[Tensor, int, int], Tensor] | None = None,
    bounded: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The first `steps` frames of a predictor, which is fed its own forecast where one pass gives fewer.

    Gradients flow through every pass. x: [B, T, C, H, W] → [B, steps, C, H, W].

    Args:
        one_pass: (window [B, T, C, H, W], steps from the last observed frame to the window's last) → the frames that
            follow, as many as it gives.
        x: observed.
        steps: frames to forecast.
        anchor: frames that the output of a pass is the change from, see `interfaces.Anchoring`.
        bounded: keeps frames that are fed back within their bounds; None: they are fed back as they are.
    """
    in_steps, seen = x.shape[1], x
    frames = x[:, :0]
    while frames.shape[1] < steps:
        first = frames.shape[1]
        if first:
            seen = torch.cat([x, frames if bounded is None else bounded(frames)], dim=1)[:, -in_steps:]
        made = one_pass(seen, first)[:, : steps - first]
        made = made if anchor is None else anchor(seen, first, made.shape[1]) + made
        frames = torch.cat([frames, made], dim=1) if first else made
    return frames


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of [B, d, H', W'] at every cell of the grid."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def pad_to_multiple(frames: Tensor, multiple: int, periodic: bool = False) -> Tensor:
    """Frames [P, C, H, W] extended at the bottom and right until H and W are multiples.

    `periodic` frames are continued to the right by their first columns.
    """
    frames = extend(frames, -2, -frames.shape[-2] % multiple)
    extra = -frames.shape[-1] % multiple
    if periodic and extra:
        return torch.cat([frames, frames[..., :extra]], -1)
    return extend(frames, -1, extra)


def extend(frames: Tensor, dim: int, extra: int) -> Tensor:
    """`extra` further places at the end of `dim`: reflected without the edge, or the edge repeated if `dim` is too short.

    Concatenated, because the gradient of `nn.functional.pad` is not deterministic on GPUs.
    """
    if extra == 0:
        return frames
    length = frames.shape[dim]
    if extra < length:
        tail = frames.narrow(dim, length - 1 - extra, extra).flip(dim)
    else:
        tail = frames.narrow(dim, length - 1, 1).repeat_interleave(extra, dim)
    return torch.cat([frames, tail], dim)


def interpolation(cells: int, length: int) -> Tensor:
    """The matrix [length, cells] of linear interpolation along one axis; the identity if both are equal.

    A matrix, because the gradient of `nn.functional.interpolate` is not deterministic on GPUs.
    """
    return nn.functional.interpolate(torch.eye(cells)[None], size=length, mode="linear")[0].T.contiguous()


def between(frames: Tensor, times: Sequence[float]) -> Tensor:
    """Frames at times 0, 1, ... n, [B, n + 1, C, H, W], blended linearly at any times from 0 to n: [B, times, C, H, W]."""
    last = frames.shape[1] - 1
    first = [min(math.floor(time), last - 1) for time in times]
    share = frames.new_tensor([time - low for time, low in zip(times, first, strict=True)])[:, None, None, None]
    return torch.lerp(frames[:, first], frames[:, [low + 1 for low in first]], share)


def where_known(pred: Tensor, target: Tensor, known: Tensor | None) -> Tensor:
    """`pred`, replaced by `target` where values are missing, so that their difference and its gradient are 0 there."""
    return pred if known is None else torch.where(known, pred, target)


def drop_branch(branch: Tensor, probability: float, training: bool) -> Tensor:
    """Stochastic depth: in training, a sample's branch [B, ...] is 0 with this probability, else divided by the rest."""
    if not (training and probability):
        return branch
    keep = torch.rand(len(branch), *[1] * (branch.ndim - 1), device=branch.device) >= probability
    return branch * keep / (1 - probability)
