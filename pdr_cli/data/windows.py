"""Windows: a Series as arrays [B, T, C, H, W], read block by block through a cache of bounded size."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np

from pdr_cli.data import missing as gaps
from pdr_cli.data import times as time_axis
from pdr_cli.data.series import LazyFrames, Series, bytes_per_frame, frames_at_once, make_like, read_frames, size
from pdr_cli.data.times import Step
from pdr_cli.errors import TimeError

WAY_OUT = "a model trained with --set data.fill_missing=persist, mean or interp fills them"
# Frames in a block of the cache, fewer of large frames; in a series of windows that were cut beforehand, one window.
BLOCK = 32
# Steps that differ by more than this share on average are other steps: 24 and 25 frames a second, but not 29.97 and 30.
OTHER_STEP = 0.03


class FrameCache:
    """Decoded frames of several series, in blocks. Threads may share it; one of them reads at a time.

    Args:
        series: to read.
        limit_mb: size beyond which the least recently used blocks are dropped.
        at_least: blocks that are kept whatever their size.
    """

    def __init__(self, series: Sequence[Series], limit_mb: int, at_least: int = 2) -> None:
        self._series = series
        self._blocks: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._size = int(series[0].attrs.get("window", frames_at_once(series[0], BLOCK)))
        self._reading, self._changing = threading.Lock(), threading.Lock()
        self._limit = max(at_least, int(limit_mb * 1e6 / (self._size * bytes_per_frame(series[0]))))

    def most_bytes(self, frames: int) -> int:
        """Size of the cache of a series of `frames` frames, once it is full."""
        return min(self._limit * self._size, frames) * bytes_per_frame(self._series[0])

    def frames(self, series: int, start: int, stop: int) -> np.ndarray:
        """Frames [start, stop) of one series: [stop - start, C, H, W]."""
        first, last = start // self._size, (stop - 1) // self._size
        blocks = np.concatenate([self._block(series, b) for b in range(first, last + 1)])
        return blocks[start - first * self._size : stop - first * self._size]

    def hold(self, windows: int, length: int) -> None:
        """Keep room for so many windows of `length` frames, whatever their size."""
        self._limit = max(self._limit, windows * (-(-length // self._size) + 1))

    def _block(self, series: int, block: int) -> np.ndarray:
        key = (series, block)
        if (kept := self._kept(key)) is not None:
            return kept
        with self._reading:
            if (kept := self._kept(key)) is not None:  # another thread has read it meanwhile
                return kept
            source = self._series[series]
            frames = read_frames(source, block * self._size, min((block + 1) * self._size, source.sizes["time"]))
            self._keep(key, frames)
        return frames

    def _kept(self, key: tuple[int, int]) -> np.ndarray | None:
        with self._changing:
            if key in self._blocks:
                self._blocks.move_to_end(key)
            return self._blocks.get(key)

    def _keep(self, key: tuple[int, int], frames: np.ndarray) -> None:
        with self._changing:
            self._blocks[key] = frames
            while len(self._blocks) > self._limit:
                self._blocks.popitem(last=False)


class Windows:
    """Windows of `in_steps` observed and `out_steps` following frames. No window crosses a gap.

    Args:
        series: that the windows are cut from.
        places: [n, 2] series number and first frame of each window.
        in_steps: T.
        out_steps: τ.
        step: of the series.
        cache: of the series; windows of several parts share it.
        never_observed: cells that may be missing in any frame, [C, H, W]; None: no cell.
    """

    def __init__(
        self,
        series: Sequence[Series],
        places: np.ndarray,
        in_steps: int,
        out_steps: int,
        step: Step,
        cache: FrameCache,
        never_observed: np.ndarray | None = None,
    ) -> None:
        self.series = series
        self.places = places
        self.in_steps, self.out_steps = in_steps, out_steps
        self.step = step
        self.never_observed = never_observed
        self._cache = cache
        self._places_in_steps: dict[int, np.ndarray] = {}
        self._times: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.places)

    def batch(
        self, which: Sequence[int] | np.ndarray, missing: Literal["none", "following", "all"] = "none"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Observed and following frames in data units: [B, T, C, H, W] and [B, τ, C, H, W].

        Args:
            which: numbers of the windows.
            missing: which frames may hold missing values outside of the never observed cells.

        Raises:
            MissingValuesError: NaN or infinite values in other frames.
        """
        length = self.in_steps + self.out_steps
        frames = np.stack([self._cache.frames(s, start, start + length) for s, start in self.places[which]])
        checked = {"none": length, "following": self.in_steps, "all": 0}[missing]
        if not np.isfinite(frames[:, :checked]).all():
            for window, (number, start) in zip(frames, self.places[which], strict=True):
                gaps.check(window[:checked], self.series[number], int(start), self.never_observed, WAY_OUT)
        return frames[:, : self.in_steps], frames[:, self.in_steps :]

    def fetch(self, index: int) -> None:
        """Read the frames of a window into the cache, which has to have room for them (`hold`)."""
        number, start = (int(n) for n in self.places[index])
        self._cache.frames(number, start, start + self.in_steps + self.out_steps)

    def hold(self, windows: int) -> None:
        """Keep room in the cache for so many windows."""
        self._cache.hold(windows, self.in_steps + self.out_steps)

    def before(self, which: Sequence[int] | np.ndarray, n: int) -> np.ndarray:
        """The frame `n` steps before the last observed one of each window: [B, C, H, W].

        NaN where the series has a gap at that time or begins later; n = 0 is the last observed frame.
        """
        frames = np.full((len(which), *self.series[0].shape[1:]), np.nan, np.float32)
        for row, (number, start) in enumerate(self.places[which]):
            place = self._steps_of(int(number))
            earlier = place[start + self.in_steps - 1] - n
            index = int(np.searchsorted(place, earlier))
            if place[index] == earlier:
                frames[row] = self._cache.frames(int(number), index, index + 1)[0]
        return frames

    def cached_bytes(self, frames: int) -> int:
        """Size of the cache that windows of so many frames share."""
        return self._cache.most_bytes(frames)

    def _steps_of(self, number: int) -> np.ndarray:
        """Steps from the first frame of a series to each of its frames: [n]."""
        if number not in self._places_in_steps:
            times = self.series[number].time.values
            self._places_in_steps[number] = np.round(time_axis.positions(times, self.step)).astype(np.int64)
        return self._places_in_steps[number]

    def times(self, index: int) -> np.ndarray:
        """Times of one window, observed and following: [T + τ]."""
        number, start = (int(n) for n in self.places[index])
        if number not in self._times:
            self._times[number] = np.asarray(self.series[number].time.values)
        return self._times[number][start : start + self.in_steps + self.out_steps]

    def init_of(self, index: int) -> tuple[int, int]:
        """The number of the series that one window is cut from, and its init time in steps from the first frame of that."""
        number, start = (int(n) for n in self.places[index])
        return number, int(self._steps_of(number)[start + self.in_steps - 1])

    @property
    def dated(self) -> bool:
        """Whether times are dates, and not seconds of clips."""
        return not np.issubdtype(self.series[0].time.values.dtype, np.floating)

    @property
    def period(self) -> list[str]:
        """The first and the last time of all windows, in words."""
        return [time_axis.label(self.times(i)[place]) for i, place in ((0, 0), (len(self) - 1, -1))]

    def only(self, keep: np.ndarray) -> Windows:
        """The windows that a boolean mask or an index array keeps."""
        return self._copy(self.places[keep], self.never_observed)

    def spread(self, at_most: int) -> Windows:
        """At most `at_most` windows, evenly spaced."""
        if len(self) <= at_most:
            return self
        return self.only(np.linspace(0, len(self) - 1, at_most).round().astype(int))

    def followed_by(self, out_steps: int) -> Windows:
        """The same windows with their first `out_steps` following frames, of which they have as many or more."""
        return Windows(self.series, self.places, self.in_steps, out_steps, self.step, self._cache, self.never_observed)

    def with_never_observed(self, cells: np.ndarray) -> Windows:
        """The same windows, in which these cells, [C, H, W], may be missing."""
        return self._copy(self.places, cells)

    def _copy(self, places: np.ndarray, never_observed: np.ndarray | None) -> Windows:
        return Windows(self.series, places, self.in_steps, self.out_steps, self.step, self._cache, never_observed)

    def unbroken(self, broken: Sequence[np.ndarray]) -> Windows:
        """The windows none of whose observed frames is in `broken`, a mask over the frames of each series."""
        before = [np.concatenate([[0], np.cumsum(b)]) for b in broken]
        return self.only(np.array([before[n][i + self.in_steps] == before[n][i] for n, i in self.places], dtype=bool))

    def observed_whole(self) -> Windows:
        """The windows whose observed frames lack no values but those of never observed cells. Reads them all."""
        keep = np.zeros(len(self), dtype=bool)
        for index, (number, start) in enumerate(self.places):
            absent = ~np.isfinite(self._cache.frames(int(number), int(start), int(start) + self.in_steps))
            keep[index] = not (absent if self.never_observed is None else absent & ~self.never_observed).any()
        return self.only(keep)


