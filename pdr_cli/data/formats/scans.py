"""Scans of clips kept in the user's cache, so that a clip is decoded as a whole only once.

A scan belongs to a file by its path, size, time of change and inode. A scan that is damaged or of another file is ignored
and made again; a cache that cannot be written is left out. Damage to a clip that leaves all four as they were is found
when its frames are read, by their checksums.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli.data.formats import clips
from pdr_cli.data.formats.clips import Clip
from pdr_cli.system import atomic

FOLDER_ENVIRONMENT = "PDR_CACHE"
VERSION = 1  # of the layout, and of what a scan finds
FRESH = 2.0  # seconds: a file that was changed later than that may change again within the resolution of its time
ARRAYS = {"times": "<f8", "stamps": "<i8", "sums": "<u4", "keys": "<i8"}


def scan(path: Path) -> Clip:
    """The scan of a clip, from the cache if it is of this very file; see `clips.scan`."""
    stat = os.stat(path)
    identity, kept = _identity(path, stat), _place(path)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return _unpacked(kept.read_bytes(), identity)
    clip = clips.scan(path)
    # A file that changed while it was decoded, or just before, is not kept.
    if _identity(path, os.stat(path)) == identity and time.time() - stat.st_mtime > FRESH:
        with contextlib.suppress(OSError):
            atomic.write_cache(kept, _packed(clip, identity))
    return clip


def forget(path: Path) -> None:
    """Remove the scan of a clip whose frames are no longer those of the scan."""
    with contextlib.suppress(OSError):
        _place(path).unlink()


def _place(path: Path) -> Path:
    return folder() / f"{hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:32]}.scan"


def folder() -> Path:
    """The folder of scans."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(os.environ.get(FOLDER_ENVIRONMENT) or os.path.join(root, "pdr")) / "clips"


def _identity(path: Path, stat: os.stat_result) -> dict[str, Any]:
    """What a scan belongs to: a file, as it is, and the decoder."""
    return {
        "path": os.path.abspath(path),
        "size": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "inode": [stat.st_dev, stat.st_ino],
        "made_by": [VERSION, _decoder()],
    }


@functools.cache
def _decoder() -> str:
    return importlib.metadata.version("av")


def _packed(clip: Clip, identity: dict[str, Any]) -> bytes:
    """A checksum, a line of JSON, and the arrays one behind the other."""
    values = {f.name: getattr(clip, f.name) for f in dataclasses.fields(clip)}
    arrays = {name: np.asarray(values.pop(name), dtype) for name, dtype in ARRAYS.items()}
    head = {"identity": identity, "lengths": {n: len(a) for n, a in arrays.items()}, "clip": values}
    body = json.dumps(head).encode() + b"\n" + b"".join(a.tobytes() for a in arrays.values())
    return zlib.crc32(body).to_bytes(4) + body


def _unpacked(content: bytes, identity: dict[str, Any]) -> Clip:
    """The reverse of `_packed`.

    Raises:
        ValueError: damaged, or of another file.
    """
    body = content[4:]
    if zlib.crc32(body) != int.from_bytes(content[:4]):
        raise ValueError("damaged")
    line, _, rest = body.partition(b"\n")
    head = json.loads(line)
    if head["identity"] != identity:
        raise ValueError("of another file")
    values, place = head["clip"], 0
    for name, dtype in ARRAYS.items():
        values[name] = np.frombuffer(rest, dtype, head["lengths"][name], place)
        place += values[name].nbytes
    for name in ("size", "aspect", "assumed"):
        values[name] = tuple(values[name])
    return Clip(**values)
