"""Fans: one cell of a forecast against time, and where the truth is to lie there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pdr_cli.data.intervals import without_ends
from pdr_cli.data.series import Series, joined_members
from pdr_cli.data.units import as_given
from pdr_cli.inference.forecast import after
from pdr_cli.inference.intake import Intake
from pdr_cli.inference.intervals import Intervals
from pdr_cli.inference.loaded import LoadedModel
from pdr_cli.inference.members import DIRECT, Drawing
from pdr_cli.verification.ranks import SHARES, known


@dataclass(frozen=True)
class Fan:
    """The first channel at one cell against time, in the units of the data.

    Args:
        cell: its row and column.
        rmse: of the cell over all windows.
        observed: [T].
        truth: [τ].
        forecast: [τ]; of members their mean.
        bands: lower and upper ends, [2, τ], by the share of truths that they are to hold, ascending.
        members: M; 0: the bands are from the model's calibration.
    """

    cell: tuple[int, int]
    rmse: float
    observed: np.ndarray
    truth: np.ndarray
    forecast: np.ndarray
    bands: dict[float, np.ndarray]
    members: int = 0


@dataclass(frozen=True)
class Cell:
    """A cell, [row, column], and its RMSE over all windows."""

    place: tuple[int, int]
    rmse: float


def of_window(
    models: Sequence[LoadedModel], drawing: Drawing, series: Series, init: int, steps: int, cell: Cell
) -> Fan | None:
    """The forecast from frame `init` at one cell; None where its uncertainty is not known.

    The bands are quantiles of the members, where the models draw some or are several, or else intervals of the calibration.

    Args:
        models: one, or those of an ensemble.
        drawing: the members of models that draw.
        series: holds the window and the frames that follow it.
        init: last of the observed frames.
        steps: τ.
        cell: of the series.
    """
    drawings = [drawing.of(model, alone=False) for model in models]
    if len(models) > 1 or drawings[0].count > 1:
        forecasts, bands = _of_members(models, drawings, series, init, steps, cell)
        members = sum(max(1, one.count) for one in drawings)
    elif known(models[0], steps):
        forecasts, bands = _of_intervals(models[0], series, init, steps, cell)
        members = 0
    else:
        return None
    if not all(np.isfinite(band).all() for band in bands.values()):
        return None
    start = init + 1 - models[0].card.config.data.in_steps
    values = _at(as_given(series.isel(time=slice(start, init + 1 + steps))), cell)
    return Fan(cell.place, cell.rmse, values[: init + 1 - start], values[init + 1 - start :], forecasts, bands, members)


def _of_members(
    models: Sequence[LoadedModel], drawings: Sequence[Drawing], series: Series, init: int, steps: int, cell: Cell
) -> tuple[np.ndarray, dict[float, np.ndarray]]:
    """Mean of the members, and their quantiles."""
    each = [
        _forecast(Intake(model), model, series, init, steps, one) for model, one in zip(models, drawings, strict=True)
    ]
    members = _at(joined_members(each), cell)
    return members.mean(axis=0), quantiles(members)


def quantiles(members: np.ndarray) -> dict[float, np.ndarray]:
    """The lower and the upper quantile of members, [M, τ] → [2, τ], by the share of truths between them.

    The quantile of level p has rank p·(M + 1), as in the score `coverage`. Few members tell of no larger share than that
    between the lowest and the highest, (M - 1) / (M + 1).
    """
    widest = (len(members) - 1) / (len(members) + 1)
    shares = sorted({min(share, widest) for share in SHARES})
    levels = {share: [(1 - share) / 2, (1 + share) / 2] for share in shares}
    return {share: np.quantile(members, both, axis=0, method="weibull") for share, both in levels.items()}


def _of_intervals(
    model: LoadedModel, series: Series, init: int, steps: int, cell: Cell
) -> tuple[np.ndarray, dict[float, np.ndarray]]:
    """The direct forecast, and the ends of its intervals."""
    shares = tuple(share for share in SHARES if model.calibration is not None and model.calibration.holds(share))
    made = _forecast(Intake(model, intervals=Intervals(shares)), model, series, init, steps)
    count = without_ends(made).sizes["channel"]
    row, column = cell.place
    ends = made.values[:, count::count, row, column].T.reshape(len(shares), 2, steps).astype(np.float64)
    return _at(made, cell), dict(zip(shares, ends, strict=True))


def _forecast(
    intake: Intake, model: LoadedModel, series: Series, init: int, steps: int, drawing: Drawing = DIRECT
) -> Series:
    series = intake.adapt_input(series)
    return after(model, intake, series, intake.observe(series, init), steps, drawing).frames


def _at(series: Series, cell: Cell) -> np.ndarray:
    """The first channel at one cell: [..., T]."""
    row, column = cell.place
    return np.asarray(series.values[..., 0, row, column], np.float64)
