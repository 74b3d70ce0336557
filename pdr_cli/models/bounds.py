"""Bounds: forecast frames kept between the lowest and the highest possible value of each channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Bounds(nn.Module):
    """Values outside of a channel's bounds become the bound, as the last step of the network: [..., C, H, W].

    The bounds are constants of the data and not weights: a model file keeps them in its header, and they are not in the
    state dict. They follow the network to its device.

    A value outside has no gradient from the loss of the bounded forecast, but from that of the coarse one, which is not
    bounded. On bike counts this had a smaller mean absolute error in validation than gradients that pass the clamp: all of
    them, a tenth of them, or those alone that lead back inside.

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
        return torch.clamp(frames, low, high)
