"""What an output says about itself, in whichever format it was written: its provenance, and its numbers for a hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from pdr_cli.data import formats
from pdr_cli.errors import DataError

PREFIX = "pdr_"


def data_sha256(fields: Iterable[np.ndarray]) -> str:
    """SHA-256 of the hashes of fields as float32, in order of these: the same in any format and order of variables."""
    found = sorted(hashlib.sha256(_plain(f).tobytes()).hexdigest() for f in fields)
    return hashlib.sha256("".join(found).encode()).hexdigest()


def provenance(path: Path) -> dict[str, str]:
    """The `pdr_` attributes of an output; none, where the file holds no such or cannot be read."""
    try:
        every = _BY_FORMAT[formats.detect(path)][0](path)
    except (OSError, ValueError, KeyError, DataError):
        return {}
    return {str(k): str(v) for k, v in every.items() if str(k).startswith(PREFIX)}


def fields(path: Path) -> dict[str, np.ndarray]:
    """The fields of an output, each [time, y, x] or with more dimensions before these; missing values are NaN.

    Raises:
        DataError: damaged, or a format whose numbers are not those that were written, such as video.
    """
    kind = formats.detect(path)
    if kind not in _BY_FORMAT or kind == "video":
        raise DataError(f"{path} is {kind}, which does not hold the numbers of a forecast as they were")
    try:
        return _BY_FORMAT[kind][1](path)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise DataError(f"{path} ({path.stat().st_size} bytes) is damaged: {error}") from error


def _plain(field: np.ndarray) -> np.ndarray:
    field = np.ascontiguousarray(field, np.float32)
    return np.where(np.isnan(field), np.float32(np.nan), field)  # of all the NaN there are, one


def _netcdf_attributes(path: Path) -> dict[str, str]:
    import xarray as xr

    with xr.open_dataset(path, decode_times=False, engine="zarr" if path.is_dir() else "netcdf4") as dataset:
        return dict(dataset.attrs)


def _netcdf_fields(path: Path) -> dict[str, np.ndarray]:
    import xarray as xr

    with xr.open_dataset(path, decode_times=False, engine="zarr" if path.is_dir() else "netcdf4") as dataset:
        return {str(n): v.values for n, v in dataset.data_vars.items() if v.ndim >= 3 and v.dtype.kind == "f"}


def _hdf5_attributes(path: Path) -> dict[str, str]:
    import h5py

    with h5py.File(path) as handle:
        return dict(handle.attrs)


def _hdf5_fields(path: Path) -> dict[str, np.ndarray]:
    import h5py

    with h5py.File(path) as handle:
        names = [str(n) for n in handle.attrs.get("channels", [])]
        return {n: handle["data"][:, i] for i, n in enumerate(names)}


def _npz_attributes(path: Path) -> dict[str, str]:
    with np.load(path) as arrays:
        return {name: str(arrays[name]) for name in arrays.files if name.startswith(PREFIX)}


def _npz_fields(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        data = arrays["data"]
    return {f"channel {i}": data[:, i] for i in range(data.shape[1])}


def _video_attributes(path: Path) -> dict[str, str]:
    from pdr_cli.data import video

    return dict(json.loads(video.description(path) or "{}"))


_Readers = tuple[Callable[[Path], dict[str, str]], Callable[[Path], dict[str, np.ndarray]]]
_BY_FORMAT: dict[str, _Readers] = {
    "netcdf": (_netcdf_attributes, _netcdf_fields),
    "zarr": (_netcdf_attributes, _netcdf_fields),
    "hdf5": (_hdf5_attributes, _hdf5_fields),
    "npz": (_npz_attributes, _npz_fields),
    "video": (_video_attributes, lambda path: {}),
}
