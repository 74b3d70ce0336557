"""What libraries raise of a file that is not what it should be, as one error that names the file."""

from __future__ import annotations

import contextlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from pdr_cli.errors import DataError

# Of a header that says something absurd, h5py raises RuntimeError and KeyError, xarray OverflowError, NumPy MemoryError
# and what Python's own parser raises, and so on: fuzzing has found each of these.
FAILURES = (
    *(OSError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, MemoryError),
    *(SystemError, EOFError, SyntaxError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


@contextlib.contextmanager
def reading(path: Path | str, error: type[DataError] = DataError) -> Iterator[None]:
    """Whatever a library raises in the block, as a DataError that names the file.

    Args:
        path: of the file that is read there; nothing but reading it belongs into the block.
        error: the kind of error.

    Raises:
        DataError: says the size of the file and what the library says.
    """
    try:
        yield
    except FAILURES as failure:
        raise error(f"{path}{_size(Path(path))} is damaged or still being written: {_says(failure)}") from failure


def first_line(failure: BaseException) -> str:
    """What a library says, without its advice to programmers, or else the kind of failure."""
    text = str(failure).strip()
    return text.splitlines()[0] if text else type(failure).__name__


def _size(path: Path) -> str:
    try:
        return f" ({path.stat().st_size} bytes)" if path.is_file() else ""
    except OSError:
        return ""


def _says(failure: BaseException) -> str:
    name, line = type(failure).__name__, first_line(failure)
    return line if line == name else f"{name}: {line}"
