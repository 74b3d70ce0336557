"""Locks, atomic writes and hashes: the only code that replaces a file or a folder.

A file is written under a temporary name beside its target, closed, synced, re-opened and checked, and renamed over the
target, while a lock beside it keeps other processes away. A crash at any moment leaves the old file or the new one,
whole, and the next writer of the same target removes what the crash left.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pdr_cli.errors import DataError, LockedError, OutputError, StorageError, UsageError
from pdr_cli.logs import log

if TYPE_CHECKING:
    from filelock import BaseFileLock

# Files up to this size are hashed whole; of larger ones, this much in evenly spaced pieces.
HASHED_WHOLE = 256 * 2**20
PIECE = 2**20
MARGIN = 1.2  # of an estimate of space: compression and the file system's own blocks are not known beforehand
LARGEST_RESERVED = 2**30  # bytes; where a file system cannot reserve, each block of it is written
LONGEST_NAME = 255  # bytes, of Linux's file systems
UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADFD)  # a file system without locks
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PATIENCE = 0.1  # seconds: another's lock file may be in the middle of its removal
TRY_LATER = "; try later, or wait for it"
HDF5_HINT = "set HDF5_USE_FILE_LOCKING=FALSE if this file system has no locks and nobody else writes there"


def check_output(path: Path, inputs: Iterable[Path] = (), *, folder: bool = False) -> Path:
    """Refuse an output that could not be created, before any work is done for it.

    Args:
        path: the file to be written; a symbolic link is followed.
        inputs: files that the output must not replace.
        folder: whether the output is to be a folder.

    Raises:
        UsageError: the output is one of the inputs.
        OutputError: no folder, no permission, a directory in a file's place or a file in a folder's, or a link to nothing.
    """
    target = Path(os.path.realpath(path))
    if any(target == Path(os.path.realpath(p)) for p in inputs):
        raise UsageError(f"output {path} is also an input; name another file with -o")
    if folder and target.exists() and not target.is_dir():
        raise OutputError(
            f"output {path} is to be a folder, but a file is in its place; remove it or choose another name"
        )
    if target.is_dir() and not folder:
        raise OutputError(f"output {path} is a directory; name a file in it, for example {path / 'forecast.nc'}")
    if path.is_symlink() and not target.exists():
        raise OutputError(f"output {path} is a link to {target}, which is not there; remove the link")
    _check_place(target)
    if target.exists() and not os.access(target, os.W_OK):
        raise OutputError(f"{path} exists and is read-only")
    return target


def check_space(path: Path, need: int) -> None:
    """Refuse an output that would not fit, before any work is done for it.

    Args:
        path: the file or folder to be written.
        need: its estimated size in bytes.

    Raises:
        StorageError: less is free than the estimate and a margin.
    """
    folder = Path(os.path.realpath(path)).parent
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    # A file system that does not know its size says 0 blocks.
    if status.f_blocks and need * MARGIN > free:
        raise StorageError(
            f"{path} needs about {_size(need * MARGIN)}, but {_size(free)} are free in {folder}; "
            "make room there, or write to another place"
        )


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
    place = target.with_name(f".{_key(target)}.lock")
    lock = FileLock(
        place, mode=0o666 & ~_umask(), poll_interval=PATIENCE / 5, is_singleton=True, fallback_to_soft=False
    )
    if lock.is_locked or not _acquire(lock, target):
        yield
        return
    try:
        with contextlib.suppress(OSError):
            place.write_text(_whoami())
        yield
    finally:
        # Before the release: a process that opened this file before sees that it has no name any more, and starts over.
        _remove(place)
        lock.release()


@contextlib.contextmanager
def atomic_output(path: Path | str, verify: Callable[[Path], None] | None = None, need: int = 0) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it, verify it and rename it over `path`.

    On any exception the temporary file is removed and the old file stays. The temporary name keeps the
    suffix, because writers choose a format by it.

    Args:
        path: the file to create or replace.
        verify: re-opens the finished temporary file and raises if it is not what was meant.
        need: estimated size in bytes, where it is known.

    Raises:
        OutputError: see `check_output`.
        LockedError: another process is writing this file.
        StorageError: the file system refused, for example because it is full.
    """
    target = check_output(Path(path))
    with locked(target), storage_errors(target):
        check_space(target, need)
        recover(target)
        handle, name = tempfile.mkstemp(prefix=f".{_key(target)}.", suffix=_ending(target), dir=target.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                _reserve(stream.fileno(), need)
            yield temporary
            _sync(temporary)
            _check(verify, temporary, target)
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, target)
            _sync(target.parent)
        except BaseException as error:
            _explain_refused_lock(temporary, error)
            _remove(temporary)
            raise


