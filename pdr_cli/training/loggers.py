"""Loggers: what records the course of a training beside metrics.jsonl, such as TensorBoard; chosen by `train.loggers`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from pdr_cli import choices
from pdr_cli.runs.folder import RunFolder
from pdr_cli.system.logs import log
from pdr_cli.trust import Trust


class Logger(Protocol):
    """Records the lines of metrics.jsonl elsewhere."""

    def log(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """Record a line.

        Args:
            event: "step", "validation" or "finished".
            step: optimiser steps so far.
            values: numbers, or lists of them, by name: see docs/command-line.md.
        """

    def close(self) -> None:
        """Write what is not yet written; the training has ended or stops."""


# (folder of the run, step that it continues from; 0: it begins) -> a logger. What was recorded after that step is void.
Factory = Callable[[RunFolder, int], Logger]


class Loggers:
    """The loggers of a run. One that fails is left out from then on with a warning: no training ends for its record.

    Args:
        names: of the loggers.
        folder: of the run.
        trust: see `families.Family.find`.

    Raises:
        ConfigError: an unknown name.
        UsageError: a package is missing.
    """

    def __init__(self, names: Sequence[str], folder: RunFolder, trust: Trust | None = None) -> None:
        self._folder = folder
        self._factories: dict[str, Factory] = {name: choices.LOGGERS.find(name, trust) for name in names}
        self._open: dict[str, Logger] = {}

    def open(self, step: int) -> None:
        """Begin to record after a step."""
        for name, factory in self._factories.items():
            self._guarded(name, partial(self._begin, name, factory, step))

    def log(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """See `Logger.log`."""
        for name, logger in list(self._open.items()):
            self._guarded(name, partial(logger.log, event, step, values))

    def close(self) -> None:
        """See `Logger.close`."""
        for name, logger in list(self._open.items()):
            self._guarded(name, logger.close)
        self._open.clear()

    def _begin(self, name: str, factory: Factory, step: int) -> None:
        self._open[name] = factory(self._folder, step)

    def _guarded(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._open.pop(name, None)
            log.warning("logger %s failed and is left out: %s: %s", name, type(error).__name__, error)
