"""Which dimensions of a dataset are time, y and x, and which of its variables are fields on a grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import xarray as xr

from pdr_cli.data.formats.valid_time import SINGLE, TimeAxis, time_axes
from pdr_cli.data.grid import NAMES, geographic
from pdr_cli.data.units import quantity

# Of each side of a grid: its letter in CF, and the names of dimensions that are not latitudes or longitudes.
SIDES: dict[str, tuple[str, tuple[str, ...]]] = {
    "latitude": (
        "Y",
        (
            "y",
            "rlat",
            "grid_latitude",
            "northing",
            "projection_y_coordinate",
            "row",
            "south_north",
            "nj",
            "eta_rho",
            "nlat",
        ),
    ),
    "longitude": (
        "X",
        (
            "x",
            "rlon",
            "grid_longitude",
            "easting",
            "projection_x_coordinate",
            "column",
            "col",
            "west_east",
            "ni",
            "xi_rho",
            "nlon",
        ),
    ),
}
OTHER_NAMES = (
    *("z", "lev", "level", "levels", "plev", "pressure", "isobaricinhpa", "height", "altitude", "depth"),
    *("member", "number", "realization", "ensemble", "ensemble_member", "sample", "step", "band", "channel"),
    # Lists of places, and spectra.
    *(
        "station",
        "stations",
        "site",
        "location",
        "obs",
        "observation",
        "profile",
        "trajectory",
        "cell",
        "ncells",
        "node",
    ),
    *("ncol", "point", "points", "basin", "region", "frequency", "freq", "direction", "wavelength", "wavenumber"),
    *("bnds", "bounds", "nv", "vertices", "nbnd", "tile", "face", "type", "category", "soil_layer", "layer"),
)
# Attributes that mark a coordinate as a side of a grid; a long name does not.
MARKS = ("axis", "standard_name", "cartesian_axis", "_CoordinateAxisType")
DEGREES = ("degree", "degrees", "deg", "radian", "radians", "rad")


@dataclass(frozen=True)
class Axes:
    """Names of a variable's dimensions in the file; `time` is "" where the file holds a single frame."""

    time: str
    y: str
    x: str


class AxisFinder:
    """Finds the axes of the variables of one dataset; what all variables share is found once."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self.dataset = dataset

    @cached_property
    def times(self) -> dict[str, TimeAxis]:
        """See `valid_time.time_axes`."""
        return time_axes(self.dataset)

    @cached_property
    def _marked(self) -> dict[str, list[str]]:
        """Coordinates that CF attributes mark, by "latitude", "Y", "vertical" and so on."""
        import cf_xarray  # noqa: F401 - registers the accessor

        axes = self.dataset.cf.axes.items()
        sides = {k: [n for n in v if any(m in self.dataset[n].attrs for m in MARKS)] for k, v in axes}
        return {k: [str(n) for n in v] for k, v in {**self.dataset.cf.coordinates, **sides}.items()}

    @cached_property
    def gridded(self) -> list[str]:
        """Names of the variables that have a time and two spatial dimensions."""
        fields = (str(name) for name in self.dataset.data_vars)
        numbers = [name for name in fields if self.dataset.variables[name].dtype.kind in "fiu"]
        return [name for name in numbers if self.axes(name) is not None]

    def axes(self, name: str) -> Axes | None:
        """The dimensions of a variable; None where time, y or x is missing."""
        dims = [str(d) for d in self.dataset.variables[name].dims]
        time = next((d for d in dims if d in self.times), SINGLE)
        if time not in self.times:
            return None
        space = [d for d in dims if d != time and d != self.times[time].lead_dim]
        y, x = self.sides(space)
        large = [d for d in space if self.dataset.sizes[d] > 1]
        if (y is None or x is None) and len(large) == 2 and all(self._may_be_side(d) for d in large):
            y, x = large
        if y is None or x is None or y == x:
            return None
        return Axes(time, y, x)

    def sides(self, dims: list[str]) -> tuple[str | None, str | None]:
        """The dimensions along y and x, by CF attributes or else by name; None where neither marks one."""
        y = self._side(dims, "latitude")
        return y, self._side([d for d in dims if d != y], "longitude")

    def _side(self, dims: list[str], axis: Literal["latitude", "longitude"]) -> str | None:
        letter, others = SIDES[axis]
        found = [*self._marked.get(axis, []), *self._marked.get(letter, [])]
        marked = next((d for d in dims if d in found), None)
        names = (*NAMES[axis], *others)
        return marked or next((d for d in dims if d.lower() in names or self.geographic.get(d) == axis), None)

    @cached_property
    def geographic(self) -> dict[str, str]:
        """The variables that are latitudes or longitudes by their names and attributes, and which of both."""
        every = {str(name): geographic(str(name), v.attrs) for name, v in self.dataset.variables.items()}
        return {name: which for name, which in every.items() if which}

    @cached_property
    def listed(self) -> frozenset[str]:
        """The auxiliary coordinates that data variables list as their own."""
        return frozenset(name for n in self.dataset.data_vars for name in listed(self.dataset.variables[n]))

    def _may_be_side(self, dim: str) -> bool:
        """False for a dimension that its name, attributes or values mark as something else than a side of a grid."""
        vertical = [*self._marked.get("vertical", []), *self._marked.get("Z", [])]
        if dim in vertical or dim.lower() in OTHER_NAMES or dim == self._lead_dim:
            return False
        if dim not in self.dataset.variables:
            return True
        coordinate = self.dataset[dim]
        unit = str(coordinate.attrs.get("units", "")).strip()
        plain = unit in ("", "1") or unit.lower() in DEGREES or quantity(unit) in ("length", "count")
        return coordinate.dtype.kind in "fiu" and plain and "cf_role" not in coordinate.attrs

    @property
    def _lead_dim(self) -> str:
        return next((t.lead_dim for t in self.times.values() if t.lead_dim), "")


def listed(variable: xr.Variable | xr.DataArray) -> list[str]:
    """The auxiliary coordinates of a variable by its own attribute; xarray gives it all that fit its dimensions."""
    return str(variable.encoding.get("coordinates") or variable.attrs.get("coordinates") or "").split()


def gridded(dataset: xr.Dataset) -> list[str]:
    """Names of the variables that have a time and two spatial dimensions."""
    return AxisFinder(dataset).gridded


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


def level_values(dataset: xr.Dataset, dim: str) -> np.ndarray:
    """The values along a dimension, or numbers from 0 where it has no coordinate."""
    return np.asarray(dataset.variables[dim].values if dim in dataset.coords else np.arange(dataset.sizes[dim]))
