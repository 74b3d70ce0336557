"""Missing data: cells that are never known, such as land, and what stands for other missing cells in a network's input."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pdr_cli.data import times as time_axis
from pdr_cli.data.climatology import Climatology
from pdr_cli.data.series import Series, names
from pdr_cli.errors import MissingValuesError, UsageError

METHODS = ("persist", "mean", "interp")
ABSURD = 1e30  # no field holds such numbers: NetCDF's own fill value is 9.97e36
ALLOW = "fill them with --fill-missing persist, mean or interp"


@dataclass(frozen=True)
class Land:
    """Cells that were missing in every training frame. `packed` is their mask's bits, compressed, in base64."""

    shape: tuple[int, int, int]
    packed: str

    @classmethod
    def of(cls, cells: np.ndarray) -> Land:
        """From a mask [C, H, W]."""
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
    """How a window that lacks cells becomes one that a network can read, on the grid of its training data.

    Args:
        mean: of each channel in training; what stands for land: [C].
        land: cells that training never saw: [C, H, W]; None if it saw all.
        method: "none", or for other missing cells "persist" (the last known value of the cell in the window, before it
            the first), "mean" (the training climatology at that time) or "interp" (between the known frames before and
            after, or else between the known cells around). A cell that the window never knows gets the climatology.
        climatology: of the training data; None with "none".
    """

    mean: np.ndarray
    land: np.ndarray | None
    method: str
    climatology: Climatology | None

    def apply(self, frames: np.ndarray, times: Sequence[np.ndarray]) -> np.ndarray:
        """Windows [B, T, C, H, W] in data units, NaN where missing, at `times`, [T] of each; filled."""
        if self.land is not None:
            frames = np.where(self.land, np.asarray(self.mean, np.float32)[:, None, None], frames)
        if self.climatology is None or self.method == "none" or np.isfinite(frames).all():
            return frames
        usual = self.climatology
        return np.stack([self._fill(window, usual.at(when)) for window, when in zip(frames, times, strict=True)])

    def land_only(self) -> Filling:
        """The same for frames whose other missing values stay missing."""
        return replace(self, method="none")

    def _fill(self, frames: np.ndarray, usual: np.ndarray) -> np.ndarray:
        how: dict[str, Callable[[np.ndarray], np.ndarray]] = {"persist": persisted, "interp": interpolated}
        filled = how.get(self.method, lambda x: x)(frames)
        return np.where(np.isfinite(filled), filled, usual).astype(np.float32)


def check_method(method: str) -> None:
    """Refuse an unknown way to fill.

    Raises:
        UsageError: names those there are.
    """
    if method not in ("none", *METHODS):
        raise UsageError(f"--fill-missing {method}: use {', '.join(METHODS[:-1])} or {METHODS[-1]}")


def without_absurd(frames: np.ndarray) -> np.ndarray:
    """The frames with NaN for infinite values and for fill values that the file does not declare."""
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(frames) < ABSURD, frames, np.float32(np.nan))


def persisted(frames: np.ndarray) -> np.ndarray:
    """Each missing value as the last known one before it, or else the first after it: [T, ...]."""
    return np.take_along_axis(frames, np.where(_before(frames) >= 0, _before(frames), _first(frames)), axis=0)


def interpolated(frames: np.ndarray) -> np.ndarray:
    """Missing values linearly in time where known before and after, else in space, else persisted: [T, C, H, W]."""
    filled = between(frames)
    sometimes = np.isfinite(frames).any(axis=0)
    for t, c in np.argwhere((~np.isfinite(filled) & sometimes).any(axis=(2, 3))):
        filled[t, c] = np.where(sometimes[c], across(filled[t, c]), filled[t, c])
    return persisted(filled)


def between(frames: np.ndarray) -> np.ndarray:
    """Missing values on the line between the known ones before and after, where there are both: [T, ...]."""
    before = _before(frames)
    after = len(frames) - 1 - _before(frames[::-1])[::-1]
    inside = (before >= 0) & (after < len(frames)) & (after > before)
    low, high = (np.take_along_axis(frames, np.clip(i, 0, len(frames) - 1), axis=0) for i in (before, after))
    age = np.arange(len(frames)).reshape(-1, *[1] * (frames.ndim - 1))
    share = (age - before) / np.maximum(after - before, 1)
    return np.where(inside, low + (high - low) * share, frames).astype(frames.dtype)


def across(plane: np.ndarray) -> np.ndarray:
    """Missing cells linearly between the known ones around: [H, W]; those outside of their hull stay missing."""
    from scipy.interpolate import griddata

    known = np.isfinite(plane)
    wanted, there = np.argwhere(~known), np.argwhere(known)
    if len(there) < 3 or np.any(np.ptp(there, axis=0) == 0):  # a triangle has an area
        return plane
    filled = plane.copy()
    filled[~known] = griddata(there, plane[known], wanted, method="linear")
    return filled


def _before(frames: np.ndarray) -> np.ndarray:
    """The last frame up to each that knows the cell, -1 where none does: [T, ...]."""
    age = np.arange(len(frames)).reshape(-1, *[1] * (frames.ndim - 1))
    return np.maximum.accumulate(np.where(np.isfinite(frames), age, -1), axis=0)


def _first(frames: np.ndarray) -> np.ndarray:
    """The first frame that knows each cell, 0 where none does: [1, ...]."""
    return np.isfinite(frames).argmax(axis=0)[None]


def check(frames: np.ndarray, series: Series, start: int, land: np.ndarray | None = None, way_out: str = ALLOW) -> None:
    """Refuse missing, infinite and absurd values in frames [T, C, H, W] of a series that begin at step `start`.

    Args:
        frames: to look at.
        series: for names and times.
        start: the first frame's step.
        land: [C, H, W], cells that may be missing.
        way_out: ends the message.

    Raises:
        MissingValuesError: says how many, in which variable and when first.
    """
    bad = ~np.isfinite(without_absurd(frames))
    if land is not None:
        bad &= ~land
    if not bad.any():
        return
    counts = bad.sum(axis=(0, 2, 3))
    worst = int(np.argmax(counts))
    first = int(np.argmax(bad[:, worst].any(axis=(1, 2))))
    value = frames[first, worst][bad[first, worst]][0]
    what = (
        "missing (NaN)" if np.isnan(value) else f"no data ({value:g}: infinite, or a fill value that is not declared)"
    )
    raise MissingValuesError(
        f"{series.attrs['files'][0]}: {int(counts[worst])} of {bad[:, worst].size} values of {names(series)[worst]} are "
        f"{what} between {time_axis.label(series.time.values[start])} and "
        f"{time_axis.label(series.time.values[start + len(frames) - 1])}, first at "
        f"{time_axis.label(series.time.values[start + first])}; {way_out}"
    )
