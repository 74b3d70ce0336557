"""Scores, each a few lines and named for its formula.

A score takes frames to numerators and denominators: one pair for each frame and channel, or for each frame where channels
are taken together. Sums of both over many frames give the score's mean, and `finish` makes the score of it: RMSE is
the root of the mean of squared errors, PSNR the mean of each frame's decibels. Nothing else is kept, so memory does not
grow with the number of windows.

Two conventions. `standard`: means per value, in the data's units. `openstl`: what the published tables of OpenSTL
print; errors are sums over a frame on a scale of [0, 1], and SSIM takes that range for 2 (docs/conventions.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pdr_cli.errors import UsageError, did_you_mean

Counted = tuple[np.ndarray, np.ndarray]  # numerators and denominators, each [B, τ, C] or [B, τ, 1]
CONVENTIONS = ("standard", "openstl")
BEST_DB = 100.0  # a perfect frame's PSNR where infinity would swallow every mean


@dataclass(frozen=True)
class Sample:
    """One batch of one forecaster beside what happened: each [B, τ, C, H, W].

    Where `masked`, some cells are NaN, the same ones in forecast and truth: they count in no score.
    """

    forecast: np.ndarray
    truth: np.ndarray
    climate: np.ndarray | None = None
    masked: bool = False

    @cached_property
    def error(self) -> np.ndarray:
        """Forecast - truth in float64."""
        return np.subtract(self.forecast, self.truth, dtype=np.float64)


class Score(Protocol):
    """A named score."""

    power: int  # of the data's unit in the mean: 2 for squared errors, 0 for a pure number

    def per_frame(self, sample: Sample) -> Counted:
        """Numerators and denominators of the score's mean."""

    def finish(self, mean: np.ndarray) -> np.ndarray:
        """The score, from means of any shape."""


class _Mean:
    power = 0

    def finish(self, mean: np.ndarray) -> np.ndarray:
        return mean


@dataclass(frozen=True)
class MSE(_Mean):
    """Mean of (forecast - truth)²; with `weights` [H, W], the mean over the area they stand for."""

    weights: np.ndarray | None = None
    power = 2

    def per_frame(self, sample: Sample) -> Counted:
        return mean_over_cells(sample.error**2, self.weights, sample.masked)


@dataclass(frozen=True)
class RMSE(MSE):
    """Root of the MSE over all frames: one root, at the end."""

    def finish(self, mean: np.ndarray) -> np.ndarray:
        return np.sqrt(mean)


@dataclass(frozen=True)
class MAE(_Mean):
    """Mean of |forecast - truth|."""

    weights: np.ndarray | None = None
    power = 1

    def per_frame(self, sample: Sample) -> Counted:
        return mean_over_cells(np.abs(sample.error), self.weights, sample.masked)


@dataclass(frozen=True)
class Bias(_Mean):
    """Mean of forecast - truth."""

    weights: np.ndarray | None = None
    power = 1

    def per_frame(self, sample: Sample) -> Counted:
        return mean_over_cells(sample.error, self.weights, sample.masked)


@dataclass(frozen=True)
class ACC(_Mean):
    """Anomaly correlation: of departures from the climatology, uncentred, per frame; the mean over frames.

    WeatherBench 2's definition (Rasp et al., 2024). A frame without anomalies does not count.
    """

    weights: np.ndarray | None = None

    def per_frame(self, sample: Sample) -> Counted:
        assert sample.climate is not None  # evaluation gives one whenever this score is asked for
        said, was = (np.subtract(x, sample.climate, dtype=np.float64) for x in (sample.forecast, sample.truth))
        both, own, wanted = (mean_over_cells(x, self.weights, sample.masked)[0] for x in (said * was, said**2, was**2))
        spread = np.sqrt(own * wanted)
        known = spread > 0
        return np.where(known, both / np.where(known, spread, 1), 0.0), known.astype(float)


@dataclass(frozen=True)
class PSNR(_Mean):
    """Mean over frames of 10 log10(range² / mse), in dB, over all channels; a perfect frame counts as `best`."""

    data_range: np.ndarray
    best: float = BEST_DB

    def per_frame(self, sample: Sample) -> Counted:
        square = (sample.error / self.data_range[:, None, None]) ** 2
        total, cells = (x.sum(axis=-1, keepdims=True) for x in mean_over_cells(square, None, sample.masked))
        with np.errstate(divide="ignore", invalid="ignore"):
            decibels = np.minimum(-10 * np.log10(total / cells), self.best)
        return np.where(cells > 0, decibels, 0.0), (cells > 0).astype(float)


