"""The card of an evaluation: what it takes to repeat it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pdr_cli import __version__
from pdr_cli.inference.loaded import FP32, LoadedModel
from pdr_cli.inference.model import Model, with_network
from pdr_cli.system import hashes
from pdr_cli.verification import efficiency
from pdr_cli.verification.document import Card, CardFile, CardModel
from pdr_cli.verification.sections import Efficiency
from pdr_cli.verification.setting import Setting, ssim_definition
from pdr_cli.verification.task import Task

LISTED = 20  # files of the truth that are named


def card(task: Task, convention: str, setting: Setting, seconds: Mapping[str, float]) -> Card:
    """The card of a task.

    Args:
        task: what was scored.
        convention: of the scores.
        setting: of the scores.
        seconds: spent in "total" and in each forecaster.
    """
    import torch

    scored = task.climatology is not None and "climatology" in seconds
    return Card(
        pdr=__version__,
        torch=torch.__version__,
        device=_device(task.first),
        threads=torch.get_num_threads(),
        date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        data=listed(list(dict.fromkeys(file for series in task.series for file in series.attrs["files"]))),
        models={name: _model(model) for name, model in task.models.items()},
        files={
            name: CardFile(str(file.paths[0]), file.layout, hashes.sha256(file.paths[0]))
            for name, file in task.files.items()
        },
        ssim=ssim_definition(convention, setting, task.truth),
        climatology=task.climatology.description if scored and task.climatology is not None else "",
        seconds={name: round(value, 3) for name, value in seconds.items()},
    )


def efficiencies(task: Task) -> dict[str, Efficiency]:
    """What each model costs."""
    return {name: efficiency.measure(with_network(model, "--efficiency")) for name, model in task.models.items()}


def listed(paths: Sequence[str | Path]) -> list[str]:
    """Names of files, twenty at most."""
    names = [Path(path).name for path in paths[:LISTED]]
    return names + ([f"and {len(paths) - LISTED} more"] if len(paths) > LISTED else [])


def _device(model: LoadedModel | None) -> str:
    import torch

    if not isinstance(model, Model) or model.device.type != "cuda":
        return "cpu"
    return torch.cuda.get_device_name(model.device)


def _model(model: LoadedModel) -> CardModel:
    config = model.card.config
    return CardModel(
        file=str(model.path),
        sha256=model.sha256,
        preset=config.preset,
        backbone=config.model.backbone,
        fusion=config.model.fusion,
        parameters=model.parameters,
        precision=None if model.precision == FP32 else model.precision,
    )
