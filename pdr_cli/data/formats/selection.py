"""`--var all`: every variable of the files that lies on one grid and at the same times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from pdr_cli.data.formats.axes import Axes, level_values
from pdr_cli.data.formats.channels import Opened
from pdr_cli.system.logs import log

ALL = "all"


@dataclass(frozen=True)
class _Place:
    """Where a variable lies: the coordinates of its grid, and its times in each file."""

    grid: tuple[bytes, ...]
    times: tuple[bytes, ...]


def chosen(opened: Sequence[Opened], variables: Sequence[str]) -> list[str]:
    """The variables to read as channels: those named, or for "all" every one on the grid and times that most have.

    The log names the variables that are left out, and why. A variable of the name "all" is meant by its name.
    """
    if list(variables) != [ALL] or any(ALL in one.dataset for one in opened):
        return list(variables)
    names = list(dict.fromkeys(name for one in opened for name in one.finder.gridded))
    flat = {name: _place(opened, name) for name in names if not _further(opened, name)}
    if not flat:
        return []
    grid = _most([place.grid for place in flat.values()])
    times = _most([place.times for place in flat.values() if place.grid == grid])
    for name in names:
        if reason := _further(opened, name) or _elsewhere(flat[name], grid, times):
            log.info("fields  %s is left out of all variables: %s", name, reason)
    return [name for name, place in flat.items() if (place.grid, place.times) == (grid, times)]


def _elsewhere(place: _Place, grid: tuple[bytes, ...], times: tuple[bytes, ...]) -> str:
    if place.grid != grid:
        return "it lies on another grid than most"
    return "it has other times than most" if place.times != times else ""


def _further(opened: Sequence[Opened], name: str) -> str:
    """The further dimension of a variable, in words; "" if there is none."""
    one = next(one for one in opened if name in one.finder.gridded)
    dataset, axes = one.dataset, cast(Axes, one.finder.axes(name))
    sizes = {
        str(d): n for d, n in dataset.variables[name].sizes.items() if n > 1 and d not in (axes.time, axes.y, axes.x)
    }
    first = next(iter(sizes), None)
    if first is None:
        return ""
    level = level_values(dataset, first)[0]
    return f"it has {sizes[first]} values along {first}; name those to use, such as --var {name}@{level}"


def _place(opened: Sequence[Opened], name: str) -> _Place:
    every = [(one, cast(Axes, one.finder.axes(name))) for one in opened if name in one.finder.gridded]
    first, axes = every[0]
    sides = (_bytes(level_values(first.dataset, side)) for side in (axes.y, axes.x))
    return _Place(tuple(sides), tuple(_bytes(one.finder.times[axes.time].times) for one, axes in every))


def _bytes(values: np.ndarray) -> bytes:
    return values.tobytes() if values.dtype != object else repr(values.tolist()).encode()


def _most(places: Sequence[tuple[bytes, ...]]) -> tuple[bytes, ...]:
    """The most frequent one, of several the first."""
    return Counter(places).most_common(1)[0][0]
