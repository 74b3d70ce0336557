"""What a forecast has to beat: forecasts that need no model.

A forecast that cannot be made is NaN: where the series has a gap a day before, for example.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import numpy as np

from pdr_cli.data.climatology import Climatology
from pdr_cli.data.times import DAY, WEEK, Step
from pdr_cli.errors import DataError, UsageError, did_you_mean

ENTRY_POINTS = "pdr.baselines"


@dataclass(frozen=True)
class Request:
    """What a baseline is asked: windows in data units, and the times to forecast.

    Args:
        observed: [B, T, C, H, W].
        following: the times of the frames to forecast, [τ] of each window.
        step: of the series.
        back: frames `n` steps before the last observed one, [B, C, H, W]; n = 0 is that one itself. NaN where the
            series has a gap there or begins later.
    """

    observed: np.ndarray
    following: Sequence[np.ndarray]
    step: Step
    back: Callable[[int], np.ndarray]

    @property
    def steps(self) -> int:
        """τ."""
        return len(self.following[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the forecast: [B, τ, C, H, W]."""
        return (len(self.observed), self.steps, *self.observed.shape[2:])


Baseline = Callable[[Request], np.ndarray]  # -> forecast [B, τ, C, H, W] in data units


def persistence(request: Request) -> np.ndarray:
    """Nothing changes: the last observed frame, for every lead time."""
    return np.repeat(request.observed[:, -1:], request.steps, axis=1)


def climatology(known: Climatology) -> Baseline:
    """What is usual at that hour, day of week and season, as far as the training data tell."""

    def forecast(request: Request) -> np.ndarray:
        return np.stack([known.at(times) for times in request.following])

    return forecast


def yesterday(request: Request) -> np.ndarray:
    """The same time of day, on the latest day of which it is known when the forecast starts.

    Raises:
        UsageError: the step does not divide a day, or is a day.
    """
    per_day = _steps_in(DAY, request, "yesterday")
    if per_day == 1:
        raise UsageError(
            f"--against yesterday: with steps of {request.step} every frame is one of the same time of day, and "
            "yesterday's is persistence; compare with persistence or last-week"
        )
    return _latest_cycle(request, per_day)


def last_week(request: Request) -> np.ndarray:
    """The same time of the week, in the latest week of which it is known when the forecast starts.

    Raises:
        UsageError: the step does not divide a week, or is a week.
    """
    per_week = _steps_in(WEEK, request, "last-week")
    if per_week == 1:
        raise UsageError(
            f"--against last-week: with steps of {request.step} last week's frame is persistence; compare with that"
        )
    return _latest_cycle(request, per_week)


def trend(request: Request) -> np.ndarray:
    """The least-squares line through a cell's observed values, carried on; of one observed frame, persistence."""
    T = request.observed.shape[1]
    if T == 1:
        return persistence(request)
    age = np.arange(T) - (T - 1) / 2
    values = request.observed.astype(np.float64)
    mean = values.mean(axis=1)
    slope = np.einsum("t,btchw->bchw", age, values) / (age**2).sum()
    ahead = age[-1] + np.arange(1, request.steps + 1)
    return (mean[:, None] + slope[:, None] * ahead[:, None, None, None]).astype(request.observed.dtype)


def flow(request: Request) -> np.ndarray:
    """The last observed frame, moved on along the motion between the last two."""
    extrapolate = importlib.import_module("pdr_cli.verification.networks.flow").extrapolate
    return extrapolate(request.observed, request.steps)


OWN: dict[str, Baseline] = {
    "persistence": persistence,
    "yesterday": yesterday,
    "last-week": last_week,
    "trend": trend,
    "flow": flow,
}


def known_names() -> list[str]:
    """Names that `build` accepts beside `module:function`."""
    return ["persistence", "climatology", *list(OWN)[1:], *sorted(entry_points(group=ENTRY_POINTS).names)]


def build(names: Sequence[str], known: Climatology | None) -> dict[str, Baseline]:
    """Baselines by name: our own, those that installed packages announce under `pdr.baselines`, or `module:function`.

    Args:
        names: as `--against` gives them.
        known: a model's climatology, on the grid of the series; None without a model.

    Raises:
        UsageError: an unknown name, with the nearest; a climatology without a model.
    """
    if known is None and "climatology" in names:
        raise UsageError("--against climatology: it is made of a model's training data; name a model with -m")
    there = OWN if known is None else OWN | {"climatology": climatology(known)}
    return {name: there.get(name) or _outside(name) for name in names}


def _outside(name: str) -> Baseline:
    announced = entry_points(group=ENTRY_POINTS, name=name)
    if announced:
        return _checked(name, next(iter(announced)).load())
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise UsageError(
            f"--against {name}: no such baseline.{did_you_mean(name, known_names())} There are {', '.join(known_names())}; "
            "your own is named as module:function"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--against {name}: {error}; the module's folder must be on PYTHONPATH") from error
    return _checked(name, found)


def _checked(name: str, baseline: Any) -> Baseline:
    """A baseline from outside, its answer held to the shape that was asked for."""

    def forecast(request: Request) -> np.ndarray:
        frames = np.asarray(baseline(request))
        if frames.shape != request.shape:
            raise DataError(
                f"baseline {name} returned {list(frames.shape)}, but [B, τ, C, H, W] = {list(request.shape)} was asked for"
            )
        return frames

    return forecast


def _steps_in(period: float, request: Request, name: str) -> int:
    """Steps in a day or a week."""
    word = "day" if period == DAY else "week"
    if np.issubdtype(request.following[0].dtype, np.floating):
        raise UsageError(
            f"--against {name}: times are seconds, not dates, so there is no time of {word}; compare with persistence, "
            "trend or flow"
        )
    steps = period / request.step.count if request.step.unit == "s" else 0.0
    if round(steps) < 1 or abs(steps - round(steps)) > 1e-6:
        raise UsageError(
            f"--against {name}: steps of {request.step} do not divide a {word}, so there is no frame of the same time; "
            "compare with persistence or climatology"
        )
    return round(steps)


def _latest_cycle(request: Request, steps: int) -> np.ndarray:
    """Step i is forecast by the frame a whole number of cycles before it, the latest that is not after the start."""
    ages = [-i % steps for i in range(1, request.steps + 1)]
    frames = {age: request.back(age) for age in sorted(set(ages))}
    return np.stack([frames[age] for age in ages], axis=1)
