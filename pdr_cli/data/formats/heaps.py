"""Corrupt global heaps of HDF5 files, NetCDF-4 among them, that make libhdf5 loop forever; checked before it opens them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from pdr_cli.errors import DataError

MARK = b"GCOL"
EXAMINED = 4 * 2**20  # bytes at either end, where attributes are stored; a file may be larger than memory
HEADER = 16  # bytes: of a collection, and of each object in it


def check(path: Path) -> None:
    """Refuse a file with an object of length 0 in a global heap: the library would read it again and again.

    Such heaps hold strings of variable length. Layout: HDF5 File Format Specification 3.0, III.E; lengths of 8 bytes.

    Raises:
        DataError: such an object was found.
    """
    for at, heap in _collections(path):
        if _never_ends(heap):
            raise DataError(
                f"{path} ({path.stat().st_size} bytes) is damaged: the list of strings at byte {at} has no end",
                way_out="get the file again",
            )


def _collections(path: Path) -> Iterator[tuple[int, bytes]]:
    """Position and content of the global heaps at either end of a file."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        for start in sorted({0, max(0, size - EXAMINED)}):
            stream.seek(start)
            piece = stream.read(EXAMINED)
            found = piece.find(MARK)
            while found >= 0:
                length = int.from_bytes(piece[found + 8 : found + HEADER], "little")
                yield start + found, piece[found : found + length]
                found = piece.find(MARK, found + 1)


def _never_ends(heap: bytes) -> bool:
    place = HEADER
    while place + HEADER <= len(heap):
        index, _, length = struct.unpack_from("<HHxxxxQ", heap, place)
        # The length of free space includes its header; other lengths are rounded up, which may overflow 64 bits.
        needed = length if index == 0 else (HEADER + (length + 7 & ~7)) % 2**64
        if needed == 0:
            return True
        place += needed
    return False
