"""Atomic writes and hashes: the only code that replaces a file.

A file is written under a temporary name beside its target, closed, synced, re-opened by the caller's check and
renamed over the target, so a crash at any moment leaves the old file or the new one, whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pdr_cli.errors import OutputError, StorageError, UsageError

# Files up to this size are hashed whole; of larger ones, this much in evenly spaced pieces.
HASHED_WHOLE = 256 * 2**20
PIECE = 2**20


def check_output(path: Path, inputs: Iterable[Path] = (), *, folder: bool = False) -> Path:
    """Refuse an output that could not be created, before any work is done for it.

    Args:
        path: the file to be written; a symbolic link is followed.
        inputs: files that the output must not replace.
        folder: whether the output is to be a folder.

    Raises:
        UsageError: the output is one of the inputs.
        OutputError: no folder, no permission, or a directory in a file's place, or a file in a folder's.
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
    if not target.parent.is_dir():
        raise OutputError(f"no folder {target.parent} for the output; create it with: mkdir -p '{target.parent}'")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"no permission to write in {target.parent}")
    if target.exists() and not os.access(target, os.W_OK):
        raise OutputError(f"{path} exists and is read-only")
    return target


@contextlib.contextmanager
def atomic_output(path: Path | str, verify: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it, verify it and rename it over `path`.

    On any exception the temporary file is removed and the old file stays. The temporary name keeps the
    suffix, because writers choose a format by it.

    Args:
        path: the file to create or replace.
        verify: re-opens the finished temporary file and raises if it is not what was meant.

    Raises:
        OutputError: see `check_output`.
        StorageError: the file system refused, for example because it is full.
    """
    target = check_output(Path(path))
    handle, name = tempfile.mkstemp(prefix=f".{target.stem[:64]}.", suffix=f".tmp{target.suffix}", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with storage_errors(target):
            yield temporary
            _sync(temporary)
            if verify is not None:
                verify(temporary)
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, target)
            _sync(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_folder(path: Path | str, verify: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; on success sync it, verify it and swap it for `path`.

    On any exception the temporary folder is removed and the old one stays. A folder cannot be renamed over another
    that holds files, so an old one is moved aside first and removed last.

    Args:
        path: the folder to create or replace.
        verify: looks through the finished temporary folder and raises if it is not what was meant.

    Raises:
        OutputError: see `check_output`.
        StorageError: the file system refused, for example because it is full.
    """
    target = check_output(Path(path), folder=True)
    name = tempfile.mkdtemp(prefix=f".{target.stem[:64]}.", suffix=f".tmp{target.suffix}", dir=target.parent)
    temporary = Path(name)
    try:
        with storage_errors(target):
            yield temporary
            for found in (temporary, *temporary.rglob("*")):
                _sync(found)
            if verify is not None:
                verify(temporary)
            os.chmod(temporary, 0o777 & ~_umask())
            _swap(temporary, target)
            _sync(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _swap(temporary: Path, target: Path) -> None:
    aside = temporary.with_name(f"{temporary.name}.old")
    if target.exists():
        os.rename(target, aside)
    try:
        os.rename(temporary, target)
    except OSError:
        if aside.exists():
            os.rename(aside, target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Turn the operating system's refusals while writing `target` into a StorageError that says what is free."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}{_free_space(target, error)}") from error
    except RuntimeError as error:
        # netCDF4 reports a full disk as RuntimeError("NetCDF: HDF error").
        if "NetCDF" not in str(error):
            raise
        raise StorageError(f"cannot write {target}: {error}{_free_space(target, None)}") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Atomically replace `path` with `content`."""
    with atomic_output(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Atomically replace `path` with `content` in UTF-8."""
    write_bytes(path, content.encode())


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


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _free_space(target: Path, error: OSError | None) -> str:
    if error is not None and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ""
    status = os.statvfs(target.parent)
    return f" ({status.f_bavail * status.f_frsize / 2**20:.0f} MB free in {target.parent})"
