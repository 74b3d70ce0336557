"""One streaming pass over the training frames: moments, extremes, quantiles and climatology."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pdr_cli.data import climatology
from pdr_cli.data import times as time_axis
from pdr_cli.data.climatology import WEEKLY_FORMATS, Climatology, Fit
from pdr_cli.data.series import Series, bytes_per_frame, frames_at_once, names, read_frames, size
from pdr_cli.data.times import Step
from pdr_cli.errors import MissingValuesError

BLOCK = 64  # frames read at once, fewer of large ones
SAMPLES = 4_000_000  # values of each channel kept for the quantiles, at most


@dataclass(frozen=True)
class Statistics:
    """Of each channel over the training frames: mean, sd, min, max, and the range between quantiles 0.1 % and 99.9 %: [C]."""

    mean: np.ndarray
    sd: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    spread: np.ndarray
    climatology: Climatology


def measure(parts: Sequence[tuple[Series, int, int]], budget_mb: int, seed: int) -> Statistics:
    """Read the training frames once.

    Args:
        parts: (series, start, stop) of each training period.
        budget_mb: data read at most; beyond it, a random choice of blocks stands for all.
        seed: of that choice.

    Raises:
        MissingValuesError: NaN or infinite values, with their count.
    """
    blocks = _blocks(parts, budget_mb, seed)
    frame = (parts[0][0].sizes["channel"], *size(parts[0][0]))
    times = np.concatenate([series.time.values[start:stop] for series, start, stop in blocks])
    step = _calendar_step(parts[0][0])
    design = climatology.choose(times, step, parts[0][0].attrs["format"] in WEEKLY_FORMATS, math.prod(frame))
    sums, fit = _Sums(frame, frames_at_once(parts[0][0], BLOCK) * len(blocks)), Fit(design, frame)
    for series, start, stop in blocks:
        frames = read_frames(series, start, stop)
        check_finite(frames, series, start)
        sums.add(frames)
        fit.add(frames, series.time.values[start:stop])
    covered = 0.0 if step is None else climatology.covered(times, step)
    return sums.result(Climatology(design.kind, fit.coefficients(), covered))


def _calendar_step(series: Series) -> Step | None:
    """The step of a series whose times are dates; None for clips and single frames."""
    times = series.time.values
    if np.issubdtype(times.dtype, np.floating) or len(times) < 2:
        return None
    return time_axis.find_step(times)


def check_finite(frames: np.ndarray, series: Series, start: int) -> None:
    """Refuse NaN or infinite values in frames [T, C, H, W] of a series that begin at step `start`.

    Raises:
        MissingValuesError: says how many, in which variable and when first.
    """
    bad = ~np.isfinite(frames)
    if not bad.any():
        return
    counts = bad.sum(axis=(0, 2, 3))
    worst = int(np.argmax(counts))
    first = start + int(np.argmax(bad.any(axis=(1, 2, 3))))
    raise MissingValuesError(
        f"{series.attrs['files'][0]}: {int(counts[worst])} of {bad[:, worst].size} values of {names(series)[worst]} are "
        f"missing (NaN) between {time_axis.label(series.time.values[start])} and "
        f"{time_axis.label(series.time.values[start + len(frames) - 1])}, first at "
        f"{time_axis.label(series.time.values[first])}; fill them first, for example with: cdo setmisstonn IN OUT"
    )


def _blocks(parts: Sequence[tuple[Series, int, int]], budget_mb: int, seed: int) -> list[tuple[Series, int, int]]:
    length = frames_at_once(parts[0][0], BLOCK)
    blocks = [(s, low, min(low + length, stop)) for s, start, stop in parts for low in range(start, stop, length)]
    affordable = max(1, int(budget_mb * 1e6 / (length * bytes_per_frame(parts[0][0]))))
    if len(blocks) <= affordable:
        return blocks
    chosen = np.random.default_rng(seed).choice(len(blocks), affordable, replace=False)
    return [blocks[i] for i in sorted(chosen)]


def _next_prime(n: int) -> int:
    """The smallest prime from `n` on, or 1."""
    while any(n % k == 0 for k in range(2, math.isqrt(n) + 1)):
        n += 1
    return n


class _Sums:
    def __init__(self, frame: tuple[int, int, int], frames: int) -> None:
        channels, height, width = frame
        # Every so many values of a frame are kept; a prime stride does not follow the grid's columns.
        self.every = _next_prime(max(1, frames * height * width // SAMPLES))
        self.count = 0
        self.mean = np.zeros(channels)
        self.squares = np.zeros(channels)
        self.minimum = np.full(channels, np.inf)
        self.maximum = np.full(channels, -np.inf)
        self.samples: list[np.ndarray] = []

    def add(self, frames: np.ndarray) -> None:
        values = frames.astype(np.float64)
        n = len(values)
        # Chan's update of mean and sum of squares: exact to rounding for any number of blocks.
        mean, squares = values.mean(axis=(0, 2, 3)), values.var(axis=(0, 2, 3)) * n
        delta, total = mean - self.mean, self.count + n
        self.squares += squares + delta**2 * self.count * n / total
        self.mean += delta * n / total
        self.count = total
        self.minimum = np.minimum(self.minimum, values.min(axis=(0, 2, 3)))
        self.maximum = np.maximum(self.maximum, values.max(axis=(0, 2, 3)))
        flat = frames.reshape(*frames.shape[:2], -1)
        self.samples.append(flat[..., :: self.every].copy())

    def result(self, usual: Climatology) -> Statistics:
        samples = np.concatenate(self.samples)
        low, high = np.quantile(samples, [0.001, 0.999], axis=(0, 2))
        sd = np.sqrt(self.squares / self.count)
        return Statistics(self.mean, sd, self.minimum, self.maximum, high - low, usual)
