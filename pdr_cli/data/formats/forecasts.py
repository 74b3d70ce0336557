"""Forecasts of any producer in NetCDF or Zarr: which axis is which, and frames by init time and valid time.

Files say when a forecast began and what it is valid for in many ways. Axes are found by what CF attributes say they
are, then by name; a frame is found by its two times alone, so all layouts are read by the same few lines:

* init and valid time of their own: pdr, anemoi-inference, bris;
* `time` is the init and a lead dimension follows: WeatherBench2, earth2studio, ECMWF's cfgrib;
* valid time and lead, from which the init follows: CREDIT;
* valid time counted from the init: pysteps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pdr_cli.data import formats
from pdr_cli.data import series as fields
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import cf, netcdf
from pdr_cli.data.grid import Orientation, orient
from pdr_cli.data.series import Series
from pdr_cli.data.times import DAY, Step
from pdr_cli.errors import DataError, GridError, PdrError, TimeError, VariableError, did_you_mean

INIT_NAMES = ("forecast_reference_time", "reference_time", "init_time", "initial_time", "initialization_time", "init")
LEAD_NAMES = ("forecast_period", "prediction_timedelta", "lead_time", "leadtime", "step", "forecast_hour", "fhour")
VALID_NAMES = ("valid_time", "time")
MEMBER_NAMES = ("number", "member", "realization", "ensemble", "ensemble_member", "ens_number", "sample")
SECONDS = {
    1e-9: ("ns", "nanosecond", "nanoseconds"), 1e-6: ("us", "microsecond", "microseconds"),
    1e-3: ("ms", "millisecond", "milliseconds"), 1.0: ("s", "sec", "second", "seconds"),
    60.0: ("min", "minute", "minutes"), 3600.0: ("h", "hr", "hrs", "hour", "hours"), DAY: ("d", "day", "days"),
}  # fmt: skip
SPELLINGS = {"kelvin": "k", "degk": "k", "celsius": "degc", "c": "degc", "°c": "degc", "deg_c": "degc"}
# Hours in float32 are off by up to 0.03 s ten days ahead, and no producer's steps are as short as a few seconds.
ROUNDING = 1.0
INSTANT = 1e-3  # seconds; frames nearer to the init than this are the init's own


@dataclass(frozen=True)
class _Times:
    """The two times of every frame of a file, [m], and the place of the frame along its init and lead dimensions."""

    layout: str
    init_dim: str | None
    lead_dim: str | None
    inits: np.ndarray
    init: np.ndarray
    valid: np.ndarray
    place: np.ndarray


@dataclass(frozen=True)
class _Grid:
    """Dimensions of the grid, their coordinates where the file has them, and the shape of a grid kept as a list."""

    dims: tuple[str, ...]
    y: np.ndarray | None
    x: np.ndarray | None
    size: tuple[int, int]


@dataclass(frozen=True)
class _File:
    """One open file: its times, its grid, and its arrays, which are read when frames are asked for."""

    path: Path
    times: _Times
    grid: _Grid
    arrays: list[xr.DataArray]


class ForecastFile:
    """The forecasts of one producer, in one file or several, read lazily.

    Attributes:
        paths: the files.
        variables: channels, by the names they were asked for.
        units: of each; empty where the file gives none.
        y, x: coordinates of the grid as the file has them, or None; for `grid.orient`.
        layout: where the times were found, in words.
    """

    def __init__(self, files: list[_File], variables: Sequence[str]) -> None:
        self._files = files
        self.paths = [file.path for file in files]
        self.variables = list(variables)
        self.units = [_units(a) for a in files[0].arrays]
        self.y, self.x, self.size = files[0].grid.y, files[0].grid.x, files[0].grid.size
        self.layout = files[0].times.layout
        self._file = np.concatenate([np.full(len(f.times.init), n) for n, f in enumerate(files)])
        self._init = np.concatenate([f.times.init for f in files])
        self._valid = np.concatenate([f.times.valid for f in files])
        self._place = np.concatenate([f.times.place for f in files])
        self._check_once()

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
        """The forecast that began at `init`, for these valid times: [τ, C, H, W] float32 in the file's units.

        NaN where the file does not hold that init or valid time.
        """
        began = time_axis.seconds(np.array([init]))[0]
        wanted = time_axis.seconds(valid_times)
        out = np.full((len(wanted), len(self.variables), *self.size), np.nan, np.float32)
        rows = np.flatnonzero(np.abs(self._init - began) < self._tolerance)
        near = np.abs(self._valid[rows] - wanted[:, None]) < self._tolerance
        for file in np.unique(self._file[rows]):
            step, found = np.nonzero(near & (self._file[rows] == file))
            if len(step):
                out[step] = _read(self._files[file], self._place[rows[found]])
        return out

    def fit(self, series: Series) -> Orientation:
        """How to turn these frames to the grid of a series that they are to be compared with.

        Raises:
            VariableError: other units; nothing is converted silently.
            GridError: another grid.
            TimeError: another calendar.
        """
        path = self._files[0].path
        for name, mine, theirs in zip(self.variables, self.units, fields.units(series), strict=True):
            if mine and theirs and _spelled(mine) != _spelled(theirs):
                raise VariableError(
                    f"{path}: {name} is in {mine}, but the data to compare with are in {theirs}; nothing is converted "
                    "silently, so convert the file first, for example with cdo and its setunit"
                )
        if self.size != fields.size(series):
            here, there = ("{} x {}".format(*s) for s in (self.size, fields.size(series)))
            raise GridError(
                f"{path} is on a grid of {here}, the data to compare with on one of {there}; regrid it first"
            )
        here, there = _calendar(self.inits), _calendar(series.time.values)
        if here != there:
            raise TimeError(f"{path} has times in {here}, the data to compare with in {there}")
        y, x = (None if s is None else np.asarray(s.values, float) for s in (fields.side(series, d) for d in "yx"))
        try:
            return orient(self.y, self.x, y, x)
        except GridError as error:
            raise GridError(f"{path} is not on the grid of the data to compare with: {error}") from error

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
        one, other = (self._files[self._file[order[at + n]]].path for n in (0, 1))
        raise DataError(
            f"{one} and {other} hold the same forecast; give the files of each producer by themselves, each once"
            if one != other
            else f"{one} holds a forecast for the same init and valid time twice"
        )


def is_forecast(path: Path) -> bool:
    """True if a file holds forecasts: fields of which an init time can be told from the valid times."""
    try:
        return path.exists() and len(_times(formats.open_fields(path), path).init) > 0
    except PdrError:
        return False


def read(paths: Sequence[Path], variables: Sequence[str], rename: Mapping[str, str] | None = None) -> ForecastFile:
    """Open the forecasts of one producer.

    Args:
        paths: files of one grid, each with one init, several, or one step.
        variables: channels by the names that the data to compare with have.
        rename: {channel: name in these files}.

    Raises:
        DataError: neither NetCDF nor Zarr, or the same forecast twice.
        TimeError: no init time can be found, or nothing lies ahead of it.
        VariableError: a variable is missing, has a further dimension, or other units in another file.
        GridError: no grid, or different grids.
    """
    files = [_open(path, variables, dict(rename or {})) for path in paths]
    for other in files[1:]:
        _check_alike(files[0], other)
    return ForecastFile(files, variables)


def fields_in_both(path: Path, truth: Path) -> list[str]:
    """The fields of a forecast file, by the names that they have in `truth`, a NetCDF file or Zarr store."""
    dataset = formats.open_fields(path)
    times = _times(dataset, path)
    told = _fields(dataset, {times.init_dim, times.lead_dim} - {None})
    return [n for n in netcdf.gridded(formats.open_fields(truth)) if {n, cf.legal_name(n)} & set(told)]


def _open(path: Path, variables: Sequence[str], rename: dict[str, str]) -> _File:
    dataset = formats.open_fields(path)
    times = _times(dataset, path)
    if not len(times.init):
        raise TimeError(f"{path} is no forecast: none of its frames is valid after its init time ({times.layout})")
    dims = {times.init_dim, times.lead_dim} - {None}
    sources = [_source(dataset, path, name, rename, dims) for name in variables]
    grid = _grid(dataset, path, sources[0], dims)
    return _File(path, times, grid, [_bare(dataset[s], path, dims, grid) for s in sources])


def _times(dataset: xr.Dataset, path: Path) -> _Times:
    """Find init, lead and valid time; frames at the init time itself are left out.

    Raises:
        TimeError: no init time.
    """
    init = _find(dataset, "forecast_reference_time", INIT_NAMES, ())
    lead = _find(dataset, "forecast_period", LEAD_NAMES, ())
    if lead is not None and lead.name == "step" and not _has_units(lead):
        lead = None  # a count of something
    if init is None and lead is not None and lead.ndim == 1 and _has_axis_of_its_own(dataset, lead):
        init = dataset["time"]
    valid = _find(dataset, "time", VALID_NAMES, () if init is None else (str(init.name),))
    if valid is not None and not (_is_time(valid) and valid.ndim <= 2):
        valid = None
    if init is None and valid is not None and str(dataset.attrs.get("source", "")).lower().startswith("pysteps"):
        init = _start_of_units(valid)
    if init is None and lead is not None and valid is not None:
        return _from_valid_and_lead(valid, lead)
    if init is None or not _is_time(init) or init.ndim > 1 or (lead is None and valid is None):
        raise TimeError(_no_init(dataset, path, init))
    return _from_init(init, lead, valid)


def _from_init(init: xr.DataArray, lead: xr.DataArray | None, valid: xr.DataArray | None) -> _Times:
    init_dim = str(init.dims[0]) if init.ndim else None
    ahead = [d for v in (lead, valid) if v is not None for d in v.dims if d != init_dim]
    lead_dim = str(ahead[0]) if ahead else None
    n = init.size
    L = next((v.sizes[lead_dim] for v in (lead, valid) if v is not None and lead_dim in v.dims), 1)
    began = time_axis.seconds(np.atleast_1d(init.values))
    if valid is not None:
        ticks = _spread(
            time_axis.seconds(valid.values.ravel()).reshape(valid.shape), valid.dims, (init_dim, lead_dim), (n, L)
        )
    else:
        assert lead is not None  # _times saw to it
        ticks = began[:, None] + _spread(_seconds(lead), lead.dims, (init_dim, lead_dim), (n, L))
    row, column = np.nonzero(ticks - began[:, None] > INSTANT)
    layout = f"init {init.name}, " + (f"valid {valid.name}" if valid is not None else f"lead {lead.name}")  # type: ignore[union-attr]
    place = np.stack([row, column], axis=1)
    return _Times(layout, init_dim, lead_dim, np.atleast_1d(init.values)[row], began[row], ticks[row, column], place)


def _from_valid_and_lead(valid: xr.DataArray, lead: xr.DataArray) -> _Times:
    """Init = valid - lead, along one dimension or none."""
    dim = str(valid.dims[0]) if valid.ndim else None
    times = np.atleast_1d(valid.values)
    leads = np.broadcast_to(_seconds(lead), times.shape)
    ahead = np.flatnonzero(leads > INSTANT)
    inits = np.array([time_axis.shift(times[i], Step(float(leads[i])), -1) for i in ahead])
    place = np.stack([np.zeros_like(ahead), ahead], axis=1)
    ticks = time_axis.seconds(times)[ahead]
    return _Times(f"valid {valid.name} less lead {lead.name}", None, dim, inits, ticks - leads[ahead], ticks, place)


def _find(dataset: xr.Dataset, standard_name: str, names: Sequence[str], taken: Sequence[str]) -> xr.DataArray | None:
    """The variable that a CF standard name marks, or else the first of these names that is there."""
    import cf_xarray  # noqa: F401 - registers the accessor

    marked = [str(n) for n in dataset.cf.standard_names.get(standard_name, [])]
    found = [n for n in (*marked, *names) if n in dataset.variables and n not in taken]
    return dataset[found[0]] if found else None


def _start_of_units(valid: xr.DataArray) -> xr.DataArray:
    """The date from which an axis counts: pysteps counts from the start of its nowcast."""
    counted = {k: v for k, v in valid.encoding.items() if k in ("units", "calendar")}
    return xr.DataArray(xr.conventions.decode_cf_variable("start", xr.Variable((), 0, counted)), name="in time's units")


def _has_axis_of_its_own(dataset: xr.Dataset, lead: xr.DataArray) -> bool:
    """Whether leads stand beside `time` as a dimension of their own, so that `time` is when forecasts began."""
    return "time" in dataset.variables and dataset["time"].ndim <= 1 and lead.dims != dataset["time"].dims


def _is_time(variable: xr.DataArray) -> bool:
    """Dates, or a clip's seconds."""
    return netcdf.is_time(variable) or (variable.dtype.kind == "f" and variable.attrs.get("units") == "s")


