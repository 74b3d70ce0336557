"""What an output says about itself, in whichever format it was written: its provenance, and its numbers for a hash."""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pdr_cli.data import formats
from pdr_cli.data.formats import cf
from pdr_cli.errors import DataError
from pdr_cli.system import damage

if TYPE_CHECKING:
    import xarray as xr

PREFIX = "pdr_"
BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Field:
    """One variable of an output, [time, y, x] or with more dimensions before these; missing values are NaN.

    Args:
        shape: of all of it.
        read: what stands in [start, stop) of the first dimension.
    """

    shape: tuple[int, ...]
    read: Callable[[int, int], np.ndarray]

    def blocks(self) -> Iterator[np.ndarray]:
        """All of it in turn, of which little is in memory at once."""
        length = max(1, BLOCK_BYTES // (4 * int(np.prod(self.shape[1:], dtype=np.int64)) or 1))
        for start in range(0, self.shape[0], length):
            yield self.read(start, min(start + length, self.shape[0]))


def data_sha256(fields: Iterable[Iterable[np.ndarray]]) -> str:
    """SHA-256 of the hashes of fields as float32, in order of these: the same in any format and order of variables.

    Each field comes in blocks along its first dimension; how it is divided does not matter.
    """
    found = []
    for blocks in fields:
        digest = hashlib.sha256()
        for block in blocks:
            digest.update(_plain(block).tobytes())
        found.append(digest.hexdigest())
    return hashlib.sha256("".join(sorted(found)).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """`data_sha256` of the fields that an output holds."""
    with fields(path) as found:
        return data_sha256(f.blocks() for f in found.values())


def coordinates_sha256(path: Path) -> str:
    """`cf.coordinates_sha256` of all that is no field in a NetCDF file or Zarr store.

    Raises:
        DataError: damaged.
    """
    with damage.reading(path), _open(path) as dataset:
        told = _fields_of(dataset)
        return cf.coordinates_sha256({str(n): v.values for n, v in dataset.variables.items() if n not in told})


def provenance(path: Path) -> dict[str, str]:
    """The `pdr_` attributes of an output; none, where the file holds no such or cannot be read."""
    try:
        every = _BY_FORMAT[formats.detect(path)][0](path)
    except (*damage.FAILURES, DataError):
        return {}
    return {str(k): str(v) for k, v in every.items() if str(k).startswith(PREFIX)}


@contextlib.contextmanager
def fields(path: Path) -> Iterator[dict[str, Field]]:
    """The fields of an output by name, which can be read inside of the block.

    Raises:
        DataError: damaged, there too, or a format whose numbers are not those that were written, such as video.
    """
    kind = formats.detect(path)
    if kind not in _BY_FORMAT or kind == "video":
        raise DataError(f"{path} is {kind}, which does not hold the numbers of a forecast as they were")
    with damage.reading(path), _BY_FORMAT[kind][1](path) as found:
        yield found


def _plain(field: np.ndarray) -> np.ndarray:
    field = np.ascontiguousarray(field, np.float32)
    return np.where(np.isnan(field), np.float32(np.nan), field)  # of all the NaN there are, one


def _open(path: Path) -> xr.Dataset:
    import xarray as xr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of stores whose metadata do not stand together
        return xr.open_dataset(path, decode_times=False, engine="zarr" if path.is_dir() else "netcdf4", cache=False)


def _netcdf_attributes(path: Path) -> dict[str, str]:
    with _open(path) as dataset:
        return dict(dataset.attrs)


@contextlib.contextmanager
def _netcdf_fields(path: Path) -> Iterator[dict[str, Field]]:
    with _open(path) as dataset:
        every = _fields_of(dataset)
        yield {n: Field(v.shape, lambda a, b, v=v: v[a:b].values) for n, v in every.items()}  # type: ignore[misc]


def _fields_of(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    return {str(n): v for n, v in dataset.data_vars.items() if v.ndim >= 3 and v.dtype.kind == "f"}


def _hdf5_attributes(path: Path) -> dict[str, str]:
    import h5py

    with h5py.File(path) as handle:
        return {name: _text(handle.attrs[name]) for name in handle.attrs if name.startswith(PREFIX)}


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


@contextlib.contextmanager
def _hdf5_fields(path: Path) -> Iterator[dict[str, Field]]:
    import h5py

    with h5py.File(path) as handle:
        names, data = [_text(n) for n in handle.attrs.get("channels", [])], handle["data"]
        shape = (data.shape[0], *data.shape[2:])
        yield {n: Field(shape, lambda a, b, i=i: data[a:b, i]) for i, n in enumerate(names)}  # type: ignore[misc]


def _npz_attributes(path: Path) -> dict[str, str]:
    with np.load(path) as arrays:
        return {name: str(arrays[name]) for name in arrays.files if name.startswith(PREFIX)}


@contextlib.contextmanager
def _npz_fields(path: Path) -> Iterator[dict[str, Field]]:
    with np.load(path) as arrays:
        every = arrays["data"].swapaxes(0, 1)
    yield {f"channel {i}": Field(v.shape, lambda a, b, v=v: v[a:b]) for i, v in enumerate(every)}  # type: ignore[misc]


def _video_attributes(path: Path) -> dict[str, str]:
    from pdr_cli.data.formats import video

    return dict(json.loads(video.description(path) or "{}"))


_Readers = tuple[
    Callable[[Path], dict[str, str]], Callable[[Path], contextlib.AbstractContextManager[dict[str, Field]]]
]
_BY_FORMAT: dict[str, _Readers] = {
    "netcdf": (_netcdf_attributes, _netcdf_fields),
    "zarr": (_netcdf_attributes, _netcdf_fields),
    "hdf5": (_hdf5_attributes, _hdf5_fields),
    "npz": (_npz_attributes, _npz_fields),
    "video": (_video_attributes, lambda path: contextlib.nullcontext({})),
}
