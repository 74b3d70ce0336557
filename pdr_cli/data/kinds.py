"""The three kinds of data: weather, traffic, video. A kind decides whatever depends on the meaning of the numbers.

A preset or `--kind` names the kind. Otherwise it is found from the data: clips are video, counts are traffic, and all
other fields on a grid are weather, whether of the atmosphere, the ocean or the land surface.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pdr_cli.data.series import Series, units
from pdr_cli.data.units import quantity
from pdr_cli.errors import DataError, UsageError, did_you_mean

# Quantities that no traffic is measured in.
PHYSICAL = ("temperature", "pressure", "water", "water a second", "flux of energy", "geopotential")


@dataclass(frozen=True)
class Kind:
    """What follows from the meaning of the data.

    Args:
        name: in presets and `--kind`.
        scaling: what `data.scaling = "auto"` means.
        anchor: what `model.anchor = "auto"` means.
        weekly: whether the data have a weekly cycle, as human activity has and the atmosphere has not.
        bounds: lowest and highest possible value, of forecasts and colour scales; None where there is no bound.
        palette: colour map of one channel.
        scores: default scores; the first is the headline.
        published_scores: default scores under `--convention openstl`.
        lead_unit: unit of lead times, "hours" or "seconds".
        parts: "clip" if several series are divided as wholes, "time" if each is divided along its time axis.
        pictures: whether frames are 8-bit pictures, which can be written as video.
        learned_range: whether input far outside of the training's range is refused.
    """

    name: str
    scaling: Literal["standard", "minmax", "unit"]
    anchor: str
    weekly: bool
    bounds: tuple[float | None, float | None]
    palette: str
    scores: tuple[str, ...]
    published_scores: tuple[str, ...]
    lead_unit: Literal["hours", "seconds"] = "hours"
    parts: Literal["time", "clip"] = "time"
    pictures: bool = False
    learned_range: bool = True


WEATHER = Kind(
    "weather", "standard", "ridge", False, (None, None), "viridis", ("rmse", "mae", "bias"), ("mse", "mae", "rmse")
)
TRAFFIC = Kind(
    "traffic", "minmax", "ridge", True, (0.0, None), "magma", ("rmse", "mae", "bias"), ("mse", "mae", "ssim", "psnr")
)
VIDEO = Kind(
    "video",
    "unit",
    "flow",
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
ANY = "any"  # in a preset: the kind that is found from the data


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


def with_kind(series: Series, name: str) -> Series:
    """A series as the kind that a preset or `--kind` names; "any" leaves it as it was found.

    Fields on a grid may be weather or traffic, but no field with physical units is traffic. Clips are video, and only clips.

    Raises:
        DataError: the data cannot be of that kind.
    """
    found = of(series)
    if name in (ANY, found.name):
        return series
    kind = named(name)
    if _may_be(series, kind):
        return series.assign_attrs(kind=kind.name)
    if found.pictures and series.sizes["time"] == 1:
        raise DataError(f"{series.attrs['files'][0]} is one picture", kind.name)
    physical = _physical_units(series)
    raise DataError(
        f"{series.attrs['files'][0]} holds {found.name}" + (f" (units {physical[0]!r})" if physical else ""),
        kind.name,
        f"take {found.name}-small; `pdr presets` lists all",
    )


def _may_be(series: Series, kind: Kind) -> bool:
    """True if a series can be of a kind that differs from its own."""
    if kind.pictures or of(series).pictures:
        return False
    if kind is TRAFFIC:
        return not _physical_units(series)
    return bool(series.attrs.get("may_lack"))  # layouts of traffic alone have no missing values


def _physical_units(series: Series) -> list[str]:
    return [unit for unit in units(series) if quantity(unit) in PHYSICAL]