@dataclass(frozen=True)
class SSIM(_Mean):
    """Mean structural similarity: Gaussian window 11 x 11, σ 1.5, windows that lie inside (Wang et al., 2004).

    Windows that touch a cell that does not count are left out.
    """

    data_range: np.ndarray

    def per_frame(self, sample: Sample) -> Counted:
        import torch

        from pdr_cli.models.similarity import ssim_map, window_means

        given, wanted, span = (
            torch.from_numpy(np.ascontiguousarray(a, np.float64))
            for a in (sample.forecast, sample.truth, self.data_range)
        )
        if not sample.masked:
            return _ones(ssim_map(given, wanted, span).mean(dim=(-3, -2, -1)).numpy()[..., None])
        absent = given.isnan()
        similar = ssim_map(given.nan_to_num(), wanted.nan_to_num(), span)
        inside = window_means(absent.double()) <= 0
        return (similar * inside).sum(dim=(-2, -1)).numpy(), inside.double().sum(dim=(-2, -1)).numpy()


@dataclass(frozen=True)
class LPIPS(_Mean):
    """Learned perceptual distance of frames brought to [0, 1] by (x - offset) / scale (Zhang et al., 2018; v0.1, AlexNet)."""

    network: Any
    offset: np.ndarray
    scale: np.ndarray

    def per_frame(self, sample: Sample) -> Counted:
        import torch

        shape = sample.forecast.shape
        given, wanted = (
            torch.from_numpy(
                np.ascontiguousarray(
                    np.clip((x - self.offset[:, None, None]) / self.scale[:, None, None], 0, 1), np.float32
                )
            ).flatten(0, 1)
            for x in (sample.forecast, sample.truth)
        )
        return _ones(self.network.distance(given, wanted).double().numpy().reshape(*shape[:2], 1))


@dataclass(frozen=True)
class FrameSum(_Mean):
    """OpenSTL's errors: `exponent` 1 or 2 of |forecast - truth|, summed over channels and cells of a frame; with
    `spatial_mean`, as for WeatherBench, divided by their number."""

    exponent: int
    spatial_mean: bool
    root: bool = False

    def per_frame(self, sample: Sample) -> Counted:
        per_cell = np.abs(sample.error) ** self.exponent
        total = per_cell.mean(axis=(-3, -2, -1)) if self.spatial_mean else per_cell.sum(axis=(-3, -2, -1))
        return _ones(total[..., None])

    def finish(self, mean: np.ndarray) -> np.ndarray:
        return np.sqrt(mean) if self.root else mean


@dataclass(frozen=True)
class UniformSSIM(_Mean):
    """OpenSTL's SSIM: scikit-image's with its 7 x 7 uniform window and sample covariances, forecasts clipped to [0, 1],
    and a range of 2, which old scikit-image took for any float."""

    data_range: float = 2.0
    window: int = 7

    def per_frame(self, sample: Sample) -> Counted:
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
class UnitPSNR(_Mean):
    """OpenSTL's PSNR: peak 1, forecasts clipped to [0, 1], infinite for a perfect frame."""

    def per_frame(self, sample: Sample) -> Counted:
        error = np.clip(sample.forecast, 0, 1) - sample.truth.astype(np.float64)
        with np.errstate(divide="ignore"):
            return _ones(-10 * np.log10((error**2).mean(axis=(-3, -2, -1)))[..., None])


@dataclass(frozen=True)
class SNR(_Mean):
    """OpenSTL's signal-to-noise ratio, dB: of the mean squares of truth and error, forecasts clipped to [0, 1]."""

    def per_frame(self, sample: Sample) -> Counted:
        truth = sample.truth.astype(np.float64)
        error = np.clip(sample.forecast, 0, 1) - truth
        signal, noise = ((x**2).mean(axis=(-3, -2, -1)) for x in (truth, error))
        with np.errstate(divide="ignore", invalid="ignore"):
            return _ones(10 * np.log10(signal / noise)[..., None])


@dataclass(frozen=True)
class Setting:
    """What scores need to know of the data.

    Args:
        data_range: [C], what SSIM and PSNR take for the full range, in data units.
        area: [H, W], cell weights of a geographic grid; None elsewhere.
        unit: offset [C] and scale [C] that bring frames to [0, 1]; None where nothing does, as for weather.
        units: of the data, as text.
        lpips: the file that --lpips-weights named.
        climate: whether there is a climatology.
    """

    data_range: np.ndarray
    area: np.ndarray | None = None
    unit: tuple[np.ndarray, np.ndarray] | None = None
    units: str = ""
    lpips: Path | None = None
    climate: bool = True
    video: bool = False


@dataclass(frozen=True)
class Kind:
    """A score by name: how it is made, its unit, and whether more of it is better."""

    make: Callable[[Setting], Score]
    units: Callable[[Setting], str] = lambda _: "1"
    higher: bool = False


def _same(setting: Setting) -> str:
    return setting.units


def _square(setting: Setting) -> str:
    return f"{setting.units}²" if setting.units not in ("", "1") else setting.units


