"""Bounds: forecast frames kept between the lowest and the highest possible value of each channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Bounds(nn.Module):
    """Values outside of a channel's bounds become the bound, as the last step of the network: [..., C, H, W].

    The bounds are constants of the data and not weights: a model file keeps them in its header, and they are not in the
    state dict. They follow the network to its device.

    Args:
        low: lowest value of each channel, [C], in the units of the frames; -inf where there is none.
        high: highest value of each channel, [C]; inf where there is none.
    """

    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.register_buffer("low", low[:, None, None], persistent=False)
        self.register_buffer("high", high[:, None, None], persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Bound frames [..., C, H, W], or folded ones [..., C·p², H/p, W/p]."""
        pixels = frames.shape[-3] // len(self.low)  # p²: the pixels of a cell follow each other, channel by channel
        low, high = (ends.repeat_interleave(pixels, 0) if pixels > 1 else ends for ends in (self.low, self.high))
        if self.training:
            bounded: Tensor = _Inward.apply(frames, low, high)
            return bounded
        return torch.minimum(torch.maximum(frames, low), high)


class _Inward(torch.autograd.Function):
    """The bounds in training. Of a value outside of them, the gradient passes only if a step along it leads back inside.

    The gradient of a plain clamp is 0 outside, so that a cell once driven below a bound stays there, whatever its target
    is. With the gradient of the identity, cells that are right at their bound drift further away from it.
    """

    @staticmethod
    def forward(ctx, frames: Tensor, low: Tensor, high: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(frames < low, frames > high)
        return torch.minimum(torch.maximum(frames, low), high)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        below, above = ctx.saved_tensors
        outward = (below & (gradient > 0)) | (above & (gradient < 0))
        return gradient.masked_fill(outward, 0), None, None
