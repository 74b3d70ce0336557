"""Small networks for the model tests."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pdr_cli import config
from pdr_cli.models import registry
from pdr_cli.models.interfaces import Batch, Frames, Terms
from pdr_cli.schema import ModelConfig
from pdr_cli.trust import USER

# The options of a small adapter beside those of the demo preset.
ADAPTER: dict[str, Any] = {
    "anchor": "persistence",
    "inputs": "frames",
    "fusion": "concat",
    "fusion_init": "residual",
    "adapter": "flatten",
    "adapter_input": "auto",
    "gaussians": 15,
    "kernel_size": 21,
    "downsample": "auto",
    "hidden": 8,
    "mlp_depth": 1,
    "init": "grid",
    "coords": "absolute",
    "cell_stride": 2,
    "per_cell": 1,
    "conv_width": 8,
    "conv_depth": 2,
    "sigma_min": 0.3,
    "normalize": "peak",
    "amplitude": "auto",
}


def options(**changes: Any) -> ModelConfig:
    """A small [model] table with changes, which are not validated."""
    return config.load("demo").model.model_copy(update=ADAPTER | changes)


def build_predictor(
    name: str, in_steps: int, channels: int, *, size: tuple[int, int] = (16, 16), periodic: bool = False, **changes: Any
) -> nn.Module:
    """The predictor of that name with changes to a small [model] table."""
    return registry.build_predictor(options(backbone=name, **changes), Frames(in_steps, channels, size, periodic), USER)


def training_batch(x: Tensor, y: Tensor, progress: float = 0.0, known: Tensor | None = None) -> Batch:
    """A batch whose target is `y`."""
    return Batch(x, y.shape[1], y, known, progress)


def training_forward(
    predictor: Any, x: Tensor, y: Tensor, progress: float = 0.0, known: Tensor | None = None
) -> tuple[Tensor, Terms]:
    """The predictor's pass in training."""
    return predictor.training_forward(training_batch(x, y, progress, known))
