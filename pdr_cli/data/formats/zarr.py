"""Zarr: gridded fields in, CF-1.11 forecasts out; what the axes mean is found as in NetCDF."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pdr_cli.data.formats import cf, netcdf
from pdr_cli.data.formats.cf import Layout
from pdr_cli.data.series import Series
from pdr_cli.errors import DataError, TimeError
from pdr_cli.system.damage import first_line

SUFFIX = ".zarr"
MARKS = ("zarr.json", ".zgroup")  # of a group in Zarr format 3 and 2


def is_store(path: Path) -> bool:
    """True for a folder that is a Zarr group."""
    return path.is_dir() and any((path / mark).is_file() for mark in MARKS)


def read(paths: Sequence[Path], variables: Sequence[str] = (), rename: Mapping[str, str] | None = None) -> Series:
    """Open one or more stores as one Series, lazily; see `netcdf.read`, which this is but for the store."""
    return netcdf.from_datasets([(open_dataset(p), p) for p in paths], variables, rename)


def open_dataset(path: Path) -> xr.Dataset:
    """A store as it is, times decoded, nothing read yet.

    Raises:
        DataError: damaged, or not a group of arrays with named dimensions.
        TimeError: a time axis that cannot be decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return xr.open_zarr(path, chunks=None, decode_timedelta=False)
    except (ValueError, KeyError, OSError, TypeError, RuntimeError) as error:
        what = first_line(error)
        if any(word in str(error) for word in ("decode", "calendar", "time units")):
            raise TimeError(f"{path}: the time axis cannot be decoded: {what}") from error
        raise DataError(f"{path} is damaged, incomplete, or no Zarr store of fields: {what}") from error


def write(path: Path, layout: Layout, frames: np.ndarray, compress: int) -> None:
    """Write a store with all that it is to hold: frames [n, ..., C, H, W]; see `create`."""
    create(path, layout, compress)
    with writing(path, layout) as put:
        put(0, frames)


def create(path: Path, layout: Layout, compress: int) -> None:
    """Lay out a store of format 3: everything but the numbers of its fields, which are missing until written.

    Args:
        path: folder to create; the caller makes it atomic.
        layout: what it is to hold.
        compress: level from 1 to 9 of Zstandard behind a byte shuffle; 0 for speed. Every chunk has a checksum (CRC-32C).
    """
    import zarr

    group = zarr.create_group(path, overwrite=True, zarr_format=3, attributes=_plain(layout.attrs))
    for coordinate in layout.coordinates:
        values = coordinate.values
        array = group.create_array(
            coordinate.name, shape=values.shape, dtype=values.dtype, chunks=values.shape or "auto",
            dimension_names=coordinate.dims, attributes=_plain(coordinate.attrs),
            # A chunk that holds nothing but the fill value is left out, so zeros need none of their own.
            fill_value=0,
        )  # fmt: skip
        array[...] = values
    for name, attrs in layout.fields.items():
        group.create_array(
            name, shape=layout.shape, dtype="f4", chunks=layout.chunks, dimension_names=layout.dims,
            compressors=_codecs(compress), fill_value=cf.FILL, attributes=_plain(attrs) | _fill_attribute(),
        )  # fmt: skip
    _consolidate(path)


def note(path: Path, attrs: Mapping[str, str]) -> None:
    """Add global attributes to a store that is otherwise finished."""
    _open(path, "r+").attrs.update(attrs)
    _consolidate(path)


def _consolidate(path: Path) -> None:
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that format 3 does not specify where all metadata stand together
        zarr.consolidate_metadata(path)


@contextmanager
def writing(path: Path, layout: Layout) -> Iterator[Callable[[int, np.ndarray], None]]:
    """A function that writes frames [n, ..., C, H, W] from a place of the first dimension on, in a store laid out before.

    Processes may write at once if none writes to a chunk of another.
    """
    group = _open(path, "r+")

    def put(start: int, frames: np.ndarray) -> None:
        for index, name in enumerate(layout.fields):
            group[name][start : start + len(frames)] = cf.filled(frames[..., index, :, :])

    yield put


@contextmanager
def reading_back(path: Path, layout: Layout) -> Iterator[Callable[[int, int], np.ndarray]]:
    """A function that reads what was written in [start, stop) of the first dimension: [n, ..., C, H, W]."""
    group = _open(path, "r")
    yield lambda start, stop: np.stack([cf.unfilled(group[n][start:stop]) for n in layout.fields], axis=-3)


def _open(path: Path, mode: Any) -> Any:
    import zarr

    return zarr.open_group(path, mode=mode, use_consolidated=False)


def _codecs(compress: int) -> list[Any]:
    from zarr.codecs import BloscCodec, Crc32cCodec

    packed = [BloscCodec(cname="zstd", clevel=compress, shuffle="shuffle", typesize=4)] if compress else []
    return [*packed, Crc32cCodec()]


def _fill_attribute() -> dict[str, str]:
    """How xarray is told that the fill value of a format 3 array means a missing value."""
    from xarray.backends.zarr import FillValueCoder

    return {"_FillValue": FillValueCoder.encode(float(cf.FILL), np.dtype("f4"))}


def _plain(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as JSON has them."""
    return {k: v.tolist() if isinstance(v, (np.ndarray, np.generic)) else v for k, v in attrs.items()}