STANDARD: dict[str, Kind] = {
    "mse": Kind(lambda s: MSE(), _square),
    "rmse": Kind(lambda s: RMSE(), _same),
    "mae": Kind(lambda s: MAE(), _same),
    "bias": Kind(lambda s: Bias(), _same),
    "acc": Kind(lambda s: ACC(_climatic(s).area), higher=True),
    "mse_lat": Kind(lambda s: MSE(_geographic(s)), _square),
    "rmse_lat": Kind(lambda s: RMSE(_geographic(s)), _same),
    "mae_lat": Kind(lambda s: MAE(_geographic(s)), _same),
    "bias_lat": Kind(lambda s: Bias(_geographic(s)), _same),
    "psnr": Kind(lambda s: PSNR(s.data_range), lambda _: "dB", higher=True),
    "ssim": Kind(lambda s: SSIM(s.data_range), higher=True),
    "lpips": Kind(lambda s: _lpips(s)),
}
OPENSTL: dict[str, Kind] = {
    "mse": Kind(lambda s: FrameSum(2, s.unit is None), _square),
    "mae": Kind(lambda s: FrameSum(1, s.unit is None), _same),
    "rmse": Kind(lambda s: FrameSum(2, s.unit is None, root=True), _same),
    "ssim": Kind(lambda s: _bounded(s, UniformSSIM()), higher=True),
    "psnr": Kind(lambda s: _bounded(s, UnitPSNR()), lambda _: "dB", higher=True),
    "snr": Kind(lambda s: _bounded(s, SNR()), lambda _: "dB", higher=True),
    "lpips": Kind(lambda s: _lpips(s)),
}


def kinds(convention: str) -> dict[str, Kind]:
    """Every score of a convention, with those that other packages plug in under `pdr.metrics`: {name: Kind}.

    Raises:
        UsageError: there is no such convention.
    """
    if convention not in CONVENTIONS:
        raise UsageError(f"--convention {convention}: use {' or '.join(CONVENTIONS)}")
    plugged = {point.name: point.load() for point in entry_points(group="pdr.metrics")}
    return (STANDARD if convention == "standard" else OPENSTL) | plugged


def build(names: Sequence[str], setting: Setting, convention: str = "standard") -> dict[str, Score]:
    """Scores by name.

    Raises:
        UsageError: an unknown name, with the nearest; or a score that these data do not have.
    """
    there = kinds(convention)
    for name in names:
        if name not in there:
            raise UsageError(
                f"--metrics {name}: no such score{_elsewhere(name, convention)}.{did_you_mean(name, there)} "
                f"There are {', '.join(there)}"
            )
    return {name: there[name].make(setting) for name in names}


def mean_over_cells(values: np.ndarray, weights: np.ndarray | None, masked: bool) -> Counted:
    """Weighted sums over cells [..., H, W] and sums of the weights; NaN cells have none."""
    shape = values.shape[:-2]
    if masked:
        there = np.isfinite(values)
        share = there * (1.0 if weights is None else weights)
        return np.where(there, values * share, 0.0).sum(axis=(-2, -1)), share.sum(axis=(-2, -1))
    if weights is None:
        return values.sum(axis=(-2, -1)), np.full(shape, float(values.shape[-2] * values.shape[-1]))
    return np.einsum("...hw,hw->...", values, weights), np.full(shape, weights.sum())


def _ones(values: np.ndarray) -> Counted:
    return values, np.ones_like(values)


def _climatic(setting: Setting) -> Setting:
    if not setting.climate:
        raise UsageError("--metrics acc: anomalies need a climatology, which comes with a model; name one with -m")
    return setting


def _geographic(setting: Setting) -> np.ndarray:
    if setting.area is None:
        raise UsageError("--metrics *_lat: area weights need a grid of latitudes and longitudes; these data have none")
    return setting.area


def _bounded(setting: Setting, score: Score) -> Score:
    if setting.unit is None:
        raise UsageError(
            "--convention openstl has ssim, psnr and snr for data on a scale of [0, 1] only; for fields it prints mse, "
            "mae and rmse"
        )
    return score


def _lpips(setting: Setting) -> LPIPS:
    from pdr_cli.verification.networks import lpips

    if not setting.video or setting.unit is None:
        raise UsageError("--metrics lpips: a distance between pictures; it is for video alone")
    if setting.lpips is None:
        raise UsageError(
            "--metrics lpips: it needs the weights of its network; name them with --lpips-weights FILE "
            "(docs/conventions.md says where they come from)"
        )
    return LPIPS(lpips.LPIPS.load(setting.lpips), *setting.unit)


def _elsewhere(name: str, convention: str) -> str:
    others: Mapping[str, Kind] = OPENSTL if convention == "standard" else STANDARD
    other = "openstl" if convention == "standard" else "standard"
    return f" under the {convention} convention (there is under --convention {other})" if name in others else ""
