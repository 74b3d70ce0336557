"""Fits the damping of `FlowAnchor`: how fast motion slows down, by the squared error of training windows."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from pdr_cli.models.interfaces import Batch, target_of
from pdr_cli.models.motion import advect, backward_motion

CANDIDATES = (*(0.05 * i for i in range(13)), math.inf)  # λ per frame; infinite: persistence


@torch.no_grad()
def fit(batches: Iterable[Batch]) -> float:
    """The λ of `CANDIDATES` whose forecasts have the least squared error over all values that are not missing.

    Without any batch, persistence.
    """
    errors = torch.zeros(len(CANDIDATES), dtype=torch.float64)
    for batch in batches:
        errors += squared_errors(batch)
    return CANDIDATES[int(errors.argmin())] if errors.any() else math.inf


def squared_errors(batch: Batch) -> torch.Tensor:
    """Sum of the squared errors of each of `CANDIDATES`."""
    last, motion, target = batch.observed[:, -1], backward_motion(batch.observed), target_of(batch)
    known = torch.ones_like(target) if batch.known is None else batch.known[:, -target.shape[1] :].to(target)
    times = range(1, batch.steps + 1)
    forecasts = (advect(last, motion, times, damping) for damping in CANDIDATES)
    return torch.stack([(known * (made - target).square()).sum().double().cpu() for made in forecasts])
