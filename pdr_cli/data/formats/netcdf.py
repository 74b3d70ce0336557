"""NetCDF: gridded fields in, CF-1.11 forecasts out. Reading begins with an open dataset, whatever store it comes from."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pdr_cli.data import kinds
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import cf
from pdr_cli.data.formats.cf import Layout
from pdr_cli.data.series import LazyFrames, Series, end_to_end, make_series, names, read_frames, reordered
from pdr_cli.errors import DataError, GridError, TimeError, VariableError, did_you_mean
from pdr_cli.system.damage import first_line
from pdr_cli.system.logs import log

MEMORY = Path("/dev/shm")  # Linux's file system in memory
SPARE = 2**24  # bytes that a file needs there besides its numbers, and others do
LONGEST_CHUNK = 4096  # places of a coordinate
Y_NAMES = ("latitude", "lat", "nav_lat", "y", "rlat", "northing", "row")
OTHER_NAMES = (
    *("z", "lev", "level", "levels", "plev", "pressure", "isobaricinhpa", "height", "altitude", "depth"),
    *("member", "number", "realization", "ensemble", "ensemble_member", "sample", "step", "band", "channel"),
)
X_NAMES = ("longitude", "lon", "nav_lon", "x", "rlon", "easting", "column", "col")


@dataclass(frozen=True)
class _Source:
    """Where a channel comes from: a variable of the files, and the level of it, "" if it has one at most."""

    name: str
    level: str = ""

    @classmethod
    def parse(cls, text: str) -> _Source:
        """From `t2m`, or `t@850`."""
        name, _, level = text.partition("@")
        return cls(name, level)


@dataclass(frozen=True)
class _Axes:
    """Names of a variable's dimensions in the file."""

    time: str
    y: str
    x: str


def read(paths: Sequence[Path], variables: Sequence[str] = (), rename: Mapping[str, str] | None = None) -> Series:
    """Open one or more files as one Series, lazily.

    Args:
        paths: files of one grid; those of a variable are joined along time in the order of their first times, and
            variables from different files are stacked as channels.
        variables: names to read as channels, `t@850` for the level 850 of t; none: the only gridded variable there is.
        rename: {name wanted: name in the file}.

    Raises:
        DataError: damaged, empty or foreign file.
        VariableError: a variable is missing, or must be chosen among several.
        TimeError: no usable time axis, a time that is there twice, or variables at different times.
        GridError: the files have different grids.
    """
    return from_datasets([(open_dataset(p), p) for p in paths], variables, rename)


def from_datasets(
    opened: Sequence[tuple[xr.Dataset, Path]], variables: Sequence[str] = (), rename: Mapping[str, str] | None = None
) -> Series:
    """`read` for datasets that are open already; each path is used in messages only."""
    wanted = _choose(opened, list(variables), dict(rename or {}))
    together: dict[tuple[int, ...], dict[str, _Source]] = {}
    for channel, source in wanted.items():
        holders = tuple(i for i, (dataset, _) in enumerate(opened) if source.name in gridded(dataset))
        together.setdefault(holders, {})[channel] = source
    unused = [path for i, (_, path) in enumerate(opened) if not any(i in holders for holders in together)]
    if unused:
        log.info("netcdf  %d of %d files hold none of %s", len(unused), len(opened), ", ".join(wanted))
    parts = [_in_order(_join([_part(*opened[i], chosen) for i in holders])) for holders, chosen in together.items()]
    return parts[0] if len(parts) == 1 else _stack(parts, list(wanted))


def gridded(dataset: xr.Dataset) -> list[str]:
    """Names of the variables that have a time and two spatial dimensions."""
    return [
        str(n) for n, v in dataset.data_vars.items() if _axes(dataset, str(n)) is not None and v.dtype.kind in "fiu"
    ]


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


