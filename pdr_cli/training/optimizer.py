"""Which parameters weight decay may touch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for AdamW: matrices and kernels with decay; biases, norms and layer scales without.

    Decay would pull the Gaussians' grid, which is a bias, into the middle of the frame. Frozen parameters are left out.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for name, p in trained if not is_vector(name, p)], "weight_decay": weight_decay},
        {"params": [p for name, p in trained if is_vector(name, p)], "weight_decay": 0.0},
    ]


def is_vector(name: str, parameter: Tensor) -> bool:
    """A bias or scale, also one shaped (1, d, 1, 1); a layer's weight is a matrix even where it has one row."""
    if parameter.ndim <= 1:
        return True
    return not name.endswith("weight") and parameter.numel() == max(parameter.shape)