def _has_units(lead: xr.DataArray) -> bool:
    return "units" in {**lead.attrs, **lead.encoding} or np.issubdtype(lead.dtype, np.timedelta64)


def _seconds(lead: xr.DataArray) -> np.ndarray:
    """Leads in seconds; without units they are hours, as forecast hours are counted.

    Raises:
        TimeError: units that are no time.
    """
    if np.issubdtype(lead.dtype, np.timedelta64):
        return lead.values / np.timedelta64(1, "ns") * 1e-9
    unit = str(lead.attrs.get("units") or lead.encoding.get("units") or "hours").strip().lower()
    factor = next((f for f, spelled in SECONDS.items() if unit in spelled), None)
    if factor is None:
        raise TimeError(f"lead time {lead.name} has units {unit!r}; hours or seconds are expected")
    return lead.values.astype(np.float64) * factor


def _spread(
    values: np.ndarray, dims: Sequence[Any], wanted: tuple[str | None, str | None], shape: tuple[int, int]
) -> np.ndarray:
    """Values on some of two dimensions, brought to both: [n, L]."""
    if len(dims) == 2 and tuple(dims) != wanted:
        values = values.T
    elif len(dims) == 1:
        values = values[:, None] if dims[0] == wanted[0] else values[None, :]
    return np.broadcast_to(values, shape)


