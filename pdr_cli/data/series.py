"""Series: the one type that travels from file to network and back.

A Series is an `xarray.DataArray` with dims (time, channel, y, x), read lazily. Its coordinates are the file's own
and keep their names: a latitude called `lat` is a coordinate `lat` on dim y; on a grid that is not rectangular on the globe,
latitudes and longitudes are coordinates on (y, x). Every Series has in `attrs`

* `variables`: {channel name: attributes of that variable},
* `kind`: name of the kind of data, see `data/kinds.py`,
* `files`: paths of the files it was read from,
* `file_attrs`: global attributes of the first file.

Formats add, where it applies,

* `value_range`: lowest and highest value that the format defines, such as 0 and 255 of pictures,
* `may_lack`: True where frames may hold missing values (NaN),
* `missing_values`: the numbers that stand for missing values by an option, see `ReadOptions`,
* `grid_mapping`: name and attributes of the variable that describes the projection,
* `bounds`: {coordinate name: (name of its bounds, their values [n, 2], or [H, W, corners])},
* `scalars`: {channel: {coordinate name: (value, attributes)}}, such as a height of 2 m or a level,
* `labels`: {channel: {coordinate name: word}} of scalar coordinates that tell a member, such as `member_id`,
* `identity`: tells this series from others whose times are not dates, see `data/seen.py`,
* `source_size`: (H, W) of pictures before they were resized,
* `resampled`: frame rate that a clip was brought to, in words,
* `container`, `rate` and `assumed`: what the container of a clip says, the rate fitted to its stamps ("24", "variable"), and
  what was assumed of a clip or a folder of pictures, in words,
* `pixel_aspect`: width and height of the pixels of a clip, where they are not square,
* `folder`: name of the folder whose pictures are the frames,
* `part`: "train", "val" or "test", where a benchmark, a file or the names of folders define the split,
* `named_part`: True where it is the name of a folder or file that gives the part,
* `conventions`: {name: value} of the conventions that arrays were read by, see `data/arrays.py`,
* `assumed`: what the file leaves open and was assumed, in words,
* `window`: length of windows that were cut beforehand and lie end to end,
* `clip_starts`: first frames of the clips that such windows come from,
* `person` and `action` of a KTH clip.

Series for a network with covariates have

* `further`: the variables that it reads beside the channels, see `data/further.py`,
* `static`: {name: map [H, W]}, in training.

Input to a model gains, where it was changed,

* `given_units`: {channel: units of the file}, see `data/units.py`,
* `regridded`: method of the interpolation to the model's grid.

Forecasts have

* `bounded`: their bounds, see `data/bounds.py`,
* `intervals`: the ends of their intervals, see `data/intervals.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from pdr_cli.data import times as time_axis
from pdr_cli.system import damage

Series = xr.DataArray
DIMS = ("time", "channel", "y", "x")
MEMBERS = "realization"  # the dimension of the members of an ensemble, before the others
BLOCK_BYTES = 64 * 10**6


class LazyFrames(BackendArray):
    """Frames on disk as an array [T, C, H, W]; `read(start, stop)` returns [stop - start, C, H, W]."""

    def __init__(self, shape: tuple[int, int, int, int], dtype: Any, read: Callable[[int, int], np.ndarray]) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._read = read
        self.file = ""  # named in the error if reading fails

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._get)

    def _get(self, key: tuple[Any, ...]) -> np.ndarray:
        when, *rest = key
        with damage.reading(self.file):
            if isinstance(when, slice):
                return self._slice(range(*when.indices(self.shape[0])))[(slice(None), *rest)]
            return self._read(int(when), int(when) + 1)[(0, *rest)]

    def _slice(self, steps: range) -> np.ndarray:
        if not steps:
            return np.empty((0, *self.shape[1:]), self.dtype)
        low, high = min(steps[0], steps[-1]), max(steps[0], steps[-1]) + 1
        return self._read(low, high)[:: steps.step]


def make_series(
    frames: np.ndarray | LazyFrames,
    times: np.ndarray,
    variables: Mapping[str, Mapping[str, Any]],
    coords: Mapping[str, Any],
    *,
    kind: str,
    files: Sequence[Path | str] = (),
    file_attrs: Mapping[str, Any] | None = None,
) -> Series:
    """Assemble a Series.

    Args:
        frames: [T, C, H, W], in memory or lazy.
        times: [T] datetime64, cftime or float seconds.
        variables: attributes of each channel by name, in order.
        coords: further coordinates in xarray's form, such as {"lat": ("y", values, attrs)}.
        kind: "weather", "traffic" or "video".
        files: paths of the files read.
        file_attrs: global attributes of the first file.
    """
    data: Any = frames
    if isinstance(frames, LazyFrames):
        frames.file = str(next(iter(files), "the data"))
        data = indexing.LazilyIndexedArray(frames)
    attrs = {
        "variables": {name: dict(a) for name, a in variables.items()},
        "kind": kind,
        "files": [str(f) for f in files],
        "file_attrs": dict(file_attrs or {}),
    }
    return xr.DataArray(
        xr.Variable(DIMS, data),
        coords={"time": ("time", times), "channel": ("channel", list(variables)), **coords},
        attrs=attrs,
    )


def with_members(series: Series, frames: np.ndarray) -> Series:
    """An ensemble with the coordinates and attributes of a forecast; frames: [M, T, C, H, W]."""
    numbers = (MEMBERS, np.arange(len(frames)), {"standard_name": "realization", "units": "1"})
    coords = {str(n): (c.dims, c.values, c.attrs) for n, c in series.coords.items()} | {MEMBERS: numbers}
    return Series(frames, dims=(MEMBERS, *series.dims), coords=coords, attrs=series.attrs)


def mean_of(series: Series) -> Series:
    """A forecast, or the mean of its members."""
    if MEMBERS not in series.dims:
        return series
    mean = series.values.mean(axis=0, dtype=np.float64).astype(np.float32)
    return series.isel(realization=0, drop=True).copy(data=mean)


def joined_members(each: Sequence[Series]) -> Series:
    """One ensemble of several forecasts or ensembles of the same times."""
    frames = [one.values if MEMBERS in one.dims else one.values[None] for one in each]
    first = each[0]
    return with_members(
        first.isel(realization=0, drop=True) if MEMBERS in first.dims else first, np.concatenate(frames)
    )


def make_like(
    series: Series,
    frames: np.ndarray | LazyFrames,
    *,
    times: np.ndarray | None = None,
    variables: Mapping[str, Mapping[str, Any]] | None = None,
    sides: Mapping[str, Any] | None = None,
) -> Series:
    """A copy of `series` with new frames; everything not passed is kept.

    Args:
        series: to copy.
        frames: [T, C, H, W], in memory or lazy.
        times: [T].
        variables: attributes of each channel by name, in order.
        sides: coordinates along y and x, in xarray's form; they replace all but the scalar coordinates.
    """
    others = {n: c for n, c in series.coords.items() if n not in ("time", "channel")}
    kept = {str(n): (c.dims, c.values, c.attrs) for n, c in others.items() if sides is None or c.dims == ()}
    out = make_series(
        frames,
        series.time.values if times is None else times,
        series.attrs["variables"] if variables is None else variables,
        kept | dict(sides or {}),
        kind=series.attrs["kind"],
        files=series.attrs["files"],
        file_attrs=series.attrs["file_attrs"],
    )
    return out.assign_attrs({k: v for k, v in series.attrs.items() if k not in out.attrs})


def reordered(series: Series, order: np.ndarray) -> Series:
    """The frames numbered `order`, all or some, in that order; frames that are neighbours in the file are read in one call."""

    def frames(start: int, stop: int) -> np.ndarray:
        which = order[start:stop]
        if not len(which):
            return np.empty((0, *series.shape[1:]), np.float32)
        low, high = int(which.min()), int(which.max()) + 1
        if high - low == len(which):
            return read_frames(series, low, high)[which - low]
        return np.concatenate([read_frames(series, int(i), int(i) + 1) for i in which])

    lazy = LazyFrames((len(order), *shape(series)[1:]), np.float32, frames)
    return make_like(series, lazy, times=series.time.values[order])


def precut_times(count: int, length: int, step: float) -> np.ndarray:
    """Times in seconds of `count` windows of `length` frames: [count * length].

    One step is left out between windows, so that the gap keeps any window from crossing.
    """
    return np.asarray((np.arange(count)[:, None] * (length + 1) + np.arange(length)).ravel() * step)


def read_frames(series: Series, start: int, stop: int) -> np.ndarray:
    """Frames [start, stop) as float32: [stop - start, C, H, W]."""
    return np.asarray(series.isel(time=slice(start, stop)).values, dtype=np.float32)


def frame_at(series: Series, last: int, age: int, step: time_axis.Step) -> np.ndarray:
    """The frame `age` steps before frame `last`: [C, H, W], NaN where the series has none."""
    # Frames lie a step or more apart, up to the rounding of time stamps.
    low = max(0, last - 1 - math.ceil(age * (1 + time_axis.TOLERANCE)))
    ticks = time_axis.positions(series.time.values[low : last + 1], step)
    index = int(np.searchsorted(ticks, ticks[-1] - age - 0.5))
    if abs(ticks[index] - ticks[-1] + age) > time_axis.TOLERANCE:
        return np.full(series.shape[1:], np.nan, np.float32)
    return read_frames(series, low + index, low + index + 1)[0]


def end_to_end(parts: Sequence[tuple[Callable[[int, int], np.ndarray], int]]) -> Callable[[int, int], np.ndarray]:
    """A reader of frames [start, stop) of the concatenation of `parts`, each a reader and its length."""
    starts = np.cumsum([0, *[length for _, length in parts]])

    def read(start: int, stop: int) -> np.ndarray:
        pieces = [
            part(max(start - low, 0), min(stop, high) - low)
            for (part, _), low, high in zip(parts, starts[:-1], starts[1:], strict=True)
            if start < high and stop > low
        ]
        return np.concatenate(pieces)

    return read


def names(series: Series) -> list[str]:
    """Channel names."""
    return [str(n) for n in series.channel.values]


def units(series: Series) -> list[str]:
    """Units of each channel; empty where the file gives none."""
    return [str(series.attrs["variables"].get(n, {}).get("units", "")) for n in names(series)]


def side(series: Series, dim: str) -> xr.DataArray | None:
    """The coordinate along `dim` ("y" or "x"), or None on a plain pixel grid."""
    return next((c for c in series.coords.values() if c.dims == (dim,)), None)


def places(series: Series) -> list[xr.DataArray]:
    """Latitude and longitude of each cell, [H, W], of a grid that is not rectangular on the globe."""
    return [c for c in series.coords.values() if c.dims == ("y", "x")]


def size(series: Series) -> tuple[int, int]:
    """(H, W)."""
    return int(series.sizes["y"]), int(series.sizes["x"])


def shape(series: Series) -> tuple[int, int, int, int]:
    """(T, C, H, W)."""
    frames, channels, height, width = series.shape
    return frames, channels, height, width


def bytes_per_frame(series: Series) -> int:
    """Size of one decoded float32 frame."""
    return 4 * int(np.prod([series.sizes[d] for d in DIMS[1:]]))


def frames_at_once(series: Series, at_most: int) -> int:
    """Number of frames to read in one call: as many as fit in 64 MB, at least 1 and at most `at_most`."""
    return max(1, min(at_most, BLOCK_BYTES // bytes_per_frame(series)))


def describe(series: Series) -> str:
    """One line: variables, size, times and step."""
    step = time_axis.find_step(series.time.values)
    height, width = size(series)
    when = series.time.values
    return (
        f"{', '.join(names(series))} {series.sizes['time']} x {height} x {width}, every {step}, "
        f"{time_axis.label(when[0])} to {time_axis.label(when[-1])}"
    )
