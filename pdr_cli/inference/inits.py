"""Windows that end at many inits of one series, and the forecasts after them, as arrays and not as a Series each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pdr_cli.data import units
from pdr_cli.data.bounds import Bounds
from pdr_cli.data.context import Context
from pdr_cli.data.grid import Orientation
from pdr_cli.data.series import Series, names, read_frames
from pdr_cli.inference.intake import Intake
from pdr_cli.inference.observed import Observed


@dataclass(frozen=True)
class Inits:
    """Reads windows of a series and brings forecasts back to its grid and units; what all windows share is found once.

    Args:
        intake: of the model.
        series: the input, in the model's units.
    """

    intake: Intake
    series: Series

    @cached_property
    def times(self) -> np.ndarray:
        """Times of all frames: [T]."""
        return np.asarray(self.series.time.values)

    @cached_property
    def orientation(self) -> Orientation:
        """From the series' grid to the model's."""
        return self.intake.orientation(self.series)

    def observe(self, inits: np.ndarray) -> list[Observed]:
        """The windows that end with frames `inits`, ascending, each of which ends an unbroken run of observed frames.

        Raises:
            MissingValuesError, RangeError: as `Intake.observe`.
        """
        return [window for run in self._runs(inits) for window in self._observe(run)]

    def _runs(self, inits: np.ndarray) -> list[np.ndarray]:
        """The inits in runs whose windows overlap or touch, so that the frames of a run are read in one call."""
        return np.split(inits, np.flatnonzero(np.diff(inits) > self._length) + 1)

    def _observe(self, run: np.ndarray) -> Iterator[Observed]:
        first, mending = int(run[0]) - self._length + 1, self.intake.mending
        frames = read_frames(self.series, first, int(run[-1]) + 1)
        for start in (int(init) - self._length + 1 for init in run):
            window, times = frames[start - first :][: self._length], self.times[start : start + self._length]
            yield mending.observed(window, times, self.series, start, self.orientation)

    @property
    def _length(self) -> int:
        return self.intake.card.config.data.in_steps

    def context(self, each: Sequence[Observed], steps: int) -> Context:
        """What the network is given beside windows, for forecasts of `steps` frames."""
        return self.intake.context_of_all(self.series, each, self.times, steps)

    def given(self, frames: np.ndarray, each: Sequence[Observed]) -> np.ndarray:
        """Forecasts after windows as the file has them: on its grid, in its units, within the bounds of its quantities.

        Args:
            frames: [n, ..., C, H, W] on the model's grid, in its units.
            each: the n windows.

        Returns:
            [n, ..., C, H, W]; NaN in cells that the window never observes.
        """
        absent = np.stack([window.never_observed for window in each])
        absent = absent.reshape(len(each), *[1] * (frames.ndim - 4), *absent.shape[1:])
        turned = self.orientation.invert(np.where(absent, np.float32(np.nan), frames))
        converted = units.converted(turned, {c: how.invert for c, how in enumerate(self._conversions) if how})
        return converted if self._bounds is None else self._bounds.clip(converted)

    @cached_property
    def _conversions(self) -> list[units.Conversion | None]:
        """How each channel came from the units of the file to the model's; None: it has them."""
        found = units.from_given(self.series)
        return [found.get(name) for name in names(self.series)]

    @cached_property
    def _bounds(self) -> Bounds | None:
        """The model's bounds in the units of the file."""
        bounds = self.intake.card.bounds
        return None if bounds is None else bounds.converted(self._conversions)
