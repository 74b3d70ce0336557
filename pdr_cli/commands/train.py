"""`pdr train`: resolve the configuration, look at the data, train, keep the best."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pdr_cli import __version__, config
from pdr_cli.commands import inputs
from pdr_cli.config import Config
from pdr_cli.data import grid
from pdr_cli.data.missing import CellMask
from pdr_cli.data.series import describe
from pdr_cli.errors import ConfigError, InputNotFoundError, OutputError, UsageError
from pdr_cli.models import registry
from pdr_cli.models.gaussians.base import GaussianAdapter
from pdr_cli.models.interfaces import Batch, Frames
from pdr_cli.models.pdr import PDR
from pdr_cli.runs import folder as runs
from pdr_cli.runs import modelfile
from pdr_cli.runs.folder import RunFolder
from pdr_cli.runs.modelfile import ModelCard
from pdr_cli.system import atomic, devices, locks
from pdr_cli.system.logs import log, progress
from pdr_cli.training import losses, warm_start
from pdr_cli.training.loop import Trainer
from pdr_cli.training.prepare import Measured, Prepared, first_frame, measure, prepare, what_was_read, what_was_seen
from pdr_cli.training.state import Position
from pdr_cli.training.warm_start import WarmStart

if TYPE_CHECKING:
    from pdr_cli.ablation import run as ablations


def run(
    *,
    preset: str | None,
    data: Sequence[str],
    variables: Sequence[str],
    out: Path | None,
    settings: Sequence[str],
    flags: dict[str, Any],
    device: str,
    resume: bool,
    dry_run: bool,
    state: str = "last",
    init_from: Path | None = None,
    freeze_backbone: bool = False,
    ablation: str | None = None,
    seeds: int = 3,
) -> None:
    """Train; see `pdr train --help` for the options."""
    from pdr_cli.ablation import run as ablations

    if ablation is not None or (resume and out is not None and ablations.is_ablation(out)):
        if init_from is not None or freeze_backbone:
            raise UsageError(
                "--ablation trains each variant from new weights; leave out --init-from and --freeze-backbone"
            )
        base = None if resume else _resolve(_source(preset, out, resume), data, variables, settings, flags)
        _ablation(ablations.Request(ablation, base, out, seeds, device, resume, dry_run))
        return
    if state not in ("last", "last-1") or (state != "last" and not resume):
        raise UsageError(f"--state {state}: use last or last-1, together with --resume")
    resolved = _resolve(_source(preset, out, resume), data, variables, settings, flags)
    where = devices.pick(device)
    folder = _folder(resolved, out, resume, dry_run)
    paths = inputs.for_training(resolved)
    with locks.inputs_in_use(paths):
        prepared = prepare(resolved, paths)
    log.info("data    %s", describe(prepared.series[0]) + _more(len(prepared.series)))
    log.info("split   %s", _split_line(prepared))
    network = build(resolved, prepared)
    if resume:
        start = warm_start.resume(network, folder, asked=init_from is not None or freeze_backbone)
    else:
        start = warm_start.begin(network, resolved, prepared.channels, prepared.size, init_from, freeze_backbone)
    if dry_run:
        _dry_run(resolved, prepared, network)
        return
    fit(resolved, prepared, network, folder, where, resume, start, state)
    print(folder.path)


def _ablation(request: ablations.Request) -> None:
    """Run an ablation and print its table, or with `dry_run` its runs."""
    from pdr_cli.ablation import run as ablations
    from pdr_cli.commands import tables

    planned = ablations.plan(request)
    if request.dry_run:
        print("\n".join(ablations.plan_lines(planned)))
        return
    tables.show_ablation(ablations.execute(planned, request.device))
    print(planned.path)


def _source(preset: str | None, out: Path | None, resume: bool) -> str:
    """The preset, or what the run to be resumed was started with."""
    if resume and out is None:
        raise UsageError("--resume continues one run: name its folder with -o")
    if preset is not None:
        return preset
    if not resume or out is None:
        raise UsageError("name a preset with --preset; `pdr presets` lists them")
    saved = RunFolder(out).config
    if not saved.is_file():
        raise InputNotFoundError(f"nothing to resume in {out}; start the run without --resume")
    return str(saved)


def _resolve(
    preset: str, data: Sequence[str], variables: Sequence[str], settings: Sequence[str], flags: dict[str, Any]
) -> Config:
    overrides = [f"{key}={value}" for key, value in flags.items() if value is not None]
    if data:
        # Absolute, so that the saved configuration finds them again from any folder.
        overrides.append(f"data.paths={json.dumps([os.path.abspath(d) for d in data])}")
    if variables:
        overrides.append(f"data.variables={','.join(variables)}")
    if flags.get("train.epochs") and not flags.get("train.steps"):
        overrides.append("train.steps=0")
    if flags.get("train.steps") and not flags.get("train.epochs"):
        overrides.append("train.epochs=1000000")
    # What the command line says about length is meant: a preset's own time limit would cut it short.
    if (flags.get("train.epochs") or flags.get("train.steps")) and not flags.get("train.budget"):
        overrides.append("train.budget=")
    if flags.get("train.budget") and not flags.get("train.steps"):
        overrides.append("train.steps=0")
    return config.load(preset, [*overrides, *settings])


def _folder(resolved: Config, out: Path | None, resume: bool, dry_run: bool) -> RunFolder:
    path = out or runs.RUNS / f"{resolved.preset}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = RunFolder(path)
    if dry_run:
        return folder
    if path.exists() and not path.is_dir():
        raise OutputError(f"run folder {path} is a file; name another with -o")
    if resume and not folder.state.is_file():
        raise InputNotFoundError(f"nothing to resume in {path}; start the run without --resume")
    if not resume and path.is_dir() and any(path.iterdir()):
        raise OutputError(f"run folder {path} is not empty; continue it with --resume, or name another with -o")
    above = next(p for p in path.absolute().parents if p.exists()) if not path.exists() else path
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(f"cannot create run folder {path}: no permission to write in {above}")
    return folder


def build(resolved: Config, prepared: Prepared) -> PDR:
    """A new network, by the preset's seed."""
    torch.manual_seed(resolved.train.seed)
    network = registry.build(resolved.model, frames_of(resolved, prepared))
    log.info("model   %s", _model_line(network, resolved, prepared.size))
    return network


