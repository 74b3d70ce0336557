"""Forecasts from every possible init of a series, computed and written block by block: memory does not grow with them.

Several processes share the blocks: the first lays out the store and finishes it, each writes a region of its own. Finished
blocks outlive an interruption; see `unfinished`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pdr_cli import __version__
from pdr_cli.data import formats
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import cf
from pdr_cli.data.formats.cf import Layout
from pdr_cli.data.formats.gridded import Put, Stored
from pdr_cli.data.formats.stored import HASH, sha256_of
from pdr_cli.data.series import Series, names, with_members
from pdr_cli.errors import DataError, StorageError, TimeError
from pdr_cli.inference import unfinished
from pdr_cli.inference.adaptation import Adaptation
from pdr_cli.inference.forecast import forecast, lead_steps
from pdr_cli.inference.header import ModelHeader
from pdr_cli.inference.inits import Inits
from pdr_cli.inference.intake import Intake
from pdr_cli.inference.loaded import LoadedModel
from pdr_cli.inference.members import DIRECT, Drawing
from pdr_cli.inference.observed import Observed
from pdr_cli.inference.plan import Plan, plan
from pdr_cli.inference.provenance import command_line, of_models, plausible, provenance
from pdr_cli.inference.request import Request, joined_identity
from pdr_cli.inference.unfinished import Block, Keep, Unfinished
from pdr_cli.system import atomic, locks, processes, space
from pdr_cli.system.logs import Progress, Silence, log, progress
from pdr_cli.system.processes import Processes

AT_ONCE = 16  # windows in one pass of the network, unless --batch says otherwise
FAST = 1  # level of compression of blocks that are copied at the end
Learn = Callable[[int, np.ndarray], None]


@dataclass(frozen=True)
class Hindcast:
    """A plan, and the model that carries it out.

    Args:
        plan: the forecasts.
        model: the model.
        intake: of the model.
        drawing: the members that the model draws.
        others: hindcasts of further models with the same inits, whose members join those of this one.
        mean: True if the forecasts are the means of all members.
    """

    plan: Plan
    model: LoadedModel
    intake: Intake
    drawing: Drawing = DIRECT
    others: tuple[Hindcast, ...] = ()
    mean: bool = False

    @cached_property
    def example(self) -> Series:
        """The forecast from the first init. Its grid and lead times are those of all."""
        series, init = self.plan.series, int(self.plan.inits[0])
        one = forecast(self.model, self.intake, series, init, self.plan.steps).frames
        members = self._members
        return one if members is None else with_members(one, np.zeros((members, *one.shape), np.float32))

    @cached_property
    def _adaptation(self) -> Adaptation | None:
        """What the intervals have learned so far; None if they do not adapt."""
        calibration = self.model.calibration
        if calibration is None or not self.intake.intervals.adaptive:
            return None
        return Adaptation(self.plan, self.intake.card.step, self.intake.intervals.shares, calibration.largest)

    @property
    def _members(self) -> int | None:
        """M of the file; None: it holds single forecasts."""
        if self.mean or not (self.drawing.count or self.others):
            return None
        return sum(max(1, one.drawing.count) for one in (self, *self.others))

    def frames(self, low: int, high: int) -> np.ndarray:
        """The forecasts from inits [low, high) on the input's grid, in its units: [n, τ, C, H, W], or of ensembles
        [n, M, τ, C, H, W]. Where intervals adapt, C counts their ends, and every init before `low` was made or learned from.
        """
        frames = np.concatenate([one.own(low, high) for one in (self, *self.others)], axis=1)
        if self._members is not None:
            return frames
        return frames.mean(axis=1, dtype=np.float64).astype(np.float32) if self.mean else frames[:, 0]

    def learn(self, low: int, frames: np.ndarray) -> None:
        """Let intervals adapt to forecasts from inits `low` on, [n, τ, C, H, W], that an interrupted run has made."""
        if self._adaptation is not None:
            for number, made in enumerate(frames, low):
                self._adaptation.learn(number, made)

    def own(self, low: int, high: int) -> np.ndarray:
        """The forecasts of the first model, [n, M, τ, C, H, W]; M is 1 where it draws none."""
        at_once = self.model.batches.at_once or AT_ONCE
        return np.concatenate([self._batch(a, min(a + at_once, high)) for a in range(low, high, at_once)])

    @cached_property
    def _inits(self) -> Inits:
        return Inits(self.intake, self.plan.series)

    def _batch(self, low: int, high: int) -> np.ndarray:
        inits = self.plan.inits[low:high]
        windows = self._inits.observe(inits)
        context = self._inits.context(windows, self.plan.steps)
        frames = np.concatenate([w.frames for w in windows])
        if self.drawing.count:
            seeds = self.drawing.seeds(self._inits.times[inits])
            drawn = self.model.members(frames, seeds, self.plan.steps, context)
            return self._inits.given(drawn.swapaxes(0, 1), windows)
        fused = self.model.run(frames, self.plan.steps, context).fused
        if not self.intake.intervals.shares:
            return self._inits.given(fused[:, None], windows)
        made = [self._with_ends(low + i, fused[i], window) for i, window in enumerate(windows)]
        return np.stack(made)[:, None]

    def _with_ends(self, number: int, fused: np.ndarray, window: Observed) -> np.ndarray:
        """The direct forecast from an init, [τ, C, H, W], and the ends of its intervals: [τ, C·(1 + 2·L), H, W]."""
        asked = None if self._adaptation is None else self._adaptation.asked(number)
        ends = self.intake.intervals.ends(self.model, fused, asked)
        every = np.concatenate([fused[None], ends.reshape(-1, *fused.shape)])
        given = self._inits.given(every[None], [window])[0]  # [1 + 2·L, τ, C, H, W]
        frames = given.swapaxes(0, 1).reshape(len(fused), -1, *given.shape[3:])
        self.learn(number, frames[None])
        return frames

    def layout(self, attributes: Mapping[str, str], time_layout: str = "cf") -> Layout:
        """The layout of the file that holds all forecasts."""
        return cf.hindcast_layout(self.example, self.plan.times, attributes, time_layout)

    def depends_on(self, identity: str) -> dict[str, str]:
        """All that the numbers depend on to the last digit, by name; `identity`: of the request."""
        batch = str(self.model.batches.at_once or AT_ONCE)
        models = " ".join(one.model.sha256 for one in (self, *self.others))
        own = {"model": models, "input": self.plan.input_sha256, "version of pdr": __version__}
        return own | self.model.numerics() | {"--batch": batch, "set of options": identity}

    def attributes(self, command: str, request_id: str = "") -> dict[str, str]:
        """Global attributes: those of the first forecast, except for those that describe all forecasts.

        Args:
            command: made the hindcast, for the history.
            request_id: identity of the request; "": none.
        """
        plan, times = self.plan, self.plan.series.time.values
        first = self.intake.observe(plan.series, int(plan.inits[0]))
        method = self.intake.encoding.filling.method
        notes = () if method == "none" else (f"missing values filled by {method}",)
        return (
            provenance(self.model, plan.series, dataclasses.replace(first, notes=notes), command)
            | {
                "title": f"Forecasts of {', '.join(names(plan.series))} by pdr from {len(plan.inits)} init times",
                "pdr_input_sha256": plan.input_sha256,
                **plan.covariates,
                "pdr_input_window": f"{time_axis.label(times[0])}/{time_axis.label(times[plan.inits[-1]])}",
                "pdr_request_id": request_id,
                "pdr_plausible": json.dumps(plausible(self.example, self.intake)),
            }
            | self.intake.intervals.attributes(self.model)
            | of_models([one.model for one in (self, *self.others)])
        )


@contextlib.contextmanager
def locked(output: Path, ranks: Processes) -> Iterator[None]:
    """The lock of an output, which the first process holds for all; temporary files of a crash are removed.

    Raises:
        LockedError: in all processes.
    """
    with contextlib.ExitStack() as held:
        with ranks.together():
            if ranks.first:
                held.enter_context(locks.locked(output))
                with space.storage_errors(output):
                    atomic.recover(Path(os.path.realpath(output)))
        yield


def is_up_to_date(request: Request, ranks: Processes) -> bool:
    """True in all processes if the output exists and answers the request."""
    done = False
    with ranks.together():
        if ranks.first and request.output.exists():
            done = request.is_answered(_identity(request, _plans(request, request.headers())))
    return bool(ranks.from_first(done))


def answer(request: Request, ranks: Processes) -> Hindcast:
    """Forecast from every init, and write all forecasts to the output of the request.

    Raises:
        PdrError: in all processes: the input does not fit the model, or the output cannot be written.
    """
    with _bar(ranks) as bar:
        with ranks.together():
            made = _begin(request)
            begun = [(one.intake, one.plan) for one in (made, *made.others)]
            identity = _identity(request, begun) if ranks.first else ""
            attributes = made.attributes(command_line(), identity) if ranks.first else {}
            log.info("%d forecasts of %d steps", len(made.plan.inits), lead_steps(made.model, made.plan.steps))
        layout = made.layout(attributes, request.time_layout)
        write(
            made,
            request.output,
            layout,
            request=made.depends_on(identity) if ranks.first else {},
            compress=request.compress,
            ranks=ranks,
            bar=bar,
            learn=made.learn if request.intervals.adaptive else None,
        )
    return made


def _bar(ranks: Processes) -> contextlib.AbstractContextManager[Progress]:
    """Progress of the first process, which stands for that of the others."""
    return progress("hindcast") if ranks.first else contextlib.nullcontext(Silence())


def _begin(request: Request) -> Hindcast:
    models = request.load(processes.own_device(request.device))
    drawings = request.drawing.of_each(models)
    begun = zip(models, _plans(request, models), drawings, strict=True)
    first, *others = [Hindcast(planned, model, intake, drawing) for model, (intake, planned), drawing in begun]
    made = dataclasses.replace(first, others=tuple(others), mean=request.drawing.mean)
    _check_space(request, made)
    return made


def _plans(request: Request, models: Sequence[ModelHeader]) -> list[tuple[Intake, Plan]]:
    """The forecasts to make with each model, once no other process writes the input: from the inits that all can start from.

    Raises:
        TimeError: no such init.
    """
    intakes = [Intake(model, request.policy, request.intervals) for model in models]
    steps = request.steps or min(model.card.config.data.out_steps for model in models)
    each = request.when_ready(lambda: [plan(intake, request.open(intake), steps) for intake in intakes])
    common = functools.reduce(np.intersect1d, [found.inits for found in each])
    if not len(common):
        raise TimeError(f"{request.paths[0]} has no init that all models can start from")
    return [(intake, dataclasses.replace(found, inits=common)) for intake, found in zip(intakes, each, strict=True)]


def _check_space(request: Request, made: Hindcast) -> None:
    """Refuse forecasts that the disk has no room for."""
    # What an earlier run has finished needs no more room, unless it is copied into a file.
    store = formats.field_store(request.output).store
    n = max(0, len(made.plan.inits) - (unfinished.claimed(request.output) if store else 0))
    space.check_space(request.output, 4 * n * made.example.size)


def _identity(request: Request, begun: Sequence[tuple[Intake, Plan]]) -> str:
    """The identity of a request."""
    return joined_identity(
        [request.identity(i, plan.series, plan.input_sha256, plan.series.time.values) for i, plan in begun]
    )


def write(
    made: Hindcast,
    path: Path,
    layout: Layout,
    *,
    request: Mapping[str, str],
    compress: int,
    ranks: Processes,
    bar: Progress,
    learn: Learn | None = None,
) -> None:
    """Write a hindcast, atomically and verified; the blocks that an interrupted run of the same request wrote are kept.

    Args:
        made: the hindcast.
        path: of a NetCDF file or, for several processes, a Zarr store.
        layout: of the file.
        request: all that the numbers depend on, by name.
        compress: see `formats.write`.
        ranks: the processes that share the work.
        bar: progress of this process.
        learn: takes the first init and the numbers of each kept block, in order with the forecasts of the others.

    Raises:
        StorageError: the file system refused, or the numbers read back differ from those written.
    """
    with _begun(path, layout, request, compress, ranks) as begun:
        blocks = _Blocks(layout, begun, begun.kept(ranks) if begun else {}, ranks, learn)
        with _temporary(path, blocks) as temporary:
            _write(made, blocks, path, temporary, compress, bar)
            if ranks.first:
                with space.storage_errors(path):
                    attrs = layout.attrs | {HASH: _sha256(temporary, path)}
                    formats.field_store(path).note(temporary, attrs)


def _write(made: Hindcast, blocks: _Blocks, path: Path, temporary: Path, compress: int, bar: Progress) -> None:
    """Write and compare this process's blocks of the file or store `temporary`, which becomes `path`."""
    store, layout, ranks = formats.field_store(path), blocks.layout, blocks.ranks
    with ranks.together(), space.storage_errors(path):
        if not store.store:
            store.create(temporary, layout, compress)
    with ranks.together(), space.storage_errors(path):
        # The store of the blocks is the output itself, unless that is a NetCDF file.
        with contextlib.nullcontext(_nowhere) if store.store else store.writing(temporary, layout) as put:
            _copy(blocks.begun, blocks.kept, put)
            sums = _fill(made, blocks, put, bar)
        with store.reading_back(temporary, layout) as stored:
            _compare(sums, stored, path)


