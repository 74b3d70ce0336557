"""HDF5 filters that the NetCDF library lacks: variables behind them are read through h5py, or the filter is named."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from pdr_cli.data.formats.base import beginning
from pdr_cli.data.formats.conventions import decoded
from pdr_cli.errors import DataError
from pdr_cli.system import damage
from pdr_cli.system.logs import log
from pdr_cli.system.scratch import plainly_named

SIGNATURE = b"\x89HDF\r\n\x1a\n"  # of an HDF5 file
EVERY_LIBRARY = range(1, 7)  # deflate, shuffle, fletcher32, szip, nbit, scaleoffset
# Names of registered filters; a file may hold a sentence in place of the name.
NAMES = {307: "bzip2", 32000: "lzf", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp", 32015: "zstd",
         32017: "sz", 32018: "fcidecomp", 32023: "granular bitround", 32024: "sz3", 32026: "blosc2", 32032: "sperr"}  # fmt: skip

Filters = dict[int, str]  # name by number


class _Stored(BackendArray):
    """A variable of an HDF5 file, read through h5py as it is stored."""

    def __init__(self, path: Path, name: str, variable: xr.Variable, lacking: Filters) -> None:
        self.path, self.name, self.lacking = path, name, lacking
        self.shape, self.dtype = variable.shape, variable.dtype

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        import h5py

        if self.lacking:
            raise _not_installed(self.path, self.name, self.lacking)
        with h5py.File(self.path) as file:
            return np.asarray(file[self.name][key])


def needed(path: Path, group: str = "") -> dict[str, Filters]:
    """The filters that not every HDF5 library has, of each variable of a group that needs some; none of other files."""
    import h5py

    if beginning(path)[:8] != SIGNATURE:
        return {}
    with contextlib.suppress(*damage.FAILURES), h5py.File(path) as file:
        found = {n: _filters(d) for n, d in file[group or "/"].items() if isinstance(d, h5py.Dataset)}
        return {name: filters for name, filters in found.items() if filters}
    return {}  # damaged; the NetCDF library says how


def open_dataset(path: Path, needs: dict[str, Filters], group: str = "") -> xr.Dataset:
    """Open a NetCDF file, or one of its groups, so that variables behind further filters can be read.

    Args:
        path: of the file.
        needs: from `needed`; variables whose filters the NetCDF library lacks are read through h5py. Where h5py lacks
            one too, reading the variable raises a DataError that names the filter.
        group: path of the group.
    """
    dataset = xr.open_dataset(plainly_named(path), engine="netcdf4", decode_cf=False, group=group or None)
    for name, filters in needs.items():
        if name not in dataset or _reads(dataset[name]):
            continue
        lacking = _lacking(filters)
        if not lacking:
            log.info("filters  %s needs %s, which NetCDF lacks; it is read through h5py", name, _listed(filters))
        variable = dataset[name].variable
        data = indexing.LazilyIndexedArray(_Stored(path, f"{group}/{name}".strip("/"), variable, lacking))
        dataset[name] = xr.Variable(variable.dims, data, variable.attrs, variable.encoding)
    return decoded(dataset)


def _filters(dataset: Any) -> Filters:
    made = dataset.id.get_create_plist()
    every = (made.get_filter(i) for i in range(made.get_nfilters()))
    return {n: NAMES.get(n, name.decode(errors="replace")) for n, _, _, name in every if n not in EVERY_LIBRARY}


def _reads(variable: xr.DataArray) -> bool:
    """Whether the library that opened a variable has its filters; it refuses any number of a variable otherwise."""
    if not variable.size:
        return True
    try:
        np.asarray(variable.isel(dict.fromkeys(variable.dims, 0)).values)
    except RuntimeError:
        return False
    return True


def _lacking(filters: Filters) -> Filters:
    """Those filters that h5py has neither itself nor from hdf5plugin."""
    import h5py

    with contextlib.suppress(ImportError):
        import hdf5plugin  # noqa: F401 - registers its filters with h5py
    return {number: name for number, name in filters.items() if not h5py.h5z.filter_avail(number)}


def _not_installed(path: Path, name: str, lacking: Filters) -> DataError:
    return DataError(
        f"{path}: {name} needs {_listed(lacking)}, which is not installed",
        way_out=f"install it with: pip install hdf5plugin, or convert the file where the filter is installed: "
        f"h5repack -f {name}:GZIP=4 {path} OUT",
    )


def _listed(filters: Filters) -> str:
    return " and ".join(f"HDF5 filter {number} ({name})" for number, name in filters.items())
