"""Statistics: what is averaged over frames. Each is a few lines and named for its formula.

A statistic takes frames to numerators and denominators: one pair for each frame and channel, or one for each frame where
channels are taken together. Sums of both over many frames give its mean; nothing else is kept, so memory does not grow
with the number of windows. `scores` makes scores of the means.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np

Counted = tuple[np.ndarray, np.ndarray]  # numerators and denominators, each [B, τ, C] or [B, τ, 1]
BEST_DB = 100.0  # PSNR of a perfect frame: infinity would swallow every mean


@dataclass(frozen=True)
class Sample:
    """One batch of one forecaster beside the truth: each [B, τ, C, H, W].

    Args:
        forecast, truth: frames.
        climate: climatology at the same times; None without one.
        masked: whether some cells are NaN, the same ones in forecast and truth. No statistic counts them.
        members: of an ensemble, [M, B, τ, C, H, W], whose mean `forecast` is; None of a single forecast.
    """

    forecast: np.ndarray
    truth: np.ndarray
    climate: np.ndarray | None = None
    masked: bool = False
    members: np.ndarray | None = None

    @cached_property
    def error(self) -> np.ndarray:
        """Forecast - truth in float64."""
        return np.subtract(self.forecast, self.truth, dtype=np.float64)


class Statistic(Protocol):
    """What is averaged; `power` is that of the data's unit in it: 2 for squared errors, 0 for a pure number."""

    @property
    def power(self) -> int:
        """Power of the data's unit."""

    def count(self, sample: Sample) -> Counted:
        """Numerators and denominators of the mean."""


@dataclass(frozen=True)
class SquaredError:
    """(forecast - truth)²; with `weights` [H, W], the mean over the area they stand for."""

    weights: np.ndarray | None = None
    power: ClassVar[int] = 2

    def count(self, sample: Sample) -> Counted:
        """[B, τ, C]."""
        return mean_over_cells(sample.error**2, self.weights, sample.masked)


@dataclass(frozen=True)
class AbsoluteError:
    """|forecast - truth|; `weights` as for `SquaredError`."""

    weights: np.ndarray | None = None
    power: ClassVar[int] = 1

    def count(self, sample: Sample) -> Counted:
        """[B, τ, C]."""
        return mean_over_cells(np.abs(sample.error), self.weights, sample.masked)


@dataclass(frozen=True)
class Error:
    """forecast - truth; `weights` as for `SquaredError`."""

    weights: np.ndarray | None = None
    power: ClassVar[int] = 1

    def count(self, sample: Sample) -> Counted:
        """[B, τ, C]."""
        return mean_over_cells(sample.error, self.weights, sample.masked)


@dataclass(frozen=True)
class AnomalyCorrelation:
    """Correlation of departures from the climatology, uncentred, of each frame.

    WeatherBench 2's definition (Rasp et al., 2024). A frame without anomalies does not count.
    """

    weights: np.ndarray | None = None
    power: ClassVar[int] = 0

    def count(self, sample: Sample) -> Counted:
        """[B, τ, C]."""
        if sample.climate is None:
            raise ValueError("an anomaly correlation needs Sample.climate")
        forecast, truth = (np.subtract(x, sample.climate, dtype=np.float64) for x in (sample.forecast, sample.truth))
        products = (forecast * truth, forecast**2, truth**2)
        both, own, wanted = (mean_over_cells(x, self.weights, sample.masked)[0] for x in products)
        spread = np.sqrt(own * wanted)
        defined = spread > 0
        return np.where(defined, both / np.where(defined, spread, 1), 0.0), defined.astype(float)


@dataclass(frozen=True)
class Decibels:
    """10 log10(range² / mse) of each frame over all channels; at most `best`.

    Args:
        data_range: [C], in data units.
        best: value of a perfect frame.
    """

    data_range: np.ndarray
    best: float = BEST_DB
    power: ClassVar[int] = 0

    def count(self, sample: Sample) -> Counted:
        """[B, τ, 1]."""
        square = (sample.error / self.data_range[:, None, None]) ** 2
        total, cells = (x.sum(axis=-1, keepdims=True) for x in mean_over_cells(square, None, sample.masked))
        with np.errstate(divide="ignore", invalid="ignore"):
            decibels = np.minimum(-10 * np.log10(total / cells), self.best)
        return np.where(cells > 0, decibels, 0.0), (cells > 0).astype(float)


@dataclass(frozen=True)
class Similarity:
    """SSIM of each frame: Gaussian window 11 x 11, σ 1.5, windows that lie inside (Wang et al., 2004).

    Windows that touch a missing cell do not count.

    Args:
        data_range: [C], in data units.
    """

    data_range: np.ndarray
    power: ClassVar[int] = 0

    def count(self, sample: Sample) -> Counted:
        """[B, τ, 1]; [B, τ, C] if some cells are missing."""
        import torch

        from pdr_cli.models.similarity import ssim_map, window_means

        forecast, truth, span = (
            torch.from_numpy(np.ascontiguousarray(a, np.float64))
            for a in (sample.forecast, sample.truth, self.data_range)
        )
        if not sample.masked:
            return _ones(ssim_map(forecast, truth, span).mean(dim=(-3, -2, -1)).numpy()[..., None])
        absent = forecast.isnan()
        similar = ssim_map(forecast.nan_to_num(), truth.nan_to_num(), span)
        inside = window_means(absent.double()) <= 0
        return (similar * inside).sum(dim=(-2, -1)).numpy(), inside.double().sum(dim=(-2, -1)).numpy()