def _no_init(dataset: xr.Dataset, path: Path, init: xr.DataArray | None) -> str:
    times = [
        f"{n} ({', '.join(map(str, v.dims)) or 'one'})" for n, v in dataset.variables.items() if _is_time(dataset[n])
    ]
    if init is not None and not _is_time(init):
        return f"{path}: its init time {init.name} is no date; it needs units such as 'hours since 1970-01-01'"
    return (
        f"{path} is no forecast: it has no init time: no forecast_reference_time, and no lead time such as forecast_period, "
        f"lead_time, prediction_timedelta or step beside its times; it has {', '.join(times) or 'no times at all'}"
    )


def _fields(dataset: xr.Dataset, dims: set[Any]) -> list[str]:
    found = [str(n) for n, v in dataset.data_vars.items() if dims <= set(v.dims) and v.ndim > len(dims)]
    return [n for n in found if dataset[n].dtype.kind in "fiu"]


def _source(dataset: xr.Dataset, path: Path, name: str, rename: dict[str, str], dims: set[Any]) -> str:
    """The variable of the file that is channel `name`: as renamed, of that name, or of that standard name.

    A name given for the data to compare with need not be one of this file.
    """
    there = _fields(dataset, dims)
    marked = [n for n in there if dataset[n].attrs.get("standard_name") == name]
    for candidate in (rename.get(name, name), name, cf.legal_name(name), *(marked if len(marked) == 1 else ())):
        if candidate in there:
            return candidate
    hint = did_you_mean(name, there) or f" It has {', '.join(there) or 'none on its forecast axes'}."
    raise VariableError(f"{path}: variable {name!r} is not there.{hint} Use --var {name}=NAME to take another for it")


