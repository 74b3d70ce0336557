"""Damage to HDF5 files, NetCDF-4 among them, in which the library would go round for ever: found before it opens them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from pdr_cli.errors import DataError

MARK = b"GCOL"
EXAMINED = 4 * 2**20  # bytes at either end, where attributes are; a file may be larger than memory
HEADER = 16  # bytes: of a collection, and of each object in it


def check(path: Path) -> None:
    """Refuse a file one of whose global heaps holds an object of no length, behind which the library finds it again.

    Strings of any length lie in such heaps. Layout: HDF5 File Format Specification 3.0, III.E; lengths of 8 bytes.

    Raises:
        DataError: there is one.
    """
    for at, heap in _collections(path):
        if _never_ends(heap):
            raise DataError(
                f"{path} ({path.stat().st_size} bytes) is damaged: the list of strings at byte {at} has no end; get it again"
            )


def _collections(path: Path) -> Iterator[tuple[int, bytes]]:
    """Where the global heaps at either end of a file begin, and what they hold."""
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
        # The length of what is free has its header in it; others are rounded up, in 64 bits, which may be too few.
        needed = length if index == 0 else (HEADER + (length + 7 & ~7)) % 2**64
        if needed == 0:
            return True
        place += needed
    return False