def _begun(
    path: Path, layout: Layout, request: Mapping[str, str], compress: int, ranks: Processes
) -> contextlib.AbstractContextManager[Unfinished | None]:
    """Where finished blocks are kept; None if the disk has no room for them beside a NetCDF file."""
    if formats.field_store(path).store:
        return unfinished.beside(path, layout, request, ranks, compress)
    if not unfinished.folders(path) and space.fits(path, layout.nbytes) and not space.fits(path, 2 * layout.nbytes):
        log.warning("%s: no room to keep finished forecasts, so that an interrupted run would start anew", path)
        return contextlib.nullcontext()
    return unfinished.beside(path, layout, request, ranks, min(compress, FAST))


@contextlib.contextmanager
def _temporary(path: Path, blocks: _Blocks) -> Iterator[Path]:
    """The file or store that becomes the output at the end."""
    begun = blocks.begun
    store = begun.store if begun and formats.field_store(path).store else None
    need = (begun.missing_bytes(blocks.kept) if begun else 0) + (0 if store else blocks.layout.nbytes)
    if blocks.ranks.first:
        with formats.atomically(path, need=need, begun=store) as temporary:
            yield temporary
    else:
        yield store or path


@dataclass(frozen=True)
class _Blocks:
    """The blocks of a hindcast, of which this process makes its share of those that are not kept."""

    layout: Layout
    begun: Unfinished | None
    kept: Mapping[Block, str]
    ranks: Processes
    learn: Learn | None = None

    def mine(self) -> list[Block]:
        """This process's share, in order: of the kept blocks, which it compares again, and of the others."""
        every = unfinished.blocks(self.layout)
        groups = [[b for b in every if b in self.kept], [b for b in every if b not in self.kept]]
        return sorted(group[i] for group in groups for i in self.ranks.share(len(group)))

    def recall(self, block: Block) -> str:
        """The SHA-256 of a kept block, from which `learn` learns."""
        if self.learn is not None and self.begun is not None:
            with self.begun.reading() as stored:
                self.learn(block[0], stored(*block))
        return self.kept[block]

    def keeping(self) -> contextlib.AbstractContextManager[Keep]:
        """A function that keeps a block for a run that continues this one."""
        return self.begun.writing(self.ranks.rank) if self.begun else contextlib.nullcontext(_nowhere)