@contextlib.contextmanager
def atomic_folder(
    path: Path | str,
    verify: Callable[[Path], None] | None = None,
    replaces: Callable[[Path], bool] | None = None,
    need: int = 0,
) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; on success sync all in it, verify it and put it in `path`'s place.

    Where the file system can exchange two names, `path` is the old or the new folder at any moment. Elsewhere the old
    one is moved aside first; a crash between the two renames leaves no `path`, and `recover`, which every next writer
    calls, moves the old one back. The new folder counts from its rename on.

    Args:
        path: the folder to create or replace.
        verify: re-opens the finished temporary folder and raises if it is not what was meant.
        replaces: whether a folder that is there is an output of this kind; without it only an empty one is replaced.
        need: estimated size in bytes, where it is known.

    Raises:
        OutputError: there is something else in its place, no folder above it, or no permission.
        LockedError, StorageError: as `atomic_output`.
    """
    target = Path(os.path.realpath(path))
    _check_place(target)
    with locked(target), storage_errors(target):
        recover(target)
        if target.exists() and not may_replace(target, replaces):
            raise OutputError(f"{path} is there and was not made by this command; name another, or remove it")
        check_space(target, need)
        temporary = Path(tempfile.mkdtemp(prefix=f".{_key(target)}.", suffix=_ending(target), dir=target.parent))
        try:
            yield temporary
            _sync_all(temporary)
            _check(verify, temporary, target)
            os.chmod(temporary, 0o777 & ~_umask())
            old = _put_in_place(temporary, target)
            _sync(target.parent)
        except BaseException as error:
            _explain_refused_lock(temporary, error)
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)


def may_replace(target: Path, replaces: Callable[[Path], bool] | None) -> bool:
    """True if a folder may take the place of `target`: an empty folder, or one that `replaces` knows."""
    if not target.is_dir():
        return False
    return next(target.iterdir(), None) is None or (replaces is not None and replaces(target))


def recover(target: Path) -> None:
    """Undo what a crash of an earlier writer of `target` left: its temporaries, and an old folder moved aside.

    The caller holds the lock of `target`, so that whatever bears its temporary names belongs to nobody.
    """
    pattern = re.compile(rf"\.{re.escape(_key(target))}\.[a-z0-9_]{{8}}\.(tmp|old)")
    left = sorted(Path(e.path) for e in os.scandir(target.parent) if pattern.match(e.name))
    for path in left:
        if path.suffix == ".old" and not target.exists():
            os.rename(path, target)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            _remove(path)


@contextlib.contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Turn the operating system's refusals while writing `target` into a StorageError that says what is free."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}{_free_space(target, error)}") from error
    except RuntimeError as error:
        # netCDF4 reports a full disk as RuntimeError("NetCDF: HDF error"), h5py one as it closes as another.
        if not re.search("NetCDF|HDF5|close file|flush|write", str(error)):
            raise
        raise StorageError(f"cannot write {target}: {error}{_free_space(target, None)}") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Atomically replace `path` with `content`."""

    def verify(written: Path) -> None:
        if written.read_bytes() != content:
            raise StorageError(f"cannot write {path}: it reads back differently from what was written")

    with atomic_output(path, verify, need=len(content)) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Atomically replace `path` with `content` in UTF-8."""
    write_bytes(path, content.encode())


def keep_previous(path: Path, previous: Path) -> None:
    """Let `previous` be what `path` is now, if it is there, so that replacing `path` leaves both."""
    if not path.is_file():
        return
    with locked(previous), storage_errors(previous):
        recover(previous)
        temporary = previous.with_name(f".{_key(previous)}.{secrets.token_hex(4)}{_ending(previous)}")
        try:
            try:
                os.link(path, temporary)
            except OSError:  # a file system without hard links
                shutil.copyfile(path, temporary)
                _sync(temporary)
            os.replace(temporary, previous)
        finally:
            # A rename between two names of one file does nothing and leaves both.
            temporary.unlink(missing_ok=True)


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


def _check_place(target: Path) -> None:
    if not target.parent.is_dir():
        raise OutputError(f"no folder {target.parent} for the output; create it with: mkdir -p '{target.parent}'")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"no permission to write in {target.parent}")


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
        raise StorageError(f"cannot write {target}: {error}{_free_space(target, error)}") from error
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


def _key(target: Path) -> str:
    """The target's name, or where names made of it would be too long, its beginning and a hash."""
    name = os.fsencode(target.name)
    if len(name) <= LONGEST_NAME - 40:
        return target.name
    return f"{name[:150].decode(errors='ignore')}-{hashlib.sha256(name).hexdigest()[:16]}"


