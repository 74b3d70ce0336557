"""Analyses beside scores: contrast, flicker, lost detail and conditional bias, which a mean error does not show.

Each analysis takes a batch at a time with `add`, in constant memory, and returns JSON values with `result`: None where no
value counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdr_cli.errors import GridError, UsageError
from pdr_cli.models.motion import warp
from pdr_cli.verification.networks.flow import Flow, consistent

LEVELS = 256  # of an 8-bit picture
FINE = 4.0  # longest wavelength, in cells, that a network which halves the resolution cannot represent


class Concentration:
    """Distribution of pixel values (the paper's Table 10): nearer to the truth's is better, larger is not.

    Each sequence, clipped to [0, 1] and taken as an 8-bit picture, has a kurtosis (Pearson's: a normal distribution
    has 3) and a saturation (share of pixels at the highest level), both over all its pixels, and a diversity (number
    of levels that occur). `p90` is the 90th percentile of the values before rounding. The result is the mean over
    sequences; a sequence of one level has no kurtosis and is not in the mean of it.
    """

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, frames: np.ndarray) -> None:
        """Sequences [B, τ, C, H, W] in unit scale; NaN cells do not count."""
        for sequence in frames:
            values = np.clip(sequence[np.isfinite(sequence)].astype(np.float64), 0, 1)
            if values.size:
                for name, number in _concentration(values).items():
                    self._sums[name] = self._sums.get(name, 0.0) + number
                    self._counts[name] = self._counts.get(name, 0) + 1

    def result(self) -> dict[str, float | None]:
        """{"kurtosis": …, "saturation": …, "diversity": …, "p90": …}."""
        wanted = ("kurtosis", "saturation", "diversity", "p90")
        return {k: self._sums[k] / self._counts[k] if k in self._sums else None for k in wanted}


def _concentration(values: np.ndarray) -> dict[str, float]:
    """Measures of one sequence of values in [0, 1]; without "kurtosis" where all are equal."""
    levels = np.arange(LEVELS)
    share = np.bincount(np.rint(values * (LEVELS - 1)).astype(np.intp), minlength=LEVELS) / values.size
    anomaly = levels - share @ levels
    out = {
        "saturation": float(share[-1]),
        "diversity": float(np.count_nonzero(share)),
        "p90": float(np.quantile(values, 0.9)),
    }
    if out["diversity"] > 1:
        out["kurtosis"] = float(share @ anomaly**4 / (share @ anomaly**2) ** 2)
    return out


class WarpingError:
    """Flicker (the paper's Table 11): difference of a frame from the one before it, warped by the true motion.

    The flow from each true frame back to the one before it warps the forecast of that earlier frame, which is then
    compared with the forecast of the later one. The truth has such an error too, from the flow and from occlusion: a
    smaller error than the truth's means too smooth, not better.

    Args:
        flow: flow between frames on the scale of [0, 1]: `RAFT.flow` or `motion.flow_between`.
    """

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self._sums: dict[str, np.ndarray] = {}

    def add(self, truth: np.ndarray, forecasts: Mapping[str, np.ndarray]) -> None:
        """Truth and forecasts of it by name, [B, τ, C, H, W] each, in unit scale; NaN cells do not count.

        Raises:
            UsageError: fewer than two lead times.
        """
        if truth.shape[1] < 2:
            raise UsageError(
                f"--metrics warping compares consecutive frames; the forecasts have {truth.shape[1]}",
                "two lead times or more",
                "leave out warping",
            )
        before, after = (_filled(x) for x in _neighbours(truth))
        backward, forward = self.flow(after, before), self.flow(before, after)
        visible = consistent(forward, backward)[:, None]
        for name, frames in {**forecasts, "truth": truth}.items():
            earlier, later = _neighbours(frames)
            error = warp(earlier, backward.to(earlier)) - later
            self._sums[name] = self._sums.get(name, 0.0) + _warping_sums(error, visible)

    def result(self) -> dict[str, dict[str, float | None]]:
        """{name: {"l1", "l2", "l1_visible", "l2_visible", "visible"}}, "truth" among the names.

        `l1` and `l2` are the means of |error| and error² over all cells, as published; `…_visible` over the share
        `visible` of the cells without occlusion, where the flows forward and backward agree.
        """
        out = {}
        for name, (l1, l2, cells, seen_l1, seen_l2, seen) in self._sums.items():
            out[name] = {
                "l1": _mean(l1, cells),
                "l2": _mean(l2, cells),
                "l1_visible": _mean(seen_l1, seen),
                "l2_visible": _mean(seen_l2, seen),
                "visible": _mean(seen, cells),
            }
        return out


def _neighbours(frames: np.ndarray) -> tuple[Tensor, Tensor]:
    """[B, τ, C, H, W] → earlier and later frame of each pair, [B · (τ − 1), C, H, W]."""
    x = torch.from_numpy(np.ascontiguousarray(frames, np.float32))
    return x[:, :-1].flatten(0, 1), x[:, 1:].flatten(0, 1)


def _filled(frames: Tensor) -> Tensor:
    """[n, C, H, W] with the mean of the frame instead of NaN, 0 where all are NaN."""
    return torch.where(frames.isfinite(), frames, frames.nanmean(dim=(-2, -1), keepdim=True).nan_to_num())


def _warping_sums(error: Tensor, visible: Tensor) -> np.ndarray:
    """[6]: Σ|error|, Σerror² and their number, over finite cells and over finite visible cells."""
    finite = error.isfinite()
    out = []
    for kept in (finite, finite & visible):
        e = torch.where(kept, error, 0.0).double()
        out += [e.abs().sum(), e.square().sum(), kept.sum()]
    return np.array([float(x) for x in out])


def _mean(total: float, count: float) -> float | None:
    return float(total / count) if count else None


class Spectra:
    """Variance by wavelength: the radially averaged power spectral density.

    Each frame's mean is removed and a Hann window lets it fade to zero at its borders, which do not join: the jump from
    border to border would look like detail, fall off more slowly than that of any real field, and hide lost detail. Bins
    are as wide as the longest side resolves, and end at the wavelength of two cells (of the wider spacing), so that each
    direction counts at each scale. White noise of variance σ² has the density σ² · dy · dx in every bin.

    Args:
        size: (H, W).
        spacing: (dy, dx), the distance of cells; wavelengths are in its units.
        windowed: fade out at the borders; not for fields that are periodic both ways.

    Raises:
        GridError: fewer than 2 x 2 cells.
    """

    def __init__(
        self, size: tuple[int, int], spacing: tuple[float, float] = (1.0, 1.0), *, windowed: bool = True
    ) -> None:
        if min(size) < 2:
            raise GridError(
                f"--metrics spectra: frames are {size[0]} x {size[1]}", "2 x 2 cells or more", "leave out spectra"
            )
        lengths = np.array(size) * spacing
        wavenumber = np.hypot(np.fft.fftfreq(size[0], spacing[0])[:, None], np.fft.fftfreq(size[1], spacing[1]))
        bins = np.rint(wavenumber * lengths.max()).astype(np.intp).ravel()
        bins[(wavenumber > (1 + 1e-9) / (2 * max(spacing))).ravel()] = 0  # bin 0, the mean, is not returned
        self.window = np.outer(_hann(size[0]), _hann(size[1])) if windowed else np.ones(size)
        self.density = spacing[0] * spacing[1] / (self.window**2).sum()
        self.modes = np.bincount(bins)[1:]
        self.wavelength = self.modes / np.bincount(bins, weights=wavenumber.ravel())[1:]
        self.fine = self.wavelength < FINE * max(spacing)
        self.frames, self.skipped, self.missing = 0, 0, 0
        self._bins = bins
        self._sums: np.ndarray | float = 0.0  # [C, bins]
        self._counts: np.ndarray | float = 0.0  # [C, 1]

    def add(self, frames: np.ndarray) -> None:
        """Frames [n, C, H, W] at one lead time; to average over channels, give them on one scale.

        A NaN counts as the mean of its frame; a frame that is NaN by more than half does not count.
        """
        valid = np.isfinite(frames)
        used = valid.mean(axis=(-2, -1)) >= 0.5  # [n, C]
        weight = valid * self.window
        total = np.where(valid, frames, 0).astype(np.float64)
        mean = (total * weight).sum(axis=(-2, -1)) / np.maximum(weight.sum(axis=(-2, -1)), 1e-300)
        anomaly = np.where(valid & used[..., None, None], total - mean[..., None, None], 0)
        anomaly[np.abs(anomaly) <= 1e-12 * np.abs(mean[..., None, None])] = (
            0  # rounding errors of a constant are not detail
        )
        power = (np.abs(np.fft.fft2(anomaly * self.window)) ** 2).sum(axis=0) * self.density  # [C, H, W]
        binned = [np.bincount(self._bins, weights=p.ravel())[1:] / self.modes for p in power]
        self._sums = self._sums + np.stack(binned)
        self._counts = self._counts + used.sum(axis=0)[:, None]
        self.frames += int(used.sum())
        self.skipped += int((~used).sum())
        self.missing += int((~valid & used[..., None, None]).sum())

    @property
    def power(self) -> np.ndarray:
        """[C, bins], in squared units of the frames times squared units of the spacing; NaN without frames."""
        with np.errstate(invalid="ignore"):
            return np.atleast_2d(np.divide(self._sums, self._counts))

    def result(self) -> dict[str, Any]:
        """{"wavelength", "power"} from long to short, power averaged over channels; counts of frames and NaN cells."""
        return {
            "wavelength": self.wavelength.tolist(),
            "power": np.nanmean(self.power, axis=0).tolist() if self.frames else None,
            "frames": self.frames,
            "skipped": self.skipped,
            "missing": self.missing,
        }


def ratio(forecast: Spectra, truth: Spectra) -> float | None:
    """Power of a forecast at the finest scales over the truth's: 1 alike, less too smooth, more too noisy.

    The finest scales are wavelengths of 2 to 4 cells, the shortest octave of the grid, which bilinear interpolation,
    averages over possible outcomes and coarse latent grids lose first. The mean over the channels where the truth has
    such detail; None if no channel has.
    """
    if not (forecast.frames and truth.frames):
        return None
    own, wanted = ((s.power * s.modes)[:, s.fine].sum(axis=1) for s in (forecast, truth))
    detailed = (wanted > 0) & np.isfinite(own)
    return float((own[detailed] / wanted[detailed]).mean()) if detailed.any() else None


def _hann(n: int) -> np.ndarray:
    """[n], symmetric and nowhere zero."""
    return np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2


class Calibration:
    """Conditional bias: mean observation by forecast value.

    Args:
        low, high: the range of forecast values that is divided into bins; values beyond are in the outermost bins.
        bins: how many.

    Raises:
        UsageError: an empty range, or no bin.
    """

    def __init__(self, low: float, high: float, bins: int = 20) -> None:
        if not low < high or bins < 1:
            raise UsageError(
                f"--metrics calibration: values from {low} to {high} in {bins} bins", "a range and a bin or more"
            )
        self.low, self.high, self.bins = low, high, bins
        self._sums = np.zeros((3, bins))  # number, Σ forecast, Σ truth

    def add(self, forecast: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> None:
        """Forecast and truth of one shape; cells count if `valid` (default: all) and both finite."""
        kept = np.isfinite(forecast) & np.isfinite(truth)
        kept = kept if valid is None else kept & valid
        values, observed = forecast[kept].astype(np.float64), truth[kept].astype(np.float64)
        place = (values - self.low) / (self.high - self.low) * self.bins
        index = np.clip(np.floor(place), 0, self.bins - 1).astype(np.intp)
        for row, weights in enumerate((None, values, observed)):
            self._sums[row] += np.bincount(index, weights, minlength=self.bins)

    def result(self) -> dict[str, Any]:
        """{"forecast", "observed", "count"} of the bins that are not empty, from low to high."""
        count, values, observed = self._sums[:, self._sums[0] > 0]
        return {
            "forecast": (values / count).tolist(),
            "observed": (observed / count).tolist(),
            "count": [int(n) for n in count],
        }


class Sharpness:
    """Mean |∇forecast| over mean |∇truth|: 1 as sharp as the truth; below blurred, above noisy."""

    def __init__(self) -> None:
        self._sums = np.zeros(2)

    def add(self, forecast: np.ndarray, truth: np.ndarray) -> None:
        """Forecast and truth [..., H, W] in the same units; cells where either has no gradient (NaN) do not count."""
        slopes = np.stack([_slope(forecast), _slope(truth)])
        self._sums += np.where(np.isfinite(slopes).all(axis=0), slopes, 0).reshape(2, -1).sum(axis=1)

    def result(self) -> dict[str, float | None]:
        """{"gradient_ratio": …}."""
        return {"gradient_ratio": _mean(self._sums[0], self._sums[1])}


def _slope(field: np.ndarray) -> np.ndarray:
    """|∇field| of each cell, [..., H − 1, W − 1], from differences of neighbours, which resolve a checkerboard too."""
    x = field.astype(np.float64)
    return np.hypot(np.diff(x, axis=-2)[..., :-1], np.diff(x, axis=-1)[..., :-1, :])
