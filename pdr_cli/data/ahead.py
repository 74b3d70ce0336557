"""Reading ahead: the frames of the next batch are decoded while a step computes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from pdr_cli.data.windows import Windows


class Ahead:
    """A thread that reads windows into the cache of their frames before a batch takes them from it.

    Neither the order nor the numbers of batches depend on it. What fails in the thread is left to the batch, which then
    reads for itself and reports the error.

    Args:
        windows: to read.
        batch: windows of a batch; the cache keeps room for two.
    """

    def __init__(self, windows: Windows, batch: int) -> None:
        windows.hold(2 * batch)
        self._windows = windows
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._ended = threading.Event()
        self._reading: Future[None] | None = None

    def expect(self, which: Sequence[int] | np.ndarray) -> None:
        """Begin to read the windows of the next batch, unless the thread still reads others."""
        if self._reading is None or self._reading.done():
            self._reading = self._thread.submit(self._read, which)

    def _read(self, which: Sequence[int] | np.ndarray) -> None:
        for window in which:
            if self._ended.is_set():
                return
            self._windows.fetch(int(window))

    def end(self) -> None:
        """End the thread after the window that it reads."""
        self._ended.set()
        self._thread.shutdown()