def _ending(target: Path) -> str:
    return f".tmp{target.suffix}" if len(os.fsencode(target.suffix)) <= 16 else ".tmp"


def _reserve(handle: int, need: int) -> None:
    """Have the system find room for a file, and give it back: a quota or limit is met here, not within a C library,
    some of which do not survive it.
    """
    if need and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(handle, 0, min(need, LARGEST_RESERVED))
        except OSError as error:
            if error.errno in FULL:
                raise
        os.ftruncate(handle, 0)


def _put_in_place(new: Path, target: Path) -> Path | None:
    """Give the folder `new` the name `target`; returns where the old folder is now, if there was one."""
    if not target.exists():
        os.rename(new, target)
        return None
    if _exchange(new, target):
        return new
    aside = target.with_name(f".{_key(target)}.{secrets.token_hex(4)}.old")
    os.rename(target, aside)
    try:
        os.rename(new, target)
    except BaseException:
        os.rename(aside, target)
        raise
    return aside


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places at once; False where the system cannot (Linux's renameat2, RENAME_EXCHANGE = 2)."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    here = -100  # AT_FDCWD
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), 2) == 0)


def _sync_all(folder: Path) -> None:
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync(Path(root, name))
        _sync(Path(root))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    """Remove a temporary file if that can be done; else the next writer does."""
    with contextlib.suppress(OSError):
        path.unlink()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _explain_refused_lock(temporary: Path, error: BaseException) -> None:
    """Where HDF5 could not write because the file system refuses locks, say so.

    Raises:
        LockedError: that is the reason.
    """
    if not isinstance(error, (OSError, RuntimeError)) or not temporary.is_file():
        return
    try:
        check_unlocked(temporary)
    except LockedError as locked:
        # A lock held by somebody is this process's own: its library has not closed the file.
        if HDF5_HINT in str(locked):
            raise locked from error


def _check(verify: Callable[[Path], None] | None, temporary: Path, target: Path) -> None:
    try:
        if verify is not None:
            verify(temporary)
    except DataError as error:
        raise StorageError(f"cannot write {target}: what was written cannot be read again: {error}") from error


def _free_space(target: Path, error: OSError | None) -> str:
    if error is not None and error.errno not in FULL:
        return ""
    status = os.statvfs(target.parent)
    return f" ({_size(status.f_bavail * status.f_frsize)} free in {target.parent})"


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.1f} MB"
