"""Grids: the one rule for what a latitude or longitude is, the areas of cells, and the orientation of the axes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from pdr_cli.data.series import Series, side, size
from pdr_cli.errors import GridError

# CF-1.11, §4.1 and §4.2: these units alone mark the axis. Compared in lower case, with underscores for spaces.
UNITS = {
    "latitude": ("degrees_north", "degree_north", "degree_n", "degrees_n", "degreen", "degreesn"),
    "longitude": ("degrees_east", "degree_east", "degree_e", "degrees_e", "degreee", "degreese"),
}
NAMES = {"latitude": ("lat", "latitude", "nav_lat"), "longitude": ("lon", "longitude", "nav_lon")}
RADIANS = ("radian", "radians", "rad")
POLE = 1e-3  # degrees by which a latitude may lie beyond a pole: float32 grids of sums of steps do
PLAIN_DEGREES = ("degrees", "degree", "deg", "")  # units that leave the decision to the name
CLOSE = 1e-3  # of a cell: float32 grids of 0.1 degrees differ by 1.2e-5 from float64 ones


def is_latitude(name: str, attrs: Mapping[str, Any]) -> bool:
    """True if a coordinate of this name and these attributes holds latitudes."""
    return geographic(name, attrs) == "latitude"


def is_longitude(name: str, attrs: Mapping[str, Any]) -> bool:
    """True if a coordinate of this name and these attributes holds longitudes."""
    return geographic(name, attrs) == "longitude"


def geographic(name: str, attrs: Mapping[str, Any]) -> Literal["latitude", "longitude"] | None:
    """What a coordinate holds, by its standard name, or else its units, or else its name; None if it is neither.

    A coordinate with another standard name is neither, whatever it is called: rotated grids have a `grid_latitude`.
    """
    standard_name = str(attrs.get("standard_name", "")).strip()
    units = str(attrs.get("units", "")).strip().lower().replace(" ", "_")
    for axis in ("latitude", "longitude"):
        by_units = units in UNITS[axis] or (units in PLAIN_DEGREES and name.lower() in NAMES[axis])
        if standard_name == axis or (not standard_name and by_units):
            return axis
    return None


class Axis(Protocol):
    """A coordinate along y or x, of a series or of a model's header."""

    @property
    def name(self) -> Hashable: ...
    @property
    def values(self) -> Sequence[float] | np.ndarray: ...
    @property
    def attrs(self) -> Mapping[str, Any]: ...


def unwrapped(longitudes: np.ndarray) -> np.ndarray:
    """Longitudes without jumps by 360 degrees between neighbours, as across Greenwich or the date line."""
    return np.asarray(np.unwrap(np.asarray(longitudes, np.float64), period=360))


@dataclass(frozen=True)
class Side:
    """The coordinate of a grid along y or x, in memory."""

    name: str
    values: tuple[float, ...]
    attrs: dict[str, Any]


def is_periodic(periodic: str, x: Axis | None) -> bool:
    """True if the last column is next to the first: by `model.periodic`, or if that is "auto", on a circle of longitudes."""
    if periodic == "auto":
        return x is not None and is_longitude(str(x.name), x.attrs) and wraps(np.asarray(x.values))
    return periodic == "lon"


def in_radians(side: Axis) -> bool:
    """True if the values of a latitude or longitude are radians."""
    return str(side.attrs.get("units", "")).strip().lower() in RADIANS


def areas(series: Series) -> np.ndarray | None:
    """Cell areas of a grid with latitudes, mean 1: [H, W]; None on another grid."""
    y = side(series, "y")
    if y is None or y.size < 2 or not is_latitude(str(y.name), y.attrs):
        return None
    latitudes = np.rad2deg(y.values) if in_radians(y) else np.asarray(y.values)
    return None if np.abs(latitudes).max() > 90 + POLE else area_weights(latitudes, size(series)[1])


def area_weights(latitudes: np.ndarray, columns: int) -> np.ndarray:
    """Area of the cells of a latitude-longitude grid, mean 1: [H, W].

    A row's share is the difference of the sines of its edges, which lie half-way between rows and not beyond the poles.
    """
    lat = np.asarray(latitudes, dtype=np.float64)
    middle = (lat[1:] + lat[:-1]) / 2
    edges = np.concatenate([[2 * lat[0] - middle[0]], middle, [2 * lat[-1] - middle[-1]]])
    rows = np.abs(np.diff(np.sin(np.deg2rad(np.clip(edges, -90, 90)))))
    return np.repeat((rows / rows.mean())[:, None], columns, axis=1)


def wraps(longitudes: np.ndarray) -> bool:
    """True if columns go round the globe once: their span and one step are 360 degrees."""
    values = np.sort(np.asarray(longitudes, float))
    if len(values) < 2:
        return False
    step = (values[-1] - values[0]) / (len(values) - 1)
    return bool(np.allclose(np.diff(values), step, rtol=1e-2) and abs(step * len(values) - 360) < 1e-2 * step)


