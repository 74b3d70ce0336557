"""Forecasters: models, files and baselines behind one face: a kind, and frames for a batch of windows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from pdr_cli.data import covariates, further
from pdr_cli.data.context import Moments
from pdr_cli.data.covariates import CovariateSource
from pdr_cli.data.formats.forecasts import ForecastFile
from pdr_cli.data.further import Further
from pdr_cli.data.grid import Orientation
from pdr_cli.data.series import Series
from pdr_cli.data.windows import Windows
from pdr_cli.inference.intake import Intake
from pdr_cli.inference.model import Model
from pdr_cli.verification.baselines import Baseline, Request
from pdr_cli.verification.document import ForecasterKind


@dataclass
class Forecaster:
    """A model, a baseline or a file.

    Args:
        kind: "model", "baseline" or "file".
        make: frames [B, τ, C, H, W] in data units on the truth's grid; NaN where there is no forecast.
        seconds: spent in `make` so far.
    """

    kind: ForecasterKind
    make: Baseline
    seconds: float = field(default=0.0)

    def forecast(self, request: Request) -> np.ndarray:
        """Frames for the windows of a request."""
        began = time.perf_counter()
        frames = self.make(request)
        self.seconds += time.perf_counter() - began
        return frames


def of_model(model: Model, series: Sequence[Series]) -> Forecaster:
    """A trained model; its grid may have another orientation than the truth's.

    Raises:
        GridError, VariableError: the series do not fit it.
    """
    return Forecaster("model", _forecast_of(model, series))


def fitted_baselines(model: Model, series: Sequence[Series]) -> dict[str, Baseline]:
    """The baselines that a model's training has fitted, by name: they read windows and are bounded as the model.

    Raises:
        GridError, VariableError: the series do not fit the model.
    """
    return {name: _forecast_of(baseline, series) for name, baseline in model.baselines.items()}


def _forecast_of(model: Model, series: Sequence[Series]) -> Baseline:
    turns, reads = [orientation(model, one) for one in series], [read_by(model, one) for one in series]

    def make(request: Request) -> np.ndarray:
        turn, steps = turns[0], model.card.config.data.in_steps
        times = [observed[-steps:] for observed in request.times]
        history = model.encoding().filling.apply(turn.apply(request.observed[:, -steps:]), times)
        given = [_turned(reads[number], turn) for number in request.numbers] if model.card.read else []
        moments = Moments(times, request.following, lambda n: turn.apply(request.back(n)), given)
        return turn.invert(model.run(history, request.steps, model.contexts.of(moments)).fused)

    return make


def _turned(opened: Further | None, turn: Orientation) -> Callable[[np.ndarray], np.ndarray]:
    """What reads further variables on a model's grid."""
    if opened is None:
        raise ValueError("a model that reads further variables needs a series with them")
    return lambda times: turn.apply(opened.at(times))


def read_by(model: Model, series: Series) -> Further | None:
    """The further variables of a series that a model reads; None if it reads none.

    Raises:
        UnitsError: they are in the units of another model.
    """
    opened = further.of(series) if model.card.read else None
    return None if opened is None else opened.only(model.card.read)


def with_values(model: Model, windows: Windows) -> Windows:
    """The windows whose further variables have the values that a model needs."""
    source, series = model.contexts.covariates, windows.series[0]
    if not model.card.read or not isinstance(source, CovariateSource):
        return windows
    return covariates.with_values(
        windows, source, "score", orientation(model, series).apply, model.card.config.data.in_steps
    )


def of_baseline(baseline: Baseline) -> Forecaster:
    """A simple forecast, which a model has to beat."""
    return Forecaster("baseline", baseline)


def of_file(file: ForecastFile, series: Series) -> Forecaster:
    """Forecasts that others have written, found by init time and valid time.

    Raises:
        GridError, VariableError, TimeError: another grid, unit or calendar than the truth's.
    """
    turn = file.fit(series)

    def make(request: Request) -> np.ndarray:
        windows = zip(request.times, request.following, strict=True)
        return turn.apply(np.stack([file.frames(observed[-1], following) for observed, following in windows]))

    return Forecaster("file", make)


def orientation(model: Model, series: Series) -> Orientation:
    """The orientation from a series' grid to a model's.

    Raises:
        GridError, VariableError: the series does not fit the model.
    """
    return Intake(model).orientation(series)


def may_lack(models: Iterable[Model], series: Series) -> np.ndarray | None:
    """Cells that every model can do without in an observed window, on the grid of a series: [C, H, W]; None if one needs all."""
    known = list(models)
    if not known or any(model.may_lack is None for model in known):
        return None
    return np.logical_and.reduce([Intake(model).may_lack(series) for model in known])
