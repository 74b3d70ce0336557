"""Forecasters: models, files and baselines behind one face: a kind, and frames for a batch of windows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from pdr_cli.data.context import Moments
from pdr_cli.data.formats.forecasts import ForecastFile
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
    make: Callable[[Request, Windows, np.ndarray], np.ndarray]
    seconds: float = field(default=0.0)

    def forecast(self, request: Request, windows: Windows, which: np.ndarray) -> np.ndarray:
        """Frames for the windows numbered `which`."""
        began = time.perf_counter()
        frames = self.make(request, windows, which)
        self.seconds += time.perf_counter() - began
        return frames


def of_model(model: Model, series: Sequence[Series]) -> Forecaster:
    """A trained model; its grid may have another orientation than the truth's.

    Raises:
        GridError, VariableError: the series do not fit it.
    """
    turns = [orientation(model, one) for one in series]

    def make(request: Request, windows: Windows, which: np.ndarray) -> np.ndarray:
        turn, steps = turns[0], model.card.config.data.in_steps
        times = [windows.times(int(i))[windows.in_steps - steps : windows.in_steps] for i in which]
        history = model.encoding().filling.apply(turn.apply(request.observed[:, -steps:]), times)
        moments = Moments(times, request.following, lambda n: turn.apply(request.back(n)))
        return turn.invert(model.run(history, request.steps, model.contexts.of(moments)).fused)

    return Forecaster("model", make)


def of_baseline(baseline: Baseline) -> Forecaster:
    """A forecast that needs no model."""
    return Forecaster("baseline", lambda request, windows, which: baseline(request))


def of_file(file: ForecastFile, series: Series) -> Forecaster:
    """Forecasts that others have written, found by init time and valid time.

    Raises:
        GridError, VariableError, TimeError: another grid, unit or calendar than the truth's.
    """
    turn = file.fit(series)

    def make(request: Request, windows: Windows, which: np.ndarray) -> np.ndarray:
        frames = []
        for index in which:
            times = windows.times(int(index))
            frames.append(file.frames(times[windows.in_steps - 1], times[windows.in_steps :]))
        return turn.apply(np.stack(frames))

    return Forecaster("file", make)


def orientation(model: Model, series: Series) -> Orientation:
    """The orientation from a series' grid to a model's.

    Raises:
        GridError, VariableError: the series does not fit the model.
    """
    return Intake(model).orientation(series)


def never_observed(models: Iterable[Model], series: Series) -> np.ndarray | None:
    """Cells that no model's training observed, on the grid of a series: [C, H, W]; None where one's observed all."""
    known = list(models)
    if not known or any(model.card.land is None for model in known):
        return None
    return np.logical_and.reduce([Intake(model).never_observed(series) for model in known])
