"""The model of a configuration for scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdr_cli.errors import ConfigError
from pdr_cli.models.interfaces import Frames
from pdr_cli.models.scenes.latents import FrameLatents, LatentSource, NoLatents, VideoLatents
from pdr_cli.models.scenes.scene import SceneModel

if TYPE_CHECKING:
    from pdr_cli.schema import Config


def build(config: Config, size: tuple[int, int]) -> SceneModel:
    """A new model for pictures (H, W), with weights from torch's generator.

    Raises:
        ConfigError: a table is missing, or the picture cannot be halved as often as the model does.
    """
    options = config.scene
    if options is None:
        raise ConfigError("a model of scenes needs the table [scene]", way_out="take --preset scenes-small")
    frames = 1 + config.data.out_steps
    source = _source(config, frames, size)
    # Once more than the latents, where training begins on pictures of half the size.
    multiple = 2 ** (source.halvings + bool(config.train.stages and config.train.stages[0]))
    if any(side % multiple for side in size):
        raise ConfigError(
            f"pictures of {size[0]} x {size[1]}",
            f"sides that {multiple} divides",
            "leave out the stage of half the size with --set train.stages=[0,0.6,0.4]" if multiple > 4 else "",
        )
    return SceneModel(source, frames, options, config.model.deform_basis, config.model.prune_opacity)


def _source(config: Config, frames: int, size: tuple[int, int]) -> LatentSource:
    assert config.scene is not None
    if config.scene.latents == "oracle":
        return FrameLatents(frames, config.scene.width)
    if config.latent is None:
        raise ConfigError(f"scene.latents = {config.scene.latents} needs the table [latent]", way_out="or oracle")
    if config.scene.latents == "none":
        return NoLatents(frames, config.model, config.latent)
    return VideoLatents(Frames(1, 3, size, out_steps=frames - 1), config.model, config.latent)
