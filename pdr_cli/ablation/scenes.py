"""What an ablation of moving scenes does of its own: steps and their time, trainings that share parts, scores."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pdr_cli.data.scenes import KIND
from pdr_cli.errors import ConfigError
from pdr_cli.inference import scenes as inference
from pdr_cli.inference.members import DIRECT, Drawing
from pdr_cli.models.scenes.latents import VideoLatents
from pdr_cli.runs.films import SceneData
from pdr_cli.runs.folder import RunFolder
from pdr_cli.schema import Config
from pdr_cli.system.logs import log
from pdr_cli.training.kept import Kept
from pdr_cli.training.scenes import parts
from pdr_cli.training.scenes import run as training
from pdr_cli.training.scenes.lesson import GENERATOR, RECONSTRUCTOR, VAE
from pdr_cli.verification import scenes as verification
from pdr_cli.verification.scenes import SceneScores

MEMBERS = 2  # drawn of each test scene
COLUMNS = {"epe": "units", "psnr": "dB", "ssim": "1", "depth_pearson": "1", "depth_absrel": "1"}
COLUMNS |= {"rpe_t": "units", "rpe_r": "degrees"}  # scores of the row `model`, and their units
DRAWN = ("epe", "psnr")  # those of the row `drawn`
LatentsKept = dict[
    Path, tuple[Kept, Kept]
]  # of training scenes, true and drawn, by the folder of the parts that they are of
STANDING_STILL, COPY, TRUTH = "standing still", "copy", "truth"  # simple forecasts


def is_for(config: Config) -> bool:
    """Whether a configuration trains on scenes."""
    return config.data.kind == KIND


def steps_of(base: Config, settings: Mapping[str, Any], steps: int) -> int:
    """The steps of a variant where those of the base are `steps`; without parts those of the base's Reconstructor."""
    if base.scene is None or not base.scene.parts or settings.get("scene.parts", True):
        return steps
    return max(1, round(steps * base.scene.parts[RECONSTRUCTOR]))


def examples(base: Config) -> int:
    """Scenes to train on."""
    return len(training.open_data(base).train)


def seconds(base: Config, configs: Iterable[Config], where: torch.device) -> float:
    """The time of a step of the base in all variants, of its parts as their shares are; parts that variants share count once."""
    total, known = 0.0, set()
    assert base.scene is not None
    last = base.scene.parts[RECONSTRUCTOR] if base.scene.parts else 1.0
    for config in configs:
        assert config.scene is not None
        shares = config.scene.parts or [0.0, 0.0, last]
        first = () if parts.alike(config) in known else (VAE, GENERATOR)
        known.add(parts.alike(config))
        with suppress(ConfigError):  # said when its turn comes
            total += sum(
                shares[part] * _seconds(config, part, where) for part in (*first, RECONSTRUCTOR) if shares[part]
            )
    return total


def _seconds(config: Config, part: int, where: torch.device) -> float:
    """Of a step of one part, of Gaussians that move, on scenes whose latents are kept, as in most of a training."""
    assert config.scene is not None
    shares = [float(number == part) for number in range(3)] if config.scene.parts else []
    scene = config.scene.model_copy(update={"parts": shares})
    train = config.train.model_copy(update={"stages": []})
    changed = config.model_copy(update={"scene": scene, "train": train})
    with tempfile.TemporaryDirectory() as folder:
        run = training.assembled(changed, RunFolder(Path(folder)), where)
        few = run.data.train[: config.train.batch]
        data = SceneData(run.data.file, few, run.data.val, config.data.cache_mb)
        return training.trainer(replace(run, data=data)).seconds_per_step()


def train(config: Config, folder: RunFolder, where: torch.device, kept: LatentsKept) -> dict[str, Any]:
    """Train a variant with a seed, or continue its training; parts that another one has carried out are taken over.

    Args:
        config: of the variant.
        folder: of its run; those of the parts lie beside it.
        where: the device.
        kept: by earlier runs of the ablation.

    Returns:
        What the ablation records.
    """
    begun = folder.state.is_file()
    if not begun:
        folder.metrics.unlink(missing_ok=True)
    run = training.assembled(config, folder, where, "last" if begun else None)
    if run.options.parts:
        shared = _shared(run)
        if not begun:
            _begin_with(run, shared)
        if shared.path not in kept:
            kept.clear()  # variants come seed by seed
        run = replace(run, resume="last", kept=kept.setdefault(shared.path, run.kept))
    position = training.fit(run)
    count = sum(p.numel() for p in run.network.parameters())
    return {"seconds": round(position.elapsed, 1), "best_step": position.best_step, "parameters": count}


def _shared(run: training.SceneRun) -> RunFolder:
    """Where the parts before the Reconstructor's are trained, for all that have equal ones."""
    name = hashlib.sha256(parts.alike(run.config).encode()).hexdigest()[:8]
    return RunFolder(run.folder.path.parent / f"parts-{run.config.train.seed}-{name}")


def _begin_with(run: training.SceneRun, shared: RunFolder) -> None:
    log.info("parts   %s", shared.path)
    parts.carry_out(training.assembled(run.config, shared, run.device, "last" if shared.state.is_file() else None))
    parts.take_over(run, shared)


def scores(path: Path, file: Path, device: str) -> dict[str, SceneScores]:
    """The documents of validation and test scenes of a file, with members of the test scenes where the model draws some."""
    model = inference.load(path, device)
    drawing = Drawing(MEMBERS) if isinstance(model.network.source, VideoLatents) else DIRECT
    chosen = {"val": DIRECT, "test": drawing}
    return {split: verification.evaluate(model, file, split, drawn) for split, drawn in chosen.items()}


def columns(document: SceneScores) -> dict[str, Any]:
    """The scores of the table."""
    model = document.scores["model"]
    found = {name: model[name] for name in COLUMNS}
    found["psnr, still"] = document.scores["static"]["psnr"]
    drawn = document.scores.get("drawn")
    return found | ({f"{name}, drawn": drawn[name] for name in DRAWN} if drawn else {})


def units(found: Sequence[str]) -> dict[str, str]:
    """The units of columns."""
    return {name: COLUMNS[name.partition(",")[0]] for name in found}


def simple(document: SceneScores) -> dict[str, dict[str, float | None]]:
    """The rows of what nothing was trained for, in the columns of the table."""
    rows = {
        STANDING_STILL: {"epe": document.scores["static"]["epe"]},
        COPY: document.scores["copy"],
        TRUTH: document.scores["truth"],
    }
    return {name: {k: v for k, v in row.items() if v is not None and k in COLUMNS} for name, row in rows.items()}
