"""The plan of a hindcast: from which frames of a series forecasts start."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pdr_cli.data import further, windows
from pdr_cli.data.series import Series, frames_at_once, read_frames
from pdr_cli.errors import MissingValuesError, TimeError, UsageError
from pdr_cli.inference.intake import Intake
from pdr_cli.inference.provenance import COVARIATES

HASHED_AT_ONCE = 32  # frames


@dataclass(frozen=True)
class Plan:
    """The forecasts of a hindcast: from the frames `inits` [n] of a series, `steps` frames each."""

    series: Series
    inits: np.ndarray
    steps: int

    @cached_property
    def times(self) -> np.ndarray:
        """Init times: [n]."""
        return np.asarray(self.series.time.values[self.inits])

    @cached_property
    def input_sha256(self) -> str:
        """SHA-256 of all values of the series and of its further variables."""
        return _sha256_of_all([self.series, *self._further])

    @cached_property
    def covariates(self) -> dict[str, str]:
        """The SHA-256 of all values of the further variables, as an attribute; nothing without any."""
        return {COVARIATES: _sha256_of_all(self._further)} if self._further else {}

    @property
    def _further(self) -> list[Series]:
        opened = further.of(self.series)
        return [] if opened is None else [opened.series]


def _sha256_of_all(every: Sequence[Series]) -> str:
    """The hash of all values of several series, read block by block."""
    digest = hashlib.sha256()
    for series in every:
        n, at_once = series.sizes["time"], frames_at_once(series, HASHED_AT_ONCE)
        for start in range(0, n, at_once):
            frames = read_frames(series, start, min(start + at_once, n))
            digest.update(np.ascontiguousarray(frames).tobytes())
    return digest.hexdigest()


def plan(intake: Intake, series: Series, steps: int | None) -> Plan:
    """The forecasts from every frame of a series that ends an unbroken run of `in_steps` frames.

    Raises:
        TimeError: no such frame, or another step than the model's.
        UsageError: steps of calendar months, whose lead times differ from init to init.
        GridError, VariableError: the series does not fit the model.
    """
    data, step = intake.card.config.data, intake.card.step
    where = str(series.attrs["files"][0])
    if step.unit == "month":
        raise UsageError(
            f"{where} has steps of months, whose lead times differ from init to init",
            way_out="forecast from one --init at a time",
        )
    intake.orientation(series)
    windows.check_step(series.time.values, step, where)
    inits = windows.ends(series, data.in_steps, step)
    if not len(inits):
        raise TimeError(f"{where} has no {data.in_steps} steps in a row, which the model needs")
    inits = intake.startable(series, inits, steps or data.out_steps)
    if not len(inits):
        raise MissingValuesError(f"{where} lacks values of {', '.join(intake.card.read)} for a forecast from any init")
    steps = steps or data.out_steps
    ahead = steps if intake.intervals.adaptive else 0  # the truth of the forecasts
    return Plan(windows.remembered(series, data.in_steps + intake.contexts.reach + ahead), inits, steps)