def write(path: Path, layout: Layout, frames: np.ndarray, compress: int) -> None:
    """Write a NetCDF-4 file with all that it is to hold: frames [n, ..., C, H, W].

    It is made in memory and copied from there, because the C library may die of a disk that fails or is full. (Its own
    files in memory lose the order of variables and attributes.) Where there is no room in memory, it is made in place.

    Args:
        path: file to create; the caller makes it atomic.
        layout: what it is to hold.
        frames: the numbers of its fields.
        compress: see `create`.
    """
    import netCDF4

    if not _room_in_memory(2 * layout.nbytes):
        create(path, layout, compress)
        with writing(path, layout) as put:
            put(0, frames)
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        made = Path(folder, "made.nc")
        out = netCDF4.Dataset(made, "w", format="NETCDF4")
        content = made.open("rb")
    # From here on it has no name any more: a process that is killed leaves nothing there.
    with content:
        with out:
            _lay_out(out, layout, compress)
            _put(out, layout, 0, frames)
        with path.open("wb") as target:
            shutil.copyfileobj(content, target, 2**20)


def _room_in_memory(need: int) -> bool:
    if not os.access(MEMORY, os.W_OK):
        return False
    status = os.statvfs(MEMORY)
    return status.f_bavail * status.f_frsize > need + SPARE


def create(path: Path, layout: Layout, compress: int) -> None:
    """Lay out a NetCDF-4 file: everything but the numbers of its fields, which are missing until written.

    Args:
        path: file to create; the caller makes it atomic.
        layout: what it is to hold.
        compress: level of zlib from 1 to 9 behind a byte shuffle; 0 for speed, with a checksum (Fletcher-32) instead.
    """
    import netCDF4

    with netCDF4.Dataset(path, "w", format="NETCDF4") as out:
        _lay_out(out, layout, compress)


def _lay_out(out: Any, layout: Layout, compress: int) -> None:
    how = {"zlib": True, "complevel": compress, "shuffle": True} if compress else {"fletcher32": True}
    out.setncatts(layout.attrs)
    for name, size in layout.sizes.items():
        out.createDimension(name, None if name == layout.unlimited else size)
    for coordinate in layout.coordinates:
        values = coordinate.values
        # Along an unlimited dimension the library's own chunks hold one place each.
        chunks = (min(values.shape[0], LONGEST_CHUNK), *values.shape[1:]) if values.ndim else None
        # NetCDF-3 has its numbers the other way round.
        kind = values.dtype.newbyteorder("=")
        variable = out.createVariable(coordinate.name, kind, coordinate.dims, chunksizes=chunks)
        variable.setncatts(coordinate.attrs)
        variable[...] = values
    for name, attrs in layout.fields.items():
        variable = out.createVariable(name, "f4", layout.dims, chunksizes=layout.chunks, fill_value=cf.FILL, **how)
        variable.setncatts(attrs)


def _put(out: Any, layout: Layout, start: int, frames: np.ndarray) -> None:
    for index, name in enumerate(layout.fields):
        out[name][start : start + len(frames)] = cf.filled(frames[..., index, :, :])


def note(path: Path, attrs: Mapping[str, str]) -> None:
    """Add global attributes to a file that is otherwise finished."""
    import netCDF4

    with netCDF4.Dataset(path, "a") as out:
        out.setncatts(attrs)


@contextmanager
def writing(path: Path, layout: Layout) -> Iterator[Callable[[int, np.ndarray], None]]:
    """A function that writes frames [n, ..., C, H, W] from a place of the first dimension on, in a file laid out before."""
    import netCDF4

    with netCDF4.Dataset(path, "a") as out:
        yield lambda start, frames: _put(out, layout, start, frames)


@contextmanager
def reading_back(path: Path, layout: Layout) -> Iterator[Callable[[int, int], np.ndarray]]:
    """A function that reads what was written in [start, stop) of the first dimension: [n, ..., C, H, W]."""
    import netCDF4

    with netCDF4.Dataset(path) as back:
        back.set_auto_maskandscale(False)
        yield lambda start, stop: np.stack([cf.unfilled(back[n][start:stop]) for n in layout.fields], axis=-3)


def open_dataset(path: Path) -> xr.Dataset:
    """A NetCDF file as it is, times decoded, nothing read yet.

    Raises:
        DataError: empty, damaged or foreign.
        TimeError: a time axis that cannot be decoded.
    """
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{path} is empty (0 bytes); it may still be being written")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return xr.open_dataset(path, engine="netcdf4", decode_timedelta=False)
    except ValueError as error:
        if "decode" not in str(error) and "calendar" not in str(error) and "units" not in str(error):
            raise DataError(f"{path} cannot be read as NetCDF: {first_line(error)}") from error
        raise TimeError(
            f"{path}: the time axis cannot be decoded: {first_line(error)}. Units such as 'days since 2000-01-01' are "
            "wanted, a month or a year has no fixed length (cdo -settaxis,2000-01-01,00:00,1mon sets dates)"
        ) from error
    except OSError as error:
        raise DataError(
            f"{path} ({size} bytes) is damaged, truncated or still being written: {first_line(error)}"
        ) from error


