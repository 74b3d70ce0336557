"""Series: the one type that travels from file to network and back.

A Series is an `xarray.DataArray` with dims (time, channel, y, x), read lazily. Its coordinates are the file's own
and keep their names: a latitude called `lat` is a coordinate `lat` on dim y. `attrs` hold

* `variables`: {channel name: attributes of that variable},
* `kind`: name of the kind of data, see `data/kinds.py`,
* `files`: the paths it came from,
* `file_attrs`: global attributes of the first file;

where the file gives them,

* `value_range`: lowest and highest value that the format defines, such as 0 and 255 of pictures,
* `may_lack`: True where frames may hold missing values (NaN),
* `grid_mapping`: name and attributes of the variable that describes the projection,
* `bounds`: {coordinate name: (name of its bounds, their values [n, 2])};

and, where a benchmark defines them,

* `part`: "train" or "test", which a split then follows,
* `identity`: what tells this series apart from others where times do not,
* `folder`: the name of the folder of pictures that it is,
* `window`: frames of each window, where the series is windows that were cut beforehand, end to end,
* `clip_starts`: the first frames of clips within such a series,
* `person` and `action` of a KTH clip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from pdr_cli.data import times as time_axis
from pdr_cli.errors import GridError
from pdr_cli.system import damage

Series = xr.DataArray
DIMS = ("time", "channel", "y", "x")
BLOCK_BYTES = 64 * 10**6


class LazyFrames(BackendArray):
    """Frames on disk as an array [T, C, H, W]; `read(start, stop)` returns [stop - start, C, H, W]."""

    def __init__(self, shape: tuple[int, int, int, int], dtype: Any, read: Callable[[int, int], np.ndarray]) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._read = read
        self.file = ""  # which a failure to read is put down to

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._get)

    def _get(self, key: tuple[Any, ...]) -> np.ndarray:
        with damage.reading(self.file):
            return self._frames(key)

    def _frames(self, key: tuple[Any, ...]) -> np.ndarray:
        when, *rest = key
        if isinstance(when, slice):
            wanted = range(*when.indices(self.shape[0]))
            if not wanted:
                return np.empty((0, *self.shape[1:]), self.dtype)[(slice(None), *rest)]
            low, high = min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1]) + 1
            frames = self._read(low, high)[:: wanted.step]
            return frames[(slice(None), *rest)]
        return self._read(int(when), int(when) + 1)[(0, *rest)]


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
        files: the paths read.
        file_attrs: global attributes of the file.
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


def make_like(
    series: Series,
    frames: np.ndarray | LazyFrames,
    *,
    times: np.ndarray | None = None,
    variables: Mapping[str, Mapping[str, Any]] | None = None,
    sides: Mapping[str, Any] | None = None,
) -> Series:
    """A Series of other frames that is like another one in all that is not said: times, variables, y and x coordinates."""
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
    """The same frames in another order, `order` being their numbers; read together where they lie together."""

    def frames(start: int, stop: int) -> np.ndarray:
        wanted = order[start:stop]
        if not len(wanted):
            return np.empty((0, *series.shape[1:]), np.float32)
        low, high = int(wanted.min()), int(wanted.max()) + 1
        if high - low == len(wanted):
            return read_frames(series, low, high)[wanted - low]
        return np.concatenate([read_frames(series, int(i), int(i) + 1) for i in wanted])

    return make_like(series, LazyFrames(shape(series), np.float32, frames), times=series.time.values[order])


def precut_times(count: int, length: int, step: float) -> np.ndarray:
    """Seconds of `count` windows of `length` frames, one step left out between windows so that none crosses: [count * length]."""
    return np.asarray((np.arange(count)[:, None] * (length + 1) + np.arange(length)).ravel() * step)


def read_frames(series: Series, start: int, stop: int) -> np.ndarray:
    """Frames [start, stop) as float32: [stop - start, C, H, W]."""
    return np.asarray(series.isel(time=slice(start, stop)).values, dtype=np.float32)


def end_to_end(parts: Sequence[tuple[Callable[[int, int], np.ndarray], int]]) -> Callable[[int, int], np.ndarray]:
    """One reader of frames [start, stop) over parts that follow each other, each a reader and its length."""
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
    """How many frames are read together: as many as fit in 64 MB, one at least, `at_most` of small ones."""
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


class Orientation:
    """How frames of one grid are turned to another's: a repeated last column cut, flipped in y or x, rolled; and back."""

    def __init__(self, flip_y: bool, flip_x: bool, roll_x: int, repeats_x: bool = False) -> None:
        self.flip_y, self.flip_x, self.roll_x, self.repeats_x = flip_y, flip_x, roll_x, repeats_x

    def apply(self, frames: np.ndarray) -> np.ndarray:
        """[..., H, W] of the input's grid to the model's."""
        frames = frames[..., :-1] if self.repeats_x else frames
        frames = frames[..., ::-1, :] if self.flip_y else frames
        frames = frames[..., ::-1] if self.flip_x else frames
        return np.ascontiguousarray(np.roll(frames, self.roll_x, axis=-1))

    def invert(self, frames: np.ndarray) -> np.ndarray:
        """[..., H, W] of the model's grid to the input's."""
        frames = np.roll(frames, -self.roll_x, axis=-1)
        frames = frames[..., ::-1] if self.flip_x else frames
        frames = np.concatenate([frames, frames[..., :1]], axis=-1) if self.repeats_x else frames
        return np.ascontiguousarray(frames[..., ::-1, :] if self.flip_y else frames)

    def invert_points(
        self, x: np.ndarray, y: np.ndarray, rotation: np.ndarray, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Columns, rows and angles (from +x to +y) on the model's grid of `size` (H, W) to the input's."""
        x = (x - self.roll_x) % size[1] if self.roll_x else x
        x = size[1] - 1 - x if self.flip_x else x
        y = size[0] - 1 - y if self.flip_y else y
        return x, y, -rotation if self.flip_x != self.flip_y else rotation


def orient(
    y: np.ndarray | None, x: np.ndarray | None, model_y: np.ndarray | None, model_x: np.ndarray | None
) -> Orientation:
    """How to turn a grid with coordinates (y, x) to the model's.

    Raises:
        GridError: the coordinates are others, not the same in another order.
    """
    flip_y, _ = _align(y, model_y, "y", cyclic=False)
    repeats = x is not None and model_x is not None and len(x) == len(model_x) + 1 and _repeats(x)
    flip_x, roll_x = _align(x[:-1] if repeats and x is not None else x, model_x, "x", cyclic=True)
    return Orientation(flip_y, flip_x, roll_x, repeats)


def wraps(longitudes: np.ndarray) -> bool:
    """True if columns go round the globe once: their span and one step are 360 degrees."""
    values = np.sort(np.asarray(longitudes, float))
    if len(values) < 2:
        return False
    step = (values[-1] - values[0]) / (len(values) - 1)
    return bool(np.allclose(np.diff(values), step, rtol=1e-2) and abs(step * len(values) - 360) < 1e-2 * step)


def _repeats(longitudes: np.ndarray) -> bool:
    """True if the last column is the first one again, a turn on."""
    return bool(
        abs(abs(float(longitudes[-1]) - float(longitudes[0])) - 360) < 1e-3 * abs(longitudes[1] - longitudes[0])
    )


def _align(values: np.ndarray | None, wanted: np.ndarray | None, dim: str, cyclic: bool) -> tuple[bool, int]:
    if wanted is None or values is None:
        return False, 0
    for flip in (False, True):
        candidate = values[::-1] if flip else values
        if _close(candidate, wanted):
            return flip, 0
        if cyclic and (roll := _roll(candidate, wanted)) is not None:
            return flip, roll
    raise GridError(
        f"the input's {dim} coordinate is another grid than the model's: {_ends(values)} here, {_ends(wanted)} in the model; "
        "regrid the input to it (pdr predict --regrid bilinear)"
    )


def _close(values: np.ndarray, wanted: np.ndarray) -> bool:
    """Equal within a thousandth of a cell: float32 grids of 0.1 degrees differ by 1.2e-5 from float64 ones."""
    if len(values) != len(wanted):
        return False
    cell = float(np.median(np.abs(np.diff(wanted)))) if len(wanted) > 1 else 1.0
    return bool(np.all(np.abs(values - wanted) <= 1e-3 * cell))


def _roll(values: np.ndarray, wanted: np.ndarray) -> int | None:
    """Columns to roll so that longitudes agree modulo 360 degrees, or None."""
    if len(values) != len(wanted) or len(values) < 2:
        return None
    cell = float(np.median(np.abs(np.diff(wanted))))
    start = np.flatnonzero(np.abs((values - wanted[0] + 180) % 360 - 180) <= 1e-3 * cell)
    if len(start) != 1:
        return None
    rolled = np.roll(values, -int(start[0]))
    difference = (rolled - wanted + 180) % 360 - 180
    return -int(start[0]) if _close(difference + wanted, wanted) else None


def _ends(values: np.ndarray) -> str:
    return f"{len(values)} values from {values[0]:g} to {values[-1]:g}"
