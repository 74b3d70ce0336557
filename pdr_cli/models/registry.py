"""From a configuration to a network: predictor, adapter and fusion by name (see `choices`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

from pdr_cli.choices import ADAPTERS, ANCHORS, FUSIONS, LATENT, PREDICTORS, TRANSLATORS
from pdr_cli.errors import ConfigError
from pdr_cli.models import tiles
from pdr_cli.models.anchors.guide import Guide
from pdr_cli.models.anomalies import Anomalies
from pdr_cli.models.interfaces import Adapter, Anchor, Frames, Fusion, Predictor
from pdr_cli.models.noise import NormNoise
from pdr_cli.models.pdr import PDR
from pdr_cli.models.predictors.simvp import SimVP
from pdr_cli.models.tiles import Tiles
from pdr_cli.trust import Trust

if TYPE_CHECKING:
    from pdr_cli.optional_tables import LatentConfig
    from pdr_cli.schema import Config, ModelConfig

# The keywords with which a predictor from outside is called, beside in_steps and channels.
KEYWORDS = ("hid_s", "hid_t", "n_s", "n_t", "mlp_ratio", "drop_path")
# The names that a predictor outside `Predictor` had to define before; they have no effect any more.
FORMER = ("any_horizon", "training_forecast")


def of(config: Config, frames: Frames, trust: Trust | None = None) -> PDR:
    """The network of a configuration for frames of this shape, with new weights; see `build`.

    With a guide, which reads the covariates, its network takes the place of the anchor.
    """
    if config.guide is None:
        return build(config.model, frames, trust, config.latent)
    network = build(config.model, frames._replace(covariates=0), trust, config.latent)
    network.anchor = Guide(of(config.guide, frames, trust))
    return network


def build(options: ModelConfig, frames: Frames, trust: Trust | None = None, latent: LatentConfig | None = None) -> PDR:
    """The network of the [model] table for frames of this shape, with new weights.

    Args:
        options: the [model] table.
        frames: of the network.
        trust: see `families.Family.find`.
        latent: the [latent] table, which predictors with a latent space need.

    Raises:
        ConfigError: an unknown name, values from which nothing can be built, or code that may not run.
    """
    predictor = build_predictor(options, frames, trust, latent)
    fusion = build_fusion(options, frames, trust)
    adapter = build_adapter(options, frames, trust) if fusion.needs_layer else None
    if fusion.needs_carrier and (adapter is None or not adapter.carries):
        raise ConfigError(
            f"--fusion {options.fusion} with --adapter {options.adapter}, which carries nothing",
            "--adapter deform",
            "take --fusion concat, gated or add",
        )
    anomalies = Anomalies((frames.channels, *frames.size)) if options.inputs == "anomalies" else None
    noise = NormNoise(predictor, options.noise) if options.noise else None
    network = PDR(predictor, adapter, fusion, build_anchor(options, frames), anomalies, noise)
    if options.tile:
        tiles.check(options, "model.tile")
        tiles.check_sides(options.tile, options.tile_overlap, options, "model.tile")
        network.tiles = Tiles((options.tile[0], options.tile[1]), options.tile_overlap, frames.periodic)
    return network


def load(options: ModelConfig, trust: Trust | None = None) -> None:
    """Import the parts of a network, as `build` does before it builds them."""
    for family, name in ((PREDICTORS, options.backbone), (ADAPTERS, options.adapter), (FUSIONS, options.fusion)):
        family.find(name, trust)


def build_predictor(
    options: ModelConfig, frames: Frames, trust: Trust | None = None, latent: LatentConfig | None = None
) -> nn.Module:
    """The predictor `backbone`: a `Predictor`, or a module [B, T, C, H, W] → [B, T, C, H, W].

    Ours are called with (frames, options); the SimVP family is a shell around a translator. Those of other packages are
    called with the keywords in_steps, channels, `KEYWORDS` and, if they take it, size.

    Raises:
        ConfigError: an unknown name, values that do not fit together, or an object that is not a predictor.
    """
    _check_latent(options.backbone, latent)
    built = _predictor(options, frames, trust, latent)
    if frames.covariates and not (isinstance(built, Predictor) and built.reads_covariates):
        raise ConfigError(
            f"--backbone {options.backbone} reads no covariates, and the data have {frames.covariates}",
            way_out="take --backbone unet or tau, or leave out --known, --static, --input and data.calendar",
        )
    return built


def uses_covariates(name: str, trust: Trust | None = None) -> bool:
    """Whether the forecast of the predictor `name` depends on covariates.

    Raises:
        ConfigError: an unknown name, or code that may not run.
    """
    factory = PREDICTORS.find(name, trust)
    return name in TRANSLATORS or (
        inspect.isclass(factory) and issubclass(factory, Predictor) and factory.reads_covariates and name != "none"
    )


def _check_latent(name: str, latent: LatentConfig | None) -> None:
    """Refuse a predictor without the table that it reads, and a generator that no predictor would draw members from."""
    if name in LATENT and latent is None:
        way_out = "start from --preset weather-latent or video-latent, or copy their table [latent]"
        raise ConfigError(f"--backbone {name} reads the table [latent], and the preset has none", way_out=way_out)
    if name not in LATENT and latent is not None and latent.generator != "none":
        way_out = "add --set latent.generator=none, or leave out --backbone"
        raise ConfigError(
            f"latent.generator is {latent.generator}, and --backbone {name} has no latents", way_out=way_out
        )


def _predictor(options: ModelConfig, frames: Frames, trust: Trust | None, latent: LatentConfig | None) -> nn.Module:
    name = options.backbone
    factory = PREDICTORS.find(name, trust)
    if name in LATENT:
        built: nn.Module = factory(frames, options, latent)
        return built
    if name in TRANSLATORS:
        return SimVP.with_translator(factory, frames, options)
    if name in PREDICTORS.own:
        return factory(frames, options)
    built = called(name, factory, keywords(factory, frames, options))
    former = [attribute for attribute in FORMER if attribute in dir(built)]
    if former and not isinstance(built, Predictor):
        raise ConfigError(
            f"predictor {name} has {' and '.join(former)}, which nothing calls",
            way_out="derive its class from pdr_cli.models.interfaces.Predictor and define training_forward",
        )
    return built


def build_anchor(options: ModelConfig, frames: Frames) -> Anchor | None:
    """The anchor `anchor`, not fitted yet; None without one.

    Raises:
        ConfigError: an unknown name.
    """
    anchor: Anchor | None = ANCHORS.find(options.anchor)(frames)
    return anchor


def keywords(factory: Callable[..., Any], frames: Frames, options: ModelConfig) -> dict[str, Any]:
    """The arguments for a predictor of another package; (H, W) only if it has a parameter `size`."""
    shell = {"in_steps": frames.in_steps, "channels": frames.channels}
    inside = {key: getattr(options, key) for key in KEYWORDS}
    return shell | inside | ({"size": frames.size} if takes_size(factory) else {})


def takes_size(factory: Callable[..., Any]) -> bool:
    """True if `factory` has a parameter `size`."""
    try:
        return "size" in inspect.signature(factory).parameters
    except (TypeError, ValueError):  # a callable without a signature
        return False


def called(name: str, factory: Callable[..., Any], arguments: dict[str, Any]) -> nn.Module:
    """The module that a factory of another package returns.

    Raises:
        ConfigError: a signature that does not fit, or another object than a module.
    """
    try:
        built = factory(**arguments)
    except TypeError as error:
        raise ConfigError(f"predictor {name} was called with {', '.join(arguments)}: {error}") from error
    if not isinstance(built, nn.Module):
        raise ConfigError(f"predictor {name} is a {type(built).__name__}", "a torch.nn.Module")
    return built


def build_adapter(options: ModelConfig, frames: Frames, trust: Trust | None = None) -> Adapter:
    """The adapter `adapter`, called with (frames, options).

    Raises:
        ConfigError: an unknown name, values from which nothing can be built, or an object that is not an adapter.
    """
    return checked(ADAPTERS.find(options.adapter, trust)(frames, options), Adapter, f"--adapter {options.adapter}")


def build_fusion(options: ModelConfig, frames: Frames, trust: Trust | None = None) -> Fusion:
    """The fusion `fusion`, called with (channels).

    With `fusion_init` "residual" it begins with the coarse forecast (`Fusion.begin_with_coarse`), with "random" it keeps
    PyTorch's own initial weights.

    Raises:
        ConfigError: an unknown name, or an object that is not a fusion.
    """
    fusion = checked(FUSIONS.find(options.fusion, trust)(frames.channels), Fusion, f"--fusion {options.fusion}")
    if options.fusion_init == "residual":
        fusion.begin_with_coarse()
    return fusion


def checked(built: Any, face: type[Any], choice: str) -> Any:
    """`built`, if it has the face.

    Raises:
        ConfigError: it is an object of another kind.
    """
    if not isinstance(built, face):
        raise ConfigError(f"{choice} is a {type(built).__name__}", f"a pdr_cli.models.interfaces.{face.__name__}")
    return built
