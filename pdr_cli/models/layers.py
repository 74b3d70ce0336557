"""Operations that predictors and adapters share. All are differentiable and deterministic on GPUs."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pdr_cli.splat import native, norm_silu


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


class NormHook(ABC):
    """A forward hook of a norm that says whether it changes anything now."""

    @property
    @abstractmethod
    def active(self) -> bool:
        """False: the output stays as it is."""

    @abstractmethod
    def __call__(self, norm: nn.Module, inputs: object, output: Tensor) -> Tensor: ...


class NormedSiLU(nn.Sequential):
    """Modules of which the last two are a GroupNorm and a SiLU, which one kernel computes where it can.

    What hooks the norm, as noise does, finds it called as in any sequence, unless it is a `NormHook` that is not active.

    Attributes:
        compiled: False: never by the kernel.
    """

    compiled = True

    def forward(self, x: Tensor) -> Tensor:
        *before, norm, _ = self
        for module in before:
            x = module(x)
        if self.compiled and isinstance(norm, nn.GroupNorm) and takes_kernel(norm, x):
            return norm_silu.norm_silu(x, norm.weight, norm.bias, norm.num_groups, norm.eps)
        return nn.functional.silu(norm(x))


def takes_kernel(norm: nn.GroupNorm, x: Tensor) -> bool:
    """True for frames in float32 on a CPU, and a norm with weights and without active hooks."""
    if x.device.type != "cpu" or x.ndim != 4 or not x.numel() or not norm.affine:
        return False
    hooks = (*norm._forward_hooks.values(), *norm._forward_pre_hooks.values(), *norm._backward_hooks.values())
    if any(not isinstance(hook, NormHook) or hook.active for hook in hooks) or torch.is_autocast_enabled("cpu"):
        return False
    return x.dtype == norm.weight.dtype == torch.float32 and native.usable_on_cpu()


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


def mean_around(values: Tensor, reach: int, dim: int) -> Tensor:
    """The mean of each place and of those within `reach` of it along `dim`, as far as there are: the shape of `values`.

    By sums and not by pooling, which is slower on a CPU. dim: counted from the end, -1 or less.
    """
    shape = list(values.shape)
    shape[dim] = reach
    beyond = values.new_zeros(shape)
    places = torch.arange(values.shape[dim], device=values.device)
    counts = (places + reach).clamp(max=len(places) - 1) - (places - reach).clamp(min=0) + 1
    counts = counts.view(-1, *[1] * (-1 - dim))
    return window_sums(torch.cat([beyond, values, beyond], dim), 2 * reach + 1, dim) / counts


def window_sums(values: Tensor, size: int, dim: int) -> Tensor:
    """Sums of each `size` neighbours along `dim`, which loses size - 1 places: sums of two, of those two, and so on."""
    length = values.shape[dim]
    parts, done, width = [], 0, 1  # width: of the sums that `values` are now
    while True:
        if size & width:
            parts.append(values.narrow(dim, done, length - size + 1))
            done += width
        if done == size:
            return functools.reduce(torch.add, parts)
        values = values.narrow(dim, 0, values.shape[dim] - width) + values.narrow(dim, width, values.shape[dim] - width)
        width *= 2


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
