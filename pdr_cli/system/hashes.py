"""SHA-256 of files and folders."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

# Files up to this size are hashed whole; of larger ones, this much in evenly spaced pieces.
HASHED_WHOLE = 256 * 2**20
PIECE = 2**20


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex; of a file above 256 MB, of its size and evenly spaced pieces of it.

    Of a folder: of the names and sizes of its files, and of the first files' bytes, up to 256 MB.
    """
    if path.is_dir():
        return _of_folder(path)
    with path.open("rb") as stream:
        return _of_stream(stream, path.stat().st_size)


def sha256_of(content: bytes) -> str:
    """`sha256` of a file that holds `content`."""
    return _of_stream(io.BytesIO(content), len(content))


def sha256_of_blocks(blocks: Iterable[bytes]) -> str:
    """SHA-256 of blocks of bytes, one after the other."""
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def _of_folder(path: Path) -> str:
    digest, left = hashlib.sha256(), HASHED_WHOLE
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path)} {size}\n".encode())
        left -= size
        if left >= 0:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _of_stream(stream: BinaryIO, size: int) -> str:
    if size <= HASHED_WHOLE:
        return sha256_of_blocks(iter(lambda: stream.read(PIECE), b""))
    digest = hashlib.sha256()
    digest.update(str(size).encode())
    pieces = HASHED_WHOLE // PIECE
    for i in range(pieces):
        stream.seek((size - PIECE) * i // (pieces - 1))
        digest.update(stream.read(PIECE))
    return digest.hexdigest()
