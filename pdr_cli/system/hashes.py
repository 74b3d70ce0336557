"""SHA-256 of files and folders."""

from __future__ import annotations

import hashlib
from pathlib import Path

# Files up to this size are hashed whole; of larger ones, this much in evenly spaced pieces.
HASHED_WHOLE = 256 * 2**20
PIECE = 2**20


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex; of a file above 256 MB, of its size and evenly spaced pieces of it.

    Of a folder: of the names and sizes of its files, and of what those hold that come first, up to 256 MB.
    """
    digest = hashlib.sha256()
    if path.is_dir():
        left = HASHED_WHOLE
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            size = file.stat().st_size
            digest.update(f"{file.relative_to(path)} {size}\n".encode())
            left -= size
            if left >= 0:
                digest.update(file.read_bytes())
        return digest.hexdigest()
    size = path.stat().st_size
    with path.open("rb") as stream:
        if size <= HASHED_WHOLE:
            for block in iter(lambda: stream.read(PIECE), b""):
                digest.update(block)
        else:
            digest.update(str(size).encode())
            pieces = HASHED_WHOLE // PIECE
            for i in range(pieces):
                stream.seek((size - PIECE) * i // (pieces - 1))
                digest.update(stream.read(PIECE))
    return digest.hexdigest()
