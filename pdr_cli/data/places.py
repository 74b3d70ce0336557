"""Where the cells of frames lie, and whether two grids have the same cells: by the meaning of the axes, not by their names."""

from __future__ import annotations

import base64
import itertools
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from pdr_cli.data import units
from pdr_cli.data.grid import (
    CLOSE,
    Axis,
    Orientation,
    geographic,
    in_radians,
    is_latitude,
    is_longitude,
    orient,
    repeats_first,
)
from pdr_cli.data.series import Series, places, side, size
from pdr_cli.errors import GridError

ROUNDING = 360 * 2.0**-23  # degrees: of a longitude in float32
# Attributes of a grid mapping that move the places of a projection's coordinates; radii of the earth are not among them.
PROJECTION = (
    *("longitude_of_central_meridian", "latitude_of_projection_origin", "longitude_of_projection_origin"),
    *(
        "standard_parallel",
        "false_easting",
        "false_northing",
        "scale_factor_at_central_meridian",
        "azimuth_of_central_line",
    ),
    *("straight_vertical_longitude_from_pole", "scale_factor_at_projection_origin", "perspective_point_height"),
    *("grid_north_pole_latitude", "grid_north_pole_longitude", "north_pole_grid_longitude", "sweep_angle_axis"),
)


@dataclass(frozen=True)
class Grid:
    """The places of the cells of frames.

    Args:
        size: (H, W).
        y: coordinate along y; None if the data have none.
        x: coordinate along x.
        places: "latitude" and "longitude" of each cell of a grid that is not rectangular on the globe, [H, W] each; empty
            otherwise.
        mapping: attributes of the grid mapping.
    """

    size: tuple[int, int]
    y: Axis | None
    x: Axis | None
    places: Mapping[str, np.ndarray] = field(default_factory=dict)
    mapping: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PackedField:
    """Numbers over cells in the form that model files keep.

    Args:
        shape: (H, W).
        packed: float32 numbers, compressed, in base64.
    """

    shape: tuple[int, int]
    packed: str

    @classmethod
    def of(cls, values: np.ndarray) -> PackedField:
        """Pack numbers [H, W]."""
        packed = base64.b64encode(zlib.compress(np.ascontiguousarray(values, "<f4").tobytes(), 9))
        return cls((values.shape[0], values.shape[1]), packed.decode())

    @cached_property
    def values(self) -> np.ndarray:
        """The numbers: [H, W]."""
        return np.frombuffer(zlib.decompress(base64.b64decode(self.packed)), "<f4").reshape(self.shape).astype(float)


def of(series: Series) -> Grid:
    """The grid of a series."""
    found = {str(geographic(str(c.name), c.attrs)): np.asarray(c.values, float) for c in places(series)}
    _, mapping = series.attrs.get("grid_mapping", ("", {}))
    return Grid(size(series), side(series, "y"), side(series, "x"), found, mapping)


def latitudes_and_longitudes(grid: Grid) -> tuple[np.ndarray, np.ndarray] | None:
    """Latitudes and longitudes of the cells in degrees, which broadcast to [H, W]; None on a grid without."""
    if grid.places:
        return grid.places["latitude"], grid.places["longitude"]
    y, x = grid.y, grid.x
    if y is None or x is None or not (is_latitude(str(y.name), y.attrs) and is_longitude(str(x.name), x.attrs)):
        return None
    degrees = (
        np.rad2deg(np.asarray(side.values, float)) if in_radians(side) else np.asarray(side.values, float)
        for side in (y, x)
    )
    latitude, longitude = degrees
    return latitude[:, None], longitude[None, :]


def match(grid: Grid, model: Grid) -> Orientation:
    """The orientation that maps frames on a grid to those on the model's, or on any other grid of reference.

    Raises:
        GridError: the cells lie elsewhere, not in the same places in another order. It does not name the files.
    """
    _check_meaning(grid, model)
    _check_mapping(grid, model)
    found = _by_places(grid, model)
    if found is not None:
        return found
    (y, x), (model_y, model_x) = ([_values(side) for side in (g.y, g.x)] for g in (grid, model))
    cyclic = all(s is not None and _is_cyclic(s) for s in (grid.x, model.x))
    columns, wanted = (g.size[1] - (cyclic and repeats_first(v)) for g, v in ((grid, x), (model, model_x)))
    if (grid.size[0], columns) != (model.size[0], wanted):
        raise GridError(f"its grid has {_by(grid.size)} cells", _by(model.size))
    found = orient(y, x, model_y, model_x, cyclic=cyclic)
    _check_places(grid, model, found)
    return found


