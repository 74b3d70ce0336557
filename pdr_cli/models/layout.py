"""The memory layout of a network's weights: convolutions on a CPU are faster with that of the frames' size."""

from __future__ import annotations

import torch
from torch import nn

# Convolutions on a CPU: from frames of about 32 x 32 on, channels-last is 1.2 to 1.5 times as fast, below it is slower.
CHANNELS_LAST_PIXELS = 1024
# On larger grids the pieces of memory that is kept are large too, and hold half as much again as the tensors in them.
KEPT_PIXELS = 2**17


def lay_out(network: nn.Module, size: tuple[int, int], device: torch.device) -> None:
    """Lay out a network, which is on `device`, for frames of `size` (H, W)."""
    if device.type == "cpu" and size[0] * size[1] >= CHANNELS_LAST_PIXELS:
        channels_last(network)


def keeps_freed_memory(size: tuple[int, int], device: torch.device) -> bool:
    """Whether a process that passes frames of this size through a network keeps the memory that it frees."""
    return device.type == "cpu" and size[0] * size[1] <= KEPT_PIXELS


def channels_last(network: nn.Module) -> None:
    """Lay out the weights of 2-D convolutions channels-last; `Module.to` refuses a network with 3-D convolutions."""
    _weights_as(network, torch.channels_last)


def contiguous(network: nn.Module) -> None:
    """Undo `lay_out`, for what reads the weights in the order of their dimensions, as an exported graph does."""
    _weights_as(network, torch.contiguous_format)


def _weights_as(network: nn.Module, memory_format: torch.memory_format) -> None:
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.to(memory_format=memory_format)
