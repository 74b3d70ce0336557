"""Ways of moving Gaussians: how far each ends from where the place that it covers goes in the true frames."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pdr_cli.inference.model import Model
from pdr_cli.models.gaussians.deform import DeformGS
from pdr_cli.models.gaussians.moving import MOVING, at_places
from pdr_cli.models.tracking import tracks
from pdr_cli.verification import forecasters, sections
from pdr_cli.verification.task import Task

AT_ONCE, MOST = 8, 128  # windows of a batch, and those that are measured, evenly spaced
# Sums at each lead time: of moving places errors and lengths of the tracks, of still ones errors, and the numbers of both.
COLUMNS = 5


def adapter_of(model: Model) -> DeformGS | None:
    """The adapter of a model whose Gaussians move; None of others."""
    adapter = model.network.adapter
    return adapter if isinstance(adapter, DeformGS) else None


class Ways:
    """End-point errors of the ways of one model's Gaussians against tracks by optical flow, in cells of the grid.

    Args:
        model: whose adapter is a `DeformGS`.
        task: whose windows are forecast.
    """

    def __init__(self, model: Model, task: Task) -> None:
        self.model, self.task = model, task
        self.sums = np.zeros((task.windows.out_steps, COLUMNS))
        self.faint = self.gaussians = 0

    def section(self) -> sections.Ways:
        """The section of the document."""
        count = len(self.task.windows)
        chosen = np.unique(np.linspace(0, count - 1, min(count, MOST)).round().astype(int))
        for start in range(0, len(chosen), AT_ONCE):
            self._add(chosen[start : start + AT_ONCE])
        error, still, rest, moving, others = self.sums.T
        return sections.Ways(
            error=sections.ByLead.of_sums(error, moving),
            standing_still=sections.ByLead.of_sums(still, moving),
            error_of_still=sections.ByLead.of_sums(rest, others),
            moving=float(moving.sum() / max((moving + others).sum(), 1)),
            pruned=self.faint / max(self.gaussians, 1),
        )

    @torch.inference_mode()
    def _add(self, which: np.ndarray) -> None:
        """Measure the windows numbered `which`."""
        request, truth = self.task.batch(which)
        encoding, adapter = self.model.encoding(), adapter_of(self.model)
        if adapter is None:
            raise ValueError(f"{self.model.label} has no moving Gaussians")
        history, context = forecasters.inputs_of(self.model, self.task.series)(request)
        batch = self.model.batch(history, truth.shape[1], context)
        turn = forecasters.orientation(self.model, self.task.truth)
        target = encoding.target(turn.apply(truth), self.model.device)
        known = torch.from_numpy(np.isfinite(turn.apply(truth))).to(self.model.device)
        found = adapter.moving(self.model.network(batch).coarse, batch.observed)
        seen = torch.cat([torch.ones_like(known[:, :1]), known], dim=1)
        leads = min(adapter.leads, truth.shape[1])  # ways begin anew in each block of a longer forecast
        size = (truth.shape[-2], truth.shape[-1])
        track, trust = at_places(tracks(batch.observed[:, -1], target, seen), found.start, size).split([2, 1], dim=-1)
        shown = (found.opacity[:, :leads] >= adapter.prune).to(trust)
        self._count(found.way[:, :leads], track[:, :leads], (trust[:, :leads] * shown)[..., 0])
        self.faint += int((found.opacity < adapter.prune).sum())
        self.gaussians += found.opacity.numel()

    def _count(self, way: Tensor, track: Tensor, trust: Tensor) -> None:
        """Sum errors of ways [B, τ, N, 2] by lead time, weighted by the trust in the tracks, [B, τ, N]."""
        length, error = track.norm(dim=-1), (way - track).norm(dim=-1)
        moves = trust * (length > MOVING)
        parts = (error * moves, length * moves, error * (trust - moves), moves, trust - moves)
        sums = torch.stack([part.double().sum(dim=(0, 2)) for part in parts], dim=-1)
        self.sums[: len(sums)] += sums.cpu().numpy()
