"""The start of a run: new weights, or those of a trained model, ours or OpenSTL's, with or without a frozen predictor."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pdr_cli.errors import CheckpointError, ConfigError
from pdr_cli.models import openstl
from pdr_cli.models.interfaces import Frames, Predictor
from pdr_cli.models.pdr import PDR
from pdr_cli.runs import container, modelfile
from pdr_cli.runs import folder as runs
from pdr_cli.runs.container import FOREIGN
from pdr_cli.runs.folder import RunFolder
from pdr_cli.runs.modelfile import ModelFile
from pdr_cli.runs.openstl import read_openstl
from pdr_cli.schema import Config
from pdr_cli.system import atomic
from pdr_cli.system.logs import log
from pdr_cli.training.setup import has_parameters

PREDICTOR, ADAPTER = "predictor.", "adapter."
FITTED = ("anchor.", "anomalies.")  # to the data of each training, before its first step
# Settings that must be equal for a predictor's weights to fit and to have the same meaning.
SHAPES = ("backbone", "hid_s", "hid_t", "n_s", "n_t", "mlp_ratio")
OURS = ("data.in_steps", *(f"model.{key}" for key in SHAPES), "model.anchor")
LATENT = (
    "data.out_steps",
    "model.inputs",
    *(f"latent.{key}" for key in ("channels", "group", "conv3d", "pad", "stages", "attention")),
)


@dataclass(frozen=True)
class WarmStart:
    """How a run began. It is kept beside the run's state, because a resumed run continues in the same way.

    Args:
        init_from: name, SHA-256 and kind of the file of the weights, and whether it also holds the adapter's; None for
            new weights.
        freeze_backbone: True if the predictor is not trained.
    """

    init_from: dict[str, Any] | None = None
    freeze_backbone: bool = False

    @property
    def has_adapter(self) -> bool:
        """True if the adapter's weights are the file's, so that its Gaussians are where that training left them."""
        return bool(self.init_from and self.init_from["adapter"])

    def as_training(self) -> dict[str, Any]:
        """The entries of a model card; none for a run that began with new weights."""
        return {key: value for key, value in asdict(self).items() if value}

    def save(self, folder: RunFolder) -> None:
        """Write it beside the run's state, unless the run began with new weights."""
        if self.as_training():
            folder.start.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_text(folder.start, json.dumps(self.as_training()))


def begin(network: PDR, config: Config, frames: Frames, init_from: Path | None, freeze_backbone: bool) -> WarmStart:
    """Load the weights of a file into a new network, and freeze its predictor if `freeze_backbone`.

    Raises:
        InputNotFoundError: the file does not exist.
        CheckpointError: another predictor; names the settings that differ.
        ConfigError: a generator without a file that gives its VAE.
    """
    if init_from is None and config.latent is not None and config.latent.generator != "none":
        raise ConfigError(
            f"latent.generator is {config.latent.generator}, and no --init-from gives the VAE that it draws in",
            way_out="train a VAE with --set latent.generator=none, then name its run with --init-from",
        )
    origin = None if init_from is None else load(network, config, frames, init_from)
    if freeze_backbone:
        if origin is None:
            log.warning("--freeze-backbone without --init-from: a predictor that was never trained stays so")
        network.freeze_predictor()
        if not has_parameters(network):
            log.warning(
                "--freeze-backbone leaves nothing to train, because the fusion is none; the model is saved as it starts"
            )
    return WarmStart(origin, freeze_backbone)


def resume(network: PDR, folder: RunFolder) -> WarmStart:
    """The start of the run in `folder`, whose weights are in its state."""
    if not folder.start.is_file():
        return WarmStart()
    start = WarmStart(**json.loads(folder.start.read_text(encoding="utf-8")))
    if start.freeze_backbone:
        network.freeze_predictor()
    return start


def load(network: PDR, config: Config, frames: Frames, path: Path) -> dict[str, Any]:
    """Load the weights of a file into a network; returns the file's entry in the model card.

    Raises:
        InputNotFoundError, CheckpointError: see `begin`.
    """
    if path.suffix.lower() in FOREIGN or (path.is_file() and container.is_foreign(path)):
        weights, sha256 = read_openstl(path)
        load_foreign(network, config, frames, path, weights)
        return {"name": path.name, "sha256": sha256, "kind": "OpenSTL", "adapter": False}
    path = runs.find_model(str(path))
    file = modelfile.read(path)
    adapter = load_ours(network, config, frames, path, file)
    return {"name": path.name, "sha256": file.sha256, "kind": "pdr", "adapter": adapter}


