"""Files and Series: the format of an input is found by its content, that of an output by its suffix.

This is the face of the package. The list of formats is in `registry`, one class a format in each file.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from pdr_cli.data import partnames
from pdr_cli.data.arrays import NO_PARTS
from pdr_cli.data.formats import cf, registry
from pdr_cli.data.formats.base import COMPRESSION, DEFAULTS, Field, Format, ReadOptions, WriteOptions
from pdr_cli.data.formats.gridded import GriddedFormat
from pdr_cli.data.formats.registry import of, of_output, open_fields, outputs
from pdr_cli.data.formats.search import find_inputs
from pdr_cli.data.formats.selection import ALL
from pdr_cli.data.series import MEMBERS, Series
from pdr_cli.errors import OutputError, StorageError, UsageError
from pdr_cli.system import atomic, damage
from pdr_cli.system.atomic import atomic_folder, atomic_output

__all__ = [
    "COMPRESSION", "Field", "Format", "GriddedFormat", "ReadOptions", "WriteOptions", "atomically", "check_members",
    "check_output", "check_output_format", "check_time_layout", "detect", "field_store", "find_inputs", "of", "of_output",
    "open_fields", "open_series", "outputs", "write",
]  # fmt: skip

OVERHEAD = 2**16  # bytes of coordinates, attributes and the tables of a format


def detect(path: Path) -> str:
    """The name of the format of a file or folder, by its content: "netcdf", "zarr", "hdf5", "npz", "video", "frames",
    "windows" or that of another package.

    Raises:
        DataError: empty, or of no format in the list.
    """
    return of(path).name


def open_series(paths: Sequence[Path], options: ReadOptions = DEFAULTS) -> list[Series]:
    """Open files of one format as Series: fields and grids joined along time into one, each clip by itself.

    A benchmark that is published in parts gives a Series for each part, with `attrs["part"]`, and so do clips in folders
    whose names are train, val and test.

    Args:
        paths: files from `find_inputs`.
        options: of which each format takes those that have a meaning for it.

    Raises:
        DataError: damaged, or of several formats.
        UsageError: `resample_fps` for anything but video.
    """
    form = registry.of_all(paths)
    if options.resample_fps and "resample_fps" not in form.takes:
        raise UsageError(f"--resample-fps is for video files, but {paths[0]} is {form.title}")
    if not form.gridded and list(options.variables) == [ALL]:
        options = dataclasses.replace(options, variables=())  # without names, these formats give all they have
    with damage.reading(paths[0]):
        series = form.open(paths, options.only(form.takes))
    return series if options.assume.parts == NO_PARTS else partnames.labelled(series)


def check_output(path: Path, inputs: Sequence[Path] = ()) -> None:
    """Refuse an output that could not be created, before any work is done; see `atomic.check_output`.

    Raises:
        UsageError: unknown suffix, or the output is one of the inputs.
        OutputError: it cannot be created, or would replace a folder of another format.
    """
    form = of_output(path)
    atomic.check_output(path, inputs, folder=form.store)
    if form.store and path.exists() and not atomic.may_replace(path, form.matches):
        raise OutputError(f"output {path} is a folder of other things than a {form.title} store, which is not replaced")


def check_output_format(path: Path, series: Series) -> None:
    """Refuse a format that cannot hold this series, before it is computed.

    Raises:
        UsageError: unknown suffix, or a format for other data.
    """
    if MEMBERS in series.dims:
        check_members(path)
    of_output(path).check(series, path.suffix.lower())


def check_members(path: Path) -> None:
    """Refuse an output that cannot hold the members of an ensemble.

    Raises:
        UsageError: names the formats that can.
    """
    if not of_output(path).uncertain:
        raise UsageError(
            f"{path.suffix} files do not hold the members of an ensemble",
            way_out=f"write {', '.join(outputs(uncertain=True))}, or the mean of the members with --members mean",
        )


def check_time_layout(path: Path, time_layout: str) -> None:
    """Refuse an unknown time layout, or one that the format of an output does not have.

    Raises:
        UsageError: either of these.
    """
    if time_layout not in cf.TIME_LAYOUTS:
        raise UsageError(f"--time-layout {time_layout} is not known", f"{' or '.join(cf.TIME_LAYOUTS)}")
    if time_layout != "cf" and not of_output(path).gridded:
        suffixes = ", ".join(outputs(gridded=True))
        raise UsageError(f"--time-layout {time_layout} is for {suffixes}, not {path.suffix}")


def write(
    series: Series,
    path: Path,
    provenance: Mapping[str, str],
    *,
    time_layout: str = "cf",
    compress: int = COMPRESSION,
) -> None:
    """Write a Series to `path`, atomically and verified, in the format that its suffix names.

    Args:
        series: a forecast, or any other.
        path: file or store to create or replace.
        provenance: global attributes.
        time_layout: see `WriteOptions`.
        compress: see `WriteOptions`.
    """
    check_output_format(path, series)
    form, options = of_output(path), WriteOptions(time_layout, compress)

    def verify(written: Path) -> None:
        try:
            form.verify(written, series, options)
        except StorageError as error:
            raise error.at(path) from error

    with atomically(path, verify, need=form.need(series)) as temporary:
        form.write(series, temporary, provenance, options)


def field_store(path: Path) -> GriddedFormat:
    """The gridded format that the suffix of an output names.

    Raises:
        UsageError: the suffix names no format, or another one.
    """
    form = of_output(path)
    if not form.gridded:
        raise UsageError(f"output {path} is {form.title}", f"one of {', '.join(outputs(gridded=True))}")
    return cast(GriddedFormat, form)


def atomically(
    path: Path, verify: Callable[[Path], None] | None = None, need: int = 0, begun: Path | None = None
) -> contextlib.AbstractContextManager[Path]:
    """`atomic.atomic_output`, or `atomic.atomic_folder` for a store, which may be `begun`; `need`: bytes of its fields,
    0: unknown.
    """
    form = of_output(path)
    need += OVERHEAD if need else 0
    if form.store:
        return atomic_folder(path, verify, replaces=form.matches, need=need, begun=begun)
    return atomic_output(path, verify, need=need)
