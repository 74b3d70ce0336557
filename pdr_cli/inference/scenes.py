"""Models of moving scenes in space, loaded from their files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pdr_cli.data import scenes
from pdr_cli.errors import CheckpointError, ConfigError, UsageError
from pdr_cli.inference.header import ModelHeader
from pdr_cli.inference.loaded import FP32
from pdr_cli.runs import modelfile
from pdr_cli.runs.modelfile import ModelCard, ModelFile
from pdr_cli.system import devices

if TYPE_CHECKING:
    import torch

    from pdr_cli.models.scenes.scene import SceneModel


@dataclass(frozen=True)
class LoadedScenes:
    """A model of scenes.

    Args:
        path: of its file.
        file: header and weights.
        network: in eval mode, on `device`.
        device: of the network.
    """

    path: Path
    file: ModelFile
    network: SceneModel
    device: torch.device

    @property
    def card(self) -> ModelCard:
        """Header of the model."""
        return self.file.card

    @property
    def sha256(self) -> str:
        """Of its file."""
        return self.file.sha256

    @property
    def precision(self) -> str:
        """Of its arithmetic."""
        return FP32

    @property
    def label(self) -> str:
        """See `ModelHeader.label`."""
        return ModelHeader(self.path, self.file).label

    @property
    def name(self) -> str:
        """See `ModelHeader.name`."""
        return ModelHeader(self.path, self.file).name


def load(path: Path, device: str = "auto") -> LoadedScenes:
    """Load the model file of a training on scenes.

    Args:
        path: of the model file.
        device: see `devices.pick`.

    Raises:
        CheckpointError: truncated, altered, foreign or too new.
        UsageError: a model that forecasts something else.
    """
    from pdr_cli.models.scenes.build import build
    from pdr_cli.runs import tensors

    where, file = devices.pick(device), modelfile.read(path)
    if file.card.kind != scenes.KIND:
        raise UsageError(f"{path} is a model of {file.card.kind}", "one of moving scenes in space")
    try:
        network = build(file.card.config, file.card.size)
        tensors.restore(network, file.weights)
    except (ConfigError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its weights are not those of the network it describes: {error}") from error
    network.eval().to(where)
    return LoadedScenes(path, file, network, where)
