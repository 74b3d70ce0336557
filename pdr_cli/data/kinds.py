"""The three kinds of data. A kind answers whatever depends on what the numbers mean; no other code asks for the format.

A preset or `--kind` names the kind. Otherwise it is found from the data: clips are video, counts are traffic, and other
fields on a grid are weather, whether of the atmosphere, the ocean or the land.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pdr_cli.data.series import Series, units
from pdr_cli.data.units import quantity
from pdr_cli.errors import DataError, UsageError, did_you_mean

# Quantities of the physical world, which nobody counts on a street.
PHYSICAL = ("temperature", "pressure", "water", "water a second", "flux of energy", "geopotential")


@dataclass(frozen=True)
class Kind:
    """What follows from the meaning of the data.

    Args:
        name: as presets and `--kind` give it.
        scaling: what `data.scaling = "auto"` means.
        weekly: whether the data have the rhythm of a week: people keep weeks, the atmosphere does not.
        bounds: lowest and highest possible value, for colour scales; None where there is no bound.
        palette: colour map of one channel.
        scores: default scores, the first is the headline.
        published_scores: the same under `--convention openstl`.
        lead_unit: unit of lead times, "hours" or "seconds".
        parts: whether several series are divided as wholes ("clip") or each along its time axis ("time").
        pictures: whether frames are 8-bit pictures, which can be written as video.
        learned_range: whether values far outside of the training's range are refused.
    """

    name: str
    scaling: Literal["standard", "minmax", "unit"]
    weekly: bool
    bounds: tuple[float | None, float | None]
    palette: str
    scores: tuple[str, ...]
    published_scores: tuple[str, ...]
    lead_unit: Literal["hours", "seconds"] = "hours"
    parts: Literal["time", "clip"] = "time"
    pictures: bool = False
    learned_range: bool = True


WEATHER = Kind("weather", "standard", False, (None, None), "viridis", ("rmse", "mae", "bias"), ("mse", "mae", "rmse"))
TRAFFIC = Kind("traffic", "minmax", True, (0.0, None), "magma", ("rmse", "mae", "bias"), ("mse", "mae", "ssim", "psnr"))
VIDEO = Kind(
    "video",
    "unit",
    False,
    (0.0, 255.0),
    "gray",
    ("psnr", "ssim", "mae"),
    ("mse", "mae", "ssim", "psnr"),
    lead_unit="seconds",
    parts="clip",
    pictures=True,
    learned_range=False,
)
KINDS = {kind.name: kind for kind in (WEATHER, TRAFFIC, VIDEO)}
ANY = "any"  # of a preset: whatever the data are


def named(name: str) -> Kind:
    """The kind of that name.

    Raises:
        UsageError: unknown.
    """
    if name not in KINDS:
        raise UsageError(f"--kind {name} is not known.{did_you_mean(name, KINDS)}", f"one of {', '.join(KINDS)}")
    return KINDS[name]


def of_fields(units: Iterable[str]) -> Kind:
    """The kind of fields on a grid, by the units of their channels: traffic where all are counts, otherwise weather."""
    quantities = [quantity(unit) for unit in units]
    return TRAFFIC if quantities and set(quantities) == {"count"} else WEATHER


def of(series: Series) -> Kind:
    """The kind of a series."""
    return named(series.attrs["kind"])


def with_kind(series: Series, wanted: str) -> Series:
    """A series as the kind that a preset or `--kind` names; "any": as it was found.

    Fields on a grid are of the kind that is named, unless their units say otherwise. Clips are video, and video is clips.

    Raises:
        DataError: the data cannot be of that kind.
    """
    found = of(series)
    if wanted in (ANY, found.name):
        return series
    kind = named(wanted)
    physical = [u for u in units(series) if quantity(u) in PHYSICAL]
    fixed = found is TRAFFIC and not series.attrs.get("may_lack")  # a format for traffic alone
    if kind.pictures != found.pictures or fixed or (kind is TRAFFIC and physical):
        held = f"{found.name} (units {physical[0]!r})" if physical else found.name
        raise DataError(
            f"{series.attrs['files'][0]} holds {held}",
            f"{kind.name}",
            f"take {found.name}-small; `pdr presets` lists all",
        )
    return series.assign_attrs(kind=kind.name)
