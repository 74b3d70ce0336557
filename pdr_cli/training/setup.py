"""A network made ready for its steps: how its weights lie in memory, and what moves them."""

from __future__ import annotations

import ctypes
import platform

import torch
from torch import nn

from pdr_cli.config import TrainConfig
from pdr_cli.training import optimizer

# Convolutions on a CPU: from frames of about 32 x 32 on, channels-last is 1.2 to 1.5 times as fast, below it is slower.
CHANNELS_LAST_PIXELS = 1024
# glibc's numbers for mallopt, and what they are set to: larger than any tensor that is freed in a step.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**30


def set_up(
    network: nn.Module, config: TrainConfig, size: tuple[int, int], device: torch.device
) -> torch.optim.Optimizer:
    """Lay the network out for frames of `size` (H, W), and give it its optimiser. The network is on `device`."""
    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cpu" and size[0] * size[1] >= CHANNELS_LAST_PIXELS:
        channels_last(network)
    return torch.optim.AdamW(optimizer.parameter_groups(network, config.weight_decay), lr=config.lr, fused=True)


def channels_last(network: nn.Module) -> None:
    """Lay out the weights of 2-D convolutions so; `Module.to` would refuse a network that has 3-D ones beside them."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)


def keep_freed_memory() -> bool:
    """Have the C library keep the memory that this process frees; says whether it does (glibc alone can).

    A step allocates what the one before has freed. By default glibc returns large pieces to the system at once, and to
    get their pages again, filled with zeros, takes a sixth of a step of TAU on a CPU.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(option, KEPT_BYTES) for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))
