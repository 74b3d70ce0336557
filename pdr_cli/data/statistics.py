"""Statistics of the training frames in one streaming pass: moments, extremes, quantiles and climatology."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pdr_cli.data import climatology, kinds, missing
from pdr_cli.data import times as time_axis
from pdr_cli.data.climatology import Climatology, Design, Fit
from pdr_cli.data.limits import Limits
from pdr_cli.data.series import Series, bytes_per_frame, frames_at_once, names, read_frames, size
from pdr_cli.data.times import Step
from pdr_cli.errors import MissingValuesError

BLOCK = 64  # frames in a block, fewer of large frames
SAMPLES = 4_000_000  # values of each channel kept for the quantiles, at most
TRAIN_WAY_OUT = "fill them first, for example with: cdo setmisstonn IN OUT"
Part = tuple[int, int, int]  # number of a series, first frame, one past the last


@dataclass(frozen=True)
class Statistics:
    """Statistics of the training frames.

    Args:
        mean: of each channel, [C], as all but the climatology.
        sd: standard deviation.
        minimum: lowest value.
        maximum: highest value.
        spread: quantile 99.9 % minus 0.1 %.
        climatology: of the frames.
    """

    mean: np.ndarray
    sd: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    spread: np.ndarray
    climatology: Climatology

    @property
    def limits(self) -> Limits:
        """The range that a model expects of its input."""
        return Limits(*(tuple(map(float, v)) for v in (self.mean, self.sd, self.minimum, self.maximum)))


@dataclass(frozen=True)
class Survey:
    """Where values are missing.

    Args:
        never_observed: cells that are missing in every training frame: [C, H, W].
        broken: of each series, the frames that lack values in other cells: [n].
        share: of missing values among those that were read.
    """

    never_observed: np.ndarray
    broken: list[np.ndarray]
    share: float


def survey(
    series: Sequence[Series],
    train: Sequence[Part],
    others: Sequence[Part],
    budget_mb: int,
    seed: int,
    hidden: np.ndarray | None = None,
) -> Survey | None:
    """Read training and other frames once for missing values; None if there are none.

    Args:
        series: that the parts are of.
        train: (number of the series, start, stop) of each training period.
        others: the same for validation and test.
        budget_mb: data read at most; beyond it, a random choice of blocks is read.
        seed: of that choice.
        hidden: channels, True in [C], whose missing values break no frame; None: no channel.

    Raises:
        MissingValuesError: infinite values, or fill values that are not declared; a channel without any value.
    """
    gaps = _Gaps(np.zeros((series[0].sizes["channel"], *size(series[0])), bool))
    for training, parts in ((True, train), (False, others)):
        for block in blocks([(series[n], start, stop) for n, start, stop in parts], budget_mb, seed):
            gaps.add(*block, training=training)
    if not gaps.frames:
        return None
    without_values = ~gaps.observed.any(axis=(1, 2))
    if without_values.any():
        name = names(series[0])[int(np.argmax(without_values))]
        raise MissingValuesError(
            f"{series[0].attrs['files'][0]}: {name} has no value at all in the training period",
            way_out="choose another variable or another data.train_period",
        )
    return gaps.result(series, hidden)


class _Gaps:
    """What a survey has read so far: the cells observed in training, and the missing cells of each incomplete frame."""

    def __init__(self, observed: np.ndarray) -> None:
        self.observed, self.values = observed, 0
        self.frames: dict[tuple[int, int], np.ndarray] = {}  # (id of the series, frame) -> packed mask of missing cells

    def add(self, series: Series, start: int, stop: int, *, training: bool) -> None:
        absent = _absent(series, start, stop)
        self.values += absent.size
        self.observed |= training & ~absent.all(axis=0)
        incomplete = np.flatnonzero(absent.any((1, 2, 3)))
        self.frames |= {(id(series), start + int(t)): np.packbits(absent[t]) for t in incomplete}

    def result(self, series: Sequence[Series], hidden: np.ndarray | None) -> Survey:
        read = self.observed if hidden is None else self.observed & ~hidden[:, None, None]
        observed = np.packbits(read)
        broken = {id(one): np.zeros(one.sizes["time"], bool) for one in series}
        for (number, t), bits in self.frames.items():
            broken[number][t] = bool(np.any(bits & observed))
        missing_values = sum(int(np.unpackbits(bits).sum()) for bits in self.frames.values())
        return Survey(~self.observed, [broken[id(one)] for one in series], missing_values / self.values)


def _absent(series: Series, start: int, stop: int) -> np.ndarray:
    """Where frames [start, stop) are NaN: [T, C, H, W]; infinite and absurd values are refused."""
    frames = read_frames(series, start, stop)
    absent = np.isnan(frames)
    missing.check(np.where(absent, 0, frames), series, start, way_out="declare its fill value as _FillValue")
    return absent


def measure(
    parts: Sequence[tuple[Series, int, int]], budget_mb: int, seed: int, never_observed: np.ndarray | None = None
) -> Statistics:
    """Read the training frames once.

    Missing values are left out; for the climatology alone they are interpolated in time.

    Args:
        parts: (series, start, stop) of each training period.
        budget_mb: data read at most; beyond it, a random choice of blocks is read.
        seed: of that choice.
        never_observed: [C, H, W], from `survey`; None where no value may be missing.

    Raises:
        MissingValuesError: NaN or infinite values, with their count.
    """
    found = blocks(parts, budget_mb, seed)
    frame, step, design = (
        (parts[0][0].sizes["channel"], *size(parts[0][0])),
        _calendar_step(parts[0][0]),
        design_of(found),
    )
    sums, fit = _Sums(frame, frames_at_once(parts[0][0], BLOCK) * len(found)), Fit(design, frame)
    for series, start, stop in found:
        frames = read_frames(series, start, stop)
        if never_observed is None:
            missing.check(frames, series, start, way_out=TRAIN_WAY_OUT)
        sums.add(frames)
        fit.add(_completed(frames, sums.mean), series.time.values[start:stop])
    covered = 0.0 if step is None else climatology.covered(_times(found), step)
    return sums.result(Climatology(design.kind, fit.coefficients(), covered))


def design_of(found: Sequence[tuple[Series, int, int]]) -> Design:
    """The design of the climatology of blocks (series, first frame, one past the last)."""
    first = found[0][0]
    frame = first.sizes["channel"] * math.prod(size(first))
    return climatology.choose(_times(found), _calendar_step(first), kinds.of(first).weekly, frame)


def _times(found: Sequence[tuple[Series, int, int]]) -> np.ndarray:
    return np.concatenate([series.time.values[start:stop] for series, start, stop in found])


def count_outside(parts: Sequence[tuple[Series, int, int]], channel: int, low: float, high: float) -> int:
    """The number of values of a channel in parts (series, first frame, one past the last) outside of [low, high]."""
    found = 0
    for series, start, stop in parts:
        at_once = frames_at_once(series, BLOCK)
        for first in range(start, stop, at_once):
            values = read_frames(series, first, min(first + at_once, stop))[:, channel]
            found += int(((values < low) | (values > high)).sum())
    return found


def _calendar_step(series: Series) -> Step | None:
    """The step of a series whose times are dates; None for clips and single frames."""
    times = series.time.values
    if np.issubdtype(times.dtype, np.floating) or len(times) < 2:
        return None
    return time_axis.find_step(times)


def _completed(frames: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Frames [T, C, H, W] with missing values interpolated in time; cells never observed get the channel's mean, [C]."""
    if np.isfinite(frames).all():
        return frames
    filled = missing.persisted(missing.between(frames))
    return np.where(np.isfinite(filled), filled, mean[:, None, None])


