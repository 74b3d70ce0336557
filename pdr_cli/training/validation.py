"""Validation: the loss and the errors of a network, or of its anchor alone, on the validation windows."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pdr_cli.models.interfaces import Batch, Mode, target_of
from pdr_cli.models.pdr import PDR
from pdr_cli.system.memory import Batches
from pdr_cli.training.batches import TrainingData
from pdr_cli.training.losses import Loss, fair_crps
from pdr_cli.training.ranks import ALONE, Ranks
from pdr_cli.training.state import Position

# A model whose validation loss is above that of its anchor by more than this share does not earn its place.
MARGIN = 0.01
MEMBERS = 8  # of a network that draws, in validation


class Scores(NamedTuple):
    """Mean scores of forecasts of the validation windows.

    Args:
        loss: that of training; of a network that draws, the fair CRPS of `MEMBERS` members, of its anchor the mean absolute
            error; the sum of the terms of a predictor that is scored by them.
        rmse: of each channel, in network units, [C]; of members, that of their mean.
    """

    loss: float
    rmse: list[float]


@dataclass(frozen=True)
class Validation:
    """The validation of a run.

    Args:
        network: on `device`.
        loss: on the network's scale.
        data: windows and their encoding.
        device: the network's.
        batches: windows in a pass of the network.
        batch: windows in a step.
        autocast: arithmetic of the network.
        ranks: that share the batches; the scores are those of one process.
    """

    network: PDR
    loss: Loss
    data: TrainingData
    device: torch.device
    batches: Batches
    batch: int
    autocast: AbstractContextManager[object]
    ranks: Ranks = ALONE

    def scores(self, mode: Mode = "forecast") -> Scores:
        """Scores of the network, or in mode "anchor" of its anchor alone."""
        windows, processes = self.data.val, self.ranks.processes
        starts = range(0, len(windows), self.batch)
        self.network.eval()
        with processes.together(), torch.inference_mode():
            mine = [self._sums(starts[i], mode) for i in processes.share(len(starts))]
        told = processes.from_all((self.batches.halved_to, mine))
        self.batches.restore(min((halved for halved, _ in told if halved is not None), default=None))
        losses, squares, weights = (
            sum(numbers) for numbers in zip(*(s for _, sums in told for s in sums), strict=True)
        )
        return Scores(losses / len(windows), (squares / weights).sqrt().tolist())

    def _sums(self, start: int, mode: Mode) -> tuple[float, Tensor, Tensor]:
        """The loss of a batch times its windows, and for each channel squared errors and their weights, [C]."""
        which = np.arange(start, min(start + self.batch, len(self.data.val)))
        inputs, weight, _ = self.data.batch(self.data.val, which, self.device)
        with self.autocast:
            fused, loss = self._scored(inputs, weight, which, mode)
        errors = (fused.float() - target_of(inputs)) ** 2
        share = torch.ones_like(errors) if weight is None else weight.expand_as(errors)
        return float(loss) * len(which), _of_channels(errors * share), _of_channels(share)

    def _scored(self, inputs: Batch, weight: Tensor | None, which: np.ndarray, mode: Mode) -> tuple[Tensor, Tensor]:
        """The forecast of windows as inference makes it, [B, τ, C, H, W], of members their mean; and the loss."""
        seen, target = inputs._replace(target=None, known=None, anchor=None), target_of(inputs)
        if self.network.scored_by_terms and mode != "anchor":
            out = self.network(inputs._replace(progress=1.0), "train")  # as at the end of the training
            return out.fused, torch.stack(list(out.terms.values())).sum()
        members = MEMBERS if mode != "anchor" else 1
        if self.network.stochastic and members > 1:
            # The same seeds in each validation, so that two differ by the network alone.
            seeds = torch.arange(members)[:, None] * len(self.data.val) + torch.from_numpy(which)
            seen = self.network.members(seen, members, seeds.flatten().to(self.device))
        made = self.batches.attempt(partial(self._forecast, seen, mode), len(seen.observed))
        if not self.network.stochastic:
            return made, self.loss(made, target, weight)[0]
        drawn = made.float().unflatten(0, (-1, len(which)))
        return drawn.mean(dim=0), fair_crps(drawn, target, weight)

    def _forecast(self, seen: Batch, mode: Mode, at_once: int) -> Tensor:
        """The forecast of each window, [B, τ, C, H, W]."""
        parts = [seen.rows(slice(i, i + at_once)) for i in range(0, len(seen.observed), at_once)]
        return torch.cat([self.network(part, mode).fused for part in parts])


def _of_channels(values: Tensor) -> Tensor:
    """Sums over all but the channels: [B, τ, C, H, W] → [C], on the CPU."""
    return values.sum(dim=(0, 1, 3, 4), dtype=torch.float64).cpu()


def excess(position: Position) -> float:
    """By what share the best model's validation loss is above that of its anchor; below it, the share is negative.

    NaN for a network without an anchor.
    """
    return (position.best_loss - position.anchor_loss) / max(abs(position.anchor_loss), 1e-12)


def best(position: Position) -> dict[str, Any]:
    """The scores of the best model and, with an anchor, of the anchor alone, as logs and model cards have them."""
    scores: dict[str, Any] = {"best_loss": position.best_loss, "best_rmse": _rounded(position.best_rmse)}
    if math.isnan(position.anchor_loss):
        return scores
    return scores | {"anchor_loss": position.anchor_loss, "anchor_rmse": _rounded(position.anchor_rmse)}


def _rounded(values: list[float]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
