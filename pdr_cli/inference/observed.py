"""The window that a forecast starts from, and how its frames are checked and mended."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from pdr_cli.data import limits, missing, suspects, windows
from pdr_cli.data import times as time_axis
from pdr_cli.data.covariates import warn_of_holidays
from pdr_cli.data.encoding import Encoding
from pdr_cli.data.grid import Orientation
from pdr_cli.data.series import Series
from pdr_cli.inference.header import ModelHeader


@dataclass(frozen=True)
class Observed:
    """The window that a forecast starts from.

    Args:
        frames: [1, T, C, H, W] on the model's grid, nothing missing.
        orientation: from the series' grid to the model's.
        start: first frame in the series.
        stop: one past the last.
        never_observed: cells without any value in the window, [C, H, W] on the model's grid; NaN in the forecast.
        times: of the frames, [T].
        notes: the defects that were mended in it, for the history of the forecast; see also `history`.
    """

    frames: np.ndarray
    orientation: Orientation
    start: int
    stop: int
    never_observed: np.ndarray
    times: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """SHA-256 of the mended frames on the input's grid, NaN in cells that are never observed."""
        frames = np.where(self.never_observed, np.float32(np.nan), self.frames[0])
        return hashlib.sha256(self.orientation.invert(frames).tobytes()).hexdigest()


@dataclass(frozen=True)
class Mending:
    """Checks the frames of windows, and fills their missing values.

    Args:
        model: that reads the windows.
        encoding: of the model, with the filling.
        in_range: refuse values far outside of the range of training.
    """

    model: ModelHeader
    encoding: Encoding
    in_range: bool

    def observed(
        self,
        frames: np.ndarray,
        times: np.ndarray,
        series: Series,
        start: int,
        orientation: Orientation,
        *,
        advise: bool = False,
    ) -> Observed:
        """The window that frames of a series make; see `Intake.observe` for what is refused and filled.

        Args:
            frames: [T, C, H, W] of the series, or one fewer where a single step is missing.
            times: of the frames.
            series: the input, for messages.
            start: of the first frame.
            orientation: of the series, see `Intake.orientation`.
            advise: log what is unlikely but may be right.
        """
        card = self.model.card
        data, step, stop = card.config.data, card.step, start + len(frames)
        frames = self._believable(frames, series, start, orientation)
        if advise and card.limits is not None:
            limits.warn_of_narrow(frames, series, card.limits, card.hidden)
        frames, times = windows.close_gaps(frames, times, step)
        inserted = len(frames) - (stop - start)
        frames, times = orientation.apply(frames[-data.in_steps :]), times[-data.in_steps :]
        absent = ~np.isfinite(frames)
        if self.model.may_lack is not None:
            absent &= ~self.model.may_lack
        filled = self._without_targets(self.encoding.filling.apply(frames[None], [times]))
        notes = self._notes(inserted, absent)
        if advise and card.covariates is not None:
            warn_of_holidays(card.covariates, time_axis.shift(times[-1], step, data.out_steps))
        return Observed(filled, orientation, start, stop, absent.all(axis=0), times, notes)

    def _without_targets(self, frames: np.ndarray) -> np.ndarray:
        """Frames [..., C, H, W] with the mean of training in the channels that are targets."""
        if self.model.card.hidden is None:
            return frames
        mean = np.asarray(self.encoding.filling.mean, np.float32)
        return np.where(self.model.card.hidden[:, None, None], mean[:, None, None], frames)

    def _believable(self, frames: np.ndarray, series: Series, start: int, orientation: Orientation) -> np.ndarray:
        """Frames [T, C, H, W] of a series from step `start`: NaN for absurd values, where training observed nothing, and in
        targets.
        """
        cells = self.model.may_lack
        cells = None if cells is None else orientation.invert(cells)
        if self.encoding.filling.method == "none":
            missing.check(frames, series, start, cells)
        suspects.check(frames, series)
        frames = missing.without_absurd(frames)
        frames = frames if cells is None else np.where(cells, np.float32(np.nan), frames)
        if self.model.card.limits is not None and self.in_range:
            limits.check(frames, series, start, self.model.card.limits)
        return frames

    def _notes(self, inserted: int, absent: np.ndarray) -> tuple[str, ...]:
        notes = []
        if inserted:
            notes.append(f"{inserted} missing time step{'s' if inserted > 1 else ''} interpolated")
        if absent.any():
            method = self.encoding.filling.method
            notes.append(f"{int(absent.sum())} of {absent.size} values missing, filled by {method}")
        return tuple(notes)
