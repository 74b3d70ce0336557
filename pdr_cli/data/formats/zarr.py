"""Zarr: gridded fields in, CF-1.11 forecasts out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pdr_cli.data.formats import cf
from pdr_cli.data.formats.cf import Layout
from pdr_cli.data.formats.gridded import GriddedFormat, Put, Stored
from pdr_cli.errors import DataError, TimeError
from pdr_cli.system.damage import first_line

SUFFIX = ".zarr"
MARKS = ("zarr.json", ".zgroup")  # of a group in Zarr format 3 and 2


class Zarr(GriddedFormat):
    """Zarr groups of format 2 and 3; written in format 3."""

    name, title = "zarr", "Zarr"
    suffixes = outputs = (SUFFIX,)
    store = True
    engine = "zarr"

    def matches(self, path: Path) -> bool:
        """A folder that is a Zarr group."""
        return is_store(path)

    def open_dataset(self, path: Path, group: str = "") -> xr.Dataset:
        """See `GriddedFormat.open_dataset`."""
        return open_store(path, path, group)

    def groups(self, path: Path) -> list[str]:
        """See `GriddedFormat.groups`."""
        return groups_of(path)

    def create(self, path: Path, layout: Layout, compress: int) -> None:
        """Lay out a store of format 3.

        Args:
            path: folder to create; the caller makes it atomic.
            layout: content of the store.
            compress: level from 1 to 9 of Zstandard behind a byte shuffle; 0 for speed. Every chunk has a checksum
                (CRC-32C).
        """
        import zarr

        group = zarr.create_group(path, overwrite=True, zarr_format=3, attributes=_plain(layout.attrs))
        for coordinate in layout.coordinates:
            values = coordinate.values
            array = group.create_array(
                coordinate.name, shape=values.shape, dtype=values.dtype, chunks=values.shape or "auto",
                dimension_names=coordinate.dims, attributes=_plain(coordinate.attrs),
                # Chunks that hold nothing but the fill value are not written; a coordinate of zeros needs none.
                fill_value=0,
            )  # fmt: skip
            array[...] = values
        for name, attrs in layout.fields.items():
            group.create_array(
                name, shape=layout.shape, dtype="f4", chunks=layout.chunks, dimension_names=layout.dims,
                compressors=_codecs(compress), fill_value=cf.FILL, attributes=_plain(attrs) | _fill_attribute(),
            )  # fmt: skip
        _consolidate(path)

    @contextmanager
    def writing(self, path: Path, layout: Layout) -> Iterator[Put]:
        """See `GriddedFormat.writing`. Processes may write at once if no two of them write to one chunk."""
        group = _open(path, "r+")

        def put(start: int, frames: np.ndarray) -> None:
            for index, name in enumerate(layout.fields):
                group[name][start : start + len(frames)] = cf.filled(frames[..., index, :, :])

        yield put

    @contextmanager
    def reading_back(self, path: Path, layout: Layout) -> Iterator[Stored]:
        """See `GriddedFormat.reading_back`."""
        group = _open(path, "r")
        yield lambda start, stop: np.stack([cf.unfilled(group[n][start:stop]) for n in layout.fields], axis=-3)

    def note(self, path: Path, attrs: Mapping[str, str]) -> None:
        """See `GriddedFormat.note`."""
        _open(path, "r+").attrs.update(attrs)
        _consolidate(path)


def open_store(store: Any, path: Path, group: str = "", consolidated: bool | None = None) -> xr.Dataset:
    """A group of a store as it is, times decoded, no field read yet.

    Args:
        store: folder, or a store of zarr.
        path: of the store, for messages.
        group: path of the group; "": the root.
        consolidated: whether metadata are read from their consolidated copy; None: if it exists.

    Raises:
        DataError, TimeError: as `GriddedFormat.open_dataset`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inside = "/".join(filter(None, group.split("/"))) or None
            return xr.open_zarr(store, group=inside, consolidated=consolidated, chunks=None, decode_timedelta=False)
    except (ValueError, KeyError, OSError, TypeError, RuntimeError) as error:
        raise _unreadable(path, error) from error


def groups_of(store: Any, root: str = "") -> list[str]:
    """Paths of all groups in a group of a store, from that group on."""
    import zarr

    every = zarr.open_group(store, path=root or None, mode="r").members(max_depth=None)
    return sorted(f"/{name}" for name, member in every if isinstance(member, zarr.Group))


def is_store(path: Path) -> bool:
    """True for a folder that is a Zarr group."""
    return path.is_dir() and any((path / mark).is_file() for mark in MARKS)


def _unreadable(path: Path, error: Exception) -> DataError:
    what = first_line(error)
    if any(word in str(error) for word in ("decode", "calendar", "time units")):
        return TimeError(f"{path}: the time axis cannot be decoded: {what}")
    return DataError(f"{path} is damaged, incomplete, or not a Zarr store of fields: {what}")


def _consolidate(path: Path) -> None:
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # consolidated metadata are not part of the specification of format 3
        zarr.consolidate_metadata(path)


def _open(path: Path, mode: Any) -> Any:
    import zarr

    return zarr.open_group(path, mode=mode, use_consolidated=False)


def _codecs(compress: int) -> list[Any]:
    from zarr.codecs import BloscCodec, Crc32cCodec

    packed = [BloscCodec(cname="zstd", clevel=compress, shuffle="shuffle", typesize=4)] if compress else []
    return [*packed, Crc32cCodec()]


def _fill_attribute() -> dict[str, str]:
    """The attribute by which xarray reads the fill value of an array of format 3 as missing."""
    from xarray.backends.zarr import FillValueCoder

    return {"_FillValue": FillValueCoder.encode(float(cf.FILL), np.dtype("f4"))}


def _plain(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as JSON has them."""
    return {k: v.tolist() if isinstance(v, (np.ndarray, np.generic)) else v for k, v in attrs.items()}
