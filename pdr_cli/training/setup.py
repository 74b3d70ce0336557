"""Preparation of a network for its steps: the memory layout of its weights, and the optimiser."""

from __future__ import annotations

import ctypes
import platform
from typing import Any

import torch
from torch import Tensor, nn

from pdr_cli.schema import TrainConfig

# Convolutions on a CPU: from frames of about 32 x 32 on, channels-last is 1.2 to 1.5 times as fast, below it is slower.
CHANNELS_LAST_PIXELS = 1024
# glibc's options of mallopt, and their value: larger than any tensor that is freed in a step.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**30
# On larger grids the pieces of such memory are large too, and hold half as much again as the tensors in them.
KEPT_PIXELS = 2**17


def set_up(
    network: nn.Module, config: TrainConfig, size: tuple[int, int], device: torch.device
) -> torch.optim.Optimizer:
    """Lay out the network, which is on `device`, for frames of `size` (H, W), and return its optimiser."""
    if keeps_freed_memory(size, device):
        keep_freed_memory()
    if device.type == "cpu" and size[0] * size[1] >= CHANNELS_LAST_PIXELS:
        channels_last(network)
    return torch.optim.AdamW(parameter_groups(network, config.weight_decay), lr=config.lr, fused=True)


def keeps_freed_memory(size: tuple[int, int], device: torch.device) -> bool:
    """Whether a training on frames of this size keeps the memory that it frees."""
    return device.type == "cpu" and size[0] * size[1] <= KEPT_PIXELS


def has_parameters(network: nn.Module) -> bool:
    """False where nothing is left to train: without parameters, or with frozen ones alone."""
    return any(p.requires_grad for p in network.parameters())


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for AdamW: matrices and kernels with decay; biases, norms and layer scales without.

    The Gaussians' grid is a bias, and decay would pull it into the middle of the frame. Frozen parameters are left out.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for name, p in trained if not is_vector(name, p)], "weight_decay": weight_decay},
        {"params": [p for name, p in trained if is_vector(name, p)], "weight_decay": 0.0},
    ]


def is_vector(name: str, parameter: Tensor) -> bool:
    """True for a bias or scale, also one of shape (1, d, 1, 1); a layer's weight is a matrix even with one row."""
    if parameter.ndim <= 1:
        return True
    return not name.endswith("weight") and parameter.numel() == max(parameter.shape)


def channels_last(network: nn.Module) -> None:
    """Lay out the weights of 2-D convolutions channels-last; `Module.to` refuses a network with 3-D convolutions."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)


def keep_freed_memory() -> bool:
    """Have the C library keep the memory that this process frees; False if it cannot, as any but glibc.

    Each step allocates the memory that the step before has freed. By default glibc returns large blocks to the system at
    once; their pages, filled with zeros again, cost a sixth of a step of TAU on a CPU.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(option, KEPT_BYTES) for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))
