"""Baselines: forecasts that need no model, which a model has to beat.

A forecast that cannot be made is NaN: where the series has a gap a day before, for example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pdr_cli.choices import BASELINES
from pdr_cli.data.climatology import Climatology
from pdr_cli.data.times import DAY, WEEK, Step
from pdr_cli.errors import DataError, UsageError
from pdr_cli.trust import USER

DAMPING = 0.1  # of damped-flow without a fitted one: a tenth of the speed is lost in each frame


@dataclass(frozen=True)
class Request:
    """What a baseline is given: windows in data units, and the times to forecast.

    Args:
        observed: [B, T, C, H, W].
        following: the times of the frames to forecast, [τ] of each window.
        step: of the series.
        back: frames `n` steps before the last observed one, [B, C, H, W]; n = 0 is that one itself. NaN where the
            series has a gap or begins later.
        climatology: of the first model's training data, on the grid of the series; None without a model.
        times: the times of the observed frames, [T] of each window.
        numbers: the series of each window.
        fitted: the baselines that the first model's training has fitted, by name.
        model: the name of the first model; "" without.
    """

    observed: np.ndarray
    following: Sequence[np.ndarray]
    step: Step
    back: Callable[[int], np.ndarray]
    climatology: Climatology | None = None
    times: Sequence[np.ndarray] = ()
    numbers: Sequence[int] = ()
    fitted: Mapping[str, Baseline] = field(default_factory=dict)
    model: str = ""

    @property
    def steps(self) -> int:
        """τ."""
        return len(self.following[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the forecast: [B, τ, C, H, W]."""
        return (len(self.observed), self.steps, *self.observed.shape[2:])


Baseline = Callable[[Request], np.ndarray]  # -> forecast [B, τ, C, H, W], or members [M, B, τ, C, H, W], in data units


def persistence(request: Request) -> np.ndarray:
    """The last observed frame, for every lead time."""
    return np.repeat(request.observed[:, -1:], request.steps, axis=1)


def climatology(request: Request) -> np.ndarray:
    """The mean of the training data at that hour, day of week and season.

    Raises:
        UsageError: no model, so no climatology.
    """
    if request.climatology is None:
        raise UsageError("--against climatology: no training data to make it of", "", "name a model with -m")
    return np.stack([request.climatology.at(times) for times in request.following])


def anomaly(request: Request) -> np.ndarray:
    """The climatology, and a share of the last departure from it that was fitted in training.

    Raises:
        UsageError: no model, or one that has no such baseline.
    """
    return _fitted("anomaly", request)


def ridge(request: Request) -> np.ndarray:
    """A linear regression of the departures from the climatology that was fitted in training.

    Raises:
        UsageError: as `anomaly`.
    """
    return _fitted("ridge", request)


def yesterday(request: Request) -> np.ndarray:
    """The frame of the same time of day, on the latest day whose frame is observed before the forecast starts.

    Raises:
        UsageError: the step does not divide a day, or is a day.
    """
    per_day = _steps_in(DAY, request, "yesterday")
    if per_day == 1:
        raise UsageError(
            f"--against yesterday: with steps of {request.step} every frame has the same time of day, so yesterday's is "
            "persistence",
            way_out="compare with persistence or last-week",
        )
    return _latest_cycle(request, per_day)


def last_week(request: Request) -> np.ndarray:
    """The frame of the same time of the week, in the latest week whose frame is observed before the forecast starts.

    Raises:
        UsageError: the step does not divide a week, or is a week.
    """
    per_week = _steps_in(WEEK, request, "last-week")
    if per_week == 1:
        raise UsageError(
            f"--against last-week: with steps of {request.step} last week's frame is persistence",
            way_out="compare with persistence",
        )
    return _latest_cycle(request, per_week)


def trend(request: Request) -> np.ndarray:
    """The least-squares line through a cell's observed values, continued; from one observed frame, persistence."""
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
    from pdr_cli.verification.networks.flow import extrapolate

    return extrapolate(request.observed, request.steps)


def damped_flow(request: Request) -> np.ndarray:
    """The last observed frame, moved on along the motion between the last two, which slows down as training has fitted."""
    from pdr_cli.verification.networks.flow import extrapolate

    fitted = request.fitted.get("damped-flow")
    return extrapolate(request.observed, request.steps, DAMPING) if fitted is None else fitted(request)


def dressed(request: Request) -> np.ndarray:
    """The first model's forecast, and draws of its validation errors as members: [M, B, τ, C, H, W].

    An ensemble that does not beat it has learned nothing about the day.

    Raises:
        UsageError: no model, or one without a calibration.
    """
    if not request.model:
        raise UsageError("--against dressed: no model whose errors are known", "", "name a model with -m")
    if "dressed" not in request.fitted:
        raise UsageError(
            f"--against dressed: the errors of {request.model} are not known",
            way_out="pdr calibrate its run with data that it has not seen",
        )
    return request.fitted["dressed"](request)


def build(names: Sequence[str]) -> dict[str, Baseline]:
    """Baselines by name: ours, those of installed packages, or `module:Name`.

    Raises:
        UsageError: an unknown name, with the nearest.
    """
    return {name: BASELINES.find(name) if name in BASELINES.own else _checked(name) for name in names}


def _checked(name: str) -> Baseline:
    """A baseline from another package, the shape of its forecast checked."""
    baseline: Any = BASELINES.find(name, USER)

    def forecast(request: Request) -> np.ndarray:
        frames = np.asarray(baseline(request))
        if frames.shape != request.shape:
            expected = f"[B, τ, C, H, W] = {list(request.shape)}"
            raise DataError(f"baseline {name} returned an array of shape {list(frames.shape)}", expected)
        return frames

    return forecast


def _fitted(name: str, request: Request) -> np.ndarray:
    if not request.model:
        raise UsageError(f"--against {name}: no training data to fit it to", "", "name a model with -m")
    if name not in request.fitted:
        raise UsageError(
            f"--against {name}: {request.model} has none; it was trained before baselines were kept, without them "
            "(train.baselines), or on video",
            way_out="train again, or compare with persistence or climatology",
        )
    return request.fitted[name](request)


def _steps_in(period: float, request: Request, name: str) -> int:
    """Steps in a day or a week."""
    word = "day" if period == DAY else "week"
    if np.issubdtype(request.following[0].dtype, np.floating):
        raise UsageError(
            f"--against {name}: times are seconds, not dates, so a frame has no time of {word}",
            way_out="compare with persistence, trend or flow",
        )
    steps = period / request.step.count if request.step.unit == "s" else 0.0
    if round(steps) < 1 or abs(steps - round(steps)) > 1e-6:
        raise UsageError(
            f"--against {name}: steps of {request.step} do not divide a {word}, so no frame has the same time",
            way_out="compare with persistence or climatology",
        )
    return round(steps)


def _latest_cycle(request: Request, steps: int) -> np.ndarray:
    """Each step is forecast by the latest observed frame that is a whole number of cycles before it."""
    ages = [-i % steps for i in range(1, request.steps + 1)]
    frames = {age: request.back(age) for age in sorted(set(ages))}
    return np.stack([frames[age] for age in ages], axis=1)
