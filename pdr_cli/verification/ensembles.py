"""Statistics of ensembles: how good the whole distribution is, and whether its spread is as large as its errors.

A single forecast is an ensemble of one member: its CRPS is the absolute error, and its spread is not defined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pdr_cli.verification.statistics import Counted, Decibels, Sample, mean_over_cells

MIDDLE = (0.1, 0.9)  # quantiles of the members between which the truth is counted


@dataclass(frozen=True)
class FairCRPS:
    """mean|x_i − y| − ½·mean_{i≠j}|x_i − x_j|, whose expectation does not depend on the number of members (Ferro, 2014).

    Of one forecast it is the absolute error. With `weights` [H, W], the mean over the area that cells stand for.
    """

    weights: np.ndarray | None = None
    power: ClassVar[int] = 1

    def count(self, sample: Sample) -> Counted:
        """[B, τ, C]."""
        return mean_over_cells(fair(members_of(sample), sample.truth), self.weights, sample.masked)


@dataclass(frozen=True)
class EnergyScore:
    """The fair energy score of each field: mean‖x_i − y‖ − ½·mean_{i≠j}‖x_i − x_j‖ (Gneiting & Raftery, 2007).

    ‖·‖ is the root mean square over the cells of a field. Members that hang together as the truth does score better than
    others with the same CRPS.
    """

    power: ClassVar[int] = 1

    def count(self, sample: Sample) -> Counted:
        """[B, τ, C]."""
        members = members_of(sample)
        M = len(members)
        total = np.stack([_size(x - sample.truth, sample.masked) for x in members]).mean(axis=0)
        for i in range(1, M):
            apart = np.stack([_size(members[i] - x, sample.masked) for x in members[:i]])
            total -= apart.sum(axis=0) / (M * (M - 1))
        defined = np.isfinite(total)
        return np.where(defined, total, 0.0), defined.astype(float)


@dataclass(frozen=True)
class SpreadSkill:
    """(M + 1) / M · variance of the members over the squared error of their mean, of which the score takes the root.

    1: the spread is as large as the errors (Fortin et al., 2014).

    Args:
        data_range: [C], by which channels of different units are scaled.
    """

    data_range: np.ndarray
    power: ClassVar[int] = 0

    def count(self, sample: Sample) -> Counted:
        """[B, τ, C]; nothing of a single forecast."""
        if sample.members is None or len(sample.members) < 2:
            return _nothing(sample)
        M = len(sample.members)
        variance = sample.members.var(axis=0, ddof=1, dtype=np.float64) * (M + 1) / M
        scale = self.data_range.astype(np.float64) ** 2
        spread, error = (mean_over_cells(x, None, sample.masked)[0] for x in (variance, sample.error**2))
        return spread / scale, error / scale


@dataclass(frozen=True)
class Coverage:
    """Share of truths between the 10 % and the 90 % quantile of the members: 0.8 of a reliable ensemble.

    The quantile of level p of M members is that of rank p·(M + 1), below which a further member lies with probability p; with
    fewer than 9 members the outermost are taken, and a reliable ensemble covers (M − 1) / (M + 1).
    """

    power: ClassVar[int] = 0

    def count(self, sample: Sample) -> Counted:
        """[B, τ, C]; nothing of a single forecast."""
        if sample.members is None or len(sample.members) < 2:
            return _nothing(sample)
        low, high = np.quantile(sample.members.astype(np.float64), MIDDLE, axis=0, method="weibull")
        inside = np.where(np.isfinite(sample.error), (sample.truth >= low) & (sample.truth <= high), np.nan)
        return mean_over_cells(inside.astype(np.float64), None, sample.masked)


@dataclass(frozen=True)
class BestSquaredError:
    """The squared error of the member that comes nearest to the truth of each window: a bound, not a forecast's score."""

    power: ClassVar[int] = 2

    def count(self, sample: Sample) -> Counted:
        """[B, τ, C]."""
        return _best(sample, [mean_over_cells((x - sample.truth) ** 2, None, sample.masked) for x in _double(sample)])


@dataclass(frozen=True)
class BestDecibels:
    """PSNR of the member that comes nearest to the truth of each window: a bound, as published stochastic rows print.

    Args:
        data_range: [C], in data units.
    """

    data_range: np.ndarray
    power: ClassVar[int] = 0

    def count(self, sample: Sample) -> Counted:
        """[B, τ, 1]."""
        psnr = Decibels(self.data_range)
        each = [psnr.count(Sample(x, sample.truth, masked=sample.masked)) for x in members_of(sample)]
        return _best(sample, each, upwards=True)


def members_of(sample: Sample) -> np.ndarray:
    """The members, [M, B, τ, C, H, W]; of a single forecast, itself alone."""
    return sample.forecast[None] if sample.members is None else sample.members


def central(frames: np.ndarray) -> np.ndarray:
    """Single forecasts [B, τ, C, H, W], or the mean of members [M, B, τ, C, H, W]."""
    return frames if frames.ndim == 5 else frames.mean(axis=0, dtype=np.float64).astype(np.float32)


def fair(members: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The fair CRPS of each value: members [M, ...] and truth [...] → [...]; NaN where one is missing."""
    M = len(members)
    ordered = np.sort(members.astype(np.float64), axis=0)
    found = np.abs(ordered - truth).mean(axis=0)
    if M > 1:
        # Of sorted members, the mean difference is a sum with weights.
        ranks = np.arange(1 - M, M, 2).reshape(-1, *[1] * truth.ndim)
        found -= (ordered * ranks).sum(axis=0) / (M * (M - 1))
    return np.asarray(found)


def _double(sample: Sample) -> np.ndarray:
    return members_of(sample).astype(np.float64)


def _size(error: np.ndarray, masked: bool) -> np.ndarray:
    """The root mean square of each field: [B, τ, C, H, W] → [B, τ, C]; NaN without cells."""
    total, cells = mean_over_cells(np.square(error, dtype=np.float64), None, masked)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt(total / cells))


def _nothing(sample: Sample) -> Counted:
    empty = np.zeros(sample.truth.shape[:3])
    return empty, empty


def _best(sample: Sample, each: list[Counted], upwards: bool = False) -> Counted:
    """What is counted of the best member of each window, by the mean over its frames."""
    above, below = (np.stack(part) for part in zip(*each, strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        score = above.sum(axis=(2, 3)) / below.sum(axis=(2, 3))  # [M, B]
    score = np.where(np.isfinite(score), -score if upwards else score, np.inf)
    chosen = score.argmin(axis=0), np.arange(len(sample.truth))
    return above[chosen], below[chosen]
