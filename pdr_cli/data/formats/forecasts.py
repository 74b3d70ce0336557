"""Forecasts of any producer in NetCDF or Zarr: frames by init time and valid time, on the grid of the file.

A frame is found by its two times alone (`forecast_times`), so all layouts are read by the same few lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pdr_cli.data import places as locations
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import axes, cf, parts, registry
from pdr_cli.data.formats.forecast_times import INSTANT, Times, times_of
from pdr_cli.data.grid import UNCHANGED, Orientation, Side, geographic
from pdr_cli.data.series import Series
from pdr_cli.data.series import units as units_of
from pdr_cli.data.units import UnitsError, conversion
from pdr_cli.errors import DataError, GridError, TimeError, VariableError, did_you_mean

MEMBER_NAMES = ("number", "member", "realization", "ensemble", "ensemble_member", "ens_number", "sample")
# Seconds: hours in float32 are off by up to 0.03 s ten days ahead, and no producer's steps are so short.
ROUNDING = 1.0


@dataclass(frozen=True)
class _Grid:
    """Dimensions of a grid in the file, of which a grid stored as a list has one, and the places of its cells."""

    dims: tuple[str, ...]
    cells: locations.Grid

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.cells.size


@dataclass(frozen=True)
class _File:
    """One open file: its times, its grid, and the array of each channel, read lazily."""

    path: Path
    times: Times
    grid: _Grid
    arrays: list[xr.DataArray]


class ForecastFile:
    """The forecasts of one producer, in one file or several, read lazily.

    Attributes:
        paths: the files.
        variables: channels, by the names passed to `read`.
        units: of each channel; empty where the file gives none.
        grid: of the frames, as the file has it.
        layout: the variables that hold the times, in words.
        further: the other members of an ensemble, of which this is the first.
    """

    def __init__(self, files: list[_File], variables: Sequence[str], further: Sequence[ForecastFile] = ()) -> None:
        self._files, self.further = files, list(further)
        self.paths = [file.path for file in files]
        self.variables = list(variables)
        self.units = [_units(a) for a in files[0].arrays]
        self.grid = files[0].grid.cells
        self.layout = files[0].times.layout
        self._file = np.concatenate([np.full(len(f.times.init), n) for n, f in enumerate(files)])
        self._init = np.concatenate([f.times.init for f in files])
        self._valid = np.concatenate([f.times.valid for f in files])
        self._place = np.concatenate([f.times.place for f in files])
        self._check_once()

    @property
    def members(self) -> int:
        """M; 1 of single forecasts."""
        return 1 + len(self.further)

    @cached_property
    def inits(self) -> np.ndarray:
        """Init times in order, of the type that the file's times have: [n]."""
        _, first = np.unique(np.round(self._init / self._tolerance), return_index=True)
        every = np.concatenate([f.times.inits for f in self._files])
        return every[first]

    @cached_property
    def leads(self) -> np.ndarray:
        """Lead times that occur, in hours, or in seconds of clips: [n]."""
        unit = 1 if self._of_clips else 3600
        return np.unique(np.round(self._valid - self._init, 3)) / unit

    def frames(self, init: Any, valid_times: np.ndarray) -> np.ndarray:
        """The forecast from init time `init` for these valid times: [τ, C, H, W] float32 in the file's units.

        NaN where the file does not hold that init or valid time.
        """
        began = time_axis.seconds(np.array([init]))[0]
        ends = time_axis.seconds(valid_times)
        out = np.full((len(ends), len(self.variables), *self.grid.size), np.nan, np.float32)
        rows = np.flatnonzero(np.abs(self._init - began) < self._tolerance)
        near = np.abs(self._valid[rows] - ends[:, None]) < self._tolerance
        for file in np.unique(self._file[rows]):
            step, found = np.nonzero(near & (self._file[rows] == file))
            if len(step):
                out[step] = _read(self._files[file], self._place[rows[found]])
        return out

    def fit(self, series: Series) -> Orientation:
        """How to orient these frames as the series that they are compared with.

        Raises:
            VariableError: other units; nothing is converted silently.
            GridError: another grid.
            TimeError: another calendar.
        """
        path = self._files[0].path
        for name, mine, theirs in zip(self.variables, self.units, units_of(series), strict=True):
            _check_units(f"{path}: {name}", mine, theirs)
        own, others = _calendar(self.inits), _calendar(series.time.values)
        if own != others:
            raise TimeError(f"{path} has times in {own}, the data to compare with in {others}")
        try:
            return locations.match(self.grid, locations.of(series))
        except GridError as error:
            found = f"{path} is not on the grid of the data to compare with: {error.found}"
            raise GridError(found, error.expected, "regrid it first") from error

    @property
    def _of_clips(self) -> bool:
        return np.issubdtype(self._files[0].times.inits.dtype, np.floating)

    @cached_property
    def _tolerance(self) -> float:
        if not self._of_clips:
            return ROUNDING
        leads = np.unique(self._valid - self._init)
        spacing = np.diff(leads)[np.diff(leads) > INSTANT]
        return time_axis.TOLERANCE * float(min(spacing.min(initial=np.inf), leads[0]))

    def _check_once(self) -> None:
        order = np.lexsort((self._valid, self._init))
        gaps = np.abs(np.diff(self._init[order])) + np.abs(np.diff(self._valid[order]))
        if not (gaps < self._tolerance).any():
            return
        at = int(np.argmax(gaps < self._tolerance))
        first, second = (self._files[self._file[order[at + n]]].path for n in (0, 1))
        if first == second:
            raise DataError(f"{first} holds a forecast for the same init and valid time twice")
        raise DataError(f"{first} and {second} hold the same forecast", "files of one producer, each once")


