"""The window that a forecast starts from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from pdr_cli.data.grid import Orientation


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
