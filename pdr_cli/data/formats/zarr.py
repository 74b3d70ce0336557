"""Zarr: gridded fields in, CF-1.11 forecasts out."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pdr_cli.data.formats import cf
from pdr_cli.data.formats.cf import Layout
from pdr_cli.data.formats.conventions import decoded
from pdr_cli.data.formats.gridded import GriddedFormat, Put, Stored
from pdr_cli.errors import DataError
from pdr_cli.system.damage import first_line

SUFFIX = ".zarr"
PICKLE = "pickle"  # part of the names of codecs
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

    def undecoded(self, path: Path) -> xr.Dataset:
        """See `GriddedFormat.undecoded`."""
        refuse_code(path, path)
        return super().undecoded(path)

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

    def discard(self, path: Path, layout: Layout, start: int) -> None:
        """Remove the chunks that begin at an index of the first dimension; they may be damaged."""
        for name in layout.fields:
            shutil.rmtree(path / name / "c" / str(start // layout.chunks[0]), ignore_errors=True)

    @contextmanager
    def reading_back(self, path: Path, layout: Layout) -> Iterator[Stored]:
        """See `GriddedFormat.reading_back`."""
        group = _open(path, "r")
        yield lambda start, stop: np.stack([cf.unfilled(group[n][start:stop]) for n in layout.fields], axis=-3)

    def note(self, path: Path, attrs: Mapping[str, str]) -> None:
        """See `GriddedFormat.note`."""
        _open(path, "r+").attrs.update(attrs)
        _consolidate(path)


def open_store(store: Any, path: Path, group: str = "", consolidated: bool | None = False) -> xr.Dataset:
    """A group of a store as it is, times decoded, no field read yet.

    Args:
        store: folder, or a store of zarr.
        path: of the store, for messages.
        group: path of the group; "": the root.
        consolidated: whether metadata are read from their consolidated copy, which may be older than the arrays' own;
            None: if it exists.

    Raises:
        DataError, TimeError: as `GriddedFormat.open_dataset`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inside = "/".join(filter(None, group.split("/")))
            refuse_code(store, path, inside, consolidated)
            options: Any = {"chunks": None, "consolidated": consolidated, "decode_cf": False}
            stored = xr.open_zarr(store, group=inside or None, **options)
            return decoded(_zeros_as_values(stored, store, inside, consolidated))
    except (ValueError, KeyError, OSError, TypeError, RuntimeError) as error:
        raise _unreadable(path, error) from error


def groups_of(store: Any, root: str = "") -> list[str]:
    """Paths of all groups in a group of a store, from that group on."""
    import zarr

    every = zarr.open_group(store, path=root or None, mode="r").members(max_depth=None)
    return sorted(f"/{name}" for name, member in every if isinstance(member, zarr.Group))


def refuse_code(store: Any, path: Path, group: str = "", consolidated: bool | None = None) -> None:
    """Refuse arrays behind a codec that runs what a chunk says. Not every version of numcodecs does so itself.

    Raises:
        DataError: an array of pickles.
    """
    import zarr

    for name, array in zarr.open_group(store, mode="r", path=group or None, use_consolidated=consolidated).arrays():
        about: Mapping[str, Any] = array.metadata.to_dict()
        codecs: list[Any] = [*(about.get("filters") or ()), about.get("compressor"), *(about.get("codecs") or ())]
        if any(PICKLE in str(codec.get("id", codec.get("name"))) for codec in codecs if codec):
            found = f"{path}: {name} is stored as pickles, which run code when they are read"
            raise DataError(found, way_out="have it written again as numbers or text, with another codec")


def _zeros_as_values(stored: xr.Dataset, store: Any, group: str, consolidated: bool | None) -> xr.Dataset:
    """An undecoded store in which a fill value of 0 masks nothing, unless an attribute or a packing says so.

    0 is the fill value that Zarr takes by default, and xarray reads the fill value of format 2 as missing.
    """
    import zarr

    arrays = zarr.open_group(store, mode="r", path=group or None, use_consolidated=consolidated)
    for name, variable in stored.variables.items():
        array = arrays[str(name)]
        packed = "scale_factor" in array.attrs or "add_offset" in array.attrs
        if not packed and "_FillValue" not in array.attrs and variable.attrs.get("_FillValue") == 0:
            del variable.attrs["_FillValue"]
    return stored


def is_store(path: Path) -> bool:
    """True for a folder that is a Zarr group."""
    return path.is_dir() and any((path / mark).is_file() for mark in MARKS)


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is damaged, incomplete, or not a Zarr store of fields: {first_line(error)}")


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
