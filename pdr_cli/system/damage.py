"""Failures of libraries on damaged files, as one error that names the file."""

from __future__ import annotations

import contextlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from pdr_cli.errors import DataError

# Exceptions that fuzzing has found. For an absurd header h5py raises RuntimeError and KeyError, xarray OverflowError,
# NumPy MemoryError and the errors of Python's own parser.
FAILURES = (
    *(OSError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, MemoryError),
    *(SystemError, EOFError, SyntaxError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


PROOFS = (OSError, RuntimeError, EOFError, struct.error, zipfile.BadZipFile, zlib.error)


@contextlib.contextmanager
def reading(path: Path | str, error: type[DataError] = DataError) -> Iterator[None]:
    """Turn the failure of a library in the block into a DataError that names the file.

    Args:
        path: the file that the block reads; the block does nothing else.
        error: the class of the error.

    Raises:
        DataError: with the size of the file and the first line of the library's message.
    """
    try:
        yield
    except FAILURES as failure:
        raise error(f"{path}{_size(Path(path))} {_verdict(failure)}: {_described(failure)}") from failure


def _verdict(failure: BaseException) -> str:
    """What a failure says of a file. Only some errors prove damage; a sound file of an unusual form may raise the others."""
    if isinstance(failure, PROOFS):
        return "is damaged or still being written"
    return "cannot be read; it may be damaged, or of a form that pdr does not know"


def first_line(failure: BaseException) -> str:
    """The first line of a library's message, without its advice to programmers; the class name if it has none."""
    text = str(failure).strip()
    return text.splitlines()[0] if text else type(failure).__name__


def _size(path: Path) -> str:
    try:
        return f" ({path.stat().st_size} bytes)" if path.is_file() else ""
    except OSError:
        return ""


def _described(failure: BaseException) -> str:
    name, line = type(failure).__name__, first_line(failure)
    return line if line == name else f"{name}: {line}"
