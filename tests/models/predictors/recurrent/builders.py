"""Small recurrent predictors and data for them."""

from __future__ import annotations

from typing import Any

import torch

from pdr_cli.models.predictors.recurrent.sequence import Recurrent
from tests.models.builders import build_predictor

SIZE = (9, 10)  # no multiple of any patch


def small(name: str, channels: int = 2, **changes: Any) -> Recurrent:
    """The predictor of that name with few channels, for frames of `SIZE`."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2, "mlp_ratio": 2, "drop_path": 0.0}
    built = build_predictor(name, 3, channels, **options | {"size": SIZE} | changes)
    assert isinstance(built, Recurrent)
    return built


def travelling_waves(steps: int, batch: int = 2, channels: int = 2) -> torch.Tensor:
    """[batch, steps, channels, 9, 10] in [0, 1], each sequence with a speed of its own."""
    t = torch.arange(steps, dtype=torch.float32)[None, :, None, None, None]
    speed = torch.linspace(0.4, 0.9, batch)[:, None, None, None, None]
    y = torch.arange(SIZE[0])[:, None] * 0.5
    x = torch.arange(SIZE[1]) * 0.7
    phase = torch.arange(channels)[:, None, None] * 1.3
    return 0.5 + 0.5 * torch.sin(y + x + phase - speed * t)