def _grid(dataset: xr.Dataset, path: Path, name: str, dims: set[Any]) -> _Grid:
    space = [str(d) for d in dataset[name].dims if d not in dims]
    y = netcdf.axis_along(dataset, space, ("latitude", "Y"), netcdf.Y_NAMES)
    x = netcdf.axis_along(dataset, [d for d in space if d != y], ("longitude", "X"), netcdf.X_NAMES)
    large = [d for d in space if dataset.sizes[d] > 1]
    if (y is None or x is None) and len(large) == 2:
        y, x = large
    if y is None or x is None:
        return _grid_of_points(dataset, path, name, large)
    sides = [dataset[d].values.astype(float) if d in dataset.coords else None for d in (y, x)]
    return _Grid((y, x), sides[0], sides[1], (dataset.sizes[y], dataset.sizes[x]))


def _grid_of_points(dataset: xr.Dataset, path: Path, name: str, large: list[str]) -> _Grid:
    """A grid that is kept row by row as a list of points, each with its latitude and longitude."""
    if len(large) != 1:
        raise GridError(
            f"{path}: {name} is on {', '.join(map(str, dataset[name].dims))}; a grid of y and x is expected"
        )
    lat, lon = (
        _of_points(dataset, large[0], *key) for key in (("latitude", "degrees_north"), ("longitude", "degrees_east"))
    )
    if lat is not None and lon is not None:
        width = int(np.argmax(lat != lat[0])) or len(lat)
        if len(lat) % width == 0:
            rows, columns = lat.reshape(-1, width), lon.reshape(-1, width)
            if (rows == rows[:, :1]).all() and (columns == columns[:1]).all():
                return _Grid((large[0],), rows[:, 0], columns[0], rows.shape)
    raise GridError(
        f"{path}: {name} is on a list of {dataset.sizes[large[0]]} points ({large[0]}) that are no rows and columns of a "
        "latitude-longitude grid; interpolate it to one first"
    )


