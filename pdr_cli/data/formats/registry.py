"""The list of formats, ours and those of installed packages, and the format of a file or of an output's suffix."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import xarray as xr

from pdr_cli.choices import FORMATS
from pdr_cli.data.formats import foreign
from pdr_cli.data.formats.base import Format, beginning
from pdr_cli.data.formats.gridded import GriddedFormat
from pdr_cli.errors import DataError, UsageError
from pdr_cli.system import damage, urls


def members() -> Iterator[Format]:
    """Every format, in the order in which they are tried. Other packages are looked up last, and only if ours do not match."""
    yield from (_member(name) for name in FORMATS.own)
    yield from (_member(name) for name in sorted(FORMATS.announced()) if name not in FORMATS.own)


def _member(name: str) -> Format:
    found = FORMATS.find(name)
    if not (isinstance(found, type) and issubclass(found, Format)):
        raise FORMATS.error(
            f"format {name!r} of group {FORMATS.group} is {found!r}", "a subclass of formats.base.Format"
        )
    return found()


def of(path: Path) -> Format:
    """The format of a file or folder, by its content.

    Raises:
        DataError: empty, or of no format in the list.
    """
    with damage.reading(path):
        if path.is_file() and path.stat().st_size == 0:
            raise DataError(f"{path} is empty (0 bytes)", way_out="wait until it is written, or get it again")
        found = next((member for member in members() if member.matches(path)), None)
        if found is None:
            raise _unknown(path)
        return found


def _unknown(path: Path) -> DataError:
    """The error for a file or folder that no format matches."""
    if (error := foreign.recognised(path)) is not None:
        return error
    if path.is_dir():
        return DataError(f"{path} is a folder without numbered pictures", way_out="name the files in it")
    head = beginning(path)
    return DataError(
        f"{path} ({path.stat().st_size} bytes) is neither {_titles()}; it begins with {head[:8]!r} and may be damaged or "
        "of another format"
    )


def _titles() -> str:
    *most, last = [member.title for member in members() if member.suffixes or member.second]
    return f"{', '.join(most)} nor {last}"


def of_all(paths: Sequence[Path]) -> Format:
    """The one format of several files.

    Raises:
        DataError: they have several formats.
    """
    found = {path: of(path) for path in paths}
    first = found[paths[0]]
    for path, other in found.items():
        if other.name != first.name:
            raise DataError(f"{paths[0]} is {first.title} and {path} is {other.title}", "files of one format")
    return first


def gridded(path: Path) -> GriddedFormat:
    """The format of a file that holds fields with their coordinates.

    Raises:
        DataError: damaged, or of another format.
    """
    found = of(path)
    if not found.gridded:
        titles = ", ".join(member.title for member in members() if member.gridded)
        raise DataError(f"{path} is {found.title}; fields with their coordinates are read from {titles}")
    return cast(GriddedFormat, found)


@contextlib.contextmanager
def named(path: Path, copy: Path) -> Iterator[None]:
    """Errors of the block that name `copy`, an unpacked or downloaded copy of `path`, name `path` in its place."""
    try:
        yield
    except DataError as error:
        found, way_out = (part.replace(str(copy), str(path)) for part in (error.found, error.way_out))
        raise error.replace(found=found, way_out=way_out) from error


def open_fields(path: Path, group: str = "") -> xr.Dataset:
    """A file of a gridded format as a dataset, times decoded, no field read yet; `group`: see `ReadOptions`.

    Raises:
        DataError: damaged, or of another format.
        TimeError: a time axis that cannot be decoded.
    """
    form = gridded(path)
    with damage.reading(path):
        return form.open_fields(path, group)


def of_output(path: Path) -> Format:
    """The format that the suffix of an output names.

    Raises:
        UsageError: none, or the output is a URL.
    """
    urls.refuse_output(path)
    suffix = path.suffix.lower()
    found = next((member for member in members() if suffix in member.outputs), None)
    if found is None:
        what = f"output {path}: suffix {path.suffix or '(none)'!r} names no format"
        raise UsageError(what, f"one of {', '.join(outputs())}")
    return found


def outputs(*, gridded: bool = False, uncertain: bool = False) -> tuple[str, ...]:
    """Suffixes of outputs.

    Args:
        gridded: of formats that hold fields with their coordinates.
        uncertain: of formats that hold members and intervals.
    """
    found = (m for m in members() if (m.gridded or not gridded) and (m.uncertain or not uncertain))
    return tuple(s for member in found for s in member.outputs)


def suffixes() -> tuple[str, ...]:
    """Suffixes by which inputs are found in folders."""
    return tuple(dict.fromkeys(s for member in members() for s in member.suffixes))


def second() -> tuple[str, ...]:
    """Endings of the names of files that are inputs where a folder holds no other ones; see `Format`."""
    return tuple(s for member in members() for s in member.second)
