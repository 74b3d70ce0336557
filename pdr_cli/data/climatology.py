"""Climatology: the mean field by hour of day, day of week and season, fitted in one pass over the training frames.

Each time of day has a mean, and an annual cycle, of its own (groups), or on large grids all share one sum of daily and annual
harmonics, whose size does not grow with the times of day.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pdr_cli.data import times as time_axis
from pdr_cli.data.times import DAY, WEEK, YEAR, Step

TIMES_OF_DAY = 48  # the daily cycle is resolved to half-hours
HARMONICS = 2  # of the annual cycle
ANNUAL_TERMS = 1 + 2 * HARMONICS
WEEKS_NEEDED, YEARS_NEEDED = 3, 2
SUMS_MB = 256  # sums of products of groups kept while fitting, at most
HARMONICS_MB = 4096  # the same of harmonics; the coefficients in memory and in the model file are half of it
DAILY_HARMONICS = 2  # of the daily cycle
CELLS_AT_ONCE = 2**20  # values of a frame whose coefficients are solved for at once
HARMONIC = "harmonics"
SHARE = 0.99  # of the weeks or years needed, so that the last step of a series may be missing
# Condition number of an annual cycle's normal matrix: 2 for evenly sampled years, thousands where a season is missing.
WELL_POSED = 100.0


@dataclass(frozen=True)
class Design:
    """How times are grouped, and whether each group has an annual cycle of its own.

    Args:
        kind: "mean", "day", "week", "month" or "year"; "day+year" and "week+year" have an annual cycle in each group;
            "harmonics:2,1" is a sum of two harmonics of the day and one of the year.
        groups: times of day, times of week, or the twelve months; 1 of harmonics.
    """

    kind: str
    groups: int

    @classmethod
    def of_harmonics(cls, daily: int, annual: int) -> Design:
        """The mean and so many harmonics of the day and of the year."""
        return cls(f"{HARMONIC}:{daily},{annual}", 1)

    @property
    def harmonics(self) -> tuple[int, int] | None:
        """The harmonics of the day and of the year that all times share; None of groups."""
        name, _, numbers = self.kind.partition(":")
        if name != HARMONIC:
            return None
        daily, annual = numbers.split(",")
        return int(daily), int(annual)

    @property
    def terms(self) -> int:
        """Coefficients of each group, k: its mean, and a cosine and a sine for each harmonic."""
        if self.harmonics is not None:
            return 1 + 2 * sum(self.harmonics)
        return ANNUAL_TERMS if "year" in self.kind else 1

    def group_of(self, times: np.ndarray) -> np.ndarray:
        """The group of each time: [T]."""
        if self.groups == 1:
            return np.zeros(len(times), dtype=int)
        if self.kind == "month":
            return time_axis.months(times) % 12
        period, monday = (WEEK, 4 * DAY) if "week" in self.kind else (DAY, 0.0)  # 1970-01-05 was a Monday
        phase = (time_axis.seconds(times) - monday) % period / period
        return np.round(phase * self.groups).astype(int) % self.groups

    def annual(self, times: np.ndarray) -> np.ndarray:
        """The terms of each time, which are annual but for those of `harmonics`: [T, k]."""
        if self.terms == 1:
            return np.ones((len(times), 1))
        if self.harmonics is None:
            return np.hstack([np.ones((len(times), 1)), _waves(time_axis.year_fraction(times), HARMONICS)])
        daily, annual = self.harmonics
        day = _waves(time_axis.seconds(times) % DAY / DAY, daily)
        return np.hstack([np.ones((len(times), 1)), day, _waves(time_axis.year_fraction(times), annual)])


def _waves(phase: np.ndarray, harmonics: int) -> np.ndarray:
    """Cosines and sines of phases in [0, 1), [T] → [T, 2 · harmonics]."""
    angle = 2 * np.pi * phase[:, None] * np.arange(1, harmonics + 1)
    return np.hstack([np.cos(angle), np.sin(angle)])


@dataclass(frozen=True)
class Climatology:
    """The mean frame of any time: a linear model of hour, day of week and season, fitted to training data.

    Args:
        kind: as in `Design`.
        coefficients: [p, C, H, W] in data units; p = groups x terms, the terms of a group side by side.
        covered: seconds of training data it was fitted to; 0 if unknown.
    """

    kind: str
    coefficients: np.ndarray
    covered: float = 0.0

    @property
    def design(self) -> Design:
        """Groups and terms of the p coefficients."""
        return Design(self.kind, len(self.coefficients) // Design(self.kind, 1).terms)

    def at(self, times: np.ndarray) -> np.ndarray:
        """The climatological frames of these times: [T, C, H, W]."""
        design = self.design
        first, annual = design.group_of(times) * design.terms, design.annual(times)
        frames = self.coefficients[first]
        for term in range(1, design.terms):
            frames = frames + annual[:, term, None, None, None] * self.coefficients[first + term]
        return frames.astype(np.float32)

    def reoriented(self, reorient: Callable[[np.ndarray], np.ndarray]) -> Climatology:
        """The same in another orientation of the grid; `reorient` maps [..., H, W], as `Orientation.invert` does."""
        return dataclasses.replace(self, coefficients=reorient(self.coefficients))

    @property
    def description(self) -> str:
        """In words: "hour of day and day of week, 5 weeks of training"."""
        design = self.design
        if design.harmonics is not None:
            cycles = zip(design.harmonics, ("day", "year"), strict=True)
            words = [f"{n} harmonic{'s' if n > 1 else ''} of the {cycle}" for n, cycle in cycles if n]
            return _listed(words) + (f", {_duration(self.covered)} of training" if self.covered else "")
        hours = "" if design.groups in (1, 7) else f"{'half-' if design.groups in (48, 7 * 48) else ''}hour of day"
        parts = {
            "mean": ["mean of all times"],
            "month": ["month of year"],
            "day": [hours],
            "week": [hours, "day of week"],
            "year": ["day of year"],
            "day+year": [hours, "day of year"],
            "week+year": [hours, "day of week", "day of year"],
        }[self.kind]
        return _listed([p for p in parts if p]) + (f", {_duration(self.covered)} of training" if self.covered else "")


def choose(times: np.ndarray, step: Step | None, weekly: bool, frame_values: int) -> Design:
    """The finest climatology that the training times determine and that fits in memory.

    It resolves the hour of day if the step divides a day, the day of week if the data have a weekly cycle and cover 3
    weeks, and the season if they cover 2 years and every month. If the sums of all groups exceed 256 MB, neighbouring
    hours share a group; if that does not suffice, the week and then the annual cycle are left out. Where a daily or annual
    cycle would be left out, as on grids of hundreds of thousands of values, harmonics take the place of groups, as many as
    4 GB of sums hold.

    Args:
        times: [T] of the training frames; clips have no climatology but their mean.
        step: of the series; None for clips.
        weekly: whether the data have a weekly cycle.
        frame_values: C x H x W.
    """
    if step is None or np.issubdtype(times.dtype, np.floating):
        return Design("mean", 1)
    yearly = covered(times, step) >= SHARE * YEARS_NEEDED * YEAR and _every_month(times)
    if step.unit == "month":
        return Design("month", 12) if covered(times, step) >= SHARE * YEARS_NEEDED * YEAR else Design("mean", 1)
    per_day = DAY / step.count
    whole_day = per_day > 1 - 1e-6 and abs(per_day - round(per_day)) < 1e-6
    weekly = weekly and whole_day and covered(times, step) >= SHARE * WEEKS_NEEDED * WEEK
    affordable = SUMS_MB * 1e6 / (8 * frame_values)
    times_of_day = round(per_day) if whole_day else 1
    designs = _finest_first(times_of_day, weekly, yearly)
    grouped = next((d for d in designs if d.groups * d.terms <= affordable), Design("mean", 1))
    lost_day = times_of_day > 2 and grouped.groups == 1
    if not lost_day and (not yearly or "year" in grouped.kind):
        return grouped
    affordable = HARMONICS_MB * 1e6 / (8 * frame_values)
    return next((d for d in _harmonics(times_of_day, yearly) if d.terms <= affordable), grouped)


def covered(times: np.ndarray, step: Step) -> float:
    """Seconds that these frames cover, one step each; a time that occurs twice counts once."""
    return len(np.unique(time_axis.seconds(times))) * step.hours * 3600


def _finest_first(per_day: int, weekly: bool, yearly: bool) -> Iterator[Design]:
    hours = [n for n in range(min(per_day, TIMES_OF_DAY), 0, -1) if per_day % n == 0]
    for year in (True, False) if yearly else (False,):
        for week in (True, False) if weekly else (False,):
            for n in hours:
                parts = ["week"] if week else ["day"] if n > 1 else []
                yield Design("+".join(parts + ["year"] * year) or "mean", 7 * n if week else n)


def _harmonics(per_day: int, yearly: bool) -> Iterator[Design]:
    """Sums of harmonics that the times of day resolve, the finest first; the annual cycle is left out last."""
    most = min(DAILY_HARMONICS, (per_day - 1) // 2)
    for annual in range(HARMONICS if yearly else 0, -1, -1):
        for daily in range(most, -1, -1):
            if daily + annual:
                yield Design.of_harmonics(daily, annual)


def _every_month(times: np.ndarray) -> bool:
    return len(np.unique(time_axis.months(times) % 12)) == 12


class Fit:
    """Least squares from running sums: X'X of each group [G, k, k] and X'Y [G, k, C·H·W]."""

    def __init__(self, design: Design, frame: tuple[int, int, int]) -> None:
        self.design, self.frame = design, frame
        G, k = design.groups, design.terms
        self.xx = np.zeros((G, k, k))
        self.xy = np.zeros((G, k, int(np.prod(frame))))
        self.yy = np.zeros(frame[0])

    def add(self, values: np.ndarray, times: np.ndarray) -> None:
        """Frames [T, C, H, W] and their times [T]."""
        group, annual = self.design.group_of(times), self.design.annual(times)
        flat = values.reshape(len(values), -1).astype(np.float64)
        for g in np.unique(group):
            X = annual[group == g]
            self.xx[g] += X.T @ X
            self.xy[g] += X.T @ flat[group == g]
        if self.design.kind == "week":
            self.yy += np.square(values, dtype=np.float64).sum(axis=(0, 2, 3))

    def coefficients(self) -> np.ndarray:
        """[p, C, H, W]; a group without frames in enough seasons gets the coefficients of a coarser climatology."""
        if self.design.harmonics is not None:
            return self._solve_in_pieces().reshape(-1, *self.frame)
        solved = np.stack([self._solve(g) for g in range(self.design.groups)])
        if self.design.kind == "week":
            solved = self._shrunk(solved)
        return solved.reshape(-1, *self.frame).astype(np.float32)

    def _shrunk(self, means: np.ndarray) -> np.ndarray:
        """The means of the times of the week, [G, 1, C·H·W], drawn towards those of all working days or of the weekend.

        A mean of few weeks is noisy. The share by which it is drawn is the noise's share in the differences between days, one
        number for each channel (empirical Bayes; Efron and Morris, 1973).
        """
        G, C = len(means), self.frame[0]
        count = self.xx[:, 0, 0].reshape(7, -1, 1)  # [day, time of day, 1]
        sums = self.xy[:, 0].reshape(7, G // 7, -1)
        pools = [slice(0, 5), slice(5, 7)]  # the first day is Monday
        if (count < 1).any():
            return means
        pooled = np.concatenate([np.broadcast_to(sums[p].sum(0) / count[p].sum(0), sums[p].shape) for p in pools])
        own = means[:, 0].reshape(sums.shape)
        within = self.yy - (count * own**2).sum((0, 1)).reshape(C, -1).sum(-1)
        freedom = max(float(count.sum() - count.size), 1.0) * own.shape[-1] / C
        noise = within / freedom  # variance of one value around the mean of its time, [C]
        between = (own - pooled) ** 2
        spread = between.sum((0, 1)).reshape(C, -1).sum(-1) / (5 * G / 7 * own.shape[-1] / C)  # 4 + 1 free of 7 days
        share = np.clip(noise * float((1 / count).mean()) / np.maximum(spread, 1e-30), 0, 1)
        share = np.repeat(share, own.shape[-1] // C)
        drawn: np.ndarray = own + share * (pooled - own)
        return drawn.reshape(means.shape)

    def _solve(self, group: int) -> np.ndarray:
        """Coefficients [k, C·H·W] of the smallest pool of groups that determines them."""
        for members in self._pools(group):
            xx, xy = self.xx[members].sum(axis=0), self.xy[members].sum(axis=0)
            if xx[0, 0] >= len(xx) and np.linalg.cond(xx) < WELL_POSED:
                return np.linalg.solve(xx, xy)
        mean = np.zeros_like(self.xy[0])
        mean[0] = self.xy[:, 0].sum(axis=0) / self.xx[:, 0, 0].sum()
        return mean

    def _solve_in_pieces(self) -> np.ndarray:
        """Coefficients [k, C·H·W] of harmonics, float32; the mean alone where the times do not determine them."""
        xx, xy = self.xx[0], self.xy[0]
        determined = xx[0, 0] >= len(xx) and np.linalg.cond(xx) < WELL_POSED
        solved = np.zeros(xy.shape, np.float32)
        for start in range(0, xy.shape[1], CELLS_AT_ONCE):
            piece = slice(start, start + CELLS_AT_ONCE)
            if determined:
                solved[:, piece] = np.linalg.solve(xx, xy[:, piece])
            else:
                solved[0, piece] = xy[0, piece] / xx[0, 0]
        return solved

    def _pools(self, group: int) -> Iterator[np.ndarray]:
        """The group itself, the same time of day on all days of the week, all groups."""
        G = self.design.groups
        yield np.array([group])
        if "week" in self.design.kind:
            yield np.arange(group % (G // 7), G, G // 7)
        yield np.arange(G)


def _listed(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


def _duration(seconds: float) -> str:
    for length, name in ((YEAR, "year"), (WEEK, "week"), (DAY, "day")):
        if seconds >= SHARE * 2 * length:
            return f"{seconds / length:.3g} {name}s" if name == "year" else f"{seconds / length:.0f} {name}s"
    return f"{seconds / 3600:.0f} hours"
