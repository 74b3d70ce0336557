"""Whatever can be scored, seen alike: a name, a kind, and frames for a batch of windows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pdr_cli.data.formats.forecasts import ForecastFile
from pdr_cli.data.series import Series
from pdr_cli.data.windows import Windows
from pdr_cli.inference.intake import Intake
from pdr_cli.inference.model import Model
from pdr_cli.verification.baselines import Baseline, Request


@dataclass
class Forecaster:
    """A model, a baseline or a file.

    Args:
        kind: "model", "baseline" or "file".
        make: frames [B, τ, C, H, W] in data units on the truth's grid; NaN where there is no forecast.
        seconds: spent in `make` so far.
    """

    kind: str
    make: Callable[[Request, Windows, np.ndarray], np.ndarray]
    seconds: float = field(default=0.0)

    def forecast(self, request: Request, windows: Windows, which: np.ndarray) -> np.ndarray:
        """Frames for the windows numbered `which`."""
        began = time.perf_counter()
        frames = self.make(request, windows, which)
        self.seconds += time.perf_counter() - began
        return frames


def of_model(model: Model, series: list[Series]) -> Forecaster:
    """A trained model; its grid may be turned against the truth's.

    Raises:
        GridError, VariableError: the series do not fit it.
    """
    intake = Intake(model)
    turns = [intake.orientation(one) for one in series]

    def make(request: Request, windows: Windows, which: np.ndarray) -> np.ndarray:
        turn, steps = turns[0], model.card.config.data.in_steps
        times = [windows.times(int(i))[windows.in_steps - steps : windows.in_steps] for i in which]
        history = intake.encoding.filling.apply(turn.apply(request.observed[:, -steps:]), times)
        return turn.invert(model.run(history, request.steps).fused)

    return Forecaster("model", make)


def of_baseline(baseline: Baseline) -> Forecaster:
    """A forecast that needs no model."""
    return Forecaster("baseline", lambda request, windows, which: baseline(request))


def of_file(file: ForecastFile, series: Series) -> Forecaster:
    """Forecasts that somebody has written to a file, found by init and valid time.

    Raises:
        GridError, VariableError, TimeError: they are of another grid, unit or calendar than the truth.
    """
    turn = file.fit(series)

    def make(request: Request, windows: Windows, which: np.ndarray) -> np.ndarray:
        frames = []
        for index in which:
            times = windows.times(int(index))
            frames.append(file.frames(times[windows.in_steps - 1], times[windows.in_steps :]))
        return turn.apply(np.stack(frames))

    return Forecaster("file", make)
