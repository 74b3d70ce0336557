"""Files of fields that were compressed as a whole (gzip, bzip2, xz): unpacked once to a temporary file."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import xarray as xr

from pdr_cli.data.formats import registry
from pdr_cli.data.formats.base import beginning
from pdr_cli.data.formats.gridded import GriddedFormat
from pdr_cli.errors import DataError
from pdr_cli.system.scratch import scratch

PIECE = 2**20
DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class _Method:
    """A way of compression.

    Args:
        magic: first bytes of its files.
        open: reads the content.
        command: unpacks a file and keeps it.
    """

    magic: bytes
    open: Callable[[Path], Any]
    command: str


METHODS = (
    _Method(b"\x1f\x8b", gzip.open, "gunzip -k"),
    _Method(b"BZh", bz2.open, "bunzip2 -k"),
    _Method(b"\xfd7zXZ\x00", lzma.open, "unxz -k"),
)


class Compressed(GriddedFormat):
    """A compressed file of another gridded format; formats are recognised by what is inside."""

    name, title = "compressed", "a compressed file"
    second = tuple(f"{kind}.{how}" for kind in (".nc", ".nc4", ".cdf", ".grib", ".grib2", ".grb", ".grb2")
                   for how in ("gz", "bz2", "xz"))  # fmt: skip

    def matches(self, path: Path) -> bool:
        """By the first bytes."""
        return _method(path) is not None

    def open_dataset(self, path: Path, group: str = "") -> xr.Dataset:
        """See `GriddedFormat.open_dataset`."""
        with _unpacked(path) as (form, inside):
            return form.open_dataset(inside, group)

    def groups(self, path: Path) -> list[str]:
        """See `GriddedFormat.groups`."""
        with _unpacked(path) as (form, inside):
            return form.groups(inside)

    def undecoded(self, path: Path) -> xr.Dataset:
        """See `GriddedFormat.undecoded`."""
        with _unpacked(path) as (form, inside):
            return form.undecoded(inside)


def _method(path: Path) -> _Method | None:
    head = beginning(path)
    return next((method for method in METHODS if head.startswith(method.magic)), None)


@contextlib.contextmanager
def _unpacked(path: Path) -> Iterator[tuple[GriddedFormat, Path]]:
    """The format of the content, and a path to it; errors in the block name the compressed file.

    Raises:
        DataError: damaged, or the content is not of a gridded format.
    """
    method, stat = cast(_Method, _method(path)), path.stat()
    inside = _content(path, stat.st_size, stat.st_mtime_ns)
    with registry.named(path, inside):
        form = registry.of(inside)
        if not form.gridded:
            raise DataError(f"{path} is {form.title}, compressed", way_out=f"unpack it first: {method.command} {path}")
        yield cast(GriddedFormat, form), inside


@cache
def _content(path: Path, size: int, changed: int) -> Path:
    """The content of a compressed file, which is unpacked again when its size or the time of its change differ.

    Raises:
        DataError: damaged.
        StorageError: no room for it.
    """
    method = cast(_Method, _method(path))

    def unpack(target: BinaryIO) -> None:
        with method.open(path) as source:
            shutil.copyfileobj(source, target, PIECE)

    try:
        return scratch(path.stem, unpack, _need(path, size))
    except DAMAGED as error:
        what = f"{path} ({size} bytes) is damaged, truncated or still being written: {error}"
        raise DataError(what, way_out="wait until it is written, or get it again") from error


def _need(path: Path, size: int) -> int:
    """Bytes of the content: gzip stores them, modulo 4 GB, at the end of a file; of the others, those of the file."""
    if not beginning(path).startswith(METHODS[0].magic):
        return size
    with path.open("rb") as stream:
        stream.seek(max(0, size - 4))
        return max(size, int.from_bytes(stream.read(4), "little"))
