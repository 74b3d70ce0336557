"""NetCDF: gridded fields in, CF-1.11 forecasts out."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pdr_cli.data.formats import cf, filters, hdf5, heaps, scenefile
from pdr_cli.data.formats.base import beginning
from pdr_cli.data.formats.cf import Layout
from pdr_cli.data.formats.conventions import decoded
from pdr_cli.data.formats.gridded import GriddedFormat, Put, Stored
from pdr_cli.errors import DataError
from pdr_cli.system import damage
from pdr_cli.system.scratch import plainly_named

MEMORY = Path("/dev/shm")  # Linux's file system in memory
SPARE = 2**24  # bytes that a file needs there besides its numbers, and others do
LONGEST_CHUNK = 4096  # values of a coordinate


class NetCDF(GriddedFormat):
    """NetCDF 3 and 4."""

    name, title = "netcdf", "NetCDF"
    suffixes = outputs = (".nc", ".nc4", ".cdf")
    engine = "netcdf4"

    def matches(self, path: Path) -> bool:
        """NetCDF 3, or HDF5 with the marks of NetCDF 4 and neither traffic grids nor scenes."""
        head = beginning(path)
        if head[:3] == b"CDF":
            return True
        if head[:8] != hdf5.SIGNATURE:
            return False
        heaps.check(path)
        return _is_netcdf4(path)

    def open_dataset(self, path: Path, group: str = "") -> xr.Dataset:
        """See `GriddedFormat.open_dataset`."""
        size = path.stat().st_size
        if size == 0:
            raise DataError(f"{path} is empty (0 bytes)", way_out="wait until it is written, or get it again")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if needs := filters.needed(path, group):
                    return filters.open_dataset(path, needs, group)
                return decoded(
                    _filled_by_default(
                        xr.open_dataset(plainly_named(path), engine="netcdf4", decode_cf=False, group=group or None)
                    )
                )
        except ValueError as error:
            raise DataError(f"{path} cannot be read as NetCDF: {damage.first_line(error)}") from error
        except OSError as error:
            what = damage.first_line(error)
            raise DataError(f"{path} ({size} bytes) is damaged, truncated or still being written: {what}") from error

    def undecoded(self, path: Path) -> xr.Dataset:
        """See `GriddedFormat.undecoded`."""
        return super().undecoded(plainly_named(path))

    def groups(self, path: Path) -> list[str]:
        """See `GriddedFormat.groups`."""
        import netCDF4

        with netCDF4.Dataset(plainly_named(path)) as file:
            return list(_groups(file))

    def fill(self, path: Path, layout: Layout, frames: np.ndarray, compress: int) -> None:
        """Create a file with all its numbers.

        It is made in memory and copied from there, because the C library may die of a disk that fails or is full. (Its
        own files in memory lose the order of variables and attributes.) Where memory has no room, it is made in place.
        """
        if not _room_in_memory(2 * layout.nbytes):
            super().fill(path, layout, frames, compress)
            return
        import netCDF4

        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            made = Path(folder, "made.nc")
            out = netCDF4.Dataset(made, "w", format="NETCDF4")
            content = made.open("rb")
        # From here on the file has no name, so that a killed process leaves nothing in memory.
        with content:
            with out:
                _lay_out(out, layout, compress)
                _put(out, layout, 0, frames)
            with path.open("wb") as target:
                shutil.copyfileobj(content, target, 2**20)

    def create(self, path: Path, layout: Layout, compress: int) -> None:
        """Lay out a NetCDF-4 file.

        Args:
            path: file to create; the caller makes it atomic.
            layout: content of the file.
            compress: level of zlib from 1 to 9 behind a byte shuffle; 0: a checksum (Fletcher-32) instead, for speed.
        """
        import netCDF4

        with netCDF4.Dataset(plainly_named(path), "w", format="NETCDF4") as out:
            _lay_out(out, layout, compress)

    @contextmanager
    def writing(self, path: Path, layout: Layout) -> Iterator[Put]:
        """See `GriddedFormat.writing`."""
        import netCDF4

        with netCDF4.Dataset(plainly_named(path), "a") as out:
            yield lambda start, frames: _put(out, layout, start, frames)

    @contextmanager
    def reading_back(self, path: Path, layout: Layout) -> Iterator[Stored]:
        """See `GriddedFormat.reading_back`."""
        import netCDF4

        with netCDF4.Dataset(plainly_named(path)) as back:
            back.set_auto_maskandscale(False)
            yield lambda start, stop: np.stack([cf.unfilled(back[n][start:stop]) for n in layout.fields], axis=-3)

    def note(self, path: Path, attrs: Mapping[str, str]) -> None:
        """See `GriddedFormat.note`."""
        import netCDF4

        with netCDF4.Dataset(plainly_named(path), "a") as out:
            out.setncatts(attrs)


def _filled_by_default(stored: xr.Dataset) -> xr.Dataset:
    """An undecoded file in which packed numbers that were never written are missing.

    The library fills them with a value of its own, which unpacks to a plausible number.
    """
    import netCDF4

    for variable in stored.variables.values():
        named = {"_FillValue", "missing_value"} & set(variable.attrs)
        packed = {"scale_factor", "add_offset"} & set(variable.attrs)
        if packed and not named and variable.dtype.kind in "iu" and variable.dtype.itemsize > 1:
            variable.attrs["_FillValue"] = variable.dtype.type(netCDF4.default_fillvals[variable.dtype.str[1:]])
    return stored


def _is_netcdf4(path: Path) -> bool:
    """Whether an HDF5 file has its library's mark or dimension scales; by its suffix where it cannot be opened."""
    import h5py

    try:
        with h5py.File(path) as handle:
            if hdf5.is_traffic(handle) or scenefile.is_scenes(handle):
                return False
            if "_NCProperties" in handle.attrs:
                return True
            return handle.visititems(lambda _, item: item.attrs.get("CLASS") == b"DIMENSION_SCALE" or None) is not None
    except damage.FAILURES:
        return path.suffix.lower() in NetCDF.suffixes


def _groups(group: Any) -> Iterator[str]:
    """Paths of the groups in a group, at any depth."""
    for inside in group.groups.values():
        yield inside.path
        yield from _groups(inside)


def _room_in_memory(need: int) -> bool:
    if not os.access(MEMORY, os.W_OK):
        return False
    status = os.statvfs(MEMORY)
    return status.f_bavail * status.f_frsize > need + SPARE


def _lay_out(out: Any, layout: Layout, compress: int) -> None:
    how = {"zlib": True, "complevel": compress, "shuffle": True} if compress else {"fletcher32": True}
    out.setncatts(layout.attrs)
    for name, size in layout.sizes.items():
        out.createDimension(name, None if name == layout.unlimited else size)
    for coordinate in layout.coordinates:
        values = coordinate.values
        # Along an unlimited dimension the library's own chunks hold one value each.
        chunks = (min(values.shape[0], LONGEST_CHUNK), *values.shape[1:]) if values.ndim else None
        # Numbers read from NetCDF 3 are big-endian.
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