def read(
    paths: Sequence[Path],
    variables: Sequence[str],
    rename: Mapping[str, str] | None = None,
    spacing: float | None = None,
    member: int | None = None,
) -> ForecastFile:
    """Open the forecasts of one producer.

    Args:
        paths: files of one grid, each with one init, several, or one step.
        variables: names of the channels in the data to compare with.
        rename: {channel: name in these files}; the channel's own name is tried too.
        spacing: of the frames to compare with, seconds; see `times_of`.
        member: number of the member that is read of ensembles; None: all.

    Raises:
        DataError: not of a gridded format, or the same forecast twice.
        TimeError: no init time, or no valid time after it.
        VariableError: a variable is missing, has a further dimension, or other units in another file.
        GridError: no grid, or different grids.
    """
    opened = [(path, registry.open_fields(path)) for path in paths]
    count = _members(opened)

    def of_member(number: int, further: Sequence[ForecastFile] = ()) -> ForecastFile:
        files = [_open(path, _member(one, number), variables, dict(rename or {}), spacing) for path, one in opened]
        for other in files[1:]:
            _check_alike(files[0], other)
        return ForecastFile(files, variables, further)

    return of_member(0, [of_member(n) for n in range(1, count)]) if member is None else of_member(member)


def fields_in_both(path: Path, truth: Path, group: str = "") -> list[str]:
    """The fields of a forecast file, by their names in `truth`, a file of a gridded format, or in a group of it."""
    dataset = registry.open_fields(path)
    forecast = _fields(dataset, times_of(dataset, path).dims)
    return [n for n in axes.gridded(registry.open_fields(truth, group)) if {n, cf.legal_name(n)} & set(forecast)]


def _members(opened: Sequence[tuple[Path, xr.Dataset]]) -> int:
    """M of files of ensembles; 1 of single forecasts.

    Raises:
        VariableError: one file has more than another.
    """
    counts = {path: max((one.sizes[d] for d in _member_dims(one)), default=1) for path, one in opened}
    (first, count), *others = counts.items()
    for path, other in others:
        if other != count:
            raise VariableError(f"{path} has {other} members and {first} has {count}", way_out="name them one by one")
    return count


