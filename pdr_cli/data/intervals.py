"""Intervals: the ends of a forecast's prediction intervals, as further channels of its Series.

A forecast of `air` with intervals of 80 % has the channels `air`, `air_lower_80` and `air_upper_80`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pdr_cli.data.bounds import BOUNDED, Bounds
from pdr_cli.data.series import Series, make_like, names
from pdr_cli.errors import UsageError

INTERVALS = "intervals"  # attribute of a forecast: {channel: names of the ends of its intervals}
SIDES = ("lower", "upper")
# Attributes of a variable that hold for the ends of its intervals too.
SHARED = ("units", "units_metadata", "standard_name", "cell_methods")


@dataclass(frozen=True)
class Ends:
    """The ends of the intervals of a forecast.

    Args:
        shares: of the truths, one for each interval.
        frames: [L, 2, τ, C, H, W] in the units of the forecast, the lower ends first.
        method: how they were found, for readers of a file.
    """

    shares: Sequence[float]
    frames: np.ndarray
    method: str


def label(share: float) -> str:
    """A share in names: 0.8 is 80, 0.995 is 99_5."""
    return f"{100 * share:g}".replace(".", "_")


def endings(shares: Sequence[float]) -> list[tuple[str, str]]:
    """The endings of the names of the lower and the upper ends of each interval."""
    return [(f"_lower_{label(share)}", f"_upper_{label(share)}") for share in shares]


def with_ends(forecast: Series, ends: Ends) -> Series:
    """A forecast with the ends of its intervals as further channels.

    Raises:
        UsageError: it has channels of these names.
    """
    own, count = names(forecast), 2 * len(ends.shares)
    variables = {name: forecast.attrs["variables"].get(name, {}) for name in own}
    origins: dict[str, str] = {}
    for share in ends.shares:
        for side in SIDES:
            for name in own:
                end = f"{name}_{side}_{label(share)}"
                origins[end] = name
                variables |= {end: _attributes(variables[name], name, side, share, ends.method)}
    if len(variables) < len(own) * (1 + count):
        raise UsageError(f"a variable has the name of an end of an interval: {', '.join(own)}", way_out="rename it")
    frames = np.concatenate([forecast.values, *ends.frames.reshape(count, *forecast.shape)], axis=1)
    made = make_like(forecast, frames, variables=variables)
    return made.assign_attrs(_of_each(forecast, origins, 1 + count))


def _of_each(forecast: Series, origins: dict[str, str], times: int) -> dict[str, Any]:
    """The attributes of a Series that name its channels or count them."""
    listed = {name: [end for end, origin in origins.items() if origin == name] for name in names(forecast)}
    found: dict[str, Any] = {INTERVALS: listed}
    scalars = forecast.attrs.get("scalars", {})
    if scalars:
        found["scalars"] = scalars | {end: scalars.get(name, {}) for end, name in origins.items()}
    if BOUNDED in forecast.attrs:
        bounds = forecast.attrs[BOUNDED]
        found[BOUNDED] = Bounds(bounds.low * times, bounds.high * times)
    return found


def without_ends(series: Series) -> Series:
    """A forecast without the ends of its intervals."""
    if INTERVALS not in series.attrs:
        return series
    count = len(series.attrs[INTERVALS])
    made = series.isel(channel=slice(count))
    attrs = {key: value for key, value in series.attrs.items() if key != INTERVALS}
    attrs["variables"] = {name: series.attrs["variables"][name] for name in names(made)}
    if BOUNDED in attrs:
        attrs[BOUNDED] = Bounds(attrs[BOUNDED].low[:count], attrs[BOUNDED].high[:count])
    made.attrs = attrs
    return made


def arrays(series: Series) -> dict[str, np.ndarray]:
    """The frames of the forecast as `data`, and those of the ends of each interval as `lower_80` and so on."""
    if INTERVALS not in series.attrs:
        return {"data": series.values}
    own = series.attrs[INTERVALS]
    count, first = len(own), next(iter(own))
    labels = ["data", *(end.removeprefix(f"{first}_") for end in own[first])]
    return {name: series.values[:, i * count : (i + 1) * count] for i, name in enumerate(labels)}


def inside(frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The share of the truths inside each interval at each lead time, [L, τ]; NaN where there is none.

    Args:
        frames: of a forecast with ends, [τ, C·(1 + 2·L), H, W].
        truth: [τ, C, H, W].
    """
    _, *ends = np.split(frames, frames.shape[1] // truth.shape[1], axis=1)
    shares = []
    for low, high in zip(ends[::2], ends[1::2], strict=True):
        known = np.isfinite(truth) & np.isfinite(low) & np.isfinite(high)
        held = (known & (truth >= low) & (truth <= high)).sum(axis=(1, 2, 3))
        with np.errstate(invalid="ignore"):
            shares.append(held / known.sum(axis=(1, 2, 3)))
    return np.stack(shares)


def _attributes(own: dict[str, Any], name: str, side: str, share: float, method: str) -> dict[str, Any]:
    what = f"{side} end of the {100 * share:g} % prediction interval of {own.get('long_name', name)}"
    return {key: own[key] for key in SHARED if key in own} | {"long_name": what, "comment": method}
