"""Scores of a latent space: what it loses, what it forecasts, and how far its past determines its future."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pdr_cli.data.context import Moments
from pdr_cli.data.windows import Windows
from pdr_cli.errors import UsageError
from pdr_cli.inference.members import seeds_of
from pdr_cli.inference.model import Model
from pdr_cli.models.anomalies import Space
from pdr_cli.models.interfaces import Batch, target_of
from pdr_cli.models.predictors.pvvae import PVVAE
from pdr_cli.verification.ensembles import fair

AT_ONCE, MOST = 16, 512  # windows of a batch, and those that a score takes, evenly spaced
RIDGE = 1e-3  # of the ridge regression, over the number of rows


@dataclass(frozen=True)
class Latents:
    """The latent space of a model.

    Args:
        model: whose predictor has latents.

    Raises:
        UsageError: a model of another predictor.
    """

    model: Model

    def __post_init__(self) -> None:
        _ = self.predictor

    @property
    def predictor(self) -> PVVAE:
        """The model's."""
        predictor = self.model.network.predictor
        if not isinstance(predictor, PVVAE):
            found = f"{self.model.label} has no latents"
            raise UsageError(found, way_out="train one with --preset weather-latent or video-latent")
        return predictor

    def batches(self, windows: Windows, share: float = 1.0) -> Iterator[Batch]:
        """Windows with their targets in network units, at most a share of `MOST`."""
        model, encoding, chosen = self.model, self.model.encoding(), windows.spread(max(1, int(share * MOST)))
        steps = model.card.config.data.out_steps
        for start in range(0, len(chosen), AT_ONCE):
            which = np.arange(start, min(start + AT_ONCE, len(chosen)))
            observed, following = chosen.batch(which, missing="all")
            known = torch.from_numpy(np.isfinite(np.concatenate([observed, following], axis=1))).to(model.device)
            times = [chosen.times(int(i))[: chosen.in_steps] for i in which]
            context = encoding.context(model.contexts.of(Moments.of(chosen, which)), model.device)
            batch = Batch(encoding.observed(observed, times, model.device), steps)._replace(**context)
            yield batch._replace(target=encoding.target(following, model.device), known=known)

    @torch.inference_mode()
    def reconstruction(self, batches: Iterable[Batch], scale: np.ndarray | float = 1.0) -> float:
        """RMSE of windows and their futures, decoded from their own latents, in data units over `scale`, [C, 1, 1]."""
        squares, count = 0.0, 0
        for batch in batches:
            space = Space(batch, self.model.network.anomalies)
            true = torch.cat([batch.observed, target_of(batch)], dim=1)
            made = space.out(self.predictor.reconstruct(space.batch())[:, : true.shape[1]], 0)
            error = ((self._data(made) - self._data(true)) / scale)[batch.known.cpu().numpy()]  # type: ignore[union-attr]
            squares, count = squares + float((error.astype(np.float64) ** 2).sum()), count + error.size
        return float(np.sqrt(squares / count))

    def _data(self, frames: Tensor) -> np.ndarray:
        return self.model.encoding().to_data(frames)

    @torch.inference_mode()
    def predictability(self, train: Windows, test: Windows) -> float:
        """Share of the variance of the future latents that a ridge regression explains from the observed ones around a cell.

        It is fitted to training windows and scored on test windows, in units of the standard deviation of each channel.
        """
        past, future = self._rows(train)
        mean, spread = future.mean(0), future.std(0).clamp_min(1e-9)
        weights = ridge(past, (future - mean) / spread)
        past, future = self._rows(test)
        true = (future - mean) / spread
        return float(1 - (true - past @ weights).square().sum() / true.square().sum())

    def _rows(self, windows: Windows) -> tuple[Tensor, Tensor]:
        """Of each cell of windows, the observed latents of 3 x 3 cells and the future ones: [P, K] and [P, g_f·z]."""
        rows = []
        for batch in self.batches(windows, 0.25):
            latents = self.predictor.latents(Space(batch, self.model.network.anomalies).batch())
            past, future = latents[:, : self.predictor.groups.observed], latents[:, self.predictor.groups.observed :]
            around = nn.functional.unfold(past.flatten(1, 2), 3, padding=1).transpose(1, 2).flatten(0, 1)
            rows.append(
                (around.cpu().double(), future.flatten(1, 2).flatten(2).transpose(1, 2).flatten(0, 1).cpu().double())
            )
        past, future = (torch.cat(parts) for parts in zip(*rows, strict=True))
        return torch.cat([past, torch.ones_like(past[:, :1])], dim=1), future

    def crps(self, windows: Windows, members: int, most: int) -> float:
        """Fair CRPS of so many members in data units."""
        total, count = 0.0, 0
        chosen = windows.spread(most)
        for start in range(0, len(chosen), AT_ONCE):
            which = np.arange(start, min(start + AT_ONCE, len(chosen)))
            observed, following = chosen.batch(which, missing="all")
            filled = self.model.encoding().filling.apply(
                observed, [chosen.times(int(i))[: chosen.in_steps] for i in which]
            )
            seeds = seeds_of(0, members, [str(i) for i in which])
            context = self.model.contexts.of(Moments.of(chosen, which))
            scores = fair(self.model.members(filled, seeds, context=context), following)
            scores = scores[np.isfinite(scores)]
            total, count = total + float(scores.sum()), count + scores.size
        return total / count


def has_latents(model: Model) -> bool:
    """Whether `Latents` takes a model."""
    return isinstance(model.network.predictor, PVVAE)


def ridge(features: Tensor, targets: Tensor) -> Tensor:
    """The coefficients of a ridge regression: [P, K] and [P, N] → [K, N]."""
    return solved(features.T @ features, features.T @ targets, len(features))


def solved(products: Tensor, crossed: Tensor, rows: int) -> Tensor:
    """The same from products summed over rows: of features, [K, K], and of features and targets, [K, N]."""
    penalty = RIDGE * rows * torch.eye(len(products), dtype=products.dtype)
    return torch.linalg.solve(products + penalty, crossed)
