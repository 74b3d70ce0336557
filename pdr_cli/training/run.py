"""Assembles a run: configuration, data, network, loop, model file. `train` does all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import xarray as xr

from pdr_cli import choices, families
from pdr_cli import config as configuration
from pdr_cli.data import context, kinds
from pdr_cli.data.ahead import Ahead
from pdr_cli.data.kinds import Kind
from pdr_cli.errors import ConfigError, UsageError
from pdr_cli.models import registry, tiles
from pdr_cli.models.anomalies import Anomalies
from pdr_cli.models.interfaces import Anchor, Frames
from pdr_cli.models.pdr import PDR
from pdr_cli.runs import inputs, modelfile, tensors
from pdr_cli.runs.folder import RunFolder
from pdr_cli.schema import Config
from pdr_cli.settings import AUTO
from pdr_cli.system import atomic, devices, locks
from pdr_cli.system.logs import Silence, log, progress
from pdr_cli.training import (
    arithmetic,
    cards,
    guides,
    inflation,
    loggers,
    overview,
    perceptual,
    randomness,
    rundata,
    stages,
    targets,
    warm_start,
)
from pdr_cli.training import ranks as several
from pdr_cli.training.anchors import baselines
from pdr_cli.training.anchors import fit as anchors
from pdr_cli.training.batches import AnchorFrames, Flows, FrozenParts, Tracks, TrainingData
from pdr_cli.training.calibration import calibrate
from pdr_cli.training.lessons import ForecastLesson
from pdr_cli.training.loop import Trainer
from pdr_cli.training.losses import Loss, LossOptions, build_loss
from pdr_cli.training.prepare import (
    Measured,
    Prepared,
    find_files,
    first_frame,
    measure,
    open_dataset,
    prepare,
    split,
)
from pdr_cli.training.ranks import ALONE, Ranks
from pdr_cli.training.request import run_folder
from pdr_cli.training.state import Position
from pdr_cli.training.warm_start import WarmStart
from pdr_cli.trust import Trust

State = Literal["last", "last-1"]
MOST_CELLS = 256 * 256  # of a frame for which `auto` finds a kernel of flatten


@dataclass(frozen=True)
class TrainingRequest:
    """A run to start or to resume.

    Args:
        config: resolved configuration.
        out: run folder; None: a new one under runs/.
        device: see `devices.pick`.
        resume: the saved state to continue from, the last or the one before it; None: a new run.
        init_from: file or run whose weights the network starts from; None: new weights.
        freeze_backbone: True if the predictor is not trained.
        dataset: data in memory instead of the configuration's files; None: the files.
        trust: see `families.Family.find`.
        ranks: that train together, of which this process is one.
    """

    config: Config
    out: Path | None = None
    device: str = "auto"
    resume: State | None = None
    init_from: Path | None = None
    freeze_backbone: bool = False
    dataset: xr.Dataset | None = None
    trust: Trust | None = None
    ranks: Ranks = ALONE


@dataclass(frozen=True)
class Run:
    """A run that is ready to begin, and its folder.

    Args:
        config: resolved configuration.
        folder: of the run.
        prepared: opened and split data.
        network: with the weights of its beginning, or to be restored from `resume`.
        device: that trains.
        start: the origin of the weights.
        resume: the saved state to continue from; None: a new run.
        trust: see `families.Family.find`.
        ranks: that train together, of which this process is one.
    """

    config: Config
    folder: RunFolder
    prepared: Prepared
    network: PDR
    device: torch.device
    start: WarmStart = field(default_factory=WarmStart)
    resume: State | None = None
    trust: Trust | None = None
    ranks: Ranks = ALONE

    @property
    def frames(self) -> Frames:
        """The frames that the network is built for."""
        return frames_of(self.config, self.prepared)

    @property
    def kind(self) -> Kind:
        """The kind of the data."""
        return kinds.of(self.prepared.series[0])


def train(request: TrainingRequest) -> Run:
    """Train until the end of the run; the run folder then holds the best model.

    Raises:
        PdrError: a request that cannot be met, with nothing written; or as `fit`.
    """
    run = plan(request)
    fit(run)
    return run


def plan(request: TrainingRequest, create: bool = True) -> Run:
    """Check a request, open its data and build its network; writes nothing.

    Args:
        request: the run.
        create: False if the run is only described, so that its folder need not be writable.

    Raises:
        UsageError: options that contradict a resume, or what several ranks cannot do.
        PdrError: data, folder, device or weights that cannot be used.
    """
    if request.ranks.alone:
        several.refuse("pdr_cli.train trains")
    with request.ranks.processes.together():
        return _plan(request, create)


def _plan(request: TrainingRequest, create: bool) -> Run:
    config, device, ranks = request.config, devices.pick(request.device), request.ranks
    ranks.check(config.train.batch)
    resume = request.resume is not None
    folder = RunFolder(request.out or Path(config.preset))
    if create:
        folder = ranks.once(lambda: run_folder(request.out, config, resume))
    config = without_unread(guides.resolved(arithmetic.resolved(config, device, ranks)), request.trust)
    prepared = open_data(config, request.dataset, ranks)
    config = inputs.resolved(config, kinds.of(prepared.series[0]))
    targets.check(config, prepared)
    perceptual.check(config, prepared)
    if not resume:
        refuse_huge_kernels(config, prepared.size)
    if config.train.crop:
        tiles.check(config.model, "train.crop")
        tiles.check_sides(config.train.crop, 0, config.model, "train.crop")
    request = replace(request, config=config)
    network = build(config, prepared, request.trust)
    if config.train.members > 1 and not network.stochastic:
        found = f"train.members is {config.train.members}, and --backbone {config.model.backbone} draws no members"
        raise ConfigError(found, way_out="add noise with --set model.noise=32")
    stages.check(network, config.train, frames_of(config, prepared))
    loggers.Loggers(config.train.loggers, folder, request.trust)  # refuses what it does not find
    start = _start(request, folder, prepared, network)
    ranks.check(config.train.batch, len(prepared.train))
    ranks.check_loss(config.train.loss, choices.LOSSES.find(config.train.loss, request.trust))
    return Run(config, folder, prepared, network, device, start, request.resume, request.trust, ranks)


def refuse_huge_kernels(config: Config, size: tuple[int, int]) -> None:
    """Refuse Gaussians for the whole frame whose size follows from a large grid.

    Raises:
        ConfigError: adapter flatten with `kernel_size` auto on more than 256 x 256 cells.
    """
    model = config.model
    drawn = model.adapter == "flatten" and model.fusion != "none"
    if drawn and model.kernel_size == AUTO and size[0] * size[1] > MOST_CELLS:
        found = f"--adapter flatten with model.kernel_size auto on {size[0]} x {size[1]} cells, whose few Gaussians are huge"
        way_out = "take --adapter local, whose Gaussians have the size of their cells, or set model.kernel_size"
        raise ConfigError(found, "at most 256 x 256 cells", way_out)


def without_unread(config: Config, trust: Trust | None) -> Config:
    """A configuration without the dates of `data.calendar = auto` where the predictor reads no covariates.

    Raises:
        ConfigError: an unknown predictor, or code that may not run.
    """
    if config.data.calendar != [AUTO] or registry.uses_covariates(inputs.reading(config).backbone, trust):
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"calendar": []})})


def _start(request: TrainingRequest, folder: RunFolder, prepared: Prepared, network: PDR) -> WarmStart:
    if request.resume is None:
        init_from, freeze = request.init_from, request.freeze_backbone
        return warm_start.begin(network, request.config, frames_of(request.config, prepared), init_from, freeze)
    if request.init_from is not None or request.freeze_backbone:
        way_out = "leave out --init-from and --freeze-backbone"
        raise UsageError("--resume continues the run as it was started", way_out=way_out)
    return warm_start.resume(network, folder)


def open_data(config: Config, dataset: xr.Dataset | None = None, ranks: Ranks = ALONE) -> Prepared:
    """Open and split a dataset, or the files of a configuration; of several ranks, the first one reads all values.

    Raises:
        InputNotFoundError: no files.
        LockedError: a file is being written.
        DataError: files that cannot be trained on.
    """
    if dataset is not None:
        prepared = split(config, open_dataset(config, dataset), ranks)
    else:
        paths = find_files(config)
        with locks.inputs_in_use(paths):
            prepared = prepare(config, paths, ranks)
    log.info("data    %s", overview.data_line(prepared))
    log.info("split   %s", overview.split_line(prepared))
    if read := overview.covariates_line(prepared):
        log.info("inputs  %s", read)
    if assumed := overview.assumed_line(prepared):
        log.info("assumed %s", assumed)
    return prepared


def build(config: Config, prepared: Prepared, trust: Trust | None = None) -> PDR:
    """A new network, by the seed of the configuration."""
    seed = config.train.seed
    randomness.seed_all(seed, {})
    registry.load(config.model, trust)  # a module may draw while it is imported
    choices.LOSSES.find(config.train.loss, trust)
    randomness.seed_all(seed, randomness.named_in(families.FOREIGN))
    network = registry.of(config, frames_of(config, prepared), trust)
    randomness.seed_each(seed, randomness.kept_by(network))
    tensors.check(network, f"--backbone {config.model.backbone}")
    if prepared.hidden is not None:
        network.hide(torch.from_numpy(prepared.hidden))
    log.info("model   %s", overview.model_line(network, config, prepared.size))
    return network


def frames_of(config: Config, prepared: Prepared) -> Frames:
    """The frames that the network is built for."""
    x = cards.side_of(prepared.series[0], "x")
    count = 0 if prepared.covariates is None else prepared.covariates.count(prepared.channels)
    return inputs.frames_of(config, prepared.channels, prepared.size, x, cycles_of(config, prepared), count)


def cycles_of(config: Config, prepared: Prepared) -> tuple[int, ...]:
    """The earlier cycles that the anchor or a baseline reads, in steps; none where neither reads any.

    Raises:
        ConfigError: `data.back` does not fit the step.
    """
    kind = kinds.of(prepared.series[0])
    if not inputs.reads_cycles(config, kind.pictures):
        return ()
    return context.cycles_of(config.data.back, prepared.step, kind.weekly, prepared.frames)


def fit(run: Run) -> Position:
    """Train a run until its end and leave everything in its folder.

    Raises:
        LockedError: another process is training in this folder.
        NonFiniteLossError, InterruptedRun, LostProcessError: see `Trainer.fit`.
    """
    from pdr_cli.drawing import pictures

    with locked(run.folder, run.ranks):
        with run.ranks.processes.together():
            if run.ranks.first:
                run.start.save(run.folder)
            loop = trainer(run)
        position = carry_out(loop, run.config, run.resume)
        if not run.ranks.first:
            return position
        inflation.inflate(run.folder.model, loop.lesson.data, run.prepared.val, run.device, loop.batches, run.trust)
        calibrate(run.folder.model, loop.lesson.data, run.device, loop.batches, run.trust)
        pictures.curves(run.folder.curves, run.folder.metrics)
    overview.log_anchor(position, run.config)
    log.info("done    %s", overview.result_line(position, loop.length))
    return position


@contextmanager
def locked(folder: RunFolder, ranks: Ranks) -> Iterator[None]:
    """The folder of a run, created and locked, by the first rank for all.

    Raises:
        LockedError: another process is training in this folder.
    """
    with ExitStack() as held:
        with ranks.processes.together():
            if ranks.first:
                folder.path.mkdir(parents=True, exist_ok=True)
                held.enter_context(locks.locked(folder.path))
        yield


def carry_out(loop: Trainer[Any], config: Config, resume: State | None) -> Position:
    """Run a loop to its end, from a saved state if there is one; the configuration is kept in its folder.

    Raises:
        NonFiniteLossError, InterruptedRun, LostProcessError: see `Trainer.fit`.
    """
    if resume is not None:
        loop.resume(resume)
        log.info("resume  %s at step %d", loop.run.path, loop.position.step)
    if not loop.ranks.first:
        return loop.fit(Silence())
    atomic.write_text(loop.run.config, configuration.dump(config))
    with progress("training") as bar:
        return loop.fit(bar)


def trainer(run: Run) -> Trainer[ForecastLesson]:
    """The loop of a run: measures scaling, climatology and bounds, fits anchor and baselines, places Gaussians.

    Of several ranks, the first one measures and fits.
    """
    ranks = run.ranks
    measured = ranks.once(lambda: measure(run.prepared, run.config))
    losses, data = losses_of(run, measured), rundata.of(run, measured, cycles_of(run.config, run.prepared))
    save_model = saving(run, measured, data) if ranks.first else _nothing
    flows = Flows() if run.network.reads_flow else None
    tracks = Tracks(run.network) if run.config.train.motion_weight else None
    data = replace(data, anchor_frames=anchored(run, data), flows=flows, tracks=tracks)
    if not run.start.has_adapter:
        run.network.initialize(torch.from_numpy(first_frame(run.prepared, measured)))
    if measured.bounds is not None:
        run.network.bound(*measured.encoding.bounds(measured.bounds))
    if run.resume is None:
        guides.load(run.network, run.config, measured.scaling, list(run.prepared.series[0].attrs["variables"]))
    run.network.to(run.device)
    if run.resume is None:
        run.network.measure(rundata.measured_windows(data, run.device))
    ranks.align(run.network)
    ahead = Ahead(data.train, run.config.train.batch) if run.config.data.read_ahead else None
    data = replace(data, frozen=FrozenParts(run.network) if run.network.keeps else None, ahead=ahead)
    lesson = ForecastLesson(run.network, losses[0], data, run.config.train, run.device, ranks, losses[1])
    recorders = loggers.Loggers(run.config.train.loggers, run.folder, run.trust)
    return Trainer(lesson, run.config.train, run.folder, run.device, save_model, ranks, recorders)


def anchored(run: Run, data: TrainingData) -> AnchorFrames | None:
    """The frames of the anchor that takes long; fits the anchor and the anomalies of the network."""

    def fitted() -> tuple[AnchorFrames | None, Anchor | None, Anomalies | None]:
        frames = anchors.fit(run.network, data, run.frames, run.config.train.out_of_fold)
        return frames, run.network.anchor, run.network.anomalies

    frames, run.network.anchor, run.network.anomalies = run.ranks.once(fitted)
    return frames


def saving(run: Run, measured: Measured, data: TrainingData) -> Callable[[Position], None]:
    """A function that saves the model, with the card of the run and the baselines that are fitted to its data."""
    cycles = cycles_of(run.config, run.prepared)
    card = cards.card_of(run.config, run.prepared, measured, run.start, cycles)
    kept = baselines.fit(run.config, data, run.frames, measured.climatology, cycles, run.kind.pictures)

    def save_model(position: Position) -> None:
        run.folder.state.parent.mkdir(exist_ok=True)
        atomic.keep_previous(run.folder.model, run.folder.previous_model)
        network = anchor_alone(run) if position.anchor_alone else run.network
        modelfile.save(
            run.folder.model, network, cards.with_best(card, position, run.device), measured.climatology, kept
        )

    return save_model


def _nothing(position: Position) -> None:
    """Save no model, on all ranks but the first."""


def anchor_alone(run: Run) -> PDR:
    """A network that forecasts with the anchor of `run.network` alone."""
    config = inputs.alone(run.config, run.config.model.anchor)
    network = registry.build(config.model, frames_of(config, run.prepared), run.trust)
    network.anchor = run.network.anchor
    return network


def losses_of(run: Run, measured: Measured) -> tuple[Loss, Loss]:
    """The loss of a run, on its device: of a process alone, and with means over all ranks."""
    train, span = run.config.train, torch.tensor(measured.scaling.data_range, device=run.device)
    options = LossOptions(train.l1_weight, span, frames_of(run.config, run.prepared).periodic)
    pooled = replace(options, pool=run.ranks.mean)
    return build_loss(train.loss, options, run.trust), build_loss(train.loss, pooled, run.trust)
