"""Places between the cells of a grid: those of a finer one, and those of a list of points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli.data.grid import Axis, in_radians, is_latitude, is_longitude, unwrapped, wraps
from pdr_cli.data.series import Series, places, side, size
from pdr_cli.errors import GridError, UsageError

STATIONS = "stations"  # attribute of a Series of single places, [T, C, 1, P]: its `Points`
DEGREES, OWN = ("lat", "lon"), ("y", "x")
SLACK = 1e-6  # of a cell, by which a point may lie beyond the outermost ones
SHOWN = 3  # points that an error names


@dataclass(frozen=True)
class Points:
    """Places by name.

    Args:
        names: of each, all different.
        y: latitudes in degrees, or coordinates along y, or rows from the first.
        x: longitudes in degrees, or coordinates along x, or columns from the first.
        columns: names of the columns that y and x came from: `DEGREES` or `OWN`.
        file: that listed them.
    """

    names: tuple[str, ...]
    y: tuple[float, ...]
    x: tuple[float, ...]
    columns: tuple[str, str]
    file: Path


@dataclass(frozen=True)
class Places:
    """Places in cells of the grid of a series.

    Args:
        rows: [R], of single places [P].
        columns: [S], of single places [P].
        around: whether the columns go round the globe.
        sides: coordinates along y and x in xarray's form; none of single places or of a grid without.
        points: the single places; None: rows and columns make a grid.
    """

    rows: np.ndarray
    columns: np.ndarray
    around: bool
    sides: dict[str, Any] = field(default_factory=dict)
    points: Points | None = None

    @property
    def words(self) -> str:
        """How many places, in words."""
        if self.points is None:
            return f"{len(self.rows)} x {len(self.columns)}"
        return f"{len(self.rows)} point" + ("s" if len(self.rows) != 1 else "")


def finer(series: Series, of: Callable[[tuple[int, int], bool], tuple[int, int]]) -> Places:
    """The places of another grid from the first to the last row and column; on a globe the columns go round it.

    Args:
        series: on the grid.
        of: the new (H, W) for its own, and whether the columns go round.

    Raises:
        GridError: a grid with a latitude and longitude of each cell.
    """
    _refuse_places(series)
    (height, width), y, x = size(series), side(series, "y"), side(series, "x")
    around = x is not None and is_longitude(str(x.name), x.attrs) and wraps(unwrapped(np.asarray(x.values)))
    H, W = of((height, width), around)
    rows = np.linspace(0, height - 1, H)
    columns = np.arange(W) * (width / W) if around else np.linspace(0, width - 1, W)
    sides = {}
    for dim, axis, index in (("y", y, rows), ("x", x, columns)):
        if axis is not None:
            turned = is_longitude(str(axis.name), axis.attrs) and not in_radians(axis)
            sides[str(axis.name)] = (
                dim,
                _between(np.asarray(axis.values), index, around and dim == "x", turned),
                axis.attrs,
            )
    return Places(rows, columns, around, sides)


def at(series: Series, points: Points) -> Places:
    """Points as places in cells of a grid; longitudes go round the globe.

    Raises:
        GridError: points outside of the grid, each named, or a grid with other coordinates.
    """
    _refuse_places(series)
    y, x = side(series, "y"), side(series, "x")
    on_globe = y is not None and x is not None and is_latitude(str(y.name), y.attrs)
    on_globe = on_globe and x is not None and is_longitude(str(x.name), x.attrs)
    if on_globe != (points.columns == DEGREES):
        wanted = ", ".join(DEGREES if on_globe else OWN)
        what = "has latitudes and longitudes" if on_globe else "has no latitudes and longitudes"
        raise GridError(
            f"{points.file} has columns {', '.join(points.columns)}, and the grid {what}", f"columns {wanted}"
        )
    height, width = size(series)
    rows, columns = (_degrees(axis, n) for axis, n in ((y, height), (x, width)))
    around = on_globe and wraps(unwrapped(columns))
    row = _index(_near_poles(rows, np.asarray(points.y)) if on_globe else np.asarray(points.y), rows)
    column = np.asarray(points.x)
    if on_globe:
        columns = unwrapped(columns)
        columns = np.append(columns, _next(columns)) if around else columns
        column = _turned(column, columns)
    column = _index(column, columns)
    outside = ~(_inside(row, height - 1) & _inside(column, width if around else width - 1))
    if outside.any():
        _refuse_outside(points, np.flatnonzero(outside), rows, columns, around)
    return Places(
        np.clip(row, 0, height - 1), column if around else np.clip(column, 0, width - 1), around, points=points
    )


def _refuse_places(series: Series) -> None:
    if places(series):
        found = f"{series.attrs['files'][0]} has a latitude and a longitude for each cell"
        raise GridError(found, "a grid of rows and columns to interpolate on")


def _refuse_outside(points: Points, which: np.ndarray, rows: np.ndarray, columns: np.ndarray, around: bool) -> None:
    named = [f"{points.names[i]} ({points.y[i]:g}, {points.x[i]:g})" for i in which[:SHOWN]]
    more = f" and {len(which) - SHOWN} more" if len(which) > SHOWN else ""
    reach = [f"{name} {min(v):g} to {max(v):g}" for name, v in zip(points.columns, (rows, columns), strict=True)]
    one = "a point lies" if len(which) == 1 else f"{len(which)} points lie"
    raise GridError(
        f"{points.file}: {one} outside of the grid: {', '.join(named)}{more}", " and ".join(reach[: 1 if around else 2])
    )


def _degrees(axis: Axis | None, cells: int) -> np.ndarray:
    """The coordinate of the cells, latitudes and longitudes in degrees; their numbers on a grid without."""
    if axis is None:
        return np.arange(cells, dtype=float)
    values = np.asarray(axis.values, np.float64)
    return np.rad2deg(values) if in_radians(axis) else values


def _near_poles(rows: np.ndarray, latitudes: np.ndarray) -> np.ndarray:
    """Latitudes of which those between a pole and an outermost row at most a cell away are at that row."""
    low, high, cell = rows.min(), rows.max(), float(np.abs(np.diff(rows)).max(initial=0))
    valid = np.abs(latitudes) <= 90
    latitudes = np.where(valid & (high + cell >= 90) & (latitudes > high), high, latitudes)
    return np.asarray(np.where(valid & (low - cell <= -90) & (latitudes < low), low, latitudes))


def _turned(longitudes: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Longitudes moved by multiples of 360 degrees to the range of unwrapped columns."""
    first = float(columns.min())
    slack = SLACK * abs(float(columns[1] - columns[0]))
    return np.asarray((longitudes - first + slack) % 360 - slack + first)


