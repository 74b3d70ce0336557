"""Which dimensions of a dataset are time, y and x, and which of its variables are fields on a grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from pdr_cli.data.grid import NAMES, geographic

# Of each side of a grid: its letter in CF, and the names of dimensions that are not latitudes or longitudes.
SIDES: dict[str, tuple[str, tuple[str, ...]]] = {
    "latitude": ("Y", ("y", "rlat", "northing", "row")),
    "longitude": ("X", ("x", "rlon", "easting", "column", "col")),
}
OTHER_NAMES = (
    *("z", "lev", "level", "levels", "plev", "pressure", "isobaricinhpa", "height", "altitude", "depth"),
    *("member", "number", "realization", "ensemble", "ensemble_member", "sample", "step", "band", "channel"),
)


@dataclass(frozen=True)
class Axes:
    """Names of a variable's dimensions in the file."""

    time: str
    y: str
    x: str


def axes_of(dataset: xr.Dataset, name: str) -> Axes | None:
    """The dimensions of a variable; None where time, y or x is missing."""
    dims = [str(d) for d in dataset[name].dims]
    time = next((d for d in dims if d in dataset.coords and is_time(dataset[d])), None)
    space = [d for d in dims if d != time]
    y, x = sides(dataset, space)
    large = [d for d in space if dataset.sizes[d] > 1]
    if (y is None or x is None) and len(large) == 2 and not set(large) & set(_others(dataset, large)):
        y, x = large
    if time is None or y is None or x is None or y == x:
        return None
    return Axes(time, y, x)


def is_time(variable: xr.DataArray) -> bool:
    """True for decoded dates of any calendar."""
    if np.issubdtype(variable.dtype, np.datetime64):
        return True
    return variable.dtype == object and variable.size > 0 and hasattr(variable.values.flat[0], "calendar")


def sides(dataset: xr.Dataset, dims: list[str]) -> tuple[str | None, str | None]:
    """The dimensions along y and x, by CF attributes or else by name; None where neither marks one."""
    y = _side(dataset, dims, "latitude")
    return y, _side(dataset, [d for d in dims if d != y], "longitude")


def _side(dataset: xr.Dataset, dims: list[str], axis: Literal["latitude", "longitude"]) -> str | None:
    import cf_xarray  # noqa: F401 - registers the accessor

    letter, others = SIDES[axis]
    found = [*dataset.cf.coordinates.get(axis, []), *dataset.cf.axes.get(letter, [])]
    marked = next((d for d in dims if d in found), None)
    names = (*NAMES[axis], *others)
    return marked or next((d for d in dims if d.lower() in names or geographic(d, dataset[d].attrs) == axis), None)


def _others(dataset: xr.Dataset, dims: list[str]) -> list[str]:
    """Dimensions that CF attributes, or else their names, mark as levels or members."""
    import cf_xarray  # noqa: F401 - registers the accessor

    marked = [*dataset.cf.coordinates.get("vertical", []), *dataset.cf.axes.get("Z", [])]
    return [d for d in dims if d in marked or d.lower() in OTHER_NAMES]


def gridded(dataset: xr.Dataset) -> list[str]:
    """Names of the variables that have a time and two spatial dimensions."""
    numbers = [str(n) for n, v in dataset.data_vars.items() if v.dtype.kind in "fiu"]
    return [name for name in numbers if axes_of(dataset, name) is not None]


def summary(dataset: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Every data variable of a file: its dimensions, units, and whether it can be a channel."""
    usable = gridded(dataset)
    return {
        str(name): {
            "dims": " x ".join(f"{d} {n}" for d, n in variable.sizes.items()) or "scalar",
            "units": str(variable.attrs.get("units", "")),
            "gridded": "yes" if str(name) in usable else "no",
        }
        for name, variable in dataset.data_vars.items()
    }