def is_time(variable: xr.DataArray) -> bool:
    """True for decoded dates of any calendar."""
    if np.issubdtype(variable.dtype, np.datetime64):
        return True
    return variable.dtype == object and variable.size > 0 and hasattr(variable.values.flat[0], "calendar")


def _axes(dataset: xr.Dataset, name: str) -> _Axes | None:
    dims = [str(d) for d in dataset[name].dims]
    time = next((d for d in dims if d in dataset.coords and is_time(dataset[d])), None)
    space = [d for d in dims if d != time]
    y = axis_along(dataset, space, ("latitude", "Y"), Y_NAMES)
    x = axis_along(dataset, [d for d in space if d != y], ("longitude", "X"), X_NAMES)
    large = [d for d in space if dataset.sizes[d] > 1]
    if (y is None or x is None) and len(large) == 2 and not set(large) & set(_others(dataset, large)):
        y, x = large
    if time is None or y is None or x is None or y == x:
        return None
    return _Axes(time, y, x)


def axis_along(dataset: xr.Dataset, dims: list[str], keys: tuple[str, str], known: tuple[str, ...]) -> str | None:
    """The dimension that CF attributes, or else its name, mark as latitude/y or longitude/x."""
    import cf_xarray  # noqa: F401 - registers the accessor

    found = [*dataset.cf.coordinates.get(keys[0], []), *dataset.cf.axes.get(keys[1], [])]
    marked = next((d for d in dims if d in found), None)
    return marked or next((d for d in dims if d.lower() in known), None)


def _others(dataset: xr.Dataset, dims: list[str]) -> list[str]:
    """Dimensions that CF attributes, or else their names, mark as levels or members."""
    import cf_xarray  # noqa: F401 - registers the accessor

    marked = [*dataset.cf.coordinates.get("vertical", []), *dataset.cf.axes.get("Z", [])]
    return [d for d in dims if d in marked or d.lower() in OTHER_NAMES]


def _check_time(dataset: xr.Dataset, path: Path) -> None:
    """A file without any decoded time axis is refused here, with what it has instead."""
    if any(is_time(c) for c in dataset.coords.values() if c.ndim == 1):
        return
    empty = [str(d) for d, n in dataset.sizes.items() if n == 0]
    if empty:
        raise TimeError(f"{path} has no steps: dimension {empty[0]} is empty; it may still be being written")
    dims = ", ".join(f"{d} ({n})" for d, n in dataset.sizes.items())
    raise TimeError(
        f"{path} has no time coordinate; its dimensions are {dims}. A time axis needs units such as "
        "'hours since 2000-01-01' (cdo -settaxis,2000-01-01,00:00,1hour sets one)"
    )


def _choose(opened: Sequence[tuple[xr.Dataset, Path]], wanted: list[str], rename: dict[str, str]) -> dict[str, _Source]:
    """Where each channel comes from, over all files together.

    Raises:
        VariableError, TimeError: no file has a gridded variable of that name.
    """
    for dataset, path in opened:
        if not wanted or any(_Source.parse(rename.get(n, n)).name in dataset for n in wanted) or len(opened) == 1:
            _check_time(dataset, path)
    there = list(dict.fromkeys(n for dataset, _ in opened for n in gridded(dataset)))
    where = str(opened[0][1]) if len(opened) == 1 else f"{opened[0][1]} and {len(opened) - 1} more"
    if not there:
        every = dict.fromkeys(str(n) for dataset, _ in opened for n in dataset.data_vars)
        raise VariableError(f"{where} has no variable on (time, y, x); it has {', '.join(every) or 'none'}")
    if not wanted:
        if len(there) > 1:
            raise VariableError(
                f"{where} has {len(there)} gridded variables: {', '.join(there)}; name those to use with --var"
            )
        return {there[0]: _Source(there[0])}
    return {name: _source(opened, there, where, name, rename.get(name, name)) for name in wanted}