def cut(
    series: Sequence[Series],
    periods: Sequence[tuple[int, int, int]],
    in_steps: int,
    out_steps: int,
    step: Step,
    cache: FrameCache,
    stride: int = 1,
) -> Windows:
    """All windows inside periods (series number, start, stop) that contain no gap, every `stride` steps."""
    length = in_steps + out_steps
    places: list[tuple[int, int]] = []
    for number, start, stop in periods:
        times = series[number].time.values[start:stop]
        for low, high in time_axis.segments(times, step):
            places += [(number, start + first) for first in range(low, high - length + 1, stride)]
    return Windows(series, np.array(places, dtype=np.int64).reshape(-1, 2), in_steps, out_steps, step, cache)


def last_window(
    series: Series, in_steps: int, step: Step, init: int | None = None, fill_gap: bool = False
) -> tuple[int, int]:
    """First and one-past-last frame of the `in_steps` steps that end with frame `init` (default: the last).

    With `fill_gap`, single steps may be missing inside; where the first step is, the frame before it is the first.

    Raises:
        TimeError: too few steps, another step, or a gap inside the window.
    """
    times = series.time.values
    where = str(series.attrs["files"][0])
    stop = len(times) if init is None else init + 1
    check_step(times[max(stop - in_steps, 0) : stop], step, where)
    start, available = _reach(times[:stop], in_steps, step) if fill_gap and stop else (stop - in_steps, stop)
    if available < in_steps:
        until = "" if init is None else f" up to {time_axis.label(times[init])}"
        raise TimeError(f"{where}: the model needs {in_steps} steps, found {available}{until}")
    spacing = np.diff(time_axis.positions(times[start:stop], step))
    if np.any(spacing >= (2 if fill_gap else 1) + time_axis.TOLERANCE):
        raise _gap(times[start:stop], in_steps, step, fill_gap).at(where)
    return start, stop


