"""What is asked of `pdr predict`: whether a file answers it already, and whether its input is ready."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from pdr_cli import checkpoint, files, runs
from pdr_cli.data import stored
from pdr_cli.data import times as time_axis
from pdr_cli.data.series import Series, names, units
from pdr_cli.errors import CheckpointError, DataError, LockedError, MissingValuesError, TimeError
from pdr_cli.forecast import Model, Observed
from pdr_cli.logs import log

Answer = TypeVar("Answer")
POLL = 0.5  # seconds between two looks at an input that is not ready
# What an input that is still being written may look like. Another grid or another variable will not change.
UNREADY = (DataError, TimeError, MissingValuesError, LockedError)


def identity(trained: Model, series: Series, window: Observed, steps: int | None, output: Path) -> str:
    """SHA-256 of all that a forecast depends on: its window, its model, the options, and the formats of both files.

    Times of files and versions of pdr are not of it: the same request gives the same forecast.
    """
    asked = {
        "steps": steps or trained.card.config.data.out_steps,
        "model": files.sha256(trained.path),
        "model_format": checkpoint.FORMAT_VERSION,
        "output": output.suffix.lower(),
        "window": window_sha256(window),
        "times": time_axis.seconds(series.time.values[window.start : window.stop]).tolist(),
        "variables": list(zip(names(series), units(series), strict=True)),
        "grid": {
            str(n): np.asarray(c.values).tolist() for n, c in series.coords.items() if c.dims in (("y",), ("x",), ())
        },
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def window_sha256(window: Observed) -> str:
    """SHA-256 of the observed values, as the input has them."""
    return hashlib.sha256(window.turn.invert(window.frames[0]).tobytes()).hexdigest()


def is_answered(output: Path, request: str) -> bool:
    """True if a file is the answer to a request of this identity, by what it says of itself."""
    return stored.provenance(output).get("pdr_request_id") == request


def settled(ask: Callable[[], Answer], paths: Sequence[Path], wait: float) -> Answer:
    """`ask()`, which reads `paths`; again for up to `wait` seconds while these are being written by somebody else.

    Raises:
        LockedError: somebody is writing an input, or with `wait`, it was not readable at the end of that time.
        DataError: what `ask` raises.
    """
    until = time.monotonic() + wait
    while True:
        before = _look_of(paths)
        try:
            with files.inputs_in_use(paths):
                answer = ask()
            if not wait or _look_of(paths) == before:
                return answer
            problem = f"{paths[0]} is still growing"
        except UNREADY as error:
            if not wait or type(error) not in UNREADY:
                raise
            problem = str(error)
        if time.monotonic() >= until:
            raise LockedError(f"{problem}; waited {wait:g} s for it to be written. Try later, or wait longer")
        log.debug("waiting %s", problem)
        time.sleep(max(0.0, min(POLL, until - time.monotonic())))


def model_before(path: Path, fallback: str | None, error: CheckpointError) -> Path:
    """What stands in for a damaged model of a run, if the user has asked for it.

    Raises:
        CheckpointError: not asked for, or there is none.
    """
    before = runs.RunFolder(path.parent).previous_model
    there = path.name == "model.safetensors" and before.is_file()
    if fallback is None:
        raise CheckpointError(str(error) + ("; --fallback last-1 takes the model before it" if there else ""))
    if not there:
        raise CheckpointError(f"{error}; and there is no model before it, {before}, to fall back to") from error
    log.warning("%s; falling back to the model before it, %s", error, before)
    return before


def _look_of(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Size and time of change of each file."""
    return [(s.st_size, s.st_mtime_ns) for s in (p.stat() for p in paths)]
