"""Windows read ahead by a thread: the same frames, once, and errors where they were."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from pdr_cli.data.ahead import Ahead
from pdr_cli.data.series import LazyFrames, make_series
from pdr_cli.data.times import Step
from pdr_cli.data.windows import FrameCache, Windows, cut
from pdr_cli.errors import DataError

FRAMES = 40


def windows(read: Callable[[int, int], np.ndarray], cache_mb: int = 0) -> Windows:
    """Windows of 2 + 1 frames of 64 MB each, which `read` makes as numbers in a corner."""
    times = np.datetime64("2020-01-01", "ns") + np.arange(FRAMES) * np.timedelta64(6, "h")
    series = make_series(
        LazyFrames((FRAMES, 1, 4000, 4000), np.float32, read), times, {"v": {}}, {}, kind="weather", files=["v.nc"]
    )
    return cut([series], [(0, 0, FRAMES)], 2, 1, Step(6 * 3600), FrameCache([series], cache_mb))


class Source:
    """Counts what is read, and by which threads."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.threads: list[str] = []

    def __call__(self, start: int, stop: int) -> np.ndarray:
        self.read += range(start, stop)
        self.threads.append(threading.current_thread().name)
        frames = np.broadcast_to(np.float32(0), (stop - start, 1, 4000, 4000)).copy()
        frames[:, 0, 0, 0] = np.arange(start, stop)
        return frames


def numbers(found: tuple[np.ndarray, np.ndarray]) -> list[list[float]]:
    return np.concatenate(found, axis=1)[:, :, 0, 0, 0].tolist()


def wait(ahead: Ahead) -> None:
    assert ahead._reading is not None
    ahead._reading.exception(timeout=60)


def test_the_next_batch_is_in_the_cache_and_the_same() -> None:
    source = Source()
    cut_windows = windows(source)
    ahead = Ahead(cut_windows, batch=2)
    assert numbers(cut_windows.batch([0, 10])) == [[0, 1, 2], [10, 11, 12]]
    ahead.expect(np.array([20, 5]))
    wait(ahead)
    assert source.read == [0, 1, 2, 10, 11, 12, 20, 21, 22, 5, 6, 7]
    assert set(source.threads[6:]) == {"reader_0"}
    assert numbers(cut_windows.batch([20, 5])) == [[20, 21, 22], [5, 6, 7]]
    assert len(source.read) == 12, "no frame is read twice"
    ahead.end()
    assert not [one for one in threading.enumerate() if one.name.startswith("reader")]


def test_what_fails_in_the_thread_is_reported_by_the_batch() -> None:
    source = Source()

    def read(start: int, stop: int) -> np.ndarray:
        if start >= 20:
            raise OSError("the disk is gone")
        return source(start, stop)

    cut_windows = windows(read)
    ahead = Ahead(cut_windows, batch=2)
    ahead.expect(np.array([20]))
    wait(ahead)
    with pytest.raises(DataError, match=r"v.nc.*the disk is gone"):
        cut_windows.batch([20])
    ahead.end()


def test_the_end_does_not_wait_for_all_windows() -> None:
    source, began = Source(), threading.Event()

    def read(start: int, stop: int) -> np.ndarray:
        began.set()
        time.sleep(0.05)
        return source(start, stop)

    ahead = Ahead(windows(read), batch=8)
    ahead.expect(np.arange(0, 24, 3))
    began.wait(60)
    ahead.end()
    assert len(source.read) <= 6, "the window that it reads, and at most one more"


def test_a_frame_that_two_threads_ask_for_is_read_once() -> None:
    source = Source()

    def slow(start: int, stop: int) -> np.ndarray:
        time.sleep(0.05)
        return source(start, stop)

    cut_windows = windows(slow, cache_mb=1000)
    threads = [threading.Thread(target=cut_windows.fetch, args=(0,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source.read == [0, 1, 2]
