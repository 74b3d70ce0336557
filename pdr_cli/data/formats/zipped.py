"""Zarr stores in a ZIP archive, read where they are."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import xarray as xr

from pdr_cli.data.formats import zarr
from pdr_cli.data.formats.base import beginning
from pdr_cli.data.formats.gridded import GriddedFormat


class ZippedZarr(GriddedFormat):
    """A ZIP archive of a Zarr group, at its top or in its only folder."""

    name, title = "zarr-zip", "a zipped Zarr store"
    second = (".zarr.zip",)

    def matches(self, path: Path) -> bool:
        """An archive with the metadata of a group."""
        return beginning(path)[:4] == b"PK\x03\x04" and _root(path) is not None

    def open_dataset(self, path: Path, group: str = "") -> xr.Dataset:
        """See `GriddedFormat.open_dataset`."""
        return zarr.open_store(_store(path), path, f"{_root(path)}/{group}", consolidated=False)

    def groups(self, path: Path) -> list[str]:
        """See `GriddedFormat.groups`."""
        return zarr.groups_of(_store(path), _root(path) or "")

    def undecoded(self, path: Path) -> xr.Dataset:
        """See `GriddedFormat.undecoded`."""
        store, root = _store(path), _root(path) or ""
        zarr.refuse_code(store, path, root, consolidated=False)
        return xr.open_zarr(store, group=root or None, consolidated=False, chunks=None, decode_times=False)


def _store(path: Path) -> Any:
    from zarr.storage import ZipStore

    return ZipStore(path, mode="r")


def _root(path: Path) -> str | None:
    """Path of the outermost group in an archive; None if it holds no group."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    found = [n.rpartition("/")[0] for n in names if n.rpartition("/")[2] in zarr.MARKS]
    return min((root for root in found if root.count("/") == 0), key=len, default=None)
