"""Fits the damping of `FlowAnchor`: how fast motion slows down, by the squared error of training windows."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from pdr_cli.models.interfaces import Batch, target_of
from pdr_cli.models.motion import advect, backward_motion

CANDIDATES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.6, math.inf)  # λ per frame; infinite: persistence


@torch.no_grad()
def fit(batches: Iterable[Batch]) -> float:
    """The λ of `CANDIDATES` with the least mean logarithm of the squared error of a window, as in PSNR.

    So a window with much motion does not decide alone. Values that are missing do not count. Without any batch, persistence.
    """
    errors = [squared_errors(batch) for batch in batches]
    if not errors:
        return math.inf
    windows = torch.cat(errors, dim=1)
    smallest = 1e-9 * float(windows.mean()) + 1e-30  # a window that is forecast exactly
    return CANDIDATES[int((windows + smallest).log().mean(dim=1).argmin())]


def squared_errors(batch: Batch) -> torch.Tensor:
    """Sum of the squared errors of each of `CANDIDATES` in each window: [λ, B]."""
    last, motion, target = batch.observed[:, -1], backward_motion(batch.observed), target_of(batch)
    known = torch.ones_like(target) if batch.known is None else batch.known[:, -target.shape[1] :].to(target)
    times = range(1, batch.steps + 1)
    forecasts = (advect(last, motion, times, damping) for damping in CANDIDATES)
    return torch.stack([(known * (made - target).square()).flatten(1).sum(1).double().cpu() for made in forecasts])
