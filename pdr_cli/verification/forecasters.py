"""Forecasters: models, files and baselines behind one face: a kind, and frames for a batch of windows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from pdr_cli.data import covariates, further
from pdr_cli.data.context import Context, Moments
from pdr_cli.data.covariates import CovariateSource
from pdr_cli.data.formats.forecasts import ForecastFile
from pdr_cli.data.further import Further
from pdr_cli.data.grid import Orientation
from pdr_cli.data.series import Series
from pdr_cli.data.windows import Windows
from pdr_cli.inference.intake import Intake
from pdr_cli.inference.loaded import LoadedModel
from pdr_cli.inference.members import DIRECT, Drawing, uniform
from pdr_cli.verification import ensembles
from pdr_cli.verification.baselines import Baseline, Request
from pdr_cli.verification.document import ForecasterKind


@dataclass
class Forecaster:
    """A model, a baseline or a file.

    Args:
        kind: "model", "baseline" or "file".
        make: frames [B, τ, C, H, W] in data units on the truth's grid, or members [M, B, τ, C, H, W]; NaN where there is no
            forecast.
        seconds: spent in `make` so far.
        members: M; 1: single forecasts.
    """

    kind: ForecasterKind
    make: Baseline
    seconds: float = field(default=0.0)
    members: int = 1

    def forecast(self, request: Request) -> np.ndarray:
        """Frames for the windows of a request."""
        began = time.perf_counter()
        frames = self.make(request)
        self.seconds += time.perf_counter() - began
        return frames


def of_model(model: LoadedModel, series: Sequence[Series], drawing: Drawing = DIRECT) -> Forecaster:
    """A trained model, with the members of `drawing` if it draws any; its grid may have another orientation than the truth's.

    Raises:
        GridError, VariableError: the series do not fit it.
    """
    drawn = drawing.of(model, alone=False)
    make = _forecast_of(model, series, drawn)
    if drawn.mean:
        return Forecaster("model", lambda request: ensembles.central(make(request)))
    return Forecaster("model", make, members=max(1, drawn.count))


def joined(each: Sequence[Forecaster]) -> Forecaster:
    """One ensemble of the members, or the forecasts, of several models."""

    def make(request: Request) -> np.ndarray:
        frames = [one.make(request) for one in each]
        return np.concatenate([made if made.ndim > 5 else made[None] for made in frames])

    return Forecaster("model", make, members=sum(one.members for one in each))


def dressed(model: LoadedModel, series: Sequence[Series], drawing: Drawing) -> Baseline:
    """The forecast of a calibrated model and draws from the distribution of its validation errors in each cell, as members.

    A member has one level of the distribution in all cells and at all lead times. Levels are drawn and not evenly spaced,
    because fair scores are those of members that are drawn: of evenly spaced quantiles they would be too low.

    Raises:
        GridError, VariableError: the series do not fit the model.
        ValueError: the model has no calibration.
    """
    calibration, card = model.calibration, model.card
    if calibration is None:
        raise ValueError(f"{model.label} has no calibration")
    forecast, turn = _forecast_of(model, series), orientation(model, series[0])

    def make(request: Request) -> np.ndarray:
        levels = uniform(drawing.seeds([times[-1] for times in request.times]))  # [M, B]
        offsets = turn.invert(calibration.at(levels.ravel(), request.steps, card.size))
        frames = (forecast(request) + offsets.reshape(*levels.shape, *offsets.shape[1:])).astype(np.float32)
        return frames if card.bounds is None else card.bounds.clip(frames)

    return make


def fitted_baselines(model: LoadedModel, series: Sequence[Series]) -> dict[str, Baseline]:
    """The baselines that a model's training has fitted, by name: they read windows and are bounded as the model.

    Raises:
        GridError, VariableError: the series do not fit the model.
    """
    return {name: _forecast_of(baseline, series) for name, baseline in model.baselines.items()}


def _forecast_of(model: LoadedModel, series: Sequence[Series], drawing: Drawing = DIRECT) -> Baseline:
    turn, inputs = orientation(model, series[0]), inputs_of(model, series)

    def make(request: Request) -> np.ndarray:
        history, context = inputs(request)
        if drawing.count:
            seeds = drawing.seeds([observed[-1] for observed in request.times])
            return turn.invert(model.members(history, seeds, request.steps, context))
        return turn.invert(model.run(history, request.steps, context).fused)

    return make


def inputs_of(model: LoadedModel, series: Sequence[Series]) -> Callable[[Request], tuple[np.ndarray, Context]]:
    """What a model reads of a batch of windows: the observed frames, filled, [B, T, C, H, W], and their context, on its grid.

    Raises:
        GridError, VariableError: the series do not fit the model.
    """
    turns, reads = [orientation(model, one) for one in series], [read_by(model, one) for one in series]

    def read(request: Request) -> tuple[np.ndarray, Context]:
        turn, steps = turns[0], model.card.config.data.in_steps
        times = [observed[-steps:] for observed in request.times]
        history = model.encoding().filling.apply(turn.apply(request.observed[:, -steps:]), times)
        given = [_turned(reads[number], turn) for number in request.numbers] if model.card.read else []
        return history, model.contexts.of(
            Moments(times, request.following, lambda n: turn.apply(request.back(n)), given)
        )

    return read


def _turned(opened: Further | None, turn: Orientation) -> Callable[[np.ndarray], np.ndarray]:
    """What reads further variables on a model's grid."""
    if opened is None:
        raise ValueError("a model that reads further variables needs a series with them")
    return lambda times: turn.apply(opened.at(times))


def read_by(model: LoadedModel, series: Series) -> Further | None:
    """The further variables of a series that a model reads; None if it reads none.

    Raises:
        UnitsError: they are in the units of another model.
    """
    opened = further.of(series) if model.card.read else None
    return None if opened is None else opened.only(model.card.read)


def with_values(model: LoadedModel, windows: Windows) -> Windows:
    """The windows whose further variables have the values that a model needs."""
    source, series = model.contexts.covariates, windows.series[0]
    if not model.card.read or not isinstance(source, CovariateSource):
        return windows
    return covariates.with_values(
        windows, source, "score", orientation(model, series).apply, model.card.config.data.in_steps
    )


def of_baseline(baseline: Baseline, members: int = 1) -> Forecaster:
    """A simple forecast, which a model has to beat; `members` as in `Forecaster`."""
    return Forecaster("baseline", baseline, members=members)


def of_file(file: ForecastFile, series: Series) -> Forecaster:
    """Forecasts that others have written, found by init time and valid time.

    Raises:
        GridError, VariableError, TimeError: another grid, unit or calendar than the truth's.
    """
    turn = file.fit(series)

    def frames(member: ForecastFile, request: Request) -> np.ndarray:
        windows = zip(request.times, request.following, strict=True)
        return turn.apply(np.stack([member.frames(observed[-1], following) for observed, following in windows]))

    def make(request: Request) -> np.ndarray:
        each = [frames(member, request) for member in (file, *file.further)]
        return np.stack(each) if file.further else each[0]

    return Forecaster("file", make, members=file.members)


def orientation(model: LoadedModel, series: Series) -> Orientation:
    """The orientation from a series' grid to a model's.

    Raises:
        GridError, VariableError: the series does not fit the model.
    """
    return Intake(model).orientation(series)


def may_lack(models: Iterable[LoadedModel], series: Series) -> np.ndarray | None:
    """Cells that every model can do without in an observed window, on the grid of a series: [C, H, W]; None if one needs all."""
    known = list(models)
    if not known or any(model.may_lack is None for model in known):
        return None
    return np.logical_and.reduce([Intake(model).may_lack(series) for model in known])
