"""Names beside a target: its lock file and its temporaries."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

LONGEST_NAME = 255  # bytes, of Linux's file systems


def key(target: Path) -> str:
    """The target's name, or where names made of it would be too long, its beginning and a hash."""
    name = os.fsencode(target.name)
    if len(name) <= LONGEST_NAME - 40:
        return target.name
    return f"{name[:150].decode(errors='ignore')}-{hashlib.sha256(name).hexdigest()[:16]}"


def ending(target: Path) -> str:
    return f".tmp{target.suffix}" if len(os.fsencode(target.suffix)) <= 16 else ".tmp"


def remove(path: Path) -> None:
    """Remove a temporary file if that can be done; else the next writer does."""
    with contextlib.suppress(OSError):
        path.unlink()


def umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