def _member(dataset: xr.Dataset, number: int) -> xr.Dataset:
    """One member of an ensemble; a single forecast is the only one."""
    return dataset.isel(dict.fromkeys(_member_dims(dataset), number), drop=True)


def _member_dims(dataset: xr.Dataset) -> list[str]:
    return [str(d) for d in dataset.dims if d in MEMBER_NAMES]


def _open(
    path: Path, dataset: xr.Dataset, variables: Sequence[str], rename: dict[str, str], spacing: float | None
) -> _File:
    times = times_of(dataset, path, spacing)
    if not len(times.init):
        raise TimeError(f"{path} is not a forecast: none of its frames is valid after its init time ({times.layout})")
    sources = [_source(dataset, path, name, rename, times.dims) for name in variables]
    grid = _grid(dataset, path, sources[0], times.dims)
    return _File(path, times, grid, [_bare(dataset[s], path, times.dims, grid) for s in sources])


def _fields(dataset: xr.Dataset, dims: set[Any]) -> list[str]:
    """The fields with these dimensions that are no further account of another field, as the ends of intervals are."""
    found = [str(n) for n, v in dataset.data_vars.items() if dims <= set(v.dims) and v.ndim > len(dims)]
    ancillary = {n for v in dataset.data_vars.values() for n in str(v.attrs.get("ancillary_variables", "")).split()}
    return [n for n in found if dataset[n].dtype.kind in "fiu" and n not in ancillary]


def _source(dataset: xr.Dataset, path: Path, name: str, rename: dict[str, str], dims: set[Any]) -> str:
    """The variable of the file that is channel `name`: as renamed, of that name, or of that standard name.

    Raises:
        VariableError: none of these; the names of the data to compare with need not be those of this file.
    """
    found = _fields(dataset, dims)
    marked = [n for n in found if dataset[n].attrs.get("standard_name") == name]
    for candidate in (rename.get(name, name), name, cf.legal_name(name), *(marked if len(marked) == 1 else ())):
        if candidate in found:
            return candidate
    hint = did_you_mean(name, found) or f" It has {', '.join(found) or 'none on its forecast axes'}."
    what = f"{path}: variable {name!r} is not there.{hint}"
    raise VariableError(what, way_out=f"--var {name}=NAME takes another variable for it")


def _grid(dataset: xr.Dataset, path: Path, name: str, dims: set[Any]) -> _Grid:
    space = [str(d) for d in dataset[name].dims if d not in dims]
    finder = axes.AxisFinder(dataset)
    y, x = finder.sides(space)
    large = [d for d in space if dataset.sizes[d] > 1]
    if (y is None or x is None) and len(large) == 2:
        y, x = large
    if y is None or x is None:
        return _grid_of_points(dataset, path, name, large)
    sides = [dataset[d] if d in dataset.coords else None for d in (y, x)]
    found = axes.Axes("", y, x)
    placed = [dataset[n] for n in parts.places_of(finder, name, found)]
    cells = {str(geographic(str(c.name), c.attrs)): parts.cells(c, found).astype(float) for c in placed}
    mapping = parts.mapping_of(dataset, name, found)
    about = dataset[mapping].attrs if mapping else {}
    return _Grid((y, x), locations.Grid((dataset.sizes[y], dataset.sizes[x]), sides[0], sides[1], cells, about))


def _grid_of_points(dataset: xr.Dataset, path: Path, name: str, large: list[str]) -> _Grid:
    """A grid that is stored row by row as a list of points, each with its latitude and longitude."""
    if len(large) != 1:
        what = f"{path}: {name} is on {', '.join(map(str, dataset[name].dims))}"
        raise GridError(what, "a grid of y and x")
    lat, lon = (_of_points(dataset, large[0], axis) for axis in ("latitude", "longitude"))
    if lat is not None and lon is not None:
        width = int(np.argmax(lat != lat[0])) or len(lat)
        if len(lat) % width == 0:
            rows, columns = lat.reshape(-1, width), lon.reshape(-1, width)
            if (rows == rows[:, :1]).all() and (columns == columns[:1]).all():
                y, x = (Side(n, tuple(v), {}) for n, v in (("latitude", rows[:, 0]), ("longitude", columns[0])))
                return _Grid((large[0],), locations.Grid(rows.shape, y, x))
    raise GridError(
        f"{path}: {name} is on a list of {dataset.sizes[large[0]]} points ({large[0]})",
        "rows and columns of a latitude-longitude grid",
        "interpolate it to one first",
    )


