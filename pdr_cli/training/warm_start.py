"""Where training starts: from the weights of a trained model, ours or OpenSTL's, and with a predictor that stays as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pdr_cli.config import Config
from pdr_cli.errors import CheckpointError, ConfigError
from pdr_cli.models import openstl
from pdr_cli.models.pdr import PDR
from pdr_cli.runs import folder as runs
from pdr_cli.runs import modelfile
from pdr_cli.runs.folder import RunFolder
from pdr_cli.runs.modelfile import ModelFile
from pdr_cli.runs.openstl import load_openstl
from pdr_cli.system import atomic, hashes
from pdr_cli.system.logs import log

FOREIGN = (".pth", ".pt", ".ckpt")
PREDICTOR, ADAPTER = "predictor.", "adapter."
# What must be the same for a predictor's weights to fit and to mean the same.
OURS = (
    "data.in_steps",
    *(f"model.{key}" for key in ("backbone", "hid_s", "hid_t", "n_s", "n_t", "mlp_ratio", "anchor")),
)


@dataclass(frozen=True)
class WarmStart:
    """How a run began. It is kept beside the run's state, because a resumed run goes on in the same way.

    Args:
        init_from: name, SHA-256 and kind of the file that the weights are from, and whether they are the adapter's
            too; None for new ones.
        freeze_backbone: True if the predictor is not trained.
    """

    init_from: dict[str, Any] | None = None
    freeze_backbone: bool = False

    @property
    def has_adapter(self) -> bool:
        """True if the adapter's weights are the file's, so that its Gaussians are where that training left them."""
        return bool(self.init_from and self.init_from["adapter"])

    def as_training(self) -> dict[str, Any]:
        """For a model card: what differs from an ordinary start."""
        values = {"init_from": self.init_from, "freeze_backbone": self.freeze_backbone}
        return {key: value for key, value in values.items() if value}

    def save(self, folder: RunFolder) -> None:
        """Write it beside the run's state, if there is anything to say."""
        if self.as_training():
            _place(folder).parent.mkdir(parents=True, exist_ok=True)
            atomic.write_text(_place(folder), json.dumps(self.as_training()))


def begin(
    network: PDR, config: Config, channels: int, size: tuple[int, int], init_from: Path | None, freeze_backbone: bool
) -> WarmStart:
    """Give a new network the weights of a file, and hold its predictor still if it shall be.

    Raises:
        InputNotFoundError: no such file.
        CheckpointError: another predictor; names the settings that differ.
        ConfigError: nothing is left to train.
    """
    origin = None if init_from is None else load(network, config, channels, size, init_from)
    if freeze_backbone:
        if origin is None:
            log.warning("--freeze-backbone without --init-from: a predictor that was never trained stays so")
        freeze(network)
    return WarmStart(origin, freeze_backbone)


def resume(network: PDR, folder: RunFolder) -> WarmStart:
    """The start of the run in `folder`, whose weights are in its state."""
    if not _place(folder).is_file():
        return WarmStart()
    start = WarmStart(**json.loads(_place(folder).read_text()))
    if start.freeze_backbone:
        freeze(network)
    return start


def _place(folder: RunFolder) -> Path:
    return folder.state.with_name("start.json")


def freeze(network: PDR) -> None:
    """Train the rest of the network alone.

    Raises:
        ConfigError: nothing else is there to train.
    """
    network.freeze_predictor()
    if not any(p.requires_grad for p in network.parameters()):
        raise ConfigError(
            "--freeze-backbone leaves nothing to train, because the fusion is none; choose another: --fusion concat"
        )


def load(network: PDR, config: Config, channels: int, size: tuple[int, int], path: Path) -> dict[str, Any]:
    """Give a network the weights of a file; returns what a model card says of it."""
    if path.suffix.lower() in FOREIGN:
        load_foreign(network, config, channels, size, path)
        return {"name": path.name, "sha256": hashes.sha256(path), "kind": "OpenSTL", "adapter": False}
    path = runs.find_model(str(path))
    file = modelfile.read(path)
    adapter = load_ours(network, config, channels, size, path, file)
    return {"name": path.name, "sha256": file.sha256, "kind": "pdr", "adapter": adapter}


def load_foreign(network: PDR, config: Config, channels: int, size: tuple[int, int], path: Path) -> None:
    """The predictor's weights from a file of OpenSTL."""
    weights = load_openstl(path)
    try:
        found = openstl.architecture_of(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    # Its models forecast frames, not their change; what the others say is in the shapes.
    theirs: dict[str, Any] = {"data.in_steps": found.in_steps, "model.anchor": "none"}
    for key in ("backbone", "hid_s", "hid_t", "n_s", "n_t", "mlp_ratio"):
        theirs[f"model.{key}"] = getattr(found, key)
    if found.mlp_ratio is None:
        del theirs["model.mlp_ratio"]
    compare(theirs, config, path)
    check_channels(found.channels, channels, path)
    load_predictor(network, config, weights, size, path)
    log.info("start   predictor of %s (OpenSTL)", path)


def load_ours(network: PDR, config: Config, channels: int, size: tuple[int, int], path: Path, file: ModelFile) -> bool:
    """The predictor's weights from a model file, and those of adapter and fusion that have the same shape.

    True if those are all of the adapter's.
    """
    card, weights = file.card, file.weights
    tables = card.config.model_dump()
    compare({key: tables[key.split(".")[0]][key.split(".")[1]] for key in OURS}, config, path)
    check_channels(len(card.variables), channels, path)
    inside = {k.removeprefix(PREDICTOR): v for k, v in weights.items() if k.startswith(PREDICTOR)}
    load_predictor(network, config, inside, size, path)
    others = {k: v for k, v in network.state_dict().items() if not k.startswith(PREDICTOR)}
    fitting = {k: weights[k] for k, v in others.items() if k in weights and weights[k].shape == v.shape}
    network.load_state_dict(fitting, strict=False)
    log.info("start   predictor of %s, and %d of %d tensors of adapter and fusion", path, len(fitting), len(others))
    return all(key in fitting for key in others if key.startswith(ADAPTER))


def load_predictor(
    network: PDR, config: Config, weights: Mapping[str, Tensor], size: tuple[int, int], path: Path
) -> None:
    """All of them and no others."""
    try:
        openstl.load_strictly(network.predictor, weights, f"{config.model.backbone} for {size[0]} x {size[1]}")
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def compare(theirs: Mapping[str, Any], config: Config, path: Path) -> None:
    """Refuse settings that are not the file's.

    Raises:
        CheckpointError: names all that differ, and how to train with the file's.
    """
    tables = config.model_dump()
    mine = {key: tables[key.split(".")[0]][key.split(".")[1]] for key in theirs}
    differing = [key for key in theirs if theirs[key] != mine[key]]
    if differing:
        words = ", ".join(
            f"{key.split('.')[1]} {_plain(theirs[key])} there, {_plain(mine[key])} here" for key in differing
        )
        way_out = " ".join(f"--set {key}={_plain(theirs[key])}" for key in differing)
        raise CheckpointError(f"{path} is of another model: {words}; train with {way_out}")


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def check_channels(theirs: int, mine: int, path: Path) -> None:
    """Refuse weights for another number of channels.

    Raises:
        CheckpointError: says both.
    """
    if theirs != mine:
        raise CheckpointError(f"{path} is of a model of {theirs} channels; the data here have {mine}")
