"""Locks: two processes never write one file, and an input that is being written is told apart from a damaged one."""

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

UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADFD)  # a file system without locks
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT)
PATIENCE = 0.1  # seconds: another's lock file may be in the middle of its removal
TRY_LATER = "; try later, or wait for it"
HDF5_HINT = "set HDF5_USE_FILE_LOCKING=FALSE if this file system has no locks and nobody else writes there"


@contextlib.contextmanager
def locked(path: Path | str) -> Iterator[None]:
    """Keep other processes from writing `path` meanwhile, by a lock on `.<name>.lock` beside it.

    The lock ends with its process, however that dies. Within a process it may be taken again by whoever holds it.

    Raises:
        LockedError: another process holds it; says which.
        OutputError: no lock can be created there, so that no output could be.
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
            place.write_text(_whoami())
        yield
    finally:
        # Before the release: a process that opened this file before sees that it has no name any more, and starts over.
        remove(place)
        lock.release()


def check_unlocked(path: Path) -> None:
    """Refuse an input that another process holds open for writing, as HDF5's library marks it.

    Raises:
        LockedError: held by a writer, or on a file system that refuses locks.
    """
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(f"{path} is in use: another process is writing it{TRY_LATER}") from error
        except OSError as error:
            if error.errno in UNSUPPORTED:
                raise LockedError(f"{path} cannot be locked ({error.strerror}), as HDF5 wants; {HDF5_HINT}") from error


@contextlib.contextmanager
def inputs_in_use(paths: Iterable[Path]) -> Iterator[None]:
    """Tell an input that cannot be read because somebody is writing it from one that is damaged.

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
    """Take a lock; False, with a warning, on a file system that has none."""
    from filelock import Timeout

    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout as error:
        if not Path(lock.lock_file).exists():
            raise OutputError(f"nothing can be created in {target.parent}") from error
        raise LockedError(f"{target} is being written by {_holder(Path(lock.lock_file))}; try later") from error
    except OSError as error:
        number = error.errno
        if number in UNSUPPORTED:
            log.warning("%s: this file system has no locks, so another job writing it would not be noticed", target)
            return False
        if number in FORBIDDEN:
            raise OutputError(f"nothing can be created in {target.parent}: {error}") from error
        raise StorageError(f"cannot write {target}: {error}{free_space(target, error)}") from error
    return True


def _whoami() -> str:
    start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": start})


def _holder(place: Path) -> str:
    try:
        who = json.loads(place.read_text())
        return f"process {who['pid']} on {who['host']} since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
