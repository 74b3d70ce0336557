"""Layers that never look ahead in time. Frames are folded into the batch: [B·T, c, h, w]."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

EPSILON = 1e-6  # added to the mean square of the channels
HEAD = 64  # channels of a head of attention, if the width is a multiple of it


class ChannelRMS(nn.Module):
    """Divides the channels of each place and time by their root mean square.

    Statistics over time would let the future leak into the past, and those over a batch need large batches.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[P, c, h, w] → the same shape."""
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + EPSILON) * self.gain


class CausalTime(nn.Module):
    """A convolution over frames t-2, t-1 and t; the first frame is repeated before the first.

    It begins as the frame itself and a fifth of PyTorch's initial weights.

    Args:
        inputs: channels of a frame.
        outputs: of a frame; of as many as `inputs`, the first output is close to the input.
        stride: every so many frames have an output, from the first on.
        kernel: side in space: 1, or 3 for a full 3 x 3 x 3 convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, kernel: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(3 * inputs, outputs, kernel, padding=kernel // 2)
        with torch.no_grad():
            self.conv.weight.mul_(0.2)
            nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]  # there is a bias
            if inputs == outputs:
                self.conv.weight[:, 2 * inputs :, kernel // 2, kernel // 2] += torch.eye(inputs)

    def forward(self, x: Tensor, steps: int) -> Tensor:
        """[B·steps, c, h, w] → [B·ceil(steps / stride), outputs, h, w]."""
        frames = x.unflatten(0, (-1, steps))
        padded = torch.cat([frames[:, :1], frames[:, :1], frames], dim=1)
        stacked = torch.cat([padded[:, k : k + steps] for k in range(3)], dim=2)
        made: Tensor = self.conv(stacked[:, :: self.stride].flatten(0, 1))
        return made


class Block(nn.Module):
    """A residual block of a convolution in space, one in time and one in space again; it begins as the identity.

    Args:
        channels: c.
        conv3d: True: two full 3 x 3 x 3 convolutions instead.
    """

    def __init__(self, channels: int, conv3d: bool = False) -> None:
        super().__init__()
        self.before, self.between = ChannelRMS(channels), ChannelRMS(channels)
        self.space = None if conv3d else nn.Conv2d(channels, channels, 3, padding=1)
        self.time = CausalTime(channels, channels, kernel=3 if conv3d else 1)
        self.last: CausalTime | nn.Conv2d
        self.last = CausalTime(channels, channels, kernel=3) if conv3d else nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, steps: int) -> Tensor:
        """[B·steps, c, h, w] → the same shape."""
        h = nn.functional.silu(self.before(x))
        h = self.time(h if self.space is None else self.space(h), steps)
        h = nn.functional.silu(self.between(h))
        return x + (self.last(h, steps) if self.space is None else self.last(h))


class SpaceAttention(nn.Module):
    """Residual attention of each place of a frame, or of a group, to all of its places, on any grid; it begins as the identity.

    The convolutions before it tell where a place is, by the zeros beyond the border.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = math.gcd(width, max(1, width // HEAD))
        self.norm = ChannelRMS(width)
        self.inputs = nn.Conv2d(width, 3 * width, 1)
        self.leave = nn.Conv2d(width, width, 1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """[P, width, h, w] → the same shape."""
        heads = self.inputs(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1)).mT  # [P, 3, heads, h·w, d]
        mixed = nn.functional.scaled_dot_product_attention(*heads.unbind(1))
        return x + self.leave(mixed.mT.flatten(1, 2).unflatten(2, x.shape[2:]))
