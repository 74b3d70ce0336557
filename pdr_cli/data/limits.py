"""Plausible range per channel, learned in training; catches Celsius in a kelvin field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pdr_cli.data import times as time_axis
from pdr_cli.data.series import Series, names, units
from pdr_cli.errors import DataError
from pdr_cli.system.logs import log

SIGMAS = 10.0
NARROW = 30  # times less spread than in training


class RangeError(DataError):
    """Values far outside of the training's range."""

    name = "E_OUT_OF_RANGE"


@dataclass(frozen=True)
class Limits:
    """Statistics of each channel over the training frames, in data units: [C] each.

    Args:
        mean: of the channel.
        sd: its standard deviation.
        minimum: its lowest value.
        maximum: its highest value.
    """

    mean: tuple[float, ...]
    sd: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest plausible value, [C] each: mean ± 10 sd, or the training's range extended by its own width.

        The wider of both is taken: a normal field stays far inside of the first, a skewed one such as rain inside of the
        second.
        """
        mean, sd, low, high = (np.asarray(v, float) for v in (self.mean, self.sd, self.minimum, self.maximum))
        return np.minimum(mean - SIGMAS * sd, 2 * low - high), np.maximum(mean + SIGMAS * sd, 2 * high - low)


def warn_of_narrow(frames: np.ndarray, series: Series, limits: Limits, hidden: np.ndarray | None = None) -> None:
    """Log a warning for frames [T, C, H, W] that span far less than training did, away from its mean, in every channel.

    So does a fraction where percent were learned. A calm or dry window lies near the mean and is not warned of. `hidden`:
    channels, True in [C], that are left out.
    """
    seen = np.flatnonzero(np.ones(frames.shape[1], bool) if hidden is None else ~hidden)
    values = frames.swapaxes(0, 1)[seen].reshape(len(seen), frames[:, 0].size)
    if not len(seen) or not np.isfinite(values).any(axis=1).all():
        return
    mean, sd = np.asarray(limits.mean)[seen], np.asarray(limits.sd)[seen]
    narrow = np.nanstd(values, axis=1) * NARROW < sd
    away = np.abs(np.nanmean(values, axis=1) - mean) > sd
    if (narrow & away).all():
        log.warning(
            "values  %s: %s span %.4g to %.4g, where training had %.4g to %.4g (mean %.4g): are the units right? "
            "A fraction in place of percent is off by a factor of 100",
            series.attrs["files"][0], names(series)[seen[0]], np.nanmin(values[0]), np.nanmax(values[0]),
            limits.minimum[seen[0]], limits.maximum[seen[0]], mean[0],
        )  # fmt: skip


def check(frames: np.ndarray, series: Series, start: int, limits: Limits) -> None:
    """Refuse frames [T, C, H, W] of a series, from step `start` on, with implausible values; see `check_values`."""
    if not _implausible(frames, limits).any():
        return
    units_of = dict(zip(names(series), units(series), strict=True))
    try:
        check_values(frames, units_of, series.time.values[start : start + len(frames)], limits)
    except RangeError as error:
        raise error.at(series.attrs["files"][0]) from None


def _implausible(frames: np.ndarray, limits: Limits) -> np.ndarray:
    """Which values of frames [T, C, H, W] are outside of the plausible range; NaN are not."""
    low, high = (bound[:, None, None] for bound in limits.bounds())
    with np.errstate(invalid="ignore"):
        return np.asarray((frames < low) | (frames > high))


def check_values(frames: np.ndarray, units_of: Mapping[str, str], times: np.ndarray, limits: Limits) -> None:
    """Refuse frames [T, C, H, W] of the variables `units_of`, at `times`, with implausible values.

    Raises:
        RangeError: number and range of the values, variable, first time, and the plausible range.
    """
    bad = _implausible(frames, limits)
    if not bad.any():
        return
    low, high = limits.bounds()
    channel = int(np.argmax(bad.sum(axis=(0, 2, 3))))
    values, (name, unit) = frames[:, channel][bad[:, channel]], list(units_of.items())[channel]
    first = int(np.argmax(bad[:, channel].any(axis=(1, 2))))
    found = f"{len(values)} of {bad[:, channel].size} values of {name} lie between {values.min():.6g} and"
    found = f"{found} {values.max():.6g} {unit}".rstrip()
    raise RangeError(
        f"{found}, first at {time_axis.label(times[first])}",
        f"values between {float(low[channel]):.6g} and {float(high[channel]):.6g} (in training: "
        f"{limits.minimum[channel]:.6g} to {limits.maximum[channel]:.6g})",
        "correct the values or their units, or accept them with --allow-out-of-range",
    )
