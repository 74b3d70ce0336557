"""Interpolation of an input to the model's grid, block by block as it is read; only on request."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from pdr_cli.data.grid import is_latitude, is_longitude, unwrapped, wraps
from pdr_cli.data.series import LazyFrames, Series, make_like, places, read_frames, side
from pdr_cli.errors import GridError, UsageError

METHODS = ("bilinear", "conservative")
Coordinate = tuple[str, np.ndarray, Mapping[str, Any]]  # name, values, attributes
Interpolate = Callable[[xr.DataArray, np.ndarray, np.ndarray], np.ndarray]


def check_method(method: str, option: str = "--regrid", methods: Sequence[str] = METHODS) -> None:
    """Refuse an unknown method of an option, or one whose library is not installed.

    Raises:
        UsageError: lists the methods, or names the package to install.
    """
    if method not in methods:
        raise UsageError(f"{option} {method} is not known", way_out=f"use {', '.join(methods[:-1])} or {methods[-1]}")
    if method == "conservative" and importlib.util.find_spec("xarray_regrid") is None:
        raise UsageError(
            f"{option} conservative needs xarray-regrid, which is not installed",
            way_out=f"pip install 'pdr-cli[regrid]', or use {option} bilinear",
        )


def to_grid(series: Series, y: Coordinate, x: Coordinate, method: str) -> Series:
    """A series on the model's grid (y, x); each block of frames is interpolated when it is read.

    Args:
        series: on a grid with coordinates.
        y: of the model's grid.
        x: of the model's grid.
        method: "bilinear" or "conservative".

    Raises:
        GridError: the series has no coordinates, or its grid does not cover the model's.
    """
    source = _Source.of(series)
    rows, columns = np.asarray(y[1], float), _near(x, source.x)
    _check_cover(series, source, rows, columns)
    interpolate: Interpolate = _linearly if method == "bilinear" else partial(_by_area, sphere=is_latitude(y[0], y[2]))

    def frames(start: int, stop: int) -> np.ndarray:
        return interpolate(source.field(read_frames(series, start, stop)), rows, columns)

    shape = (series.sizes["time"], series.sizes["channel"], len(y[1]), len(x[1]))
    coords = {y[0]: ("y", y[1], dict(y[2])), x[0]: ("x", x[1], dict(x[2]))}
    made = make_like(series, LazyFrames(shape, np.float32, frames), sides=coords)
    for name in ("bounds", "grid_mapping"):  # of the grid that was left
        made.attrs.pop(name, None)
    return made


@dataclass(frozen=True)
class _Source:
    """The grid that is interpolated: its coordinates, and whether its columns go round the globe."""

    y: np.ndarray
    x: np.ndarray
    around: bool

    @classmethod
    def of(cls, series: Series) -> _Source:
        y, x = side(series, "y"), side(series, "x")
        if y is None or x is None:
            raise GridError(
                f"{series.attrs['files'][0]} has no coordinates to regrid by",
                way_out="regrid it to the model's grid first",
            )
        if places(series):
            raise GridError(
                f"{series.attrs['files'][0]} has a latitude and a longitude for each cell",
                "a grid of rows and columns to regrid from",
                "regrid it first, for example with: cdo remapbil,GRID IN OUT",
            )
        if not is_longitude(str(x.name), x.attrs):
            return cls(y.values, x.values, False)
        east = unwrapped(x.values)
        return cls(y.values, east, wraps(east))

    def field(self, values: np.ndarray) -> xr.DataArray:
        """Frames [T, C, H, W] with ascending coordinates."""
        rows, columns = (np.argsort(v, kind="stable") for v in (self.y, self.x))
        values, east = values[..., rows, :][..., columns], self.x[columns].astype(float)
        if self.around:  # one more column on either side closes the circle
            values = np.concatenate([values[..., -1:], values, values[..., :1]], axis=-1)
            east = np.concatenate([[east[-1] - 360], east, [east[0] + 360]])
        return xr.DataArray(values, {"y": self.y[rows].astype(float), "x": east}, ("t", "c", "y", "x"))


def _check_cover(series: Series, source: _Source, y: np.ndarray, x: np.ndarray) -> None:
    """Refuse a model's grid (y, x) that the source does not cover: within a thousandth of a cell, half a row at a pole."""
    where, have = str(series.attrs["files"][0]), np.asarray(source.y, float)
    cell = _cell(have)
    south, north = (cell / 2 if end + cell > 90 else 1e-3 * cell for end in (-have.min(), have.max()))
    _refuse_beyond(f"{where}: the model's grid reaches {{}} in y", y, have, (south, north))
    if not source.around:
        have = np.asarray(source.x, float)
        slack = 1e-3 * _cell(have)
        _refuse_beyond(f"{where}: the model's grid reaches {{}} in x", x, have, (slack, slack))


def _refuse_beyond(found: str, model: np.ndarray, have: np.ndarray, slack: tuple[float, float]) -> None:
    if model.min() < have.min() - slack[0] or model.max() > have.max() + slack[1]:
        reach = f"from {model.min():g} to {model.max():g}"
        raise GridError(
            f"{found.format(reach)}, the input from {have.min():g} to {have.max():g}",
            way_out="give data that cover the model's grid",
        )


def _cell(values: np.ndarray) -> float:
    """Median spacing."""
    return float(np.median(np.abs(np.diff(values)))) if len(values) > 1 else 0.0


def _by_area(field: xr.DataArray, y: np.ndarray, x: np.ndarray, sphere: bool) -> np.ndarray:
    """Each new cell is the mean of the cells that it covers, weighted by area on the sphere or the plane."""
    import xarray_regrid  # noqa: F401 - registers the accessor

    target = xr.Dataset(coords={"y": np.sort(y), "x": np.sort(x)})
    done = field.to_dataset(name="v").regrid.conservative(target, latitude_coord="y" if sphere else None)
    return np.asarray(done["v"].sel(y=y, x=x).transpose("t", "c", "y", "x").values, np.float32)


def _linearly(field: xr.DataArray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    # Rows beyond the last one of a globe, by half a cell at most, take its values.
    y = np.clip(y, field.y.values[0], field.y.values[-1])
    x = np.clip(x, field.x.values[0], field.x.values[-1])
    return np.asarray(field.interp(y=y, x=x, method="linear").values, np.float32)


def _near(x: Coordinate, given: np.ndarray) -> np.ndarray:
    """The model's longitudes moved by multiples of 360 degrees to the source's range; other columns unchanged."""
    columns, given = np.asarray(x[1], float), np.asarray(given, float)
    if not is_longitude(x[0], x[2]):
        return columns
    if not wraps(given):
        return columns + 360 * np.round((given.mean() - columns.mean()) / 360)
    return (columns - given.min()) % 360 + given.min()
