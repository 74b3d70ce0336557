"""URLs of Zarr stores, which are read where they are, and of files of fields, which are downloaded once.

Files are downloaded because training reads them many times, and because libraries read them in many small pieces.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import cast

import xarray as xr

from pdr_cli.data.formats import registry, zarr
from pdr_cli.data.formats.gridded import GriddedFormat
from pdr_cli.errors import DataError
from pdr_cli.system.logs import log
from pdr_cli.system.scratch import scratch
from pdr_cli.system.space import size_text
from pdr_cli.system.urls import RemotePath

MARKS = (*zarr.MARKS, ".zmetadata")
FILES = (".nc", ".nc4", ".cdf", ".h5", ".hdf5", ".grib", ".grib2", ".grb", ".grb2", ".gz", ".bz2", ".xz", ".zip")


class Remote(GriddedFormat):
    """Objects behind https://, http://, s3:// and gs://."""

    name, title = "remote", "a URL"

    def matches(self, path: Path) -> bool:
        """A URL; what lies there is found when it is opened."""
        return isinstance(path, RemotePath)

    def open_dataset(self, path: Path, group: str = "") -> xr.Dataset:
        """See `GriddedFormat.open_dataset`."""
        url = cast(RemotePath, path)
        if _is_store(url):
            return _store(url, group)
        with _downloaded(url) as (form, inside):
            return form.open_dataset(inside, group)

    def groups(self, path: Path) -> list[str]:
        """See `GriddedFormat.groups`."""
        from pdr_cli.data.formats import objects

        url = cast(RemotePath, path)
        if _is_store(url):
            return [] if url.url.startswith("http") else zarr.groups_of(objects.store(url))
        with _downloaded(url) as (form, inside):
            return form.groups(inside)

    def undecoded(self, path: Path) -> xr.Dataset:
        """See `GriddedFormat.undecoded`; times stay dates."""
        return self.open_dataset(path)


def _check_installed(path: Path) -> None:
    try:
        import obstore  # noqa: F401
    except ImportError as error:
        raise DataError(
            f"{path} is a URL, which is read with obstore, and that is not installed",
            way_out="pip install 'pdr-cli[remote]', or download it first",
        ) from error


@cache
def _is_store(path: RemotePath) -> bool:
    """Whether a URL is that of a Zarr group."""
    _check_installed(path)
    from pdr_cli.data.formats import objects

    if path.name.lower().endswith(FILES):
        return False
    return any(objects.content(path, mark) is not None for mark in MARKS)


def _store(path: RemotePath, group: str) -> xr.Dataset:
    """A group of a store. Its metadata are read from their consolidated copy over http, where nothing can be listed."""
    from pdr_cli.data.formats import objects

    over_http = path.url.startswith("http")
    try:
        return zarr.open_store(objects.store(path), path, group, consolidated=True if over_http else None)
    except DataError as error:
        if over_http and not _has_consolidated(path):
            raise DataError(
                f"{path} has no consolidated metadata, without which a Zarr store cannot be read over http",
                way_out="zarr.consolidate_metadata(STORE) makes them where the store is, or download it",
            ) from error
        raise


def _has_consolidated(path: RemotePath) -> bool:
    from pdr_cli.data.formats import objects

    found = objects.content(path, ".zmetadata") or objects.content(path, "zarr.json") or b""
    return b'"consolidated_metadata"' in found or b'"zarr_consolidated_format"' in found


@contextlib.contextmanager
def _downloaded(path: RemotePath) -> Iterator[tuple[GriddedFormat, Path]]:
    """The format of the file at a URL, and a copy of it; errors in the block name the URL."""
    inside = _copy(path)
    with registry.named(path, inside):
        yield registry.gridded(inside), inside


@cache
def _copy(path: RemotePath) -> Path:
    """A temporary copy of the file at a URL, made once."""
    _check_installed(path)
    from pdr_cli.data.formats import objects

    download = objects.Download(path)
    log.info("download %s, %s", path, size_text(download.size))
    return scratch(path.name or "input", download.write, download.size)