@dataclass(frozen=True)
class PerceptualDistance:
    """LPIPS v0.1 (AlexNet) of frames brought to [0, 1] by (x - offset) / scale (Zhang et al., 2018).

    Args:
        network: a `networks.lpips.LPIPS`.
        offset, scale: [C], in data units.
    """

    network: Any
    offset: np.ndarray
    scale: np.ndarray
    power: ClassVar[int] = 0

    def count(self, sample: Sample) -> Counted:
        """[B, τ, 1]."""
        shape = sample.forecast.shape
        distance = self.network.distance(self._pictures(sample.forecast), self._pictures(sample.truth))
        return _ones(distance.double().numpy().reshape(*shape[:2], 1))

    def _pictures(self, frames: np.ndarray) -> Any:
        """[B, τ, C, H, W] in data units → tensor [B · τ, C, H, W] in [0, 1]."""
        import torch

        unit = np.clip((frames - self.offset[:, None, None]) / self.scale[:, None, None], 0, 1)
        return torch.from_numpy(np.ascontiguousarray(unit, np.float32)).flatten(0, 1)


@dataclass(frozen=True)
class FrameSum:
    """OpenSTL's errors: |forecast - truth| to a power, summed over the channels and cells of a frame.

    Args:
        exponent: 1 or 2.
        spatial_mean: divide by the number of values, as OpenSTL does for WeatherBench.
    """

    exponent: int
    spatial_mean: bool
    power: ClassVar[int] = 0

    def count(self, sample: Sample) -> Counted:
        """[B, τ, 1]."""
        per_cell = np.abs(sample.error) ** self.exponent
        total = per_cell.mean(axis=(-3, -2, -1)) if self.spatial_mean else per_cell.sum(axis=(-3, -2, -1))
        return _ones(total[..., None])


@dataclass(frozen=True)
class UniformSimilarity:
    """OpenSTL's SSIM: scikit-image's with its 7 x 7 uniform window and sample covariances, forecasts clipped to [0, 1].

    Args:
        data_range: 2, which old versions of scikit-image assume for any float.
        window: side of the window, cells.
    """

    data_range: float = 2.0
    window: int = 7
    power: ClassVar[int] = 0

    def count(self, sample: Sample) -> Counted:
        """[B, τ, 1]."""
        import torch
        from torch.nn.functional import avg_pool2d

        x, y = (
            torch.from_numpy(np.ascontiguousarray(a, np.float64))
            for a in (np.clip(sample.forecast, 0, 1), sample.truth)
        )
        together = torch.stack([x, y, x * x, y * y, x * y])
        shape = together.shape
        means = avg_pool2d(together.flatten(0, -3), self.window, stride=1)
        mean_x, mean_y, xx, yy, xy = means.unflatten(0, shape[:-2])
        unbiased = self.window**2 / (self.window**2 - 1)
        c1, c2 = (0.01 * self.data_range) ** 2, (0.03 * self.data_range) ** 2
        covariance, variance_x, variance_y = xy - mean_x * mean_y, xx - mean_x**2, yy - mean_y**2
        luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        structure = (2 * unbiased * covariance + c2) / (unbiased * (variance_x + variance_y) + c2)
        return _ones((luminance * structure).mean(dim=(-3, -2, -1)).numpy()[..., None])


@dataclass(frozen=True)
class UnitDecibels:
    """OpenSTL's PSNR: peak 1, forecasts clipped to [0, 1], infinite for a perfect frame."""

    power: ClassVar[int] = 0

    def count(self, sample: Sample) -> Counted:
        """[B, τ, 1]."""
        error = np.clip(sample.forecast, 0, 1) - sample.truth.astype(np.float64)
        with np.errstate(divide="ignore"):
            return _ones(-10 * np.log10((error**2).mean(axis=(-3, -2, -1)))[..., None])


@dataclass(frozen=True)
class SignalToNoise:
    """OpenSTL's SNR, dB: mean square of the truth over that of the error, forecasts clipped to [0, 1]."""

    power: ClassVar[int] = 0

    def count(self, sample: Sample) -> Counted:
        """[B, τ, 1]."""
        truth = sample.truth.astype(np.float64)
        error = np.clip(sample.forecast, 0, 1) - truth
        signal, noise = ((x**2).mean(axis=(-3, -2, -1)) for x in (truth, error))
        with np.errstate(divide="ignore", invalid="ignore"):
            return _ones(10 * np.log10(signal / noise)[..., None])


def mean_over_cells(values: np.ndarray, weights: np.ndarray | None, masked: bool) -> Counted:
    """Weighted sums over cells [..., H, W] and sums of the weights; NaN cells have none."""
    shape = values.shape[:-2]
    if masked:
        finite = np.isfinite(values)
        share = finite * (1.0 if weights is None else weights)
        return np.where(finite, values * share, 0.0).sum(axis=(-2, -1)), share.sum(axis=(-2, -1))
    if weights is None:
        return values.sum(axis=(-2, -1)), np.full(shape, float(values.shape[-2] * values.shape[-1]))
    return np.einsum("...hw,hw->...", values, weights), np.full(shape, weights.sum())


def _ones(values: np.ndarray) -> Counted:
    return values, np.ones_like(values)


def quotient(above: Any, below: Any) -> np.ndarray:
    """above / below; NaN where nothing was counted."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(above) / np.asarray(below)
