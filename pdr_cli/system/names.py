"""Names beside a target, of its lock file and its temporary files."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

LONGEST_NAME = 255  # bytes, of Linux's file systems


def key(target: Path) -> str:
    """The target's name; of a name that is too long to be extended, its beginning and a hash."""
    name = os.fsencode(target.name)
    if len(name) <= LONGEST_NAME - 40:
        return target.name
    return f"{name[:150].decode(errors='ignore')}-{hashlib.sha256(name).hexdigest()[:16]}"


def ending(target: Path) -> str:
    """ ".tmp" and the target's suffix, unless that is very long: writers choose a format by the suffix."""
    return f".tmp{target.suffix}" if len(os.fsencode(target.suffix)) <= 16 else ".tmp"


def remove(path: Path) -> None:
    """Remove a temporary file; if that fails, the next writer removes it."""
    with contextlib.suppress(OSError):
        path.unlink()


def umask() -> int:
    """The process's file mode creation mask."""
    current = os.umask(0)
    os.umask(current)
    return current


def printable(text: str) -> str:
    """Text in which the bytes of a file's name that are not UTF-8 are written as \\xNN."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
