"""Context: what a network is given beside the observed frames of a window: climatology and earlier cycles."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pdr_cli.data import further
from pdr_cli.data import times as time_axis
from pdr_cli.data.climatology import Climatology
from pdr_cli.data.times import DAY, WEEK, Step
from pdr_cli.data.windows import Windows
from pdr_cli.errors import ConfigError, TimeError
from pdr_cli.settings import AUTO

STANDARD = ("standard", "gregorian", "proleptic_gregorian", "")  # "": numbers, which are not dates
CYCLES = {"d": DAY, "w": WEEK}  # units of data.back, in seconds


@dataclass(frozen=True)
class Moments:
    """The times of windows, and the frames before them.

    Args:
        observed: times of the observed frames, [T] of each window.
        following: times of the frames to forecast, [τ] of each window.
        back: frames n steps before the last observed one, [B, C, H, W]; NaN where the series has none. n = 0 is that frame.
        given: of each window, the frames of the further variables at any times, [n, F, H, W], NaN where missing; empty
            without such variables.
    """

    observed: Sequence[np.ndarray]
    following: Sequence[np.ndarray]
    back: Callable[[int], np.ndarray]
    given: Sequence[Callable[[np.ndarray], np.ndarray]] = ()

    @classmethod
    def of(cls, windows: Windows, which: np.ndarray) -> Moments:
        """The moments of the windows numbered `which`."""
        times, T = [windows.times(int(i)) for i in which], windows.in_steps
        observed, following = [t[:T] for t in times], [t[T:] for t in times]
        return cls(observed, following, lambda n: windows.before(which, n), given_of(windows, which))


def given_of(windows: Windows, which: np.ndarray) -> list[Callable[[np.ndarray], np.ndarray]]:
    """What reads the further variables of each window; empty without such variables."""
    found = [further.of(windows.series[int(windows.places[i, 0])]) for i in which]
    return [one.at for one in found if one is not None]


@dataclass(frozen=True)
class Context:
    """What a network is given beside the observed frames [B, T, C, H, W], in data units; None where it needs none.

    Args:
        normal: the climatology at observed and forecast times, [B, T + τ, C, H, W].
        earlier: the frame of the same time in earlier cycles, [B, L, τ, C, H, W]; NaN where it is missing.
        covariates: in network units, [B, T + τ, F, H, W].
        times: of observed and forecast frames, [B, T + τ] int64 seconds since 1970 of the standard calendar, for a program that
            computes from them what depends on times alone.
    """

    normal: np.ndarray | None = None
    earlier: np.ndarray | None = None
    covariates: np.ndarray | None = None
    times: np.ndarray | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, those that are None left out."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @property
    def read_sha256(self) -> str:
        """SHA-256 of what was read beside the window: frames of earlier cycles and covariates; "" without."""
        read = (values for values in (self.earlier, self.covariates) if values is not None)
        return "".join(hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest() for values in read)

    def part(self, start: int, stop: int) -> Context:
        """The context of windows [start, stop)."""
        return dataclasses.replace(self, **{name: value[start:stop] for name, value in self.arrays().items()})

    @classmethod
    def joined(cls, parts: Sequence[Context]) -> Context:
        """The context of the windows of several."""
        return cls(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in parts[0].arrays()})


def for_each(at: Callable[[np.ndarray], np.ndarray], times: Sequence[np.ndarray]) -> np.ndarray:
    """What `at` makes of the times [n] of each of B windows: [B, n, ...]; of a time that several windows have, once.

    at: times [m] → [m, ...], each row from its own time alone.
    """
    every = np.concatenate(times)
    _, first, where = np.unique(time_axis.seconds(every), return_index=True, return_inverse=True)
    return np.asarray(at(every[first])[where.reshape(len(times), -1)])


class FieldSource(Protocol):
    """What makes further fields of windows, as `covariates.CovariateSource`."""

    @property
    def reach(self) -> int: ...
    def of(self, moments: Moments) -> np.ndarray: ...


@dataclass(frozen=True)
class ContextSource:
    """Makes the context of windows.

    Args:
        climatology: of the training data; None if the network needs none.
        cycles: lengths of the earlier cycles, in steps.
        covariates: makes them; None if the network reads none.
        timed: True: give the times, and not the climatology.
    """

    climatology: Climatology | None = None
    cycles: tuple[int, ...] = ()
    covariates: FieldSource | None = None
    timed: bool = False

    @property
    def reach(self) -> int:
        """Frames before the first observed one that the context is made of, at most."""
        return max(0, *self.cycles, 0 if self.covariates is None else self.covariates.reach)

    def of(self, moments: Moments) -> Context:
        """The context of windows."""
        covariates = None if self.covariates is None else self.covariates.of(moments)
        times = [np.concatenate(pair) for pair in zip(moments.observed, moments.following, strict=True)]
        if self.timed:
            return Context(None, self._earlier(moments), covariates, _seconds(times))
        normal = None if self.climatology is None else for_each(self.climatology.at, times)
        return Context(normal, self._earlier(moments), covariates)

    def _earlier(self, moments: Moments) -> np.ndarray | None:
        if not self.cycles:
            return None
        steps = len(moments.following[0])
        ages = [[latest_age(lead, cycle) for lead in range(1, steps + 1)] for cycle in self.cycles]
        frames = {age: moments.back(age) for age in sorted({age for row in ages for age in row})}
        return np.stack([np.stack([frames[age] for age in row], axis=1) for row in ages], axis=1)


def _seconds(times: Sequence[np.ndarray]) -> np.ndarray:
    """The times of windows, [n] each, as int64 seconds since 1970: [B, n].

    Raises:
        TimeError: dates of another calendar than the standard one.
    """
    calendar = time_axis.calendar(times[0])
    if calendar not in STANDARD:
        raise TimeError(
            f"the input's times are of the calendar {calendar}, and an exported program computes in the standard one",
            way_out="name the model that it was exported from",
        )
    return np.stack([np.round(time_axis.seconds(of)).astype(np.int64) for of in times])


def latest_age(lead: int, cycle: int) -> int:
    """Steps from the last observed frame back to the latest observed one at the same place in the cycle as a lead."""
    return -lead % cycle


def cycles_of(option: Sequence[str], step: Step, weekly: bool, frames: int, key: str = "data.back") -> tuple[int, ...]:
    """The lengths of cycles in steps.

    Args:
        option: such as "1d" and "1w"; "auto": a day and a week for data with a weekly cycle, as far as the step divides them
            and the training data cover three of them.
        step: of the series.
        weekly: whether the data have a weekly cycle.
        frames: of the training data.
        key: of the option.

    Raises:
        ConfigError: the step does not divide a cycle.
    """
    if list(option) == [AUTO]:
        found = [cycle for seconds in (DAY, WEEK) if (cycle := _in_steps(seconds, step)) is not None]
        return tuple(cycle for cycle in found if weekly and frames >= 3 * cycle)
    cycles = []
    for text in option:
        cycle = _in_steps(int(text[:-1]) * CYCLES[text[-1]], step)
        if cycle is None:
            raise ConfigError(
                f"{key} is {text}, which steps of {step} do not divide into two or more", way_out="leave it out"
            )
        cycles.append(cycle)
    return tuple(cycles)


def _in_steps(seconds: float, step: Step) -> int | None:
    """Steps in a cycle; None if they do not divide it, or it has fewer than two."""
    count = seconds / step.count if step.unit == "s" else 0.0
    return round(count) if count > 1.5 and abs(count - round(count)) < 1e-6 else None
