"""A request of `pdr predict`: its options, its identity, and whether its model and its input are ready."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pdr_cli.data import formats
from pdr_cli.data import times as time_axis
from pdr_cli.data import units as unit_names
from pdr_cli.data.formats import pointfile, stored, zarr
from pdr_cli.data.series import Series, names, size, units
from pdr_cli.errors import (
    CheckpointError,
    DataError,
    LockedError,
    MissingValuesError,
    OutputError,
    PdrError,
    TimeError,
    UsageError,
)
from pdr_cli.inference import header, loading, members
from pdr_cli.inference import intake as intakes
from pdr_cli.inference.between import WHOLE, Between
from pdr_cli.inference.filming import NOT_FILMED, Filming
from pdr_cli.inference.finer import CELLS, Finer
from pdr_cli.inference.header import ModelHeader
from pdr_cli.inference.intake import Intake
from pdr_cli.inference.intervals import NONE, Intervals
from pdr_cli.inference.loaded import FP32, LoadedModel
from pdr_cli.inference.members import DIRECT, Drawing
from pdr_cli.inference.policy import InputPolicy
from pdr_cli.runs import folder as runs
from pdr_cli.runs import modelfile
from pdr_cli.system import atomic, locks, processes
from pdr_cli.system.logs import log
from pdr_cli.system.urls import RemotePath
from pdr_cli.trust import Trust

Answer = TypeVar("Answer")
Read = TypeVar("Read", bound=ModelHeader)
READING = ("group", "missing_values", "assume")
ANIMATED = (".gif", ".mp4")  # suffixes of animations of forecasts
POLL = 0.5  # seconds between two attempts to read an input that is not ready
# Errors of an input that is still being written. Another grid or another variable will not change.
UNREADY = (DataError, TimeError, MissingValuesError, LockedError)


@dataclass(frozen=True)
class Request:
    """The options of `pdr predict`; its help describes each."""

    arguments: Sequence[str]
    output: Path
    models: Sequence[str] = ()
    drawing: Drawing = DIRECT
    intervals: Intervals = NONE
    between: Between = WHOLE
    filming: Filming = NOT_FILMED
    finer: Finer = CELLS
    init: str | None = None
    every_init: bool = False
    steps: int | None = None
    batch: int | None = None
    rename: Sequence[str] = ()
    policy: InputPolicy = field(default_factory=InputPolicy)
    time_layout: str = "cf"
    compress: int = formats.COMPRESSION
    preview: Path | None = None
    skip_existing: bool = False
    no_clobber: bool = False
    wait: float = 0
    fallback: str | None = None
    device: str = "auto"
    precision: str = FP32
    trust: Trust | None = None

    @cached_property
    def paths(self) -> list[Path]:
        """The input files."""
        return formats.find_inputs(self.arguments)

    @property
    def targets(self) -> list[Path]:
        """The files to write."""
        return [self.output, *(path for path in (self.preview, self.filming.depth) if path is not None)]

    def check(self) -> None:
        """Check the options before any work is done.

        Raises:
            InputNotFoundError: an input does not exist.
            UsageError: options that contradict each other, or a suffix of no format.
            OutputError: an output cannot be created, or exists and must be kept.
        """
        self.check_files()
        one = not self.finer.option  # a forecast at other places has one member
        if one and (self.drawing.count or len(self.models) > 1) and not self.drawing.mean:
            formats.check_members(self.output)
        _check_intervals(self)
        _check_between(self)
        _check_finer(self)
        (_check_hindcast if self.every_init else _check_one_forecast)(self)

    def check_files(self) -> None:
        """Check the options that say which files are read, written and kept; errors as of `check`."""
        paths = self.paths
        if self.finer.points is None:
            formats.of_output(self.output)
            formats.check_time_layout(self.output, self.time_layout)
        _check_options(self)
        if self.finer.points is None:
            formats.check_output(self.output, paths)
        else:
            pointfile.check_output(self.output, self.time_layout, self.skip_existing)
            atomic.check_output(self.output, [*paths, self.finer.points])
        if self.preview is not None:
            atomic.check_output(self.preview, paths)
        _check_targets(self)

    def headers(self) -> list[ModelHeader]:
        """The header of each model; otherwise as `load`."""
        return self._alike(header.read_header)

    def load(self, device: str) -> list[LoadedModel]:
        """Each model, or the previous model of its run if it is damaged and `fallback` allows that.

        Raises:
            CheckpointError: a model is damaged, and no other model may replace it.
            UsageError: models of other variables, units or steps than the first; or as `Intervals.check`.
        """
        loaded = self._alike(lambda path: loading.load(path, device, self.batch, self.trust, self.precision))
        for model in loaded:
            self.intervals.check(model, self.steps or model.card.config.data.out_steps)
        return loaded

    def _alike(self, read: Callable[[Path], Read]) -> list[Read]:
        found = [self.read_model(read, name) for name in self.models or (None,)]
        members.check_together(found)
        return found

    def read_model(self, read: Callable[[Path], Answer], name: str | None = None) -> Answer:
        """`read` of the path of a model, or with `fallback`, of that before it where it is damaged; default: the first.

        Raises:
            CheckpointError: a model is damaged, and no other may replace it.
        """
        path = runs.find_model(name or (self.models[0] if self.models else None))
        try:
            return read(path)
        except CheckpointError as error:
            return read(previous_model(path, self.fallback, error))

    def open(self, intake: Intake) -> Series:
        """The input, as the model needs it.

        Raises:
            UsageError: several clips, or an output format that cannot hold this input.
        """
        rename = intakes.renames(self.rename, intake.card)
        series = intakes.only_series(intake.open(self.paths, rename))
        if self.finer.points is None and not self.draws(intake.model):
            formats.check_output_format(self.output, series)
        elif self.finer.option and self.finer.points is None:
            raise UsageError(
                f"{self.finer.option}: {self.output.suffix} of {intake.model.kind.name} is a drawing, which has no places",
                way_out=f"leave it out, or write {', '.join(formats.outputs(gridded=True))}",
            )
        return series

    def draws(self, model: ModelHeader) -> bool:
        """Whether the output is a drawing of the forecast: a video of a model whose frames are not pictures."""
        if self.finer.points is not None:
            return False
        return formats.of_output(self.output).name == "video" and not model.kind.pictures

    def cells(self, series: Series) -> int:
        """The number of places of one frame of the output.

        Raises:
            GridError: see `Finer.places`.
        """
        if not self.finer.option:
            return math.prod(size(series))
        places = self.finer.places(series)
        return len(places.rows) * (len(places.columns) if places.points is None else 1)

    def identity(self, intake: Intake, series: Series, input_sha256: str, times: np.ndarray) -> str:
        """SHA-256 of all that the forecast depends on: input, model, options, and the formats of both files.

        File times and the pdr version are excluded, so equal requests have equal identities.

        Args:
            intake: of the model.
            series: the input.
            input_sha256: hash of the observed values.
            times: of the observed values.
        """
        parts: dict[str, Any] = {
            "steps": self.steps or intake.card.config.data.out_steps,
            "every_init": self.every_init,
            "model": intake.model.sha256,
            "model_format": modelfile.FORMAT_VERSION,
            "output": [self.output.suffix.lower(), self.time_layout, self.compress],
            # The observed values and times identify how they were read.
            "repairs": {k: v for k, v in dataclasses.asdict(self.policy).items() if k not in READING},
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
        parts |= {"code": intake.model.code} if intake.model.code else {}
        parts |= {"precision": self.precision} if self.precision != FP32 else {}
        parts |= self.drawing.identity() | self.intervals.identity() | self.between.identity()
        parts |= self.finer.identity()
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    def is_answered(self, identity: str) -> bool:
        """True if the output exists and is, by its attributes, the answer to the request of this identity."""
        return stored.provenance(self.output).get("pdr_request_id") == identity

    def when_ready(self, read: Callable[[], Answer]) -> Answer:
        """`read()`, which reads the input; see `when_ready`."""
        return when_ready(read, self.paths, self.wait)


def changed(options: Any, usual: Any = None) -> set[str]:
    """The fields of a dataclass whose values are not the defaults, or not those of `usual`; lists count as tuples."""
    plain = {f.name: _plain(getattr(options, f.name)) for f in dataclasses.fields(options)}
    defaults = {f.name: f.default if usual is None else getattr(usual, f.name) for f in dataclasses.fields(options)}
    return {name for name, value in plain.items() if value != _plain(defaults[name])}


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def joined_identity(each: Sequence[str]) -> str:
    """The identity of a request of several models, made of those of each; of one, its own."""
    return each[0] if len(each) == 1 else hashlib.sha256("".join(each).encode()).hexdigest()


def _check_options(request: Request) -> None:
    preview = request.preview
    if preview is not None and preview.suffix.lower() not in (".png", *ANIMATED):
        raise UsageError(f"--preview draws a .png, or an animation as .gif or .mp4, not {preview}")
    if request.skip_existing and request.no_clobber:
        raise UsageError(
            "--skip-existing and --no-clobber contradict each other",
            way_out="--skip-existing renews an output that is out of date, --no-clobber leaves it; choose one",
        )
    if request.fallback not in (None, "last-1"):
        raise UsageError(f"--fallback {request.fallback}", "last-1, the model before the damaged one")


def _check_intervals(request: Request) -> None:
    if not request.intervals.shares:
        return
    if request.drawing.count or len(request.models) > 1:
        raise UsageError(
            "--interval is around the direct forecast of one model; the members of an ensemble show its spread",
            way_out="leave out one of --interval and --members, or name one model",
        )
    if not formats.of_output(request.output).uncertain:
        raise UsageError(
            f"{request.output.suffix} files do not hold intervals",
            way_out=f"write {', '.join(formats.outputs(uncertain=True))}",
        )


def _check_between(request: Request) -> None:
    """Refuse what goes by whole steps."""
    others = {
        "--interval": request.intervals.shares,
        "--members": request.drawing.count,
        "--every-init": request.every_init,
        "several -m": len(request.models) > 1,
    }
    found = [option for option, chosen in others.items() if chosen]
    if request.between.parts > 1 and found:
        way_out = "leave out one of the two"
        raise UsageError(f"--every is for one direct forecast, and {found[0]} goes by whole steps", way_out=way_out)


def _check_finer(request: Request) -> None:
    """Refuse what is not one direct forecast of whole steps, of one model, whose Gaussians can be drawn anywhere."""
    others = {
        "--interval": request.intervals.shares,
        "--members": request.drawing.count,
        "--every-init": request.every_init,
        "--every": request.between.parts > 1,
        "several -m": len(request.models) > 1,
        "--preview": request.preview,
    }
    found = [option for option, chosen in others.items() if chosen]
    if request.finer.option and found:
        raise UsageError(
            f"{request.finer.option} is for the direct forecast of one model at whole steps, without {found[0]}",
            way_out="leave out one of the two",
        )


def _check_one_forecast(request: Request) -> None:
    if request.intervals.adaptive:
        raise UsageError(
            "--adaptive follows the forecasts from earlier inits, and one forecast has none before it",
            way_out="add --every-init, or leave it out",
        )
    if processes.started_by_torchrun():
        raise UsageError(
            "torchrun shares out the forecasts of --every-init", way_out="without --every-init run pdr predict alone"
        )
    if request.batch is not None and not request.drawing.count:
        raise UsageError(
            "--batch is for the windows of --every-init, or members",
            way_out="leave it out: one forecast has one window",
        )


def _check_hindcast(request: Request) -> None:
    gap = None if request.policy.fill_gap == "none" else request.policy.fill_gap
    for name, value in (("--init", request.init), ("--preview", request.preview), ("--fill-gap", gap)):
        if value is not None:
            raise UsageError(
                f"{name} is for one forecast, --every-init makes one from each init", way_out="leave out one of the two"
            )
    suffix = request.output.suffix.lower()
    if not formats.of_output(request.output).gridded:
        raise UsageError(f"--every-init writes {', '.join(formats.outputs(gridded=True))}, not {suffix}")
    if processes.started_by_torchrun() and request.intervals.adaptive:
        raise UsageError(
            "--adaptive intervals depend on those of all earlier inits, so that several processes cannot share them out",
            way_out="run pdr predict alone, without torchrun",
        )
    if processes.started_by_torchrun() and suffix != zarr.SUFFIX:
        raise UsageError(f"several processes cannot write one {suffix} file at once", way_out="name the output .zarr")


def _check_targets(request: Request) -> None:
    for target in request.targets:
        if request.no_clobber and target.exists():
            raise OutputError(
                f"{target} exists, and --no-clobber leaves it", way_out="--skip-existing renews it if it is out of date"
            )


def when_ready(read: Callable[[], Answer], paths: Sequence[Path], wait: float) -> Answer:
    """`read()`, which reads `paths`; again for up to `wait` seconds while another process writes them.

    Raises:
        LockedError: another process writes an input, or with `wait`, the input was not readable in time.
        DataError: raised by `read`.
    """
    until = time.monotonic() + wait
    while True:
        answer, problem = _attempt(read, paths, wait)
        if problem is None:
            return answer  # type: ignore[return-value]
        if time.monotonic() >= until:
            raise LockedError(f"{problem}; waited {wait:g} s for it", way_out="try later, or wait longer")
        log.debug("waiting %s", problem)
        time.sleep(max(0.0, min(POLL, until - time.monotonic())))


def _attempt(read: Callable[[], Answer], paths: Sequence[Path], wait: float) -> tuple[Answer | None, str | None]:
    """The answer, or with `wait`, the reason why the input is not ready."""
    before = _stamps(paths)
    try:
        with locks.inputs_in_use(paths):
            answer = read()
    except UNREADY as error:
        if not wait or type(error) not in UNREADY:
            raise
        return None, str(error.replace(way_out=""))
    still = not wait or _stamps(paths) == before
    return answer, None if still else f"{paths[0]} is still growing"


def _stamps(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Size and modification time of each file, and of all files in a folder; none of a URL."""
    here = [p for p in paths if not isinstance(p, RemotePath)]
    every = [found for p in here for found in (p, *sorted(p.rglob("*")))]
    return [(s.st_size, s.st_mtime_ns) for s in (p.stat() for p in every)]


def previous_model(path: Path, fallback: str | None, error: CheckpointError) -> Path:
    """The previous model of a run, which replaces a damaged one if `fallback` is given.

    Raises:
        CheckpointError: `fallback` is None, or the run has no previous model.
    """
    previous = runs.RunFolder(path.parent).previous_model
    exists = path.name == "model.safetensors" and previous.is_file()
    if fallback is None:
        raise _or(error, "--fallback last-1 takes the model before it") if exists else error
    if not exists:
        raise _or(error, f"--fallback finds no model before it, {previous}") from error
    log.warning("%s; falling back to the model before it, %s", error, previous)
    return previous


def _or(error: PdrError, way_out: str) -> PdrError:
    """The same failure with one more way out."""
    return error.replace(way_out="; ".join(part for part in (error.way_out, way_out) if part))
