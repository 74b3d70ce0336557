"""Atomic writes: the only code that replaces a file or a folder.

A file is written under a temporary name beside its target, closed, synced, re-opened and checked, and renamed over the
target, while a lock beside it keeps other processes away. A crash at any moment leaves the old file or the new one,
whole, and the next writer of the same target removes what the crash left.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pdr_cli.errors import DataError, LockedError, OutputError, StorageError, UsageError
from pdr_cli.system.locks import HDF5_HINT, check_unlocked, locked
from pdr_cli.system.names import ending, key, remove, umask
from pdr_cli.system.space import check_space, reserve, storage_errors


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
        handle, name = tempfile.mkstemp(prefix=f".{key(target)}.", suffix=ending(target), dir=target.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                reserve(stream.fileno(), need)
            yield temporary
            _sync(temporary)
            _check(verify, temporary, target)
            os.chmod(temporary, 0o666 & ~umask())
            os.replace(temporary, target)
            _sync(target.parent)
        except BaseException as error:
            _explain_refused_lock(temporary, error)
            remove(temporary)
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
        temporary = Path(tempfile.mkdtemp(prefix=f".{key(target)}.", suffix=ending(target), dir=target.parent))
        try:
            yield temporary
            _sync_all(temporary)
            _check(verify, temporary, target)
            os.chmod(temporary, 0o777 & ~umask())
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
    pattern = re.compile(rf"\.{re.escape(key(target))}\.[a-z0-9_]{{8}}\.(tmp|old)")
    left = sorted(Path(e.path) for e in os.scandir(target.parent) if pattern.match(e.name))
    for path in left:
        if path.suffix == ".old" and not target.exists():
            os.rename(path, target)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            remove(path)


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
        temporary = previous.with_name(f".{key(previous)}.{secrets.token_hex(4)}{ending(previous)}")
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


def _check_place(target: Path) -> None:
    if not target.parent.is_dir():
        raise OutputError(f"no folder {target.parent} for the output; create it with: mkdir -p '{target.parent}'")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"no permission to write in {target.parent}")


def _put_in_place(new: Path, target: Path) -> Path | None:
    """Give the folder `new` the name `target`; returns where the old folder is now, if there was one."""
    if not target.exists():
        os.rename(new, target)
        return None
    if _exchange(new, target):
        return new
    aside = target.with_name(f".{key(target)}.{secrets.token_hex(4)}.old")
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
