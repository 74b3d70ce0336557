"""Free space: checked before any work, reserved before a file is written, named in errors about a full disk."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from pdr_cli.errors import StorageError

# Of an estimate, for compression and the file system's own blocks, which are unknown beforehand.
MARGIN = 1.2
LARGEST_RESERVED = 2**30  # bytes; where a file system cannot reserve, each block of it is written
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_space(path: Path, need: int) -> None:
    """Refuse an output that would not fit, before any work.

    Args:
        path: the file or folder to be written.
        need: its estimated size in bytes.

    Raises:
        StorageError: less is free than the estimate and a margin.
    """
    if not fits(path, need):
        folder = Path(os.path.realpath(path)).parent
        raise StorageError(
            f"{path} needs about {size_text(need * MARGIN)}, but {size_text(_free(os.statvfs(folder)))} are free in {folder}",
            way_out="free some space, or write to another folder",
        )


def fits(path: Path, need: int) -> bool:
    """True if an estimated size in bytes, and a margin, is free where `path` is written."""
    status = os.statvfs(Path(os.path.realpath(path)).parent)
    # A file system that does not know its size says 0 blocks.
    return not status.f_blocks or need * MARGIN <= _free(status)


@contextlib.contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Turn the operating system's refusals while writing `target` into a StorageError that names the free space."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}{free_space(target, error)}") from error
    except RuntimeError as error:
        # A full disk: RuntimeError("NetCDF: HDF error") from netCDF4, another RuntimeError from h5py as it closes a file.
        if not re.search("NetCDF|HDF5|close file|flush|write", str(error)):
            raise
        raise StorageError(f"cannot write {target}: {error}{free_space(target, None)}") from error


def reserve(handle: int, need: int) -> None:
    """Allocate space for a file and free it again, so that a quota or limit fails here and not inside a C library, some of
    which crash.
    """
    if need and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(handle, 0, min(need, LARGEST_RESERVED))
        except OSError as error:
            if error.errno in FULL:
                raise
        os.ftruncate(handle, 0)


def free_space(target: Path, error: OSError | None) -> str:
    """ " (N MB free in FOLDER)" for a full disk, or an error without a number; otherwise empty."""
    if error is not None and error.errno not in FULL:
        return ""
    return f" ({size_text(_free(os.statvfs(target.parent)))} free in {target.parent})"


def _free(status: os.statvfs_result) -> int:
    return status.f_bavail * status.f_frsize


def size_text(count: float) -> str:
    """Bytes as "N MB" or "N GB"."""
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.1f} MB"