@dataclass(frozen=True)
class Orientation:
    """How the frames of one grid map to those of another with the same cells: a change of order that can be undone.

    Args:
        flip_y: rows are in the opposite order.
        flip_x: columns are in the opposite order.
        roll_x: columns to roll by, on a grid that goes round the globe.
        repeats_x: the last column repeats the first one, 360 degrees further, and is left out.
        closes_x: the last column of the model's grid repeats its first one.
    """

    flip_y: bool
    flip_x: bool
    roll_x: int
    repeats_x: bool = False
    closes_x: bool = False

    def apply(self, frames: np.ndarray) -> np.ndarray:
        """[..., H, W] of the input's grid to the model's."""
        frames = frames[..., :-1] if self.repeats_x else frames
        frames = frames[..., ::-1, :] if self.flip_y else frames
        frames = frames[..., ::-1] if self.flip_x else frames
        frames = np.roll(frames, self.roll_x, axis=-1)
        return np.ascontiguousarray(np.concatenate([frames, frames[..., :1]], axis=-1) if self.closes_x else frames)

    def invert(self, frames: np.ndarray) -> np.ndarray:
        """[..., H, W] of the model's grid to the input's."""
        frames = np.roll(frames[..., :-1] if self.closes_x else frames, -self.roll_x, axis=-1)
        frames = frames[..., ::-1] if self.flip_x else frames
        frames = np.concatenate([frames, frames[..., :1]], axis=-1) if self.repeats_x else frames
        return np.ascontiguousarray(frames[..., ::-1, :] if self.flip_y else frames)

    def apply_points(
        self, x: np.ndarray, y: np.ndarray, size: tuple[int, int], around: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Columns and rows on the input's grid to the model's of `size` (H, W); `around`: columns go round the globe."""
        columns = size[1] - self.closes_x
        x = columns - 1 - x if self.flip_x else x
        x = (x + self.roll_x) % columns if around or self.roll_x else x
        return x, size[0] - 1 - y if self.flip_y else y

    def invert_points(
        self, x: np.ndarray, y: np.ndarray, rotation: np.ndarray, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Columns, rows and angles (from +x to +y) on the model's grid of `size` (H, W) to the input's."""
        columns = size[1] - self.closes_x
        x = (x - self.roll_x) % columns if self.roll_x else x
        x = columns - 1 - x if self.flip_x else x
        y = size[0] - 1 - y if self.flip_y else y
        return x, y, -rotation if self.flip_x != self.flip_y else rotation


UNCHANGED = Orientation(False, False, 0)


def orient(
    y: np.ndarray | None,
    x: np.ndarray | None,
    model_y: np.ndarray | None,
    model_x: np.ndarray | None,
    *,
    cyclic: bool = True,
) -> Orientation:
    """The orientation that maps a grid with coordinates (y, x) to the model's; `cyclic`: x are longitudes.

    Raises:
        GridError: the coordinates have other values, not the same in another order.
    """
    flip_y, _ = _align(y, model_y, "y", cyclic=False)
    repeats, closes = (cyclic and repeats_first(v) for v in (x, model_x))
    if x is not None and model_x is not None and (_close(x, model_x) or _close(x[::-1], model_x)):
        repeats = closes = False
    flip_x, roll_x = _align(_cut(x, repeats), _cut(model_x, closes), "x", cyclic=cyclic)
    return Orientation(flip_y, flip_x, roll_x, repeats, closes)


def _cut(longitudes: np.ndarray | None, repeats: bool) -> np.ndarray | None:
    """Longitudes without the last one, if it repeats the first."""
    return longitudes[:-1] if repeats and longitudes is not None else longitudes


def repeats_first(longitudes: np.ndarray | None) -> bool:
    """True if the last column repeats the first one, 360 degrees further or at the same longitude."""
    if longitudes is None or len(longitudes) < 3:
        return False
    steps = np.abs(np.diff(unwrapped(longitudes)))
    return bool(abs(steps.sum() - 360) < CLOSE * steps[0])


def _align(values: np.ndarray | None, model: np.ndarray | None, dim: str, cyclic: bool) -> tuple[bool, int]:
    """Whether to flip `values` and by how much to roll them, so that they equal the model's."""
    if model is None or values is None:
        return False, 0
    for flip in (False, True):
        candidate = values[::-1] if flip else values
        if _close(candidate, model):
            return flip, 0
        if cyclic and (roll := _roll(candidate, model)) is not None:
            return flip, roll
    apart = f", up to {np.abs(values - model).max():.3g} apart" if len(values) == len(model) else ""
    raise GridError(f"its {dim} coordinate has {_ends(values)}", _ends(model) + apart)


def _close(values: np.ndarray, model: np.ndarray) -> bool:
    """Equal within a thousandth of a cell."""
    if len(values) != len(model):
        return False
    cell = float(np.median(np.abs(np.diff(model)))) if len(model) > 1 else 1.0
    return bool(np.all(np.abs(values - model) <= CLOSE * cell))


def _roll(values: np.ndarray, model: np.ndarray) -> int | None:
    """Columns to roll by so that longitudes agree modulo 360 degrees; None if they do not."""
    if len(values) != len(model) or len(values) < 2:
        return None
    cell = float(np.median(np.abs(np.diff(model))))
    start = np.flatnonzero(np.abs((values - model[0] + 180) % 360 - 180) <= CLOSE * cell)
    if len(start) != 1:
        return None
    rolled = np.roll(values, -int(start[0]))
    difference = (rolled - model + 180) % 360 - 180
    return -int(start[0]) if _close(difference + model, model) else None


def _ends(values: np.ndarray) -> str:
    return f"{len(values)} values from {values[0]:g} to {values[-1]:g}"
