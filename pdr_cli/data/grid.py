"""How much of the globe a cell of a latitude-longitude grid covers."""

from __future__ import annotations

import numpy as np

from pdr_cli.data.series import Series, side, size


def of(series: Series) -> np.ndarray | None:
    """Cell areas of a grid with latitudes, known by their attributes or their name, mean 1: [H, W]; None without."""
    y = side(series, "y")
    if y is None or y.size < 2:
        return None
    marks = (y.attrs.get("standard_name"), y.attrs.get("units"), str(y.name).lower())
    geographic = {"latitude", "lat", "degrees_north", "degree_north"} & set(marks)
    if not geographic or np.abs(y.values).max() > 90:
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
