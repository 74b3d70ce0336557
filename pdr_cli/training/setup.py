"""Preparation of a network for its steps: the memory layout of its weights, and the optimiser."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pdr_cli.models.layout import keeps_freed_memory, lay_out
from pdr_cli.schema import TrainConfig
from pdr_cli.system.memory import keep_freed_memory


def set_up(
    network: nn.Module, config: TrainConfig, size: tuple[int, int], device: torch.device
) -> torch.optim.Optimizer:
    """Lay out the network, which is on `device`, for frames of `size` (H, W), and return its optimiser."""
    if keeps_freed_memory(size, device):
        keep_freed_memory()
    lay_out(network, size, device)
    return torch.optim.AdamW(parameter_groups(network, config.weight_decay), lr=config.lr, fused=True)


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
