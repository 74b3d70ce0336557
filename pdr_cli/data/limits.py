"""The range of values that a model knows from training: Celsius in a field of kelvin is none of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pdr_cli.data import times as time_axis
from pdr_cli.data.series import Series, names
from pdr_cli.errors import DataError

SIGMAS = 10.0


class RangeError(DataError):
    """Values far outside of what the model was trained on."""

    name = "E_OUT_OF_RANGE"


@dataclass(frozen=True)
class Limits:
    """Of each channel over the training frames, in data units: [C] each."""

    mean: tuple[float, ...]
    sd: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest value to believe, [C] each: mean ± 10 sd, or the span of the training beyond its extremes.

        The wider of both: a normal field stays far inside of the first, a skewed one such as rain inside of the second.
        """
        mean, sd, low, high = (np.asarray(v, float) for v in (self.mean, self.sd, self.minimum, self.maximum))
        return np.minimum(mean - SIGMAS * sd, 2 * low - high), np.maximum(mean + SIGMAS * sd, 2 * high - low)


def check(frames: np.ndarray, series: Series, start: int, limits: Limits) -> None:
    """Refuse frames [T, C, H, W] of a series, from step `start` on, whose known values the model cannot know.

    Raises:
        RangeError: says how many, of which variable, from where to where, and what the training had.
    """
    low, high = (bound[:, None, None] for bound in limits.bounds())
    with np.errstate(invalid="ignore"):
        bad = (frames < low) | (frames > high)
    if not bad.any():
        return
    counts = bad.sum(axis=(0, 2, 3))
    worst = int(np.argmax(counts))
    values = frames[:, worst][bad[:, worst]]
    first = int(np.argmax(bad[:, worst].any(axis=(1, 2))))
    name = names(series)[worst]
    units = series.attrs["variables"].get(name, {}).get("units", "")
    raise RangeError(
        f"{series.attrs['files'][0]}: {int(counts[worst])} of {bad[:, worst].size} values of {name} lie between "
        f"{values.min():.6g} and {values.max():.6g} {units}".rstrip()
        + f", first at {time_axis.label(series.time.values[start + first])}; in training they lay between "
        f"{limits.minimum[worst]:.6g} and {limits.maximum[worst]:.6g}, and {float(low[worst, 0, 0]):.6g} to "
        f"{float(high[worst, 0, 0]):.6g} is believed. Correct the values or their units, or take them as they are with "
        "--allow-out-of-range"
    )
