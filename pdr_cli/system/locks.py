"""Locks: two processes never write one file, and an input that is being written is distinguished from a damaged one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pdr_cli.errors import DataError, LockedError, OutputError, StorageError
from pdr_cli.system.logs import log
from pdr_cli.system.names import key, remove, umask
from pdr_cli.system.space import free_space

if TYPE_CHECKING:
    from filelock import BaseFileLock

UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADFD)  # errors of a file system without locks
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT)
PATIENCE = 0.1  # seconds, because another process may be removing its lock file
TRY_LATER = "try later, or wait for it"
HDF5_HINT = "set HDF5_USE_FILE_LOCKING=FALSE if this file system has no locks and nobody else writes there"


class UnsupportedLocksError(LockedError):
    """A file on a file system that refuses locks, as HDF5 takes them."""


@contextlib.contextmanager
def locked(path: Path | str) -> Iterator[None]:
    """Keep other processes from writing `path` during the block, by a lock on `.<name>.lock` beside it.

    The lock ends with its process, even if that is killed. A process that holds it can take it again.

    Raises:
        LockedError: another process holds it; names the process.
        OutputError: no lock can be created in the folder, and so no output.
    """
    from filelock import FileLock

    target = Path(os.path.realpath(path))
    place = target.with_name(f".{key(target)}.lock")
    lock = FileLock(place, mode=0o666 & ~umask(), poll_interval=PATIENCE / 5, is_singleton=True, fallback_to_soft=False)
    if lock.is_locked or not _acquire(lock, target):
        yield
        return
    try:
        with contextlib.suppress(OSError):
            place.write_text(_whoami(), encoding="utf-8")
        yield
    finally:
        # Before the release, so that a process that has opened the file sees that it lost its name, and starts over.
        remove(place)
        lock.release()


def check_unlocked(path: Path) -> None:
    """Refuse an input that another process holds open for writing, which the HDF5 library marks by a lock.

    Raises:
        LockedError: a writer holds it.
        UnsupportedLocksError: the file system refuses locks.
    """
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(f"{path} is in use: another process is writing it", way_out=TRY_LATER) from error
        except OSError as error:
            if error.errno in UNSUPPORTED:
                found = f"{path} cannot be locked ({error.strerror}), which HDF5 requires"
                raise UnsupportedLocksError(found, way_out=HDF5_HINT) from error


@contextlib.contextmanager
def inputs_in_use(paths: Iterable[Path]) -> Iterator[None]:
    """Report an input that cannot be read because another process is writing it as locked, not as damaged.

    Raises:
        LockedError: one of `paths` is held by another process.
    """
    try:
        yield
    except DataError as error:
        for path in filter(Path.is_file, paths):
            try:
                check_unlocked(path)
            except LockedError as locked:
                raise locked from error
        raise


def _acquire(lock: BaseFileLock, target: Path) -> bool:
    """Take a lock; False, with a warning, on a file system without locks."""
    from filelock import Timeout

    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout as error:
        if not Path(lock.lock_file).exists():
            raise OutputError(f"no file can be created in {target.parent}") from error
        found = f"{target} is being written by {_holder(Path(lock.lock_file))}"
        raise LockedError(found, way_out="try later") from error
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise _refusal(target, error) from error
        log.warning("%s: this file system has no locks, so that two processes may write it at once", target)
        return False
    return True


def _refusal(target: Path, error: OSError) -> OutputError | StorageError:
    if error.errno in FORBIDDEN:
        return OutputError(f"no file can be created in {target.parent}: {error}")
    return StorageError(f"cannot write {target}: {error}{free_space(target, error)}")


def _whoami() -> str:
    start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": start})


def _holder(place: Path) -> str:
    try:
        who = json.loads(place.read_text(encoding="utf-8"))
        return f"process {who['pid']} on {who['host']} since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