def _reach(times: np.ndarray, in_steps: int, step: Step) -> tuple[int, int]:
    """The frame `in_steps` - 1 steps before the last, or the frame before that time; and the steps that the times span."""
    place = np.round(time_axis.positions(times, step)).astype(np.int64)
    first = int(np.searchsorted(place, place[-1] - in_steps + 1, side="right")) - 1
    return first, int(place[-1] - place[0]) + 1


def _gap(times: np.ndarray, in_steps: int, step: Step, fill_gap: bool) -> TimeError:
    """The error for a window with missing times: the first three, and how many."""
    absent = time_axis.missing(times, step)
    some = ", ".join(time_axis.label(t) for t in absent[:3]) + (", ..." if len(absent) > 3 else "")
    way_out = "--fill-gap fills single steps only" if fill_gap else "--fill-gap interp fills single steps"
    return TimeError(
        f"{len(absent)} time{'s are' if len(absent) > 1 else ' is'} missing in the last {in_steps} steps: {some}",
        way_out=f"{way_out}, or choose an earlier --init",
    )


def close_gaps(frames: np.ndarray, times: np.ndarray, step: Step) -> tuple[np.ndarray, np.ndarray]:
    """Frames [n, C, H, W] and their times, with the mean of both neighbours inserted where a single step is missing."""
    jump = np.diff(np.round(time_axis.positions(times, step)).astype(int))
    at = np.flatnonzero(jump == 2) + 1
    if not len(at):
        return frames, times
    between = (frames[at - 1] + frames[at]) / 2
    lacking = np.array([time_axis.shift(times[i - 1], step, 1) for i in at], dtype=times.dtype)
    return np.insert(frames, at, between, axis=0), np.insert(times, at, lacking)


def ends(series: Series, in_steps: int, step: Step) -> np.ndarray:
    """Frames that end an unbroken run of `in_steps` frames: [n]."""
    runs = time_axis.segments(series.time.values, step)
    return np.concatenate([np.arange(low + in_steps - 1, high) for low, high in runs] or [np.empty(0, np.int64)])


def remembered(series: Series, length: int) -> Series:
    """The same series behind a cache, for reading overlapping runs of `length` frames one after another."""
    at_once = frames_at_once(series, BLOCK)
    cache = FrameCache([series], 0, at_least=2 + length // at_once)
    shape = (series.shape[0], series.shape[1], *size(series))
    return make_like(series, LazyFrames(shape, np.float32, partial(cache.frames, 0)))


def check_step(times: np.ndarray, step: Step, where: str) -> None:
    """Refuse a time axis with another step than the model's.

    Raises:
        TimeError: names both.
    """
    if len(times) < 2:
        return
    spacing = np.diff(time_axis.positions(times, step))
    whole = np.round(spacing)
    uneven = np.any(np.abs(spacing - whole) > time_axis.TOLERANCE) or np.all(whole != 1)
    if uneven or abs(float(spacing[whole == 1].mean()) - 1) > OTHER_STEP:
        clip = step.unit == "s" and np.issubdtype(times.dtype, np.floating)
        way_out = f"--resample-fps {1 / step.count:.6g} takes frames at the model's rate" if clip else ""
        raise TimeError(f"{where}: {_steps(times)}, but the model was trained on steps of {step}", way_out=way_out)


def _steps(times: np.ndarray) -> str:
    """The step of a time axis in words, or what keeps it from having one."""
    try:
        return f"steps of {time_axis.find_step(times)}"
    except TimeError as error:
        return error.found