def frames_of(resolved: Config, prepared: Prepared) -> Frames:
    """The frames that the network is built for."""
    x = modelfile.side_of(prepared.series[0], "x")
    return modelfile.frames_of(resolved, prepared.channels, prepared.size, x)


def fit(
    resolved: Config,
    prepared: Prepared,
    network: PDR,
    folder: RunFolder,
    where: torch.device,
    resume: bool,
    start: WarmStart,
    state: str = "last",
) -> Position:
    """Train a network to its end and leave everything in the run folder.

    Raises:
        LockedError: another process is training in this folder.
    """
    from pdr_cli.drawing import pictures

    folder.path.mkdir(parents=True, exist_ok=True)
    with locks.locked(folder.path):
        start.save(folder)
        loop = trainer(resolved, prepared, network, folder, where, start)
        if resume:
            loop.resume("last-1" if state == "last-1" else "last")
            log.info("resume  %s at step %d", folder.path, loop.position.step)
        atomic.write_text(folder.config, config.dump(resolved))
        with progress("training") as bar:
            position = loop.fit(bar)
        pictures.curves(folder.curves, folder.metrics)
    log.info(
        "done    %d steps in %.0f s, best validation loss %.4f at step %d",
        position.step, position.elapsed, position.best_loss, position.best_step,
    )  # fmt: skip
    return position