def _next(columns: np.ndarray) -> float:
    """The longitude of the first column of a globe, one turn on."""
    return float(columns[0] + np.sign(columns[1] - columns[0]) * 360)


def _index(values: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Values of a coordinate as fractional cells from the first; NaN beyond the outermost cells."""
    order = np.argsort(axis)
    slack = SLACK * abs(float(axis[1] - axis[0])) if len(axis) > 1 else SLACK
    kept = np.where((values >= axis.min() - slack) & (values <= axis.max() + slack), values, np.nan)
    return np.asarray(np.interp(kept, axis[order], np.arange(len(axis), dtype=float)[order]))


def _inside(index: np.ndarray, last: float) -> np.ndarray:
    return np.isfinite(index) & (index >= -SLACK) & (index <= last + SLACK)


def _between(values: np.ndarray, index: np.ndarray, around: bool, turned: bool) -> np.ndarray:
    """A coordinate at fractional cells, longitudes in the range of the grid's own."""
    own = np.asarray(values, np.float64)
    known = unwrapped(own) if turned else own
    known = np.append(known, _next(known)) if around else known
    made = np.interp(index, np.arange(len(known)), known)
    if turned and not np.allclose(known[: len(own)], own):  # the grid's own numbers jump by 360 degrees
        made = (made - own.min()) % 360 + own.min()
    return np.asarray(made, values.dtype if values.dtype.kind == "f" else np.float64)


def check_size(text: str) -> tuple[int, int]:
    """(H, W) of a text such as 721x1440.

    Raises:
        UsageError: anything else.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) >= 2 for part in parts):
        raise UsageError(f"--size {text}", "rows x columns, both 2 or more, such as 721x1440")
    return int(parts[0]), int(parts[1])
