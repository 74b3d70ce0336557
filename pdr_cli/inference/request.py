"""What is asked of `pdr predict`: its options, whether a file answers it already, and whether its input is ready."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from pdr_cli.commands import inputs
from pdr_cli.data import formats
from pdr_cli.data import times as time_axis
from pdr_cli.data import units as unit_names
from pdr_cli.data.formats import stored
from pdr_cli.data.series import Series, frames_at_once, names, read_frames, units
from pdr_cli.errors import CheckpointError, DataError, LockedError, MissingValuesError, TimeError, UsageError
from pdr_cli.inference.model import Model, Observed, Repairs
from pdr_cli.runs import folder as runs
from pdr_cli.runs import modelfile
from pdr_cli.system import locks
from pdr_cli.system.logs import log

Answer = TypeVar("Answer")
POLL = 0.5  # seconds between two looks at an input that is not ready
# What an input that is still being written may look like. Another grid or another variable will not change.
UNREADY = (DataError, TimeError, MissingValuesError, LockedError)
BLOCK = 32  # frames that are hashed at once


@dataclass(frozen=True)
class Request:
    """The options of `pdr predict`; its help says what each means."""

    arguments: Sequence[str]
    output: Path
    model: str | None = None
    init: str | None = None
    every_init: bool = False
    steps: int | None = None
    batch: int | None = None
    rename: Sequence[str] = ()
    repairs: Repairs = field(default_factory=Repairs)
    time_layout: str = "cf"
    compress: int = formats.COMPRESSION
    preview: Path | None = None
    skip_existing: bool = False
    no_clobber: bool = False
    wait: float = 0
    fallback: str | None = None
    device: str = "auto"

    @cached_property
    def paths(self) -> list[Path]:
        """The input files."""
        return formats.find_inputs(self.arguments)

    @property
    def targets(self) -> list[Path]:
        """What is to be written."""
        return [self.output, *([self.preview] if self.preview else [])]

    def load(self, how: Callable[[Path, str, Repairs, int | None], Model], device: str) -> Model:
        """The model, or the one before it if that is damaged and `fallback` says so.

        Args:
            how: `forecast.load`, or `forecast.Deferred` for its header alone.
            device: see `devices.pick`.

        Raises:
            CheckpointError: it is damaged, and nothing may stand in for it.
        """
        source = runs.find_model(self.model)
        try:
            return how(source, device, self.repairs, self.batch)
        except CheckpointError as error:
            return how(model_before(source, self.fallback, error), device, self.repairs, self.batch)

    def open(self, trained: Model) -> Series:
        """The input, as the model wants it.

        Raises:
            UsageError: several clips, or a format of the output that cannot hold this input.
        """
        series = only_series(trained.open(self.paths, inputs.renames(self.rename, list(trained.card.variables))))
        formats.check_output_format(self.output, series)
        return series

    def lead_steps(self, trained: Model) -> int:
        """How many frames to forecast; says so if they are more than the model was trained for."""
        trained_for = trained.card.config.data.out_steps
        if self.steps and self.steps > trained_for:
            log.info("%d steps asked, %d trained: the forecast is fed back for the rest", self.steps, trained_for)
        return self.steps or trained_for

    def identity(self, trained: Model, series: Series, input_sha256: str, times: np.ndarray) -> str:
        """SHA-256 of all that a forecast depends on: its input, its model, the options, and the formats of both files.

        Times of files and versions of pdr are not of it: the same request gives the same forecast.

        Args:
            trained: the model, of which the header is enough.
            series: the input.
            input_sha256: of the values that are observed.
            times: when they are.
        """
        asked = {
            "steps": self.steps or trained.card.config.data.out_steps,
            "every_init": self.every_init,
            "model": trained.sha256,
            "model_format": modelfile.FORMAT_VERSION,
            "output": [self.output.suffix.lower(), self.time_layout, self.compress],
            "repairs": dataclasses.asdict(self.repairs),
            "observed": input_sha256,
            "times": time_axis.seconds(times).tolist(),
            "variables": list(zip(names(series), units(series), strict=True)),
            "units": series.attrs.get(unit_names.GIVEN, {}),
            "grid": {
                str(n): np.asarray(c.values).tolist()
                for n, c in series.coords.items()
                if c.dims in (("y",), ("x",), ())
            },
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def only_series(opened: list[Series]) -> Series:
    """The one series of an input; the last of one file that holds several.

    Raises:
        UsageError: several clips.
    """
    clips = {tuple(s.attrs["files"]) for s in opened}
    if len(clips) > 1:
        raise UsageError(f"one clip is forecast at a time, but the input holds {len(clips)}; name one of them")
    return opened[-1]


def window_sha256(window: Observed) -> str:
    """SHA-256 of the observed values, mended and on the input's grid; NaN where the window knows none."""
    frames = np.where(window.unknown, np.float32(np.nan), window.frames[0])
    return hashlib.sha256(window.turn.invert(frames).tobytes()).hexdigest()


def series_sha256(series: Series) -> str:
    """SHA-256 of all values of a series, read block by block."""
    digest, n, at_once = hashlib.sha256(), series.sizes["time"], frames_at_once(series, BLOCK)
    for start in range(0, n, at_once):
        digest.update(np.ascontiguousarray(read_frames(series, start, min(start + at_once, n))).tobytes())
    return digest.hexdigest()


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
            with locks.inputs_in_use(paths):
                answer = ask()
            if not wait or _look_of(paths) == before:
                return answer
            problem = f"{paths[0]} is still growing"
        except UNREADY as error:
            if not wait or type(error) not in UNREADY:
                raise
            problem = str(error).removesuffix(locks.TRY_LATER)
        if time.monotonic() >= until:
            raise LockedError(f"{problem}; waited {wait:g} s for it. Try later, or wait longer")
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
    """Size and time of change of each file, and of all that is in a folder."""
    every = [found for p in paths for found in (p, *sorted(p.rglob("*")))]
    return [(s.st_size, s.st_mtime_ns) for s in (p.stat() for p in every)]
