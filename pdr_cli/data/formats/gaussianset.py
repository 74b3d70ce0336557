"""NetCDF files of Gaussians, of a forecast or of a scene: one storage for both, with a hash of the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from pdr_cli.data.formats import damage, registry, stored
from pdr_cli.data.formats.netcdf import NetCDF
from pdr_cli.data.formats.stored import HASH
from pdr_cli.errors import DataError, StorageError
from pdr_cli.system.atomic import atomic_output

GAUSSIAN = "gaussian"  # the dimension of the set
RENDERING = "rendering"  # the attribute that says how the set is drawn


def is_set(path: Path) -> bool:
    """Whether a path is a NetCDF file of Gaussians."""
    try:
        form = registry.of(path) if path.is_file() else None
        if not isinstance(form, NetCDF):
            return False
        with form.undecoded(path) as dataset:
            return GAUSSIAN in dataset.dims and RENDERING in dataset.attrs
    except (*damage.FAILURES, DataError):
        return False


def read(path: Path) -> xr.Dataset:
    """All numbers of a file of Gaussians, times not decoded.

    Raises:
        DataError: damaged.
    """
    with damage.reading(path), NetCDF().undecoded(path) as dataset:
        return dataset.load()


def write(dataset: xr.Dataset, path: Path, attributes: Mapping[str, str]) -> int:
    """Write a set with global attributes and the hash of its numbers; returns the number of Gaussians.

    Raises:
        StorageError: the file system refused, a number is not finite, or the numbers read back differ from those written.
    """
    dataset = dataset.assign_attrs({k: v for k, v in attributes.items() if v} | {HASH: sha256(dataset)})
    encoding = {str(n): {"_FillValue": None, "zlib": n in dataset.data_vars} for n in dataset.variables}
    with atomic_output(path, verify=lambda written: _compare(written, dataset, path)) as temporary:
        dataset.to_netcdf(temporary, engine="netcdf4", encoding=encoding)
    return dataset.sizes[GAUSSIAN]


def sha256(dataset: xr.Dataset) -> str:
    """The hash of all numbers of a set, its places and times too."""
    return stored.data_sha256([v.values] for v in dataset.variables.values())


def _compare(written: Path, dataset: xr.Dataset, path: Path) -> None:
    with xr.open_dataset(written, engine="netcdf4", decode_times=False) as back:
        for name, variable in dataset.variables.items():
            found = back[name].values
            if not np.isfinite(found).all():
                raise StorageError(f"{path}: {name} is not finite", way_out="no file was written")
            if not np.array_equal(found, variable.values):
                raise StorageError(f"{path}: {name} reads back differently from what was written")
