"""How a predictor learns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.models.builders import training_forward


def losses_of(model: Any, x: Tensor, y: Tensor, *, steps: int, rate: float, progress: float) -> list[float]:
    """Squared errors before each of `steps` steps of Adam on one batch, in which the model is taught as in training."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        forecast, terms = training_forward(model, x, y, progress)
        loss = torch.nn.functional.mse_loss(forecast, y)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        (loss + sum(terms.values())).backward()
        optimizer.step()
    return losses
