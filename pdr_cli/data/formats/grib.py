"""GRIB 1 and 2: gridded fields in, through ecCodes.

All messages of a file become one dataset. Levels and members are dimensions; a variable on several kinds of levels becomes
several variables. A file of analyses has one time axis, that of valid times; a file of forecasts has the layout of cfgrib:
`time` is the reference time, `step` the lead time, `valid_time` their sum.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from pdr_cli.data.formats import gribfile
from pdr_cli.data.formats.base import beginning
from pdr_cli.data.formats.gribfile import HECTOPASCAL, Contents, Grid, Message, Quantity
from pdr_cli.data.formats.gridded import GriddedFormat
from pdr_cli.errors import DataError
from pdr_cli.system.logs import log

SUFFIXES = (".grib", ".grib1", ".grib2", ".grb", ".grb1", ".grb2", ".gb2")
HEADING = 256  # bytes that a telecommunication header may take before the first message
LEVELS = {
    HECTOPASCAL: {"units": "hPa", "standard_name": "air_pressure", "long_name": "pressure", "positive": "down"},
    "heightAboveGround": {
        "units": "m",
        "standard_name": "height",
        "long_name": "height above ground",
        "positive": "up",
    },
    "heightAboveSea": {"units": "m", "standard_name": "altitude", "long_name": "height above sea", "positive": "up"},
    "depthBelowLand": {"units": "m", "standard_name": "depth", "long_name": "depth in the soil", "positive": "down"},
    "depthBelowLandLayer": {
        "units": "m",
        "standard_name": "depth",
        "long_name": "depth in the soil",
        "positive": "down",
    },
    "hybrid": {"units": "1", "standard_name": "atmosphere_hybrid_sigma_pressure_coordinate", "positive": "down"},
}
WITHOUT_LEVELS = ("surface", "meanSea", "entireAtmosphere", "atmosphere", "nominalTop", "unknown")
VALID = {"standard_name": "time", "long_name": "time"}
REFERENCE = {"standard_name": "forecast_reference_time", "long_name": "initial time of forecast"}
STEP = {"units": "hours", "standard_name": "forecast_period", "long_name": "time since forecast_reference_time"}
NUMBER = {"units": "1", "standard_name": "realization", "long_name": "ensemble member"}
REGRID = {"reduced_gg": "-R -f nc4 copy", "reduced_ll": "-R -f nc4 copy", "sh": "-f nc4 sp2gpl"}  # of cdo, by grid type

Coordinates = dict[str, xr.Variable]


class GRIB(GriddedFormat):
    """GRIB 1 and 2, of mixed editions too."""

    name, title = "grib", "GRIB"
    second = SUFFIXES

    def matches(self, path: Path) -> bool:
        """Begins with a message, or has a suffix of GRIB and a message behind a header."""
        if beginning(path)[:4] == b"GRIB":
            return True
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            return False
        with path.open("rb") as stream:
            return b"GRIB" in stream.read(HEADING)

    def open_dataset(self, path: Path, group: str = "") -> xr.Dataset:
        """See `GriddedFormat.open_dataset`."""
        _check_installed(path)
        found = gribfile.scan(path)
        usable = [q for q in found.messages if found.grids[q.grid].shape != (0, 0)]
        _check_grids(path, found, usable)
        dataset = xr.Dataset(attrs={"institution": found.centre})
        for name, quantity in zip(_names(path, usable), usable, strict=True):
            dataset = _with(dataset, name, path, quantity, found)
        return _squeezed(dataset)

    def undecoded(self, path: Path) -> xr.Dataset:
        """See `GriddedFormat.undecoded`; times stay dates."""
        return self.open_dataset(path)


class _Fields(BackendArray):
    """The messages of one variable as an array [..., H, W]; NaN where the file has none.

    Args:
        path: of the file.
        found: messages, [...]; None where there is none.
        shape: (H, W).
    """

    def __init__(self, path: Path, found: np.ndarray, shape: tuple[int, int]) -> None:
        self.path, self.found = path, found
        self.shape, self.dtype = (*found.shape, *shape), np.dtype(np.float32)

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        *place, y, x = key
        found = np.asarray(self.found[tuple(place)], object)
        whole: np.ndarray = np.full((*found.shape, *self.shape[-2:]), np.nan, np.float32)
        for index in np.ndindex(found.shape):
            message: Any = found[index]
            if message is not None:
                whole[index] = gribfile.values(self.path, message.place)
        return whole[..., y, x]


@dataclass(frozen=True)
class _Axis:
    """One or two dimensions along which messages are ordered.

    Args:
        dims: names; none where there is one place only.
        sizes: of the dimensions.
        coordinates: along them.
        place: index of a message along each dimension.
    """

    dims: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    coordinates: Coordinates = field(default_factory=dict)
    place: Callable[[Message], tuple[int, ...]] = lambda message: ()


def _check_installed(path: Path) -> None:
    try:
        import eccodes  # noqa: F401
    except (ImportError, RuntimeError) as error:  # RuntimeError: the module without its library
        raise DataError(
            f"{path} is GRIB, which is read with ecCodes, and that is not installed",
            way_out="pip install 'pdr-cli[grib]', or convert the file with: cdo -f nc4 copy "
            f"{path} {path.with_suffix('.nc').name}",
        ) from error


def _check_grids(path: Path, found: Contents, usable: Sequence[Quantity]) -> None:
    """Name the variables that do not lie on rows and columns.

    Raises:
        DataError: none does.
    """
    others = [q for q in found.messages if q not in usable]
    if not others:
        return
    kind = found.grids[others[0].grid].kind
    what = f"{path}: {', '.join(q.name for q in others)}: its grid ({kind}) has no rows and columns"
    convert = f"cdo {REGRID.get(kind, '-f nc4 remapnn,global_1')} {path} {path.with_suffix('.nc').name}"
    if not usable:
        raise DataError(what, way_out=f"convert it with: {convert}")
    log.warning("%s; left out; convert it with: %s", what, convert)


def _names(path: Path, found: Sequence[Quantity]) -> list[str]:
    """A name for each quantity: its own, with a suffix where several have it.

    The suffix is the type of level, then the type of step. On pressure levels and of instants they are left out.
    """
    several = {name for name, count in Counter(q.name for q in found).items() if count > 1}
    names = [_suffixed(q, [o for o in found if o.name == q.name]) if q.name in several else q.name for q in found]
    names = [_free(name, names[:index]) for index, name in enumerate(names)]
    for name in sorted(several):
        each = (f"{n} ({q.level_type}, {q.step_type})" for n, q in zip(names, found, strict=True) if q.name == name)
        log.info("fields  %s of %s is several variables: %s", name, path, ", ".join(each))
    return names


def _suffixed(quantity: Quantity, alike: Sequence[Quantity]) -> str:
    levels, steps = ({getattr(q, kind) for q in alike} for kind in ("level_type", "step_type"))
    parts = [quantity.name]
    if len(levels) > 1 and quantity.level_type != HECTOPASCAL:
        parts.append(quantity.level_type)
    if len(steps) > 1 and quantity.step_type != "instant":
        parts.append(quantity.step_type)
    return "_".join(parts)


def _free(name: str, taken: Sequence[str]) -> str:
    numbered = itertools.chain([name], (f"{name}_{n}" for n in itertools.count(2)))
    return next(n for n in numbered if n not in taken)


def _with(dataset: xr.Dataset, name: str, path: Path, quantity: Quantity, contents: Contents) -> xr.Dataset:
    """The dataset with one more variable."""
    messages, grid = contents.messages[quantity], contents.grids[quantity.grid]
    every = [_members(messages), _times(path, name, messages), _levels(quantity.level_type, messages)]
    found = _in_place(path, name, messages, every)
    data = indexing.LazilyIndexedArray(_Fields(path, found, grid.shape))
    dims: list[str] = []
    for axis in (*every, _sides(grid)):
        renamed = _unlike(axis.coordinates, dataset)
        dims += [renamed.get(dim, dim) for dim in axis.dims]
        dataset = dataset.assign_coords(_renamed(axis.coordinates, renamed))
    return dataset.assign({name: xr.Variable(dims, data, contents.attributes[quantity])})


def _in_place(path: Path, name: str, messages: list[Message], axes: Sequence[_Axis]) -> np.ndarray:
    """The messages along all axes but those of the grid, None where the file has none.

    Raises:
        DataError: two messages for one place.
    """
    found = np.full([size for axis in axes for size in axis.sizes], None, object)
    repeated = 0
    for message in messages:
        place = tuple(index for axis in axes for index in axis.place(message))
        if found[place] is not None:
            _check_same(path, name, found[place], message)
            repeated += 1
        found[place] = message
    absent = sum(message is None for message in found.flat)
    if repeated:
        log.info("fields  %s of %s: %d fields are repeated with equal values", name, path, repeated)
    if absent:
        log.warning(
            "%s: %d of %d fields of %s are not in the file; they are missing values", path, absent, found.size, name
        )
    return found


def _check_same(path: Path, name: str, first: Message, second: Message) -> None:
    """Refuse two messages for one place with different values."""
    one, other = (gribfile.values(path, m.place) for m in (first, second))
    if not np.array_equal(one, other, equal_nan=True):
        raise DataError(
            f"{path} holds two different fields of {name} for {str(second.valid)[:16]} and init {str(second.init)[:16]}",
            way_out=f"keep one of them, for example the forecasts with: grib_copy -w dataType=fc {path} OUT",
        )


def _along(name: str, values: Sequence[Any], attrs: dict[str, str], of: Callable[[Message], Any]) -> _Axis:
    """An axis of one dimension with a coordinate."""
    index = {value: n for n, value in enumerate(values)}
    coordinate = xr.Variable((name,), np.asarray(values), attrs)
    return _Axis((name,), (len(values),), {name: coordinate}, lambda message: (index[of(message)],))


def _members(messages: Sequence[Message]) -> _Axis:
    numbers = sorted({m.number for m in messages})
    return _along("number", numbers, NUMBER, lambda m: m.number) if len(numbers) > 1 else _Axis()


def _levels(level_type: str, messages: Sequence[Message]) -> _Axis:
    """Levels as a dimension, of size 1 too, so that each variable has its own; pressures descend."""
    levels = sorted({m.level for m in messages}, reverse=level_type == HECTOPASCAL)
    if len(levels) == 1 and level_type in WITHOUT_LEVELS:
        return _Axis()
    return _along(level_type, levels, LEVELS.get(level_type, {"units": "1"}), lambda m: m.level)


def _times(path: Path, name: str, messages: Sequence[Message]) -> _Axis:
    """Valid times of analyses; reference and lead times of forecasts."""
    inits, steps = sorted({m.init for m in messages}), sorted({m.valid - m.init for m in messages})
    pairs = {(m.init, m.valid) for m in messages}
    valid = sorted({m.valid for m in messages})
    sparse = len(pairs) < len(inits) * len(steps) and len(valid) == len(pairs)
    if sparse or not any(steps):
        if sparse:
            log.info("times   %s of %s: forecasts of %d lead times follow each other", name, path, len(steps))
        return _along("time", valid, VALID, lambda m: m.valid)
    return _of_forecasts(np.array(inits), np.array(steps))


def _of_forecasts(inits: np.ndarray, steps: np.ndarray) -> _Axis:
    first, second = ({value: n for n, value in enumerate(values)} for values in (inits, steps))
    hours = steps / np.timedelta64(1, "h")
    coordinates = {
        "time": xr.Variable(("time",), inits, REFERENCE),
        "step": xr.Variable(("step",), hours, STEP),
        "valid_time": xr.Variable(("time", "step"), inits[:, None] + steps, VALID),
    }
    place: Callable[[Message], tuple[int, ...]] = lambda m: (first[m.init], second[m.valid - m.init])  # noqa: E731
    return _Axis(("time", "step"), (len(inits), len(steps)), coordinates, place)


def _sides(grid: Grid) -> _Axis:
    """Axes of a grid whose rows are parallels, or else latitudes and longitudes of each cell."""
    regular = grid.latitude.ndim == 1
    dims = {
        "latitude": ("latitude",) if regular else ("y", "x"),
        "longitude": ("longitude",) if regular else ("y", "x"),
    }
    units = {"latitude": "degrees_north", "longitude": "degrees_east"}
    coordinates = {
        side: xr.Variable(dims[side], values, {"units": units[side], "standard_name": side})
        for side, values in (("latitude", grid.latitude), ("longitude", grid.longitude))
    }
    return _Axis(("latitude", "longitude") if regular else ("y", "x"), grid.shape, coordinates)


def _unlike(coordinates: Coordinates, dataset: xr.Dataset) -> dict[str, str]:
    """New names for the coordinates of an axis, and for its dimensions, where the dataset has others of these names."""
    names = {*coordinates, *(str(d) for c in coordinates.values() for d in c.dims)}
    numbered = ({n: n if number == 1 else f"{n}_{number}" for n in names} for number in itertools.count(1))
    return next(renamed for renamed in numbered if _agree(_renamed(coordinates, renamed), dataset))


def _agree(coordinates: Coordinates, dataset: xr.Dataset) -> bool:
    """Whether a dataset has these coordinates, or room for them."""
    lengths = {str(d): size for c in coordinates.values() for d, size in c.sizes.items()}
    same = all(n not in dataset.variables or dataset[n].variable.identical(c) for n, c in coordinates.items())
    return same and all(dataset.sizes.get(dim, size) == size for dim, size in lengths.items())


def _renamed(coordinates: Coordinates, names: dict[str, str]) -> Coordinates:
    return {
        names[name]: xr.Variable([names[str(d)] for d in c.dims], c.values, c.attrs) for name, c in coordinates.items()
    }


def _squeezed(dataset: xr.Dataset) -> xr.Dataset:
    """One lead time, or else one reference time, of all variables becomes a scalar, as in the layout of cfgrib."""
    if not all("step" in variable.dims for variable in dataset.data_vars.values()):
        return dataset
    single = next((dim for dim in ("step", "time") if dataset.sizes[dim] == 1), None)
    return dataset if single is None else dataset.squeeze(single)