def _source(opened: Sequence[tuple[xr.Dataset, Path]], there: list[str], where: str, wanted: str, text: str) -> _Source:
    source = _Source.parse(text)
    if source.name in there:
        return source
    if text == wanted:
        matches = {n for d, _ in opened for n in gridded(d) if d[n].attrs.get("standard_name") == source.name}
        if len(matches) == 1:
            return _Source(matches.pop(), source.level)
    hint = did_you_mean(source.name, there) or f" It has {', '.join(there)}."
    reason = "is not on (time, y, x)" if any(source.name in d for d, _ in opened) else "is not there"
    raise VariableError(
        f"{where}: variable {source.name!r} {reason}.{hint} Use --var {wanted}=NAME to take another for it"
    )


def _part(dataset: xr.Dataset, path: Path, wanted: dict[str, _Source]) -> Series:
    first = next(iter(wanted.values())).name
    arrays = [_plane(dataset, path, source) for source in wanted.values()]
    axes = _axes(dataset, first)
    assert axes is not None  # _choose took gridded variables only
    times = dataset[axes.time].values
    if len(times) == 0:
        raise TimeError(f"{path} has no time steps; it may still be being written")
    if times.dtype.kind == "M" and np.isnat(times).any():
        absent = np.flatnonzero(np.isnat(times))
        raise TimeError(
            f"{path}: {len(absent)} of {len(times)} times are missing (NaT), first that of step {absent[0]}"
        )
    height, width = dataset.sizes[axes.y], dataset.sizes[axes.x]

    ranges = [_valid_range(a) for a in arrays]

    def frames(start: int, stop: int) -> np.ndarray:
        try:
            planes = [a.isel({axes.time: slice(start, stop)}).values for a in arrays]
        except (OSError, RuntimeError, ValueError) as error:
            what = f"steps {start} to {stop - 1} cannot be read, the file is damaged: {first_line(error)}"
            raise DataError(f"{path}: {what}") from error
        planes = [
            p if r is None else np.where((p >= r[0]) & (p <= r[1]), p, np.nan)
            for p, r in zip(planes, ranges, strict=True)
        ]
        return np.stack([np.asarray(p, np.float32) for p in planes], axis=1)

    coords: dict[str, Any] = {}
    for dim, name in (("y", axes.y), ("x", axes.x)):
        if name in dataset.coords:
            coords[name] = (dim, dataset[name].values, dict(dataset[name].attrs))
        else:
            coords[name] = (dim, np.arange(dataset.sizes[name]), {})
    for key, scalar in dataset[first].coords.items():
        if scalar.ndim == 0 and scalar.dtype.kind in "fiu":
            coords[str(key)] = ((), scalar.values, dict(scalar.attrs))
    variables = {name: _attributes(dataset[source.name], source.level) for name, source in wanted.items()}
    series = make_series(
        LazyFrames((len(times), len(wanted), height, width), np.float32, frames),
        times,
        variables,
        coords,
        kind=kinds.of_fields(str(a.get("units", "")) for a in variables.values()).name,
        files=[path],
        file_attrs=dict(dataset.attrs),
    )
    series.attrs["may_lack"] = True
    mapping = dataset[first].encoding.get("grid_mapping") or dataset[first].attrs.get("grid_mapping")
    if mapping in dataset:
        series.attrs["grid_mapping"] = (mapping, dict(dataset[mapping].attrs))
    if bounds := _bounds(dataset, (axes.y, axes.x)):
        series.attrs["bounds"] = bounds
    return series


def _valid_range(variable: xr.DataArray) -> tuple[float, float] | None:
    """Lowest and highest value that is no missing one, by valid_range, valid_min and valid_max (CF-1.11, §2.5.1).

    Of packed data these are packed too, unless they are of the unpacked type.
    """
    attrs = variable.attrs
    if not {"valid_range", "valid_min", "valid_max"} & set(attrs):
        return None
    ends = np.atleast_1d(attrs.get("valid_range", [attrs.get("valid_min", -np.inf), attrs.get("valid_max", np.inf)]))
    if len(ends) != 2 or ends.dtype.kind not in "fiu":
        return None
    stored = np.dtype(variable.encoding.get("dtype", variable.dtype))
    factor, offset = (variable.encoding.get(key) for key in ("scale_factor", "add_offset"))
    packed = stored.kind in "iu" and (factor is not None or offset is not None) and ends.dtype.kind in "iu"
    if packed and stored.kind == "u" and ends.dtype.kind == "i":
        ends = ends.astype(ends.dtype.str.replace("i", "u"))
    low, high = sorted(float(e) * (factor or 1) + (offset or 0) if packed else float(e) for e in ends)
    slack = 0.5 * abs(factor) if packed and factor is not None else 1e-6 * max(abs(low), abs(high))
    return (low - slack, high + slack) if np.isfinite(slack) else (low, high)


