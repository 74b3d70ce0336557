"""Another grid than the model's, interpolated to it as it is read; only when asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from pdr_cli.data.series import LazyFrames, Series, make_like, read_frames, side, wraps
from pdr_cli.errors import GridError, UsageError

METHODS = ("bilinear", "conservative")
Coordinate = tuple[str, np.ndarray, Mapping[str, Any]]  # name, values, attributes


def check_method(method: str) -> None:
    """Refuse an unknown method, or one whose library is not installed.

    Raises:
        UsageError: says which there are, or what to install.
    """
    if method not in METHODS:
        raise UsageError(f"--regrid {method}: use {METHODS[0]} or {METHODS[1]}")
    if method == "conservative" and importlib.util.find_spec("xarray_regrid") is None:
        raise UsageError(
            "--regrid conservative needs xarray-regrid, which is not installed: pip install 'pdr-cli[regrid]'; "
            "or take --regrid bilinear"
        )


def to_grid(series: Series, y: Coordinate, x: Coordinate, method: str) -> Series:
    """A series on the grid (y, x), each block of frames interpolated when it is read.

    Args:
        series: on a grid with coordinates.
        y: of the wanted grid.
        x: of the wanted grid.
        method: "bilinear" or "conservative".

    Raises:
        GridError: no coordinates, or a wanted grid that reaches beyond the given one.
    """
    given_y, given_x = side(series, "y"), side(series, "x")
    where = series.attrs["files"][0]
    if given_y is None or given_x is None:
        raise GridError(f"{where} has no coordinates to regrid by; regrid it to the model's grid first")
    rows, columns = _ascending(given_y.values), _ascending(given_x.values)
    wanted_x, around = _near(x[1], given_x.values, x), wraps(given_x.values)
    _check_cover("y", np.asarray(y[1], float), np.asarray(given_y.values, float), str(where), poles=True)
    if not around:
        _check_cover("x", wanted_x, np.asarray(given_x.values, float), str(where))

    def frames(start: int, stop: int) -> np.ndarray:
        values = read_frames(series, start, stop)[..., rows, :][..., columns]
        east = given_x.values[columns].astype(float)
        if around:  # one more column on either side closes the circle
            values = np.concatenate([values[..., -1:], values, values[..., :1]], axis=-1)
            east = np.concatenate([[east[-1] - 360], east, [east[0] + 360]])
        north = given_y.values[rows].astype(float)
        field = xr.DataArray(values, {"y": north, "x": east}, ("t", "c", "y", "x"))
        return interpolate(field, np.asarray(y[1], float), wanted_x)

    interpolate = _linearly if method == "bilinear" else partial(_by_area, sphere=_is_latitude(y))
    channels = series.sizes["channel"]
    shape = (series.sizes["time"], channels, len(y[1]), len(x[1]))
    coords = {y[0]: ("y", y[1], dict(y[2])), x[0]: ("x", x[1], dict(x[2]))}
    return make_like(series, LazyFrames(shape, np.float32, frames), sides=coords)


def _check_cover(dim: str, wanted: np.ndarray, have: np.ndarray, where: str, poles: bool = False) -> None:
    """Refuse a wanted grid that reaches beyond the given one, by more than half a row at a pole."""
    cell = float(np.median(np.abs(np.diff(have)))) if len(have) > 1 else 0.0
    south, north = (cell / 2 if poles and sign * end + cell > 90 else 1e-3 * cell for sign, end in
                    ((-1, have.min()), (1, have.max())))  # fmt: skip
    if wanted.min() < have.min() - south or wanted.max() > have.max() + north:
        raise GridError(
            f"{where}: the model's grid reaches from {wanted.min():g} to {wanted.max():g} in {dim}, the input from "
            f"{have.min():g} to {have.max():g}; give data that cover all of it"
        )


def _by_area(field: xr.DataArray, y: np.ndarray, x: np.ndarray, sphere: bool) -> np.ndarray:
    """The mean of the given cells that each wanted cell covers, by area: of the sphere, or of the plane."""
    import xarray_regrid  # noqa: F401 - registers the accessor

    target = xr.Dataset(coords={"y": np.sort(y), "x": np.sort(x)})
    done = field.to_dataset(name="v").regrid.conservative(target, latitude_coord="y" if sphere else None)
    return np.asarray(done["v"].sel(y=y, x=x).transpose("t", "c", "y", "x").values, np.float32)


def _linearly(field: xr.DataArray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    # Rows beyond the last one of a globe, by half a cell at most, take its values.
    y = np.clip(y, field.y.values[0], field.y.values[-1])
    x = np.clip(x, field.x.values[0], field.x.values[-1])
    return np.asarray(field.interp(y=y, x=x, method="linear").values, np.float32)


def _is_latitude(coordinate: Coordinate) -> bool:
    name, _, attrs = coordinate
    return attrs.get("standard_name") == "latitude" or name.lower() in ("lat", "latitude")


def _ascending(values: np.ndarray) -> np.ndarray:
    return np.argsort(values, kind="stable")


def _near(wanted: np.ndarray, given: np.ndarray, coordinate: Coordinate) -> np.ndarray:
    """Longitudes moved by whole turns to where the given ones are: each by itself round a globe, else all by one."""
    wanted, given = np.asarray(wanted, float), np.asarray(given, float)
    name, _, attrs = coordinate
    if attrs.get("standard_name") != "longitude" and name.lower() not in ("lon", "longitude"):
        return wanted
    if not wraps(given):
        return wanted + 360 * np.round((given.mean() - wanted.mean()) / 360)
    return (wanted - given.min()) % 360 + given.min()
