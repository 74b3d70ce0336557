"""Further variables: what the network reads beside the channels of a Series, at the times of any window.

They travel with a Series as `attrs["further"]`, because they may be known at later times than its last frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from pdr_cli.data import places, units
from pdr_cli.data import times as time_axis
from pdr_cli.data.grid import UNCHANGED, Orientation
from pdr_cli.data.missing import without_absurd
from pdr_cli.data.series import LazyFrames, Series, make_like, names, size
from pdr_cli.data.times import Step
from pdr_cli.data.windows import FrameCache
from pdr_cli.errors import TimeError

CACHE_MB = 64
ATTRIBUTE = "further"


@dataclass(frozen=True)
class Further:
    """The further variables of a Series, read by time.

    Args:
        series: of these variables.
        step: of both series.
        turn: from the grid of `series` to that of the channels.
        cache_mb: memory for decoded frames.
    """

    series: Series
    step: Step
    turn: Orientation = UNCHANGED
    cache_mb: int = field(default=CACHE_MB, compare=False)

    @property
    def file(self) -> str:
        """The first file."""
        return str(self.series.attrs["files"][0])

    @cached_property
    def _cache(self) -> FrameCache:
        return FrameCache([self.series], self.cache_mb)

    @cached_property
    def _ticks(self) -> np.ndarray:
        return _ticks(self.series.time.values, self.step)

    @cached_property
    def _mine(self) -> np.ndarray:
        return self.places(self.series.time.values)

    def places(self, times: np.ndarray) -> np.ndarray:
        """Times as whole steps from the first frame of the variables, [n]; -2^40 for times between steps."""
        exact = _ticks(times, self.step) - self._ticks[0]
        whole = np.rint(exact)
        return np.where(np.abs(exact - whole) <= time_axis.TOLERANCE, whole, -(2**40)).astype(np.int64)

    def at(self, times: np.ndarray) -> np.ndarray:
        """The frames of these times, [n, F, H, W] on the grid of the channels; NaN where a value is missing."""
        mine, wanted = self._mine, self.places(times)
        order = np.clip(np.searchsorted(mine, wanted), 0, len(mine) - 1)
        frames = np.full((len(times), *self.series.shape[1:]), np.nan, np.float32)
        for row in np.flatnonzero(mine[order] == wanted):
            frames[row] = self._cache.frames(0, int(order[row]), int(order[row]) + 1)[0]
        return self.turn.apply(without_absurd(frames))

    def only(self, variables: Mapping[str, Mapping[str, Any]]) -> Further:
        """Some of the variables, in this order.

        Raises:
            UnitsError: they have other units.
        """
        if list(variables) == names(self.series):
            return self
        attrs = {name: self.series.attrs["variables"][name] for name in variables}
        chosen = self.series.sel(channel=list(variables)).assign_attrs(variables=attrs)
        units.check(chosen, variables)
        return replace(self, series=chosen)

    def beside(self, series: Series) -> Series:
        """The further variables at the times and on the grid of a series."""
        times = series.time.values
        channels = self.series.sizes["channel"]
        lazy = LazyFrames((len(times), channels, *size(series)), np.float32, lambda a, b: self.at(times[a:b]))
        made = make_like(self.series, lazy, times=times, sides=_sides(series))
        return made.assign_attrs(may_lack=True)


def beside(series: Series, others: Series, step: Step) -> Further:
    """Further variables that lie on the grid of a series, in any orientation.

    Raises:
        GridError: another grid.
        TimeError: another calendar.
    """
    mine, theirs = (time_axis.calendar(s.time.values) for s in (series, others))
    if mine != theirs:
        raise TimeError(f"{others.attrs['files'][0]}: {names(others)[0]} has dates of calendar {theirs}", mine)
    return Further(others, step, places.aligned(others, series, names(others)[0], names(series)[0]))


def of(series: Series) -> Further | None:
    """The further variables of a series; None without."""
    found: Further | None = series.attrs.get(ATTRIBUTE)
    return found


def given_to(series: Series, further: Further) -> Series:
    """A series with further variables."""
    return series.assign_attrs({ATTRIBUTE: further})


def _ticks(times: np.ndarray, step: Step) -> np.ndarray:
    """Times in steps from a fixed one: [n]."""
    if step.unit == "month":
        return np.asarray(time_axis.months(times) / step.count)
    return time_axis.seconds(times) / step.count


def _sides(series: Series) -> dict[str, object]:
    """The coordinates of a series along y and x, in xarray's form."""
    return {
        str(n): (c.dims, c.values, c.attrs) for n, c in series.coords.items() if c.dims and set(c.dims) <= {"y", "x"}
    }