def _in_order(series: Series) -> Series:
    """A series whose times ascend.

    Raises:
        TimeError: a time is there twice.
    """
    ticks = time_axis.seconds(series.time.values)
    if np.all(np.diff(ticks) > 0):
        return series
    order = np.argsort(ticks, kind="stable")
    again = np.flatnonzero(np.diff(ticks[order]) == 0)
    if len(again):
        raise TimeError(
            f"{series.attrs['files'][0]}: {len(again)} time{'s are' if len(again) > 1 else ' is'} repeated, first "
            f"{time_axis.label(series.time.values[order[again[0]]])}; drop duplicates first, for example with "
            "xarray's drop_duplicates('time')"
        )
    log.info("times   %s is not in order of time; sorted", series.attrs["files"][0])
    return reordered(series, order)


def _bounds(dataset: xr.Dataset, sides: Sequence[str]) -> dict[str, tuple[str, np.ndarray]]:
    """Name and numbers [n, 2] of the bounds that a file gives its axes, by the axis."""
    named = {side: str(dataset[side].attrs.get("bounds", "")) for side in sides if side in dataset.coords}
    there = {side: name for side, name in named.items() if name in dataset.variables}
    return {
        side: (name, dataset[name].values)
        for side, name in there.items()
        if dataset[name].dims[:1] == (side,) and dataset[name].shape[1:] == (2,)
    }


def _attributes(variable: xr.DataArray, level: str = "") -> dict[str, Any]:
    attrs = dict(variable.attrs)
    if level:
        attrs["long_name"] = f"{attrs.get('long_name', variable.name)} at level {level}"
    if "units" not in attrs and "units" in variable.encoding:
        attrs["units"] = variable.encoding["units"]
    return attrs


def _plane(dataset: xr.Dataset, path: Path, source: _Source) -> xr.DataArray:
    """A variable as (time, y, x), at its level, its size-1 dimensions dropped."""
    name = source.name
    axes = _axes(dataset, name)
    assert axes is not None  # _choose took gridded variables only
    array = dataset[name]
    others = [d for d in array.dims if d not in (axes.time, axes.y, axes.x)]
    levels = [d for d in others if array.sizes[d] > 1] or [d for d in others if d in dataset.coords]
    chosen: dict[Any, int] = dict.fromkeys(others, 0)
    if source.level:
        if len(levels) != 1:
            has = f"several further dimensions: {', '.join(map(str, levels))}" if levels else "no levels"
            raise VariableError(f"{path}: {name} has {has}, so that {name}@{source.level} means nothing")
        chosen[levels[0]] = _level(dataset, path, source, str(levels[0]))
    elif others and (dim := next((d for d in others if array.sizes[d] > 1), None)) is not None:
        values = _level_values(dataset, str(dim))
        raise VariableError(
            f"{path}: {name} has a further dimension {dim} with {array.sizes[dim]} values "
            f"({', '.join(map(str, values[:4]))}, ...); choose one of them with --var {name}@{values[0]}"
        )
    return array.isel(chosen).transpose(axes.time, axes.y, axes.x)


def _level_values(dataset: xr.Dataset, dim: str) -> np.ndarray:
    return np.asarray(dataset[dim].values if dim in dataset.coords else np.arange(dataset.sizes[dim]))