def blocks(parts: Sequence[tuple[Series, int, int]], budget_mb: int, seed: int) -> list[tuple[Series, int, int]]:
    """What is read of parts (series, first frame, one past the last): all blocks, or a random choice of `budget_mb`."""
    if not parts:
        return []
    length = frames_at_once(parts[0][0], BLOCK)
    every = [(s, low, min(low + length, stop)) for s, start, stop in parts for low in range(start, stop, length)]
    affordable = max(1, int(budget_mb * 1e6 / (length * bytes_per_frame(parts[0][0]))))
    if len(every) <= affordable:
        return every
    chosen = np.random.default_rng(seed).choice(len(every), affordable, replace=False)
    return [every[i] for i in sorted(chosen)]


def _next_prime(n: int) -> int:
    """The smallest prime from `n` on, or 1."""
    while any(n % k == 0 for k in range(2, math.isqrt(n) + 1)):
        n += 1
    return n


class _Sums:
    """Running moments, extremes and samples of each channel."""

    def __init__(self, frame: tuple[int, int, int], frames: int) -> None:
        channels, height, width = frame
        # Every `every`-th value of a frame is kept for the quantiles; a prime stride does not follow the grid's columns.
        self.every = _next_prime(max(1, frames * height * width // SAMPLES))
        self.count = np.zeros(channels)
        self.mean = np.zeros(channels)
        self.squares = np.zeros(channels)
        self.minimum = np.full(channels, np.inf)
        self.maximum = np.full(channels, -np.inf)
        self.samples: list[np.ndarray] = []

    def add(self, frames: np.ndarray) -> None:
        values = frames.astype(np.float64)
        observed = np.isfinite(values)
        self._add_moments(values, observed)
        self.minimum = np.minimum(self.minimum, np.where(observed, values, np.inf).min(axis=(0, 2, 3)))
        self.maximum = np.maximum(self.maximum, np.where(observed, values, -np.inf).max(axis=(0, 2, 3)))
        flat = frames.reshape(*frames.shape[:2], -1)
        self.samples.append(flat[..., :: self.every].copy())

    def _add_moments(self, values: np.ndarray, observed: np.ndarray) -> None:
        """Chan's update of mean and sum of squares: exact to rounding for any number of blocks."""
        n = observed.sum(axis=(0, 2, 3))
        mean = np.where(observed, values, 0).sum(axis=(0, 2, 3)) / np.maximum(n, 1)
        squares = np.where(observed, (values - mean[:, None, None]) ** 2, 0).sum(axis=(0, 2, 3))
        delta, total = mean - self.mean, np.maximum(self.count + n, 1)
        self.squares += squares + delta**2 * self.count * n / total
        self.mean += delta * n / total
        self.count += n

    def result(self, climatology: Climatology) -> Statistics:
        samples = np.concatenate(self.samples).swapaxes(0, 1)
        ends = [np.quantile(values[np.isfinite(values)], [0.001, 0.999]) for values in samples]
        sd = np.sqrt(self.squares / self.count)
        spread = np.array([high - low for low, high in ends])
        return Statistics(self.mean, sd, self.minimum, self.maximum, spread, climatology)
