"""What a network is built for and reads, from its configuration and the header of its model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdr_cli.data import grid
from pdr_cli.data.climatology import Climatology
from pdr_cli.data.context import ContextSource, FieldSource
from pdr_cli.data.grid import Side
from pdr_cli.data.kinds import Kind
from pdr_cli.schema import Config, ModelConfig
from pdr_cli.settings import AUTO

if TYPE_CHECKING:
    from pdr_cli.models.interfaces import Frames

DEPARTING = ("climatology", "anomaly", "ridge")  # anchors that depart from the climatology
CYCLIC = ("ridge",)  # anchors that read earlier cycles
# Baselines of `pdr evaluate` that are fitted in training, and the anchors that forecast them.
BASELINES = {"anomaly": "anomaly", "ridge": "ridge", "damped-flow": "flow"}
OF_PICTURES = ("damped-flow",)
OF_TARGETS = ("climatology", "none")  # anchors that read no observed frame, the default first


def resolved(config: Config, kind: Kind) -> Config:
    """A configuration whose anchor is chosen: of "auto" that of the kind of data, with targets the climatology."""
    if config.model.anchor != AUTO:
        return config
    anchor = OF_TARGETS[0] if config.data.targets else kind.anchor
    return config.model_copy(update={"model": config.model.model_copy(update={"anchor": anchor})})


def frames_of(
    config: Config,
    channels: int,
    size: tuple[int, int],
    x: Side | None,
    cycles: tuple[int, ...] = (),
    covariates: int = 0,
) -> Frames:
    """The frames that a network is built for, of data with this coordinate along x, these earlier cycles and F covariates."""
    from pdr_cli.models.interfaces import Frames

    return Frames(
        config.data.in_steps,
        channels,
        (size[0], size[1]),
        grid.is_periodic(config.model.periodic, x),
        out_steps=config.data.out_steps,
        lags=len(cycles) if reading(config).anchor in CYCLIC else 0,
        covariates=covariates,
    )


def contexts_of(
    config: Config, climatology: Climatology, cycles: tuple[int, ...], covariates: FieldSource | None = None
) -> ContextSource:
    """What makes the context that a network of this configuration reads; `covariates`: None if it reads none."""
    model = reading(config)
    normal = model.anchor in DEPARTING or "anomalies" in (model.inputs, config.model.inputs)
    return ContextSource(climatology if normal else None, cycles if model.anchor in CYCLIC else (), covariates)


def reading(config: Config) -> ModelConfig:
    """The [model] table of the network that reads the context: of the guide, if there is one."""
    return config.model if config.guide is None else config.guide.model


def reads_cycles(config: Config, pictures: bool) -> bool:
    """Whether the network of a training, or a baseline that is fitted beside it, reads earlier cycles."""
    anchors = (reading(config).anchor, *(BASELINES[name] for name in baselines_of(config, pictures)))
    return any(anchor in CYCLIC for anchor in anchors)


def baselines_of(config: Config, pictures: bool) -> list[str]:
    """The baselines that a training on pictures, or on other data, fits for `pdr evaluate`.

    None where there are targets, because all of them read the observed frames of every channel.
    """
    if not config.train.baselines or config.data.targets:
        return []
    return [name for name in BASELINES if (name in OF_PICTURES) == pictures]


def own_baseline(config: Config) -> str | None:
    """The baseline that is the network's own anchor."""
    return next((name for name, anchor in BASELINES.items() if anchor == config.model.anchor), None)


def alone(config: Config, anchor: str) -> Config:
    """The configuration of the model whose forecast is an anchor's alone, on the same data."""
    network = {"backbone": "none", "fusion": "none", "inputs": "frames", "anchor": anchor, "noise": 0}
    return config.model_copy(update={"model": config.model.model_copy(update=network), "latent": None, "guide": None})