def _nowhere(*_: object) -> None:
    """A function that writes nothing."""


def _copy(begun: Unfinished | None, kept: Mapping[Block, str], put: Put) -> None:
    """Copy the kept blocks."""
    if begun and kept and put is not _nowhere:
        with begun.reading() as stored:
            for block in kept:
                put(block[0], stored(*block))


def _fill(made: Hindcast, blocks: _Blocks, put: Put, bar: Progress) -> dict[Block, str]:
    """Forecast and write this process's blocks that are not kept; returns the SHA-256 of all its blocks."""
    sums, mine = {}, blocks.mine()
    with blocks.keeping() as keep:
        for done, block in enumerate(mine, 1):
            sums[block] = blocks.recall(block) if block in blocks.kept else _forecast(made, block, put, keep)
            bar.update(done / len(mine))
    return sums


def _forecast(made: Hindcast, block: Block, put: Put, keep: Keep) -> str:
    """Forecast and write one block; returns the SHA-256 of its numbers."""
    frames = made.frames(*block)
    digest = unfinished.sha256(frames)
    put(block[0], frames)
    keep(block, frames, digest)
    return digest


def _sha256(temporary: Path, path: Path) -> str:
    """The hash of all numbers; a failure to read them is a fault of the disk, not of the input."""
    try:
        return sha256_of(temporary)
    except DataError as error:
        raise StorageError(f"cannot write {path}: the written file cannot be read again: {error}") from error


def _compare(sums: Mapping[Block, str], stored: Stored, path: Path) -> None:
    for (low, high), expected in sums.items():
        if unfinished.sha256(stored(low, high)) != expected:
            raise StorageError(f"{path}: forecasts {low} to {high - 1} read back differently from what was written")
