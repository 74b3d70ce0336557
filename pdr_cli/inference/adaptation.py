"""Intervals of a hindcast that adapt to the truths of its earlier inits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pdr_cli.data import times as time_axis
from pdr_cli.data import units
from pdr_cli.data.intervals import inside
from pdr_cli.data.missing import without_absurd
from pdr_cli.data.times import Step
from pdr_cli.inference.plan import Plan
from pdr_cli.runs.adaptive import Adaptive


class Adaptation:
    """The shares that the inits of a hindcast ask a model's errors for; see `Adaptive`.

    They depend on the numbers of the file and on the input alone, so that a hindcast that is continued has the same.

    Args:
        plan: the forecasts; the truth is in its series.
        step: of the model.
        shares: of the truths that the intervals are to hold.
        largest: share that can be asked for.
    """

    def __init__(self, plan: Plan, step: Step, shares: Sequence[float], largest: float) -> None:
        self.plan, self.adaptive = plan, Adaptive(shares, plan.steps, largest)
        self.ticks = np.round(time_axis.positions(plan.series.time.values, step)).astype(int)

    def asked(self, number: int) -> np.ndarray:
        """The shares to ask for at init `number`, from the truths known at its time: [L, τ]."""
        return self.adaptive.asked(self._tick(number))

    def learn(self, number: int, frames: np.ndarray) -> None:
        """Take in the forecast from init `number` with the ends of its intervals, [τ, C·(1 + 2·L), H, W] as in the file."""
        self.adaptive.learn(self._tick(number), inside(frames, self._truth(number)))

    def _tick(self, number: int) -> int:
        return int(self.ticks[self.plan.inits[number]])

    def _truth(self, number: int) -> np.ndarray:
        """The frames of the input at the valid times of a forecast, in its own units: [τ, C, H, W], NaN where it has none."""
        series, steps, start = self.plan.series, self.plan.steps, int(self.plan.inits[number]) + 1
        truth = np.full((steps, *series.shape[1:]), np.nan, np.float32)
        leads = self.ticks[start : start + steps] - self._tick(number) - 1
        count = int((leads < steps).sum())  # those behind a gap are later
        if count:
            given = units.as_given(series.isel(time=slice(start, start + count)))
            truth[leads[:count]] = without_absurd(given.values)
        return truth
