"""Assembles a run on scenes: configuration, scenes, network, loop, model file."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from pdr_cli import __version__
from pdr_cli import config as configuration
from pdr_cli.data.climatology import Climatology
from pdr_cli.data.formats import scenefile
from pdr_cli.data.formats.scenefile import SceneFile
from pdr_cli.data.scaling import Scaling
from pdr_cli.data.scenes import KIND, WHITE
from pdr_cli.data.seen import Seen
from pdr_cli.data.times import Step
from pdr_cli.errors import ConfigError, DataError, UsageError
from pdr_cli.models.lpips import LPIPS, SMALLEST
from pdr_cli.models.scenes.build import build
from pdr_cli.models.scenes.scene import SceneModel
from pdr_cli.optional_tables import SceneConfig
from pdr_cli.runs import modelfile
from pdr_cli.runs.films import SceneData
from pdr_cli.runs.folder import RunFolder
from pdr_cli.runs.modelfile import ModelCard
from pdr_cli.schema import Config
from pdr_cli.system import atomic, devices, hashes, locks, urls
from pdr_cli.system.logs import log
from pdr_cli.training import arithmetic, cards, loggers, overview, randomness, ranks
from pdr_cli.training.kept import Kept
from pdr_cli.training.loop import Trainer
from pdr_cli.training.prepare import find_files
from pdr_cli.training.request import run_folder
from pdr_cli.training.run import State, TrainingRequest, carry_out
from pdr_cli.training.scenes.lesson import SceneLesson
from pdr_cli.training.state import Position
from pdr_cli.trust import Trust

COLOURS = ("red", "green", "blue")


@dataclass(frozen=True)
class SceneRun:
    """A run on scenes that is ready to begin; see `training.run.Run` and `SceneLesson`."""

    config: Config
    folder: RunFolder
    data: SceneData
    network: SceneModel
    device: torch.device
    resume: State | None = None
    perceptual: LPIPS | None = None
    kept: tuple[Kept, Kept] = field(default_factory=lambda: (Kept(), Kept()))
    trust: Trust | None = None

    @property
    def options(self) -> SceneConfig:
        """The [scene] table."""
        assert self.config.scene is not None  # `build` refuses a configuration without it
        return self.config.scene


def plan(request: TrainingRequest, create: bool = True) -> SceneRun:
    """Check a request, open its scenes and build its network; writes nothing. Arguments as of `training.run.plan`.

    Raises:
        UsageError: several ranks, or options that scenes have not.
        PdrError: data, folder, device or configuration that cannot be used.
    """
    ranks.refuse("scenes are trained")
    if request.init_from is not None or request.freeze_backbone or request.dataset is not None:
        raise UsageError("scenes are trained from new weights, on a file", way_out="leave out --init-from")
    device = devices.pick(request.device)
    config = arithmetic.resolved(request.config, device)
    resume = request.resume is not None
    folder = run_folder(request.out, config, resume) if create else RunFolder(request.out or Path(config.preset))
    loggers.Loggers(config.train.loggers, folder, request.trust)  # refuses what it does not find
    return replace(assembled(config, folder, device, request.resume), trust=request.trust)


def assembled(config: Config, folder: RunFolder, device: torch.device, resume: State | None = None) -> SceneRun:
    """A run in a folder: opens its scenes and builds its network.

    Raises:
        PdrError: data or configuration that cannot be used.
    """
    data = open_data(config)
    perceptual = _perceptual(config, data.size)
    randomness.seed_all(config.train.seed, {})
    network = build(config, data.size)
    # Again, so that what is drawn in training does not depend on the size of the Reconstructor.
    randomness.seed_all(config.train.seed, {})
    log.info("model   %s", model_line(network, data.size))
    return SceneRun(config, folder, data, network, device, resume, perceptual)


def _perceptual(config: Config, size: tuple[int, int]) -> LPIPS | None:
    """The network of LPIPS, where the configuration names its weights.

    Raises:
        ConfigError: pictures that are too small for it, in one of the stages.
        InputNotFoundError, CheckpointError: see `pretrained.load`.
    """
    if config.scene is None or not config.scene.lpips:
        return None
    halved = bool(config.train.stages and config.train.stages[0])
    first = min(size) // (2 if halved else 1)
    if first < SMALLEST:
        raise ConfigError(
            f"scene.lpips, and training draws pictures with a side of {first} pixels",
            f"{SMALLEST} or more",
            "leave out scene.lpips"
            + (", or the stage of half the size with --set train.stages=[0,0.4,0.6]" if halved else ""),
        )
    return LPIPS.load(Path(config.scene.lpips))


def open_data(config: Config) -> SceneData:
    """Open and split the file of scenes of a configuration.

    Raises:
        InputNotFoundError: no file.
        LockedError: it is being written.
        DataError: several files, or one that holds no sound scenes.
        ConfigError: scenes of another number of frames.
    """
    paths = find_files(config)
    if len(paths) > 1:
        raise DataError(f"{len(paths)} files of scenes, {paths[0].name} and others", "one")
    if urls.remote(str(paths[0])) is not None:
        raise DataError(f"{paths[0]} is not on this machine", "a local file of scenes", "download it")
    with locks.inputs_in_use(paths):
        file = scenefile.read(paths[0])
    if file.size.frames != 1 + config.data.out_steps:
        raise ConfigError(
            f"the videos of {paths[0]} have {file.size.frames} frames, and data.out_steps is {config.data.out_steps}",
            way_out=f"take --set data.out_steps={file.size.frames - 1}",
        )
    if config.train.fallback:
        raise ConfigError("train.fallback is true, and scenes have no anchor to fall back to", "false")
    parts = file.parts
    log.info("data    %s", data_line(file))
    log.info("split   %s", split_line(file))
    return SceneData(file, parts["train"], parts["val"], config.data.cache_mb)


def data_line(file: SceneFile) -> str:
    """The scenes of a file."""
    views, frames, height, width = file.size
    return f"{file.path.name}: {len(file)} scenes of {views} views and {frames} frames of {height} x {width}"


def split_line(file: SceneFile) -> str:
    """Scenes in each part."""
    counts = " / ".join(str(len(part)) for part in file.parts.values())
    return f"{counts} scenes to train / validate / test"


def model_line(network: SceneModel, size: tuple[int, int]) -> str:
    """Parameters of the parts, and the number of Gaussians."""
    total, own = (sum(p.numel() for p in part.parameters()) for part in (network, network.reconstructor))
    count = network.options.per_pixel * size[0] * size[1]
    return f"Reconstructor {own:,} parameters + latents {total - own:,} ({count} Gaussians)"


def lines(run: SceneRun) -> list[str]:
    """A run before it begins: configuration, scenes and parameters."""
    return [
        configuration.dump(run.config),
        f"# data        {data_line(run.data.file)}",
        f"# scenes      {split_line(run.data.file)}",
        f"# model       {model_line(run.network, run.data.size)}",
        f"# steps       {max(1, len(run.data.train) // run.config.train.batch)} an epoch",
    ]


def fit(run: SceneRun) -> Position:
    """Train a run until its end and leave everything in its folder.

    Raises:
        LockedError: another process is training in this folder.
        NonFiniteLossError, InterruptedRun: see `Trainer.fit`.
    """
    from pdr_cli.drawing import pictures

    run.folder.path.mkdir(parents=True, exist_ok=True)
    with locks.locked(run.folder.path):
        loop = trainer(run)
        position = carry_out(loop, run.config, run.resume)
        pictures.curves(run.folder.curves, run.folder.metrics)
    log.info("result  %s", score_line(position))
    log.info("done    %s", overview.result_line(position, loop.length))
    return position


def score_line(position: Position) -> str:
    """PSNR of the best model on the validation scenes by the last camera, and that of the picture, copied."""
    model, copy = (psnr(rmse) for rmse in (position.best_rmse, position.anchor_rmse))
    return f"frames after the first by the last camera: {model:.2f} dB, the picture in their place {copy:.2f} dB"


def psnr(rmse: list[float]) -> float:
    """Of the channels together, dB; white is 1."""
    square = sum(value**2 for value in rmse) / max(1, len(rmse))
    return -10 * math.log10(max(square, 1e-10))


def trainer(run: SceneRun) -> Trainer[SceneLesson]:
    """The loop of a run."""
    run.network.to(run.device)
    perceptual = None if run.perceptual is None else run.perceptual.to(run.device)
    lesson = SceneLesson(run.network, run.data, run.options, run.config.train, run.device, perceptual, run.kept)
    card = card_of(run)
    mean = Climatology("mean", run.data.mean_picture()[None], 0.0)

    def save_model(position: Position) -> None:
        run.folder.state.parent.mkdir(exist_ok=True)
        atomic.keep_previous(run.folder.model, run.folder.previous_model)
        modelfile.save(run.folder.model, run.network, cards.with_best(card, position, run.device), mean)

    recorders = loggers.Loggers(run.config.train.loggers, run.folder, run.trust)
    return Trainer(lesson, run.config.train, run.folder, run.device, save_model, loggers=recorders)


def card_of(run: SceneRun) -> ModelCard:
    """The card of a run that begins; hashes the file of scenes."""
    file, frames = run.data.file, 1 + run.config.data.out_steps
    step = Step(1 / run.options.fps)
    last = (frames - 1) * step.count
    parts = {"train": run.data.train, "val": run.data.val}
    entries = [(part, run.data.scene(n).identity, 0.0, last) for part, numbers in parts.items() for n in numbers]
    return ModelCard(
        config=run.config,
        kind=KIND,
        variables={colour: {"units": "1"} for colour in COLOURS},
        size=run.data.size,
        y=None,
        x=None,
        step=step,
        scaling=Scaling((0.0,) * 3, (WHITE,) * 3, (1.0,) * 3),
        seen=Seen(tuple(entries), 0.0),
        data=({"name": file.path.name, "sha256": hashes.sha256(file.path)},),
        training={
            "pdr": __version__,
            "torch": torch.__version__,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "split": split_line(file),
        },
    )
