"""Forecasts from every possible init of a series, computed and written block by block: memory does not grow with them.

Several processes share the blocks: the first lays the store out and finishes it, each writes a region of its own.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pdr_cli.data import formats, windows
from pdr_cli.data.formats import cf
from pdr_cli.data.formats.cf import Layout
from pdr_cli.data.formats.stored import sha256_of
from pdr_cli.data.series import Series
from pdr_cli.errors import StorageError, TimeError, UsageError
from pdr_cli.inference.model import Model
from pdr_cli.system import space
from pdr_cli.system.logs import Progress
from pdr_cli.system.processes import Processes

AT_ONCE = 16  # windows that the network sees together, where the user has not said


@dataclass(frozen=True)
class Hindcast:
    """Which forecasts are to be made: from the frames `inits` [n] of a series, `steps` frames each."""

    model: Model
    series: Series
    inits: np.ndarray
    steps: int

    @cached_property
    def times(self) -> np.ndarray:
        """Init times: [n]."""
        return np.asarray(self.series.time.values[self.inits])

    @cached_property
    def example(self) -> Series:
        """The forecast from the first init, whose grid and lead times are those of all."""
        return self.model.forecast(self.series, int(self.inits[0]), self.steps)

    def frames(self, low: int, high: int) -> np.ndarray:
        """The forecasts from inits [low, high) on the input's grid, in its units: [n, τ, C, H, W]."""
        at_once = self.model.batches.at_once or AT_ONCE
        parts = [self._together(a, min(a + at_once, high)) for a in range(low, high, at_once)]
        return np.concatenate(parts)

    def _together(self, low: int, high: int) -> np.ndarray:
        seen = [self.model.observe(self.series, int(init)) for init in self.inits[low:high]]
        fused = self.model.run(np.concatenate([w.frames for w in seen]), self.steps).fused
        made = [self.model.dress(fused[i : i + 1], self.series, window) for i, window in enumerate(seen)]
        return np.stack([np.asarray(one.values, np.float32) for one in made])


def plan(model: Model, series: Series, steps: int | None) -> Hindcast:
    """The forecasts from every frame of a series that ends an unbroken run of as many as the model observes.

    Raises:
        TimeError: there is none, or the series has another step than the model.
        UsageError: steps of calendar months, whose lead times differ from init to init.
        GridError, VariableError: the series does not fit the model.
    """
    in_steps, step = model.card.config.data.in_steps, model.card.step
    where = str(series.attrs["files"][0])
    if step.unit == "month":
        raise UsageError(
            f"{where} has steps of months, whose lead times differ from init to init; forecast one --init each"
        )
    model.check(series)
    windows.check_step(series.time.values, step, where)
    inits = windows.ends(series, in_steps, step)
    if not len(inits):
        raise TimeError(f"{where}: the model needs {in_steps} steps in a row, and there are nowhere so many")
    kept = windows.remembered(series, in_steps)
    return Hindcast(model, kept, inits, steps or model.card.config.data.out_steps)


def write(
    job: Hindcast,
    path: Path,
    provenance: Mapping[str, str],
    *,
    time_layout: str,
    compress: int,
    processes: Processes,
    progress: Progress,
) -> None:
    """Write a hindcast, atomically and verified; `path` is the name of a NetCDF file or, for several processes, a Zarr store.

    Raises:
        StorageError: the file system refused, or what was written reads back differently.
    """
    layout = cf.hindcast_layout(job.example, job.times, provenance, time_layout)
    store = formats.field_store(path)
    with formats.atomically(path, need=layout.nbytes) if processes.first else contextlib.nullcontext(path) as temporary:
        with processes.together(), space.storage_errors(path):
            if processes.first:
                store.create(temporary, layout, compress)
        temporary = Path(processes.from_first(str(temporary)))
        with processes.together(), space.storage_errors(path):
            blocks = _blocks(layout, processes)
            with store.writing(temporary, layout) as put:
                sums = {block: _fill(job, block, put, progress, done) for block, done in blocks}
            with store.reading_back(temporary, layout) as stored:
                _compare(sums, stored, path)
        if processes.first:
            with space.storage_errors(path):
                store.note(temporary, {"pdr_data_sha256": sha256_of(temporary)})


def _blocks(layout: Layout, processes: Processes) -> Iterator[tuple[tuple[int, int], float]]:
    """This process's inits [low, high) by whole chunks, and the share of them that is done with each."""
    n, length = layout.shape[0], layout.chunks[0]
    mine = processes.share(-(-n // length))
    for i, number in enumerate(mine):
        yield (number * length, min((number + 1) * length, n)), (i + 1) / len(mine)


def _fill(
    job: Hindcast, block: tuple[int, int], put: Callable[[int, np.ndarray], None], progress: Progress, done: float
) -> int:
    """Forecast and write one block; returns a checksum of its numbers."""
    frames = job.frames(*block)
    put(block[0], frames)
    progress.update(done)
    return zlib.crc32(cf.filled(frames).tobytes())


def _compare(sums: dict[tuple[int, int], int], stored: Callable[[int, int], np.ndarray], path: Path) -> None:
    for (low, high), expected in sums.items():
        if zlib.crc32(cf.filled(stored(low, high)).tobytes()) != expected:
            raise StorageError(f"{path}: forecasts {low} to {high - 1} read back differently from what was written")
