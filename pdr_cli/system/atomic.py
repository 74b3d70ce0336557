"""Atomic writes: the only code that replaces a file or a folder.

A file is written under a temporary name beside its target, closed, synced, re-opened and checked, and renamed over the
target, while a lock beside it keeps other processes away. A crash at any moment leaves the complete old file or the
complete new one, and the next writer of the same target removes the temporary files of the crash.
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
from pdr_cli.system import urls
from pdr_cli.system.locks import UnsupportedLocksError, check_unlocked, locked
from pdr_cli.system.names import ending, key, remove, umask
from pdr_cli.system.space import check_space, reserve, storage_errors


def check_output(path: Path, inputs: Iterable[Path] = (), *, folder: bool = False) -> Path:
    """Refuse an output that could not be created, before any work.

    Args:
        path: the file to be written; a symbolic link is followed.
        inputs: files that the output must not replace.
        folder: True if the output is a folder.

    Raises:
        UsageError: the output is one of the inputs.
        OutputError: no folder, no permission, a folder in place of a file or the reverse, or a broken link.
    """
    urls.refuse_output(path)
    target = Path(os.path.realpath(path))
    if any(target == Path(os.path.realpath(p)) for p in inputs):
        raise UsageError(f"output {path} is also an input", way_out="name another file with -o")
    _check_kind(path, target, folder)
    _check_place(target)
    if target.exists() and not os.access(target, os.W_OK):
        raise OutputError(f"{path} exists and is read-only")
    return target


def _check_kind(path: Path, target: Path, folder: bool) -> None:
    if folder and target.exists() and not target.is_dir():
        raise OutputError(f"output {path} is a file", "a folder", "remove it or choose another name")
    if target.is_dir() and not folder:
        raise OutputError(f"output {path} is a directory", way_out=f"name a file in it, such as {path / 'output.nc'}")
    if path.is_symlink() and not target.exists():
        raise OutputError(f"output {path} is a link to {target}, which does not exist", way_out="remove the link")


@contextlib.contextmanager
def atomic_output(path: Path | str, verify: Callable[[Path], None] | None = None, need: int = 0) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it, verify it and rename it over `path`.

    On any exception the temporary file is removed and the old file stays. The temporary name keeps the
    suffix, because writers choose a format by it.

    Args:
        path: the file to create or replace.
        verify: re-opens the finished temporary file and raises if it is wrong.
        need: estimated size in bytes; 0: unknown.

    Raises:
        OutputError: see `check_output`.
        LockedError: another process is writing this file.
        StorageError: the file system refused, for example because it is full.
    """
    target = check_output(Path(path))
    with locked(target), storage_errors(target):
        recover(target)
        check_space(target, need)
        handle, name = tempfile.mkstemp(prefix=f".{key(target)}.", suffix=ending(target), dir=target.parent)
        temporary = Path(name)
        with _removed_on_failure(temporary, remove):
            with os.fdopen(handle, "wb") as stream:
                reserve(stream.fileno(), need)
            yield temporary
            _sync(temporary)
            _check(verify, temporary, target)
            os.chmod(temporary, 0o666 & ~umask())
            os.replace(temporary, target)
            _sync(target.parent)