def trainer(
    resolved: Config, prepared: Prepared, network: PDR, folder: RunFolder, where: torch.device, start: WarmStart
) -> Trainer:
    """What trains a network: scaling and climatology are measured, and Gaussians placed that start from the data."""
    measured = measure(prepared, resolved)
    data_files = what_was_read(prepared)
    if not start.has_adapter:
        network.initialize(torch.from_numpy(first_frame(prepared, measured)))
    network.to(where)
    card = _card(resolved, prepared, measured, data_files)
    card = _with(card, card.training | start.as_training())

    def save_best(position: Position) -> None:
        done = {"step": position.step, "loss": position.best_loss, "seconds": round(position.elapsed, 1)}
        training = card.training | {f"best_{k}": v for k, v in done.items()} | {"device": _device_name(where)}
        folder.state.parent.mkdir(exist_ok=True)
        atomic.keep_previous(folder.model, folder.previous_model)
        modelfile.save(folder.model, network, _with(card, training), measured.climatology)

    loss = losses.build_loss(
        resolved.train.loss,
        l1_weight=resolved.train.l1_weight,
        data_range=torch.tensor(measured.scaling.data_range, device=where),
        periodic=frames_of(resolved, prepared).periodic,
    )
    return Trainer(
        network,
        loss,
        prepared.train,
        prepared.val,
        measured.scaling,
        resolved.train,
        folder,
        where,
        save_best,
        measured.filling,
        _area(prepared) if resolved.train.latitude_weights else None,
    )


def _area(prepared: Prepared) -> np.ndarray:
    """Areas of the cells, for the loss.

    Raises:
        ConfigError: no latitudes.
    """
    weights = grid.areas(prepared.series[0])
    if weights is None:
        raise ConfigError(
            f"train.latitude_weights: {prepared.series[0].attrs['files'][0]} has no latitudes; "
            "train with --set train.latitude_weights=false"
        )
    return weights


def _card(
    resolved: Config, prepared: Prepared, measured: Measured, data_files: tuple[dict[str, str], ...]
) -> ModelCard:
    series = prepared.series[0]
    return ModelCard(
        config=resolved,
        kind=series.attrs["kind"],
        variables=series.attrs["variables"],
        size=prepared.size,
        y=modelfile.side_of(series, "y"),
        x=modelfile.side_of(series, "x"),
        step=prepared.step,
        scaling=measured.scaling,
        limits=measured.limits,
        land=None if prepared.missing is None else CellMask.of(prepared.missing.never_observed),
        seen=what_was_seen(prepared),
        data=data_files,
        training={
            "pdr": __version__,
            "torch": torch.__version__,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "split": prepared.split.rule,
        },
    )


def _with(card: ModelCard, training: dict[str, Any]) -> ModelCard:
    import dataclasses

    return dataclasses.replace(card, training=training)


def _device_name(where: torch.device) -> str:
    return torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"


def _more(count: int) -> str:
    return f" and {count - 1} more clips" if count > 1 else ""


def _split_line(prepared: Prepared) -> str:
    counts = f"{len(prepared.train)} / {len(prepared.val)} / {len(prepared.test)} windows to train / validate / test"
    return f"{counts} ({prepared.split.rule})"


def _model_line(network: PDR, resolved: Config, size: tuple[int, int]) -> str:
    total = sum(p.numel() for p in network.parameters())
    adapter = sum(p.numel() for p in network.adapter.parameters()) if network.adapter is not None else 0
    count = network.adapter.count(size) if isinstance(network.adapter, GaussianAdapter) else "no"
    painter = f" + {type(network.adapter).__name__} {adapter:,} ({count} Gaussians)" if adapter else ""
    return f"{resolved.model.backbone} {total - adapter:,} parameters{painter}"


def _dry_run(resolved: Config, prepared: Prepared, network: PDR) -> None:
    """Print what would be trained: configuration, data, split, parameters, FLOPs and memory."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    data, batch = resolved.data, resolved.train.batch
    x = torch.zeros(1, data.in_steps, prepared.channels, *prepared.size)
    counter = FlopCounterMode(display=False)
    # The counter does not know the fused attention of CPUs.
    with sdpa_kernel(SDPBackend.MATH), counter, torch.no_grad():
        network(Batch(x, data.out_steps))
    weights = sum(p.numel() for p in network.parameters()) * 4
    print(config.dump(resolved))
    print(f"# data        {describe(prepared.series[0])}{_more(len(prepared.series))}")
    print(f"# windows     {_split_line(prepared)}")
    print(f"# model       {_model_line(network, resolved, prepared.size)}")
    print(f"# FLOPs       {counter.get_total_flops() / 1e9:.2f} G a window (2 per multiply-add)")
    print(f"# memory      {4 * weights / 2**20:.0f} MB for weights, gradients and optimiser")
    print(f"# steps       {max(1, len(prepared.train) // batch)} an epoch")
