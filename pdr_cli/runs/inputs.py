"""What a network is built for and reads, from its configuration and the header of its model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdr_cli.data import grid
from pdr_cli.data.climatology import Climatology
from pdr_cli.data.context import ContextSource
from pdr_cli.data.grid import Side
from pdr_cli.schema import Config

if TYPE_CHECKING:
    from pdr_cli.models.interfaces import Frames

DEPARTING = ("climatology", "anomaly", "ridge")  # anchors that depart from the climatology


def frames_of(
    config: Config, channels: int, size: tuple[int, int], x: Side | None, cycles: tuple[int, ...] = ()
) -> Frames:
    """The frames that a network is built for, of data with this coordinate along x and these earlier cycles."""
    from pdr_cli.models.interfaces import Frames

    return Frames(
        config.data.in_steps,
        channels,
        (size[0], size[1]),
        grid.is_periodic(config.model.periodic, x),
        out_steps=config.data.out_steps,
        lags=len(cycles),
    )


def contexts_of(config: Config, climatology: Climatology, cycles: tuple[int, ...]) -> ContextSource:
    """What makes the context that a network of this configuration reads."""
    normal = config.model.anchor in DEPARTING or config.model.inputs == "anomalies"
    return ContextSource(climatology if normal else None, cycles)