def _of_points(dataset: xr.Dataset, dim: str, name: str, units: str) -> np.ndarray | None:
    for key, variable in dataset.variables.items():
        marks = {key, variable.attrs.get("standard_name"), variable.attrs.get("units")}
        if variable.dims == (dim,) and marks & {name, units}:
            return variable.values.astype(float)
    return None


def _bare(array: xr.DataArray, path: Path, dims: set[Any], grid: _Grid) -> xr.DataArray:
    """A variable without its dimensions of size 1."""
    others = [str(d) for d in array.dims if d not in dims and d not in grid.dims]
    for dim in others:
        if array.sizes[dim] > 1:
            what = "choose a member" if dim in MEMBER_NAMES else "choose one"
            raise VariableError(
                f"{path}: {array.name} has a further dimension {dim} with {array.sizes[dim]} values; {what} first, for "
                f"example with: ncks -d {dim},0 IN OUT"
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


def _check_alike(one: _File, other: _File) -> None:
    def same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
        return (a is None) == (b is None) and (a is None or np.array_equal(a, b))  # type: ignore[arg-type]

    grids = one.grid, other.grid
    if grids[0].size != grids[1].size or not same(grids[0].y, grids[1].y) or not same(grids[0].x, grids[1].x):
        raise GridError(f"{other.path} is on another grid than {one.path}")
    for here, there in zip(other.arrays, one.arrays, strict=True):
        if _units(here) != _units(there):
            raise VariableError(
                f"{other.path}: {here.name} is in {_units(here) or 'no units'}, "
                f"but in {_units(there) or 'no units'} in {one.path}"
            )


def _units(array: xr.DataArray) -> str:
    return str(array.attrs.get("units") or array.encoding.get("units") or "")


def _spelled(units: str) -> str:
    """Units in one spelling: m s**-1, m/s and m s-1 are the same, as are K and kelvin."""
    plain = units.strip().lower().replace("**", "").replace("^", "").replace(".", " ").replace("*", " ")
    first, *below = plain.split("/")
    plain = " ".join([*first.split(), *(f"{part.strip()}-1" for part in below)])
    return SPELLINGS.get(plain, plain)


def _calendar(times: np.ndarray) -> str:
    if np.issubdtype(times.dtype, np.floating):
        return "seconds of a clip"
    name = "standard" if np.issubdtype(times.dtype, np.datetime64) else times[0].calendar
    return f"the {'standard' if name in ('gregorian', 'proleptic_gregorian') else name} calendar"