def load_foreign(network: PDR, config: Config, frames: Frames, path: Path, weights: Mapping[str, Tensor]) -> None:
    """Load the predictor's weights of an OpenSTL file."""
    try:
        found = openstl.architecture_of(weights)
    except CheckpointError as error:
        raise error.at(path) from error
    compare(_settings_of(found), config, path)
    check_channels(found.channels, frames.channels, path)
    load_predictor(network, config, frames, path, weights)
    log.info("start   predictor of %s (OpenSTL)", path)


def _settings_of(found: openstl.Architecture) -> dict[str, Any]:
    """Our settings for an OpenSTL model: it forecasts frames and not their change; the shapes decide the others."""
    shapes = {f"model.{key}": value for key, value in asdict(found).items() if key in SHAPES and value is not None}
    return {"data.in_steps": found.in_steps, "model.anchor": "none", **shapes}


def load_ours(network: PDR, config: Config, frames: Frames, path: Path, file: ModelFile) -> bool:
    """Load the predictor's weights of a model file, and those of adapter and fusion that have the same shape.

    Returns:
        True if all weights of the adapter are the file's.
    """
    weights = file.weights
    both_latent = config.latent is not None and file.card.config.latent is not None
    compare(_values(file.card.config, OURS + LATENT if both_latent else OURS), config, path)
    check_channels(len(file.card.variables), frames.channels, path)
    inside = {k.removeprefix(PREDICTOR): v for k, v in weights.items() if k.startswith(PREDICTOR)}
    load_predictor(network, config, frames, path, _added(network, inside) | inside | _of_cells(network, inside, path))
    others = {k: v for k, v in network.state_dict().items() if not k.startswith((PREDICTOR, *FITTED))}
    fitting = {k: weights[k] for k, v in others.items() if k in weights and weights[k].shape == v.shape}
    network.load_state_dict(fitting, strict=False)
    further = f", and {len(fitting)} of {len(others)} tensors of adapter and fusion" if others else ""
    log.info("start   predictor of %s%s", path, further)
    return all(key in fitting for key in others if key.startswith(ADAPTER))


def _added(network: PDR, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The new weights of the parts of a predictor that its file may lack, and does."""
    predictor = network.predictor
    parts = predictor.added if isinstance(predictor, Predictor) else ()
    lacking = tuple(part for part in parts if not any(name.startswith(part) for name in weights))
    return {name: value for name, value in predictor.state_dict().items() if lacking and name.startswith(lacking)}


def _of_cells(network: PDR, weights: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The new weights of a predictor that belong to cells, where those of its file are of another grid."""
    predictor = network.predictor
    names = predictor.of_cells if isinstance(predictor, Predictor) else ()
    new = {name: value for name, value in predictor.state_dict().items() if name in names}
    other = {n: v for n, v in new.items() if n in weights and weights[n].shape != v.shape}
    if other:
        log.info("start   %s begins anew: %s is of another grid", ", ".join(other), path)
    return other


def load_predictor(network: PDR, config: Config, frames: Frames, path: Path, weights: Mapping[str, Tensor]) -> None:
    """Load all weights of the predictor, none missing and none left over."""
    height, width = frames.size
    try:
        openstl.load_strictly(network.predictor, weights, f"{config.model.backbone} for {height} x {width}")
    except CheckpointError as error:
        raise error.at(path) from error


def compare(theirs: Mapping[str, Any], config: Config, path: Path) -> None:
    """Refuse settings other than the file's.

    Raises:
        CheckpointError: names all that differ, and how to train with the file's.
    """
    mine = _values(config, theirs)
    differing = [key for key in theirs if theirs[key] != mine[key]]
    if not differing:
        return
    pairs = (f"{key.split('.')[1]} {_plain(theirs[key])}, not {_plain(mine[key])}" for key in differing)
    settings = " ".join(f"--set {key}={_plain(theirs[key])}" for key in differing)
    raise CheckpointError(f"{path} is of another model: {', '.join(pairs)}", way_out=f"train with {settings}")


def _values(config: Config, keys: Iterable[str]) -> dict[str, Any]:
    """The values of "table.key"s."""
    tables = config.model_dump()
    return {key: tables[key.split(".")[0]][key.split(".")[1]] for key in keys}


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_plain, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def check_channels(theirs: int, mine: int, path: Path) -> None:
    """Refuse weights for another number of channels.

    Raises:
        CheckpointError: names both.
    """
    if theirs != mine:
        raise CheckpointError(f"{path} is of a model of {theirs} channels; the data have {mine}")
