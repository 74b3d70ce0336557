"""Logs and progress on stderr; stdout belongs to results."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("pdr")


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        return json.dumps(line | getattr(record, "fields", {}), ensure_ascii=False)


class _PlainLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        prefix = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return prefix + record.getMessage()


def setup(quiet: bool, verbose: bool, as_json: bool) -> None:
    """Send log lines to stderr: errors only with `quiet`, detail with `verbose`, one JSON object a line with `as_json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLine() if as_json else _PlainLine())
    log.handlers = [handler]
    log.propagate = False
    log.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)


@contextmanager
def warnings_alone() -> Iterator[None]:
    """Leave out lines below warnings, of what is done to measure or to check."""
    before = log.level
    log.setLevel(max(before, logging.WARNING))
    try:
        yield
    finally:
        log.setLevel(before)


def plain_output() -> bool:
    """True if a live display would be unreadable: no terminal, JSON lines, or quiet."""
    json_lines = any(isinstance(h.formatter, _JsonLine) for h in log.handlers)
    dumb = os.environ.get("TERM") == "dumb"
    return json_lines or dumb or sys.stderr is None or not sys.stderr.isatty() or not log.isEnabledFor(logging.INFO)


SHORTEST, LONGEST = 1.0, 30.0  # seconds between two lines of progress


class Progress:
    """Progress of a long operation: a live bar on a terminal, otherwise a line every 10 % or 30 s.

    Lines are at least a second apart, so that an operation of seconds does not print ten at once.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._next_fraction = 0.1
        self._last = time.monotonic()

    def update(self, fraction: float, detail: str = "") -> None:
        """Report that `fraction` (0 to 1) of the operation is done."""
        since = time.monotonic() - self._last
        due = (fraction >= self._next_fraction and since >= SHORTEST) or since >= LONGEST
        if not due and fraction < 1:
            return
        self._next_fraction = (int(fraction * 10 + 1e-9) + 1) / 10
        self._last = time.monotonic()
        log.info("%s %3.0f %%%s", self.title, 100 * fraction, f"  {detail}" if detail else "")


class Silence(Progress):
    """No progress, for a part of a larger operation that reports its own."""

    def __init__(self) -> None:
        super().__init__("")

    def update(self, fraction: float, detail: str = "") -> None:
        """Report nothing."""


class _LiveProgress(Progress):
    def __init__(self, title: str) -> None:
        super().__init__(title)
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(title, total=1.0, detail="")
        self._bar.start()

    def update(self, fraction: float, detail: str = "") -> None:
        self._bar.update(self._task, completed=fraction, detail=detail)

    def stop(self) -> None:
        self._bar.stop()


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """A live bar if stderr is a terminal, otherwise lines."""
    if plain_output():
        yield Progress(title)
        return
    live = _LiveProgress(title)
    try:
        yield live
    finally:
        live.stop()