def _of_points(dataset: xr.Dataset, dim: str, axis: str) -> np.ndarray | None:
    """The latitude or longitude of each point along `dim`."""
    for name, variable in dataset.variables.items():
        if variable.dims == (dim,) and geographic(str(name), variable.attrs) == axis:
            return variable.values.astype(float)
    return None


def _bare(array: xr.DataArray, path: Path, dims: set[Any], grid: _Grid) -> xr.DataArray:
    """A variable without its dimensions of size 1."""
    others = [str(d) for d in array.dims if d not in dims and d not in grid.dims]
    for dim in others:
        if array.sizes[dim] > 1:
            what = "choose a member" if dim in MEMBER_NAMES else "choose one"
            raise VariableError(
                f"{path}: {array.name} has a further dimension {dim} with {array.sizes[dim]} values",
                way_out=f"{what} first, for example with: ncks -d {dim},0 IN OUT",
            )
    return array.isel(dict.fromkeys(others, 0))


def _read(file: _File, place: np.ndarray) -> np.ndarray:
    """Frames of one init at these places [τ, 2] along the init and lead dimensions: [τ, C, H, W]."""
    times, grid = file.times, file.grid
    chosen: dict[Any, Any] = {times.lead_dim: place[:, 1]} if times.lead_dim else {times.init_dim: place[:, 0]}
    if times.lead_dim and times.init_dim:
        chosen[times.init_dim] = int(place[0, 0])
    axis = [d for d in (times.lead_dim or times.init_dim,) if d]
    chosen.pop(None, None)  # a file of a single frame has neither
    planes = [a.isel(chosen).transpose(*axis, *grid.dims).values.reshape(len(place), *grid.size) for a in file.arrays]
    return np.stack(planes, axis=1).astype(np.float32)


def _check_alike(first: _File, other: _File) -> None:
    """Refuse a file on another grid or in other units than the first.

    Raises:
        GridError, VariableError: names both files.
    """
    try:
        how = locations.match(other.grid.cells, first.grid.cells)
    except GridError as error:
        found = f"{other.path} is on another grid than {first.path}: {error.found}"
        raise GridError(found, error.expected, "regrid one of them") from error
    if how != UNCHANGED:
        raise GridError(
            f"{other.path} has rows or columns in another order than {first.path}", way_out="reorder one of them"
        )
    for mine, theirs in zip(other.arrays, first.arrays, strict=True):
        if _units(mine) != _units(theirs):
            own, others = _units(mine) or "no units", _units(theirs) or "no units"
            raise VariableError(f"{other.path}: {mine.name} is in {own}, but in {others} in {first.path}")


def _units(array: xr.DataArray) -> str:
    return str(array.attrs.get("units") or array.encoding.get("units") or "")


def _check_units(where: str, mine: str, theirs: str) -> None:
    """Refuse units whose numbers differ from those of the data to compare with.

    Raises:
        VariableError: names both.
    """
    try:
        same = conversion(mine, theirs) is None
    except UnitsError:
        same = False
    if not same:
        raise VariableError(
            f"{where} is in {mine}, but the data to compare with are in {theirs}; nothing is converted silently",
            way_out="convert the file first, for example with cdo and its setunit",
        )


def _calendar(times: np.ndarray) -> str:
    if np.issubdtype(times.dtype, np.floating):
        return "seconds of a clip"
    name = "standard" if np.issubdtype(times.dtype, np.datetime64) else times[0].calendar
    return f"the {'standard' if name in ('gregorian', 'proleptic_gregorian') else name} calendar"
