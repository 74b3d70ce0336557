"""Missing values: cells that training never observed, such as land, and the filling of other gaps in a network's input."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pdr_cli.data import times as time_axis
from pdr_cli.data.climatology import Climatology
from pdr_cli.data.series import Series, names
from pdr_cli.errors import MissingValuesError, UsageError

METHODS = ("persist", "mean", "interp")
ABSURD = 1e30  # larger than the values of any field; NetCDF's default fill value is 9.97e36
ALLOW = "fill them with --fill-missing persist, mean or interp"


@dataclass(frozen=True)
class CellMask:
    """A mask over cells in the form that model files keep.

    Args:
        shape: (C, H, W).
        packed: the bits of the mask, compressed, in base64.
    """

    shape: tuple[int, int, int]
    packed: str

    @classmethod
    def of(cls, cells: np.ndarray) -> CellMask:
        """Pack a mask [C, H, W]."""
        packed = base64.b64encode(zlib.compress(np.packbits(cells).tobytes(), 9))
        channels, height, width = cells.shape
        return cls((channels, height, width), packed.decode())

    @cached_property
    def cells(self) -> np.ndarray:
        """The mask: [C, H, W]."""
        bits = np.frombuffer(zlib.decompress(base64.b64decode(self.packed)), np.uint8)
        return np.unpackbits(bits, count=int(np.prod(self.shape))).astype(bool).reshape(self.shape)


@dataclass(frozen=True)
class Filling:
    """Fills the missing values of windows on the model's grid.

    Args:
        mean: of each channel in training, [C]; fills the never observed cells.
        never_observed: cells that were missing in every training frame, [C, H, W]; None if there are none.
        method: "none", or for other missing values "persist" (the last observed value of the cell in the window, before
            that the first), "mean" (the training climatology at that time) or "interp" (between the observed frames
            before and after, or else between the observed cells around). Cells that the window never observes get the
            climatology.
        climatology: of the training data; None with "none".
    """

    mean: np.ndarray
    never_observed: np.ndarray | None
    method: str
    climatology: Climatology | None

    def apply(self, frames: np.ndarray, times: Sequence[np.ndarray]) -> np.ndarray:
        """Windows [B, T, C, H, W] in data units, NaN where missing, at `times`, [T] of each; filled."""
        frames, climatology = self.fill_never_observed(frames), self.climatology
        if climatology is None or self.method == "none" or np.isfinite(frames).all():
            return frames
        return np.stack([self._fill(window, climatology.at(when)) for window, when in zip(frames, times, strict=True)])

    def fill_never_observed(self, frames: np.ndarray) -> np.ndarray:
        """Frames [..., C, H, W] in data units with the mean in never observed cells; other missing values stay NaN."""
        if self.never_observed is None:
            return frames
        return np.where(self.never_observed, np.asarray(self.mean, np.float32)[:, None, None], frames)

    def _fill(self, frames: np.ndarray, climate: np.ndarray) -> np.ndarray:
        how: dict[str, Callable[[np.ndarray], np.ndarray]] = {"persist": persisted, "interp": interpolated}
        filled = how.get(self.method, lambda x: x)(frames)
        return np.where(np.isfinite(filled), filled, climate).astype(np.float32)


def check_method(method: str) -> None:
    """Refuse an unknown filling method.

    Raises:
        UsageError: lists the methods.
    """
    if method not in ("none", *METHODS):
        raise UsageError(
            f"--fill-missing {method} is not known", way_out=f"use {', '.join(METHODS[:-1])} or {METHODS[-1]}"
        )


def without_absurd(frames: np.ndarray) -> np.ndarray:
    """The frames with NaN for infinite values and undeclared fill values."""
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(frames) < ABSURD, frames, np.float32(np.nan))


def persisted(frames: np.ndarray) -> np.ndarray:
    """Missing values replaced by the last observed value before, or else the first after: [T, ...]."""
    return np.take_along_axis(frames, np.where(_before(frames) >= 0, _before(frames), _first(frames)), axis=0)


def interpolated(frames: np.ndarray) -> np.ndarray:
    """Missing values interpolated linearly in time, or else in space, or else persisted: [T, C, H, W]."""
    filled = between(frames)
    observed = np.isfinite(frames).any(axis=0)
    for t, c in np.argwhere((~np.isfinite(filled) & observed).any(axis=(2, 3))):
        filled[t, c] = np.where(observed[c], across(filled[t, c]), filled[t, c])
    return persisted(filled)


def between(frames: np.ndarray) -> np.ndarray:
    """Missing values interpolated linearly in time where the cell is observed before and after: [T, ...]."""
    before = _before(frames)
    after = len(frames) - 1 - _before(frames[::-1])[::-1]
    inside = (before >= 0) & (after < len(frames)) & (after > before)
    low, high = (np.take_along_axis(frames, np.clip(i, 0, len(frames) - 1), axis=0) for i in (before, after))
    age = np.arange(len(frames)).reshape(-1, *[1] * (frames.ndim - 1))
    share = (age - before) / np.maximum(after - before, 1)
    return np.where(inside, low + (high - low) * share, frames).astype(frames.dtype)


def across(plane: np.ndarray) -> np.ndarray:
    """Missing cells interpolated linearly in space: [H, W]; cells outside of the hull of observed cells stay missing."""
    from scipy.interpolate import griddata

    observed = np.isfinite(plane)
    points = np.argwhere(observed)
    if len(points) < 3 or np.any(np.ptp(points, axis=0) == 0):  # a triangulation needs points that are not on a line
        return plane
    filled = plane.copy()
    filled[~observed] = griddata(points, plane[observed], np.argwhere(~observed), method="linear")
    return filled


def _before(frames: np.ndarray) -> np.ndarray:
    """The last frame up to each frame in which the cell is observed, -1 if there is none: [T, ...]."""
    age = np.arange(len(frames)).reshape(-1, *[1] * (frames.ndim - 1))
    return np.maximum.accumulate(np.where(np.isfinite(frames), age, -1), axis=0)


def _first(frames: np.ndarray) -> np.ndarray:
    """The first frame in which each cell is observed, 0 if there is none: [1, ...]."""
    return np.isfinite(frames).argmax(axis=0)[None]


def check(
    frames: np.ndarray, series: Series, start: int, never_observed: np.ndarray | None = None, way_out: str = ALLOW
) -> None:
    """Refuse missing, infinite and absurd values in frames [T, C, H, W] of a series that begin at step `start`.

    Args:
        frames: to check.
        series: for names and times.
        start: step of the first frame.
        never_observed: [C, H, W], cells that may be missing.
        way_out: of the error.

    Raises:
        MissingValuesError: number of values, variable and first time.
    """
    bad = ~np.isfinite(without_absurd(frames))
    if never_observed is not None:
        bad &= ~never_observed
    if not bad.any():
        return
    counts = bad.sum(axis=(0, 2, 3))
    worst = int(np.argmax(counts))
    first = int(np.argmax(bad[:, worst].any(axis=(1, 2))))
    from_, to, at = (time_axis.label(series.time.values[start + n]) for n in (0, len(frames) - 1, first))
    if counts[worst] == bad[:, worst].size:  # nothing to fill from
        way_out = "give data that have values there"
    raise MissingValuesError(
        f"{series.attrs['files'][0]}: {int(counts[worst])} of {bad[:, worst].size} values of {names(series)[worst]} are "
        f"{_what(frames[first, worst][bad[first, worst]][0])} between {from_} and {to}, first at {at}",
        way_out=way_out,
    )


def _what(value: float) -> str:
    """What is wrong with a value, in words."""
    if np.isnan(value):
        return "missing (NaN)"
    return f"no data ({value:g}: infinite, or a fill value that is not declared)"