@contextlib.contextmanager
def atomic_folder(
    path: Path | str,
    verify: Callable[[Path], None] | None = None,
    replaces: Callable[[Path], bool] | None = None,
    need: int = 0,
    begun: Path | None = None,
) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; on success sync its files, verify it and put it in `path`'s place.

    On a file system that can exchange two names, `path` is the old or the new folder at any moment. On others the old
    folder is moved aside first; a crash between the two renames leaves no `path`, and `recover`, which the next writer
    calls, moves the old folder back.

    Args:
        path: the folder to create or replace.
        verify: re-opens the finished temporary folder and raises if it is wrong.
        replaces: True of an existing folder that is an output of the same kind; without it only an empty one is replaced.
        need: estimated size in bytes; 0: unknown.
        begun: a folder on the same file system to yield instead, which stays where it is if the block fails.

    Raises:
        OutputError: something else is in its place, the folder above it does not exist, or permission is missing.
        LockedError, StorageError: as `atomic_output`.
    """
    target = Path(os.path.realpath(path))
    _check_place(target)
    with locked(target), storage_errors(target):
        recover(target)
        if target.exists() and not may_replace(target, replaces):
            raise OutputError(f"{path} exists and was not made by this command", way_out="name another, or remove it")
        check_space(target, need)
        temporary = begun or Path(tempfile.mkdtemp(prefix=f".{key(target)}.", suffix=ending(target), dir=target.parent))
        with contextlib.nullcontext() if begun else _removed_on_failure(temporary, remove_folder):
            yield temporary
            _sync_all(temporary)
            _check(verify, temporary, target)
            os.chmod(temporary, 0o777 & ~umask())
            old = _put_in_place(temporary, target)
            _sync(target.parent)
        if old is not None:
            remove_folder(old)


def may_replace(target: Path, replaces: Callable[[Path], bool] | None) -> bool:
    """True if a folder may take the place of `target`: an empty folder, or one for which `replaces` is true."""
    if not target.is_dir():
        return False
    return next(target.iterdir(), None) is None or (replaces is not None and replaces(target))


def recover(target: Path) -> None:
    """Clean up after a crash of an earlier writer of `target`: its temporary files, and an old folder moved aside.

    The caller holds the lock of `target`, so that no other process uses its temporary names.
    """
    pattern = re.compile(rf"\.{re.escape(key(target))}\.[a-z0-9_]{{8}}\.(tmp|old)")
    remains = sorted(Path(e.path) for e in os.scandir(target.parent) if pattern.match(e.name))
    for path in remains:
        if path.suffix == ".old" and not target.exists():
            os.rename(path, target)
        elif path.is_dir() and not path.is_symlink():
            remove_folder(path)
        else:
            remove(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Atomically replace `path` with `content`."""

    def verify(written: Path) -> None:
        if written.read_bytes() != content:
            raise StorageError(f"cannot write {path}: its contents differ when read back")

    with atomic_output(path, verify, need=len(content)) as temporary:
        temporary.write_bytes(content)


def write_cache(path: Path, content: bytes) -> None:
    """Replace a file of a cache: quick, because neither locked nor synced.

    Readers see the whole old or new file, but after a power cut perhaps a damaged one: `content` holds its own checksum.

    Raises:
        OSError: the file system refused.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{key(path)}.", suffix=ending(path), dir=path.parent)
    with _removed_on_failure(Path(name), remove), os.fdopen(handle, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.replace(name, path)


def write_text(path: Path, content: str) -> None:
    """Atomically replace `path` with `content` in UTF-8; names of files stand in it with their own bytes."""
    write_bytes(path, content.encode(errors="surrogateescape"))


def keep_previous(path: Path, previous: Path) -> None:
    """Keep the file at `path`, if it exists, as `previous` too, so that it outlives its replacement."""
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


def remove_folder(path: Path) -> None:
    """Remove a temporary folder, as far as that is possible."""
    shutil.rmtree(path, ignore_errors=True)


def _check_place(target: Path) -> None:
    if not target.parent.is_dir():
        way_out = f"create it with: mkdir -p '{target.parent}'"
        raise OutputError(f"no folder {target.parent} for the output", way_out=way_out)
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"no permission to write in {target.parent}")


def _put_in_place(new: Path, target: Path) -> Path | None:
    """Rename the folder `new` to `target`; returns the new path of the old folder, if there was one."""
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
    """Exchange two names atomically; False if the system cannot (Linux's renameat2, RENAME_EXCHANGE = 2)."""
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


@contextlib.contextmanager
def _removed_on_failure(temporary: Path, remove: Callable[[Path], None]) -> Iterator[None]:
    """Remove a temporary file or folder if the block fails, and name the reason if that is a refused lock."""
    try:
        yield
    except BaseException as error:
        try:
            _explain_refused_lock(temporary, error)
        finally:
            remove(temporary)
        raise


def _explain_refused_lock(temporary: Path, error: BaseException) -> None:
    """Name the reason if HDF5 could not write because the file system refuses locks.

    Raises:
        UnsupportedLocksError: that is the reason.
    """
    if not isinstance(error, (OSError, RuntimeError)) or not temporary.is_file():
        return
    try:
        check_unlocked(temporary)
    except UnsupportedLocksError as refused:
        raise refused from error
    except LockedError:  # by this process itself, whose library has not closed the file
        return


def _check(verify: Callable[[Path], None] | None, temporary: Path, target: Path) -> None:
    try:
        if verify is not None:
            verify(temporary)
    except DataError as error:
        raise StorageError(f"cannot write {target}: the written file cannot be read again: {error}") from error
