"""Scores, each a few lines and named for its formula; accumulated window by window, so memory does not grow.

A score is the mean of one number per frame and channel, finished by a function: RMSE is the root of the mean of
squared errors, PSNR the mean of each frame's decibels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pdr_cli.errors import UsageError, did_you_mean


class Score(Protocol):
    """A named score of forecasts [B, τ, C, H, W] against truth."""

    def per_frame(self, forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """One number for each frame and channel: [B, τ, C], or [B, τ, 1] where channels are taken together."""

    def finish(self, mean: float) -> float:
        """The score, from the mean of those numbers."""


@dataclass(frozen=True)
class MSE:
    """Mean of (forecast - truth)²."""

    def per_frame(self, forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return ((forecast - truth).astype(np.float64) ** 2).mean(axis=(-2, -1))

    def finish(self, mean: float) -> float:
        return mean


@dataclass(frozen=True)
class RMSE(MSE):
    """Root of the MSE over all frames: one root, at the end."""

    def finish(self, mean: float) -> float:
        return math.sqrt(mean)


@dataclass(frozen=True)
class MAE:
    """Mean of |forecast - truth|."""

    def per_frame(self, forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return np.abs((forecast - truth).astype(np.float64)).mean(axis=(-2, -1))

    def finish(self, mean: float) -> float:
        return mean


@dataclass(frozen=True)
class Bias:
    """Mean of forecast - truth."""

    def per_frame(self, forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return (forecast - truth).astype(np.float64).mean(axis=(-2, -1))

    def finish(self, mean: float) -> float:
        return mean


@dataclass(frozen=True)
class PSNR:
    """Mean over frames of 10 log10(range² / mse), in dB; a perfect frame counts as 100 dB."""

    data_range: np.ndarray
    best: float = 100.0

    def per_frame(self, forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
        scaled = (forecast - truth).astype(np.float64) / self.data_range[:, None, None]
        mse = (scaled**2).mean(axis=(-3, -2, -1))[..., None]
        return np.minimum(-10 * np.log10(np.maximum(mse, 1e-300)), self.best)

    def finish(self, mean: float) -> float:
        return mean


@dataclass(frozen=True)
class SSIM:
    """Mean structural similarity: Gaussian window 11 x 11, σ 1.5, valid region (Wang et al., 2004)."""

    data_range: np.ndarray

    def per_frame(self, forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
        import torch

        from pdr_cli.training.losses import ssim

        given, wanted, span = (
            torch.from_numpy(np.ascontiguousarray(a, float)) for a in (forecast, truth, self.data_range)
        )
        return ssim(given, wanted, span).numpy()[..., None]

    def finish(self, mean: float) -> float:
        return mean


def build(names: Sequence[str], data_range: np.ndarray) -> dict[str, Score]:
    """Scores by name; `data_range` [C] is what SSIM and PSNR take as the full range, in data units.

    Raises:
        UsageError: an unknown name, with the nearest.
    """
    makers: dict[str, Callable[[], Score]] = {
        "mse": MSE,
        "rmse": RMSE,
        "mae": MAE,
        "bias": Bias,
        "psnr": lambda: PSNR(data_range),
        "ssim": lambda: SSIM(data_range),
    }
    for name in names:
        if name not in makers:
            raise UsageError(
                f"--metrics {name}: no such score.{did_you_mean(name, makers)} There are {', '.join(makers)}"
            )
    return {name: makers[name]() for name in names}


@dataclass
class Tally:
    """Running means of one forecaster's scores.

    `result` gives, for each score, its value over all leads and for each lead.
    """

    scores: dict[str, Score]
    sums: dict[str, np.ndarray] = field(default_factory=dict)
    count: int = 0

    def add(self, forecast: np.ndarray, truth: np.ndarray) -> None:
        """Score a batch [B, τ, C, H, W]."""
        for name, score in self.scores.items():
            values = score.per_frame(forecast, truth).sum(axis=0)
            self.sums[name] = self.sums.get(name, 0.0) + values
        self.count += len(forecast)

    def result(self, channels: Sequence[str]) -> dict[str, dict[str, float | list[float]]]:
        """{score: {"overall": x, "lead": [...]}}; with several channels also {"score:channel": ...}."""
        out = {}
        for name, score in self.scores.items():
            mean = self.sums[name] / self.count
            out[name] = _finished(score, mean.mean(axis=-1))
            if len(channels) > 1 and mean.shape[-1] == len(channels):
                out |= {f"{name}:{c}": _finished(score, mean[:, i]) for i, c in enumerate(channels)}
        return out


def _finished(score: Score, mean: np.ndarray) -> dict[str, float | list[float]]:
    return {"overall": score.finish(float(mean.mean())), "lead": [score.finish(float(m)) for m in mean]}


def skill(mse: float, reference: float) -> float:
    """MSE skill score 1 - mse / reference (Murphy, 1988): 1 perfect, 0 as good as the reference, below 0 worse."""
    if reference == 0:
        return 0.0 if mse == 0 else -math.inf
    return 1 - mse / reference
