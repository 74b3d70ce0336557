"""Latitude-longitude grids: the one rule for what a latitude or longitude is, and the area of a cell."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from pdr_cli.data.series import Series, side, size, wraps

# CF-1.11, §4.1 and §4.2: a standard name or one of these units marks the axis. Names count where neither is given.
UNITS = {
    "latitude": ("degrees_north", "degree_north", "degree_N", "degrees_N", "degreeN", "degreesN"),
    "longitude": ("degrees_east", "degree_east", "degree_E", "degrees_E", "degreeE", "degreesE"),
}
NAMES = {"latitude": ("lat", "latitude", "nav_lat"), "longitude": ("lon", "longitude", "nav_lon")}
NO_DEGREES = ("degrees", "degree", "")  # units that leave it to the name


def is_latitude(name: str, attrs: Mapping[str, Any]) -> bool:
    """True if a coordinate of this name and these attributes holds latitudes."""
    return geographic(name, attrs) == "latitude"


def is_longitude(name: str, attrs: Mapping[str, Any]) -> bool:
    """True if a coordinate of this name and these attributes holds longitudes."""
    return geographic(name, attrs) == "longitude"


def geographic(name: str, attrs: Mapping[str, Any]) -> Literal["latitude", "longitude"] | None:
    """What a coordinate holds: by its standard name, or else its units, or else its name; None: neither."""
    marks = (str(attrs.get("standard_name", "")), str(attrs.get("units", "")).strip())
    for axis in ("latitude", "longitude"):
        if marks[0] == axis or (not marks[0] and marks[1] in UNITS[axis]):
            return axis
        if not marks[0] and marks[1] in NO_DEGREES and name.lower() in NAMES[axis]:
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


def is_periodic(periodic: str, x: Axis | None) -> bool:
    """True if the last column is next to the first: by `model.periodic`, or if that is "auto", on a circle of longitudes."""
    if periodic == "auto":
        return x is not None and is_longitude(str(x.name), x.attrs) and wraps(np.asarray(x.values))
    return periodic == "lon"


def areas(series: Series) -> np.ndarray | None:
    """Cell areas of a grid with latitudes, mean 1: [H, W]; None on another grid."""
    y = side(series, "y")
    if y is None or y.size < 2 or not is_latitude(str(y.name), y.attrs) or np.abs(y.values).max() > 90:
        return None
    return area_weights(np.asarray(y.values), size(series)[1])


def area_weights(latitudes: np.ndarray, columns: int) -> np.ndarray:
    """Area of the cells of a latitude-longitude grid, mean 1: [H, W].

    A row's share is the difference of the sines of its edges, which lie half-way between rows and not beyond the poles.
    """
    lat = np.asarray(latitudes, dtype=np.float64)
    middle = (lat[1:] + lat[:-1]) / 2
    edges = np.concatenate([[2 * lat[0] - middle[0]], middle, [2 * lat[-1] - middle[-1]]])
    rows = np.abs(np.diff(np.sin(np.deg2rad(np.clip(edges, -90, 90)))))
    return np.repeat((rows / rows.mean())[:, None], columns, axis=1)
