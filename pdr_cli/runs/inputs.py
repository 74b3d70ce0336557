"""What a network is built for and reads, from its configuration and the header of its model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdr_cli.data import grid
from pdr_cli.data.climatology import Climatology
from pdr_cli.data.context import ContextSource, FieldSource
from pdr_cli.data.grid import Side
from pdr_cli.data.kinds import Kind
from pdr_cli.schema import AUTO, Config

if TYPE_CHECKING:
    from pdr_cli.models.interfaces import Frames

DEPARTING = ("climatology", "anomaly", "ridge")  # anchors that depart from the climatology


def resolved(config: Config, kind: Kind) -> Config:
    """A configuration whose anchor is chosen: of "auto" that of the kind of data."""
    if config.model.anchor != AUTO:
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"anchor": kind.anchor})})


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
        lags=len(cycles),
        covariates=covariates,
    )


def contexts_of(
    config: Config, climatology: Climatology, cycles: tuple[int, ...], covariates: FieldSource | None = None
) -> ContextSource:
    """What makes the context that a network of this configuration reads; `covariates`: None if it reads none."""
    normal = config.model.anchor in DEPARTING or config.model.inputs == "anomalies"
    return ContextSource(climatology if normal else None, cycles, covariates)
