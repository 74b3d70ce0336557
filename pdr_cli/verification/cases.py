"""Cases: single forecasts worth a look, with everything that pictures of them need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from pdr_cli.data.series import Series
from pdr_cli.data.units import as_given
from pdr_cli.inference.forecast import forecast
from pdr_cli.inference.intake import Intake
from pdr_cli.inference.loaded import LoadedModel
from pdr_cli.inference.model import Model
from pdr_cli.verification import fans
from pdr_cli.verification.evaluation import Result
from pdr_cli.verification.fans import Cell, Fan
from pdr_cli.verification.task import Task


@dataclass(frozen=True)
class Case:
    """One forecast.

    Args:
        label: "best", "median" or "worst".
        observed: the frames that the forecast was made from.
        truth: the τ frames that followed.
        forecast: τ frames.
        coarse: the forecast without Gaussians, data units: [τ, C, H, W]; None if the model has none.
        painted: the Gaussian layer, network units: [τ, C, H, W]; None if the model has none.
        gaussians: those of the last frame, by variable of `export.gaussians`; None if the model has none.
        score: headline score of this forecast.
        model: name of the forecaster.
        fan: one cell against time; None where its uncertainty is not known.
    """

    label: str
    observed: Series
    truth: Series
    forecast: Series
    coarse: np.ndarray | None
    painted: np.ndarray | None
    gaussians: Mapping[str, np.ndarray] | None
    score: float
    model: str
    fan: Fan | None = None


def typical(result: Result, task: Task) -> list[Case]:
    """The best, the median and the worst forecast of the first model, by the headline score; none without models."""
    if task.first is None:
        return []
    first = result.document.forecasters[0]
    names = task.groups.get(first, [first])
    models, steps, cell, out = [task.models[name] for name in names], task.windows.out_steps, _cell(result), []
    for label, index in result.typical().items():
        number, start = (int(v) for v in task.windows.places[index])
        init, series = start + task.windows.in_steps - 1, task.series[number]
        start = init + 1 - models[0].card.config.data.in_steps
        score = float(result.by_window[index])
        made = case_of(models[0], series, start, label, score, name=names[0], steps=steps)
        fan = None if cell is None else fans.of_window(models, task.drawing, series, init, steps, cell)
        out.append(replace(made, fan=fan))
    return out


def _cell(result: Result) -> Cell | None:
    """The cell whose RMSE is the median of all, where the errors of cells are known."""
    place = None if result.cells is None else result.cells.median
    return None if result.cells is None or place is None else Cell(place, float(result.cells.rmse[0][place]))


def case_of(
    model: LoadedModel, series: Series, start: int, label: str, score: float, *, name: str = "", steps: int = 0
) -> Case:
    """The forecast from one window.

    Args:
        model: makes the forecast.
        series: holds the window and the frames that follow it.
        start: first of the frames that the model observes.
        label: "best", "median" or "worst".
        score: headline score of this forecast.
        name: of the model in the document; default: its run folder or file.
        steps: τ; default: the horizon of the model's training.
    """
    from pdr_cli.export import gaussians  # needs torch, and this file is read before the options are checked

    steps = steps or model.card.config.data.out_steps
    made = forecast(model, Intake(model), series, start + model.card.config.data.in_steps - 1, steps)
    layers, window = made.layers, made.window
    painted = drawn = None
    if isinstance(model, Model) and gaussians.drawn_by(model):
        painted, drawn = layers.layer, gaussians.of_forecast(model, series, window, steps).isel(time=-1)
    return Case(
        label,
        made.observed(),
        as_given(series.isel(time=slice(window.stop, window.stop + steps))).load(),
        made.frames,
        None if painted is None else window.orientation.invert(layers.coarse[0]),
        None if painted is None else window.orientation.invert(painted[0]),
        None if drawn is None else {str(n): values.values for n, values in drawn.data_vars.items()},
        score,
        name or model.name,
    )
