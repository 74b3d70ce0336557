"""The face of a file format: what it is found by, how it is read and, where `outputs` names a suffix, how it is written."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from pdr_cli.data.arrays import NOTHING, Conventions
from pdr_cli.data.series import Series
from pdr_cli.errors import DataError

BLOCK_BYTES = 64 * 2**20
COMPRESSION = 4


@dataclass(frozen=True)
class ReadOptions:
    """How inputs are opened.

    Args:
        variables: channels to read; "all": all, of fields those on one grid and at the same times; empty: all, or the only
            variable of a file of fields.
        rename: {channel: name in the file}.
        size: (H, W) that frames are resized to; empty: their own size.
        color: "gray" or "rgb".
        resample_fps: constant frame rate that clips are resampled to; 0: their own rate.
        gray_to_rgb: whether gray frames may be read as rgb.
        group: group that holds the fields; "": the root, or the only group with fields.
        missing_values: numbers that stand for missing values, `-999` of every variable or `sst=-9999` of one; `none`: no
            number does, whatever it looks like.
        assume: conventions that an option states.
        learned: conventions of a model's training, which decide where the files leave them open.
    """

    variables: Sequence[str] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    size: Sequence[int] = ()
    color: str = "gray"
    resample_fps: float = 0
    gray_to_rgb: bool = False
    group: str = ""
    missing_values: Sequence[str] = ()
    assume: Conventions = NOTHING
    learned: Conventions = NOTHING

    def only(self, taken: Collection[str]) -> ReadOptions:
        """The options named in `taken`; the others are set to their defaults."""
        return ReadOptions(**{name: value for name, value in vars(self).items() if name in taken})


DEFAULTS = ReadOptions()


@dataclass(frozen=True)
class WriteOptions:
    """How outputs are written.

    Args:
        time_layout: "cf", or "wb2" for the dimensions of WeatherBench2, see `cf.hindcast_layout`; gridded formats only.
        compress: 0 (fast) to 9 (small); gridded formats only.
    """

    time_layout: str = "cf"
    compress: int = COMPRESSION


@dataclass(frozen=True)
class Field:
    """One variable of an output, [time, y, x] or with more dimensions before these; missing values are NaN.

    Args:
        shape: of the whole field.
        read: values in [start, stop) of the first dimension.
        members: the dimension of an ensemble's members, 0 or 1; None: single forecasts.
    """

    shape: tuple[int, ...]
    read: Callable[[int, int], np.ndarray]
    members: int | None = None

    def blocks(self) -> Iterator[np.ndarray]:
        """The whole field in pieces along its first dimension, each small enough for memory."""
        length = max(1, BLOCK_BYTES // (4 * int(np.prod(self.shape[1:], dtype=np.int64)) or 1))
        for start in range(0, self.shape[0], length):
            yield self.read(start, min(start + length, self.shape[0]))


class Format(abc.ABC):
    """One file format. `matches` and `open` are needed; the rest only where the format can do it.

    Packages add their own under the entry-point group `pdr.formats`.

    Attributes:
        name: as `pdr inspect` prints it; equal to the name in `choices.FORMATS`.
        title: in messages, such as "NetCDF" or "a folder of pictures".
        suffixes: files with these suffixes (lower case) are found in folders.
        second: endings of names (lower case) of files that are found in folders without files of `suffixes`: people keep
            them beside the files that they were converted to.
        outputs: suffixes (lower case) that it writes; then `write` is needed.
        takes: names of the `ReadOptions` that have a meaning for it; `open` gets the defaults of all others.
        gridded: whether it holds fields with their coordinates and is a `gridded.GriddedFormat`.
        store: whether its outputs are folders, such as those of Zarr.
        uncertain: whether its outputs hold the members of an ensemble and the ends of intervals.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    second: ClassVar[tuple[str, ...]] = ()
    outputs: ClassVar[tuple[str, ...]] = ()
    takes: ClassVar[frozenset[str]] = frozenset()
    gridded: ClassVar[bool] = False
    store: ClassVar[bool] = False
    uncertain: ClassVar[bool] = False

    @abc.abstractmethod
    def matches(self, path: Path) -> bool:
        """Whether the content of a file or folder is of this format; formats are tried in the order of their list."""

    @abc.abstractmethod
    def open(self, paths: Sequence[Path], options: ReadOptions) -> list[Series]:
        """Open files that match, lazily: fields joined along time to one Series, or one Series for each clip or part."""

    def inside(self, folder: Path, files: Sequence[Path]) -> list[Path]:
        """Inputs in a folder that suffixes alone cannot tell; `files` are those with the suffixes of any format."""
        return []

    def check(self, series: Series, suffix: str) -> None:  # noqa: B027 - most formats hold any series
        """Refuse a series that files with this suffix cannot hold (UsageError)."""

    def need(self, series: Series) -> int:
        """Bytes that the output will take at most; 0: unknown."""
        return 0

    def write(self, series: Series, path: Path, provenance: Mapping[str, str], options: WriteOptions) -> None:
        """Write a series to a new file; the caller makes the file atomic."""
        raise NotImplementedError(f"{self.name} has outputs but no method write")

    def verify(self, path: Path, series: Series, options: WriteOptions) -> None:
        """Compare a written file with the series (StorageError); by default, that it opens."""
        self.open([path], DEFAULTS)

    def provenance(self, path: Path) -> Mapping[str, str]:
        """The global attributes of a file, those with the prefix `pdr_` among them."""
        return {}

    def stored(self, path: Path) -> contextlib.AbstractContextManager[dict[str, Field]]:
        """The fields of an output by name, for its hash; readable inside of the block.

        Raises:
            DataError: the format does not hold numbers as they were, such as video.
        """
        raise DataError(f"{path} is {self.title}, which does not hold the numbers of a forecast as they were")


def beginning(path: Path) -> bytes:
    """The first 16 bytes of a file; none of a folder."""
    if not path.is_file():
        return b""
    with path.open("rb") as stream:
        return stream.read(16)