def aligned(series: Series, other: Series, name: str, than: str) -> Orientation:
    """The orientation from the grid of a series to that of another; `name` and `than` name both in the error.

    Raises:
        GridError: another grid, with the command that regrids it.
    """
    try:
        return match(of(series), of(other))
    except GridError as error:
        raise GridError(
            f"{series.attrs['files'][0]}: {name} is on another grid than {than}: {error.found}",
            error.expected,
            "regrid it first, for example with: cdo remapbil,GRID IN OUT",
        ) from error


def _by_places(grid: Grid, model: Grid) -> Orientation | None:
    """The order of rows and columns by which the latitudes and longitudes of all cells agree; None: none, or unknown."""
    if grid.size != model.size or not (grid.places and model.places):
        return None
    for flip_y, flip_x in itertools.product((False, True), repeat=2):
        found = Orientation(flip_y, flip_x, 0)
        if all(_apart(grid, model, found, name)[1] for name in ("latitude", "longitude")):
            return found
    return None


def _is_cyclic(x: Axis) -> bool:
    """True for longitudes, also of a rotated grid: they repeat after 360 degrees, and metres do not."""
    return is_longitude(str(x.name), x.attrs) or x.attrs.get("standard_name") == "grid_longitude"


def _check_meaning(grid: Grid, model: Grid) -> None:
    for mine, theirs in ((grid.y, model.y), (grid.x, model.x)):
        if mine is None or theirs is None:
            continue
        here, there = (_meaning(side) for side in (mine, theirs))
        if here and there and here != there:
            raise GridError(f"its coordinate {mine.name} is a {here}", f"a {there} such as {theirs.name}")


def _meaning(side: Axis) -> str:
    """What the numbers of a coordinate along y or x mean, by its attributes; "" where they do not say."""
    if found := geographic(str(side.name), side.attrs):
        return found
    if units.quantity(str(side.attrs.get("units", ""))) == "length":
        return "length"
    return str(side.attrs.get("standard_name", "")).strip().replace("_", " ")


def _values(side: Axis | None) -> np.ndarray | None:
    """Coordinates as float64, lengths in metres."""
    if side is None:
        return None
    values, unit = np.asarray(side.values, float), str(side.attrs.get("units", ""))
    how = units.conversion(unit, "m") if units.quantity(unit) == "length" else None
    return values if how is None else values * how.factor


def _check_places(grid: Grid, model: Grid, orientation: Orientation) -> None:
    for name in sorted(set(grid.places) & set(model.places)):
        apart, agree = _apart(grid, model, orientation, name)
        if not agree:
            mine, theirs = (g.places[name] for g in (grid, model))
            raise GridError(
                f"its {name}s run from {_range(mine)}",
                f"from {_range(theirs)}, cell by cell; they are up to {np.nanmax(apart):.3g} degrees apart",
            )


def _apart(grid: Grid, model: Grid, orientation: Orientation, name: str) -> tuple[np.ndarray, bool]:
    """Differences of the latitudes or longitudes of all cells, and whether they are rounding where both are known."""
    mine, theirs = orientation.apply(grid.places[name]), np.asarray(model.places[name], float)
    apart = np.abs((mine - theirs + 180) % 360 - 180 if name == "longitude" else mine - theirs)
    known = np.isfinite(apart)
    return apart, bool(known.any() and np.all(apart[known] <= CLOSE * _spacing(model) + ROUNDING))


def _spacing(grid: Grid) -> float:
    """Median distance of neighbours on a grid with a latitude and longitude of each cell, degrees."""
    steps = [np.abs(np.diff(v, axis=a)) for v in grid.places.values() for a in (0, 1) if v.shape[a] > 1]
    steps = [np.minimum(s, 360 - s) for s in steps]
    return max((float(np.nanmedian(s)) for s in steps if s.size), default=1.0)


def _check_mapping(grid: Grid, model: Grid) -> None:
    for key in PROJECTION:
        mine, theirs = (np.ravel(m.get(key, [])) for m in (grid.mapping, model.mapping))
        if mine.size and theirs.size and not _same(mine, theirs):
            has, wants = (", ".join(map(str, v.tolist())) for v in (mine, theirs))
            raise GridError(f"its projection has {key} {has}", wants)


def _same(mine: np.ndarray, theirs: np.ndarray) -> bool:
    """Equal numbers to six digits, or equal words."""
    if mine.shape != theirs.shape or mine.dtype.kind not in "fiu" or theirs.dtype.kind not in "fiu":
        return np.array_equal(mine, theirs)
    return np.allclose(mine, theirs, rtol=1e-6)


def _range(values: np.ndarray) -> str:
    return f"{np.nanmin(values):g} to {np.nanmax(values):g}"


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