def _level(dataset: xr.Dataset, path: Path, source: _Source, dim: str) -> int:
    """Index of a level by its value; one in hPa is found among values in Pa.

    Raises:
        VariableError: no such level; names the nearest.
    """
    values = _level_values(dataset, dim)
    try:
        wanted = float(source.level)
        numbers = values.astype(np.float64)
    except ValueError:
        raise VariableError(f"{path}: {source.level!r} is no level of {source.name}; write {source.name}@850") from None
    factor = 100.0 if dim in dataset.coords and dataset[dim].attrs.get("units") == "Pa" else 1.0
    for candidate in (wanted, wanted * factor):
        found = np.flatnonzero(np.isclose(numbers, candidate, rtol=1e-6))
        if len(found):
            return int(found[0])
    near = sorted(values.tolist(), key=lambda v: abs(float(v) - wanted * factor))[:3]
    raise VariableError(
        f"{path}: {source.name} has no level {source.level} on {dim} ({len(values)} levels); "
        f"the nearest are {', '.join(f'{v:g}' for v in near)}"
    )


def _join(parts: list[Series]) -> Series:
    """Parts that follow each other, as one along time."""
    parts = sorted(parts, key=lambda p: time_axis.seconds(p.time.values)[0])
    first = parts[0]
    if len(parts) == 1:
        return first
    _check_grids(parts)
    times = np.concatenate([p.time.values for p in parts])
    frames = end_to_end([(partial(read_frames, p), p.sizes["time"]) for p in parts])
    channels, height, width = first.shape[1:]
    joined = make_series(
        LazyFrames((len(times), channels, height, width), np.float32, frames),
        times,
        first.attrs["variables"],
        {str(n): (c.dims, c.values, c.attrs) for n, c in first.coords.items() if n not in ("time", "channel")},
        kind=first.attrs["kind"],
        files=[f for p in parts for f in p.attrs["files"]],
        file_attrs=first.attrs["file_attrs"],
    )
    return _on_the_grid_of(first, joined)


def _on_the_grid_of(first: Series, made: Series) -> Series:
    """What a series brings beside its coordinates, for one that was made of it."""
    return made.assign_attrs({k: first.attrs[k] for k in ("grid_mapping", "bounds", "may_lack") if k in first.attrs})


def _check_grids(parts: list[Series]) -> None:
    first = parts[0]
    for part in parts[1:]:
        same = all(
            np.array_equal(part.coords[c].values, first.coords[c].values)
            for c in first.coords
            if c in part.coords and first.coords[c].dims in (("y",), ("x",))
        )
        if part.shape[2:] != first.shape[2:] or not same:
            raise GridError(f"{part.attrs['files'][0]} is on another grid than {first.attrs['files'][0]}")


def _stack(parts: list[Series], channels: list[str]) -> Series:
    """Parts of the same times as channels of one.

    Raises:
        GridError, TimeError: they are on different grids or at different times.
    """
    _check_grids(parts)
    for part in parts[1:]:
        _check_times(parts[0], part)
    found = [name for p in parts for name in names(p)]
    order = [found.index(name) for name in channels]

    def frames(start: int, stop: int) -> np.ndarray:
        return np.concatenate([read_frames(p, start, stop) for p in parts], axis=1)[:, order]

    first = parts[0]
    height, width = first.shape[2:]
    attributes = {name: attrs for p in parts for name, attrs in p.attrs["variables"].items()}
    stacked = make_series(
        LazyFrames((first.shape[0], len(channels), height, width), np.float32, frames),
        first.time.values,
        {name: attributes[name] for name in channels},
        {str(n): (c.dims, c.values, c.attrs) for n, c in first.coords.items() if n not in ("time", "channel")},
        kind=first.attrs["kind"],
        files=list(dict.fromkeys(f for p in parts for f in p.attrs["files"])),
        file_attrs=first.attrs["file_attrs"],
    )
    return _on_the_grid_of(first, stacked)


def _check_times(one: Series, other: Series) -> None:
    mine, theirs = time_axis.seconds(one.time.values), time_axis.seconds(other.time.values)
    if np.array_equal(mine, theirs):
        return
    for here, there, ticks, absent in ((one, other, mine, theirs), (other, one, theirs, mine)):
        lacking = np.flatnonzero(~np.isin(ticks, absent))
        if len(lacking):
            raise TimeError(
                f"{', '.join(names(here))} has {len(ticks)} times and {', '.join(names(there))} {len(absent)}; "
                f"{len(lacking)} of the former lack in the latter, first {time_axis.label(here.time.values[lacking[0]])}. "
                "Give files of the same times for all variables"
            )
    raise TimeError(f"{', '.join(names(other))}: its times are those of {', '.join(names(one))} in another order")
