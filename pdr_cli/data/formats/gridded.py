"""Formats that hold fields with their coordinates: read through xarray, written by a `cf.Layout`."""

from __future__ import annotations

import abc
import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import xarray as xr

from pdr_cli.data.formats import cf, groups
from pdr_cli.data.formats.base import Field, Format, ReadOptions, WriteOptions
from pdr_cli.data.formats.cf import Layout
from pdr_cli.data.formats.datasets import from_datasets
from pdr_cli.data.series import MEMBERS, Series
from pdr_cli.errors import StorageError

FEATURES, STATION_SERIES = "featureType", "timeSeries"  # global attribute of CF for forecasts at points
Put = Callable[[int, np.ndarray], None]
Stored = Callable[[int, int], np.ndarray]


class GriddedFormat(Format):
    """A format of fields with their coordinates. `open_dataset` is needed; for outputs also `create` to `note`.

    Files larger than memory are laid out first and filled later, piece by piece.

    Attributes:
        engine: of xarray.
    """

    gridded = uncertain = True
    takes = frozenset({"variables", "rename", "group", "missing_values"})
    engine: ClassVar[str]

    @abc.abstractmethod
    def open_dataset(self, path: Path, group: str = "") -> xr.Dataset:
        """A file as it is, times decoded, no field read yet.

        Args:
            path: of the file.
            group: path of the group to open, such as "/observed"; formats without groups open the file.

        Raises:
            DataError: damaged, or not of this format.
            TimeError: a time axis that cannot be decoded.
        """

    def groups(self, path: Path) -> list[str]:
        """Paths of all groups but the root; none in formats without groups."""
        return []

    def open_fields(self, path: Path, group: str = "") -> xr.Dataset:
        """The group of a file that holds its fields, with the coordinates of its parents; see `groups.fields`."""

        def read(name: str) -> xr.Dataset:  # formats of other packages may have no groups
            return self.open_dataset(path, name) if name else self.open_dataset(path)

        return groups.fields(path, group, lambda: self.groups(path), read)

    def create(self, path: Path, layout: Layout, compress: int) -> None:
        """Lay out a new file: everything but the numbers of its fields, which are missing until written."""
        raise NotImplementedError(self.name)

    def writing(self, path: Path, layout: Layout) -> contextlib.AbstractContextManager[Put]:
        """A function that writes frames [n, ..., C, H, W] from an index of the first dimension on."""
        raise NotImplementedError(self.name)

    def reading_back(self, path: Path, layout: Layout) -> contextlib.AbstractContextManager[Stored]:
        """A function that reads what was written in [start, stop) of the first dimension: [n, ..., C, H, W]."""
        raise NotImplementedError(self.name)

    def note(self, path: Path, attrs: Mapping[str, str]) -> None:
        """Add global attributes to a file that is otherwise finished."""
        raise NotImplementedError(self.name)

    def fill(self, path: Path, layout: Layout, frames: np.ndarray, compress: int) -> None:
        """Create a file with all its numbers, frames [n, ..., C, H, W]."""
        self.create(path, layout, compress)
        with self.writing(path, layout) as put:
            put(0, frames)

    def open(self, paths: Sequence[Path], options: ReadOptions) -> list[Series]:
        """One Series; see `datasets.from_datasets`."""
        opened = [(self.open_fields(path, options.group), path) for path in paths]
        return [from_datasets(opened, options.variables, options.rename, options.missing_values)]

    def need(self, series: Series) -> int:
        """Bytes of its fields, uncompressed."""
        return 4 * series.size

    def write(self, series: Series, path: Path, provenance: Mapping[str, str], options: WriteOptions) -> None:
        """Write a forecast, or any other series."""
        layout, frames = _laid_out(series, provenance, options.time_layout)
        self.fill(path, layout, frames, options.compress)

    def verify(self, path: Path, series: Series, options: WriteOptions) -> None:
        """Compare all numbers of the fields."""
        layout, frames = _laid_out(series, {}, options.time_layout)
        with self.reading_back(path, layout) as stored:
            if not np.array_equal(stored(0, len(frames)), frames, equal_nan=True):
                raise StorageError(f"{path.name} reads back differently from what was written")

    def provenance(self, path: Path) -> Mapping[str, str]:
        """The global attributes."""
        with self.undecoded(path) as dataset:
            return dict(dataset.attrs)

    @contextlib.contextmanager
    def stored(self, path: Path) -> Iterator[dict[str, Field]]:
        """Variables of floats with three dimensions or more."""
        with self.undecoded(path) as dataset:
            yield {name: _field(v) for name, v in fields_of(dataset).items()}

    def undecoded(self, path: Path) -> xr.Dataset:
        """A file with its times as numbers, for hashes."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # xarray warns of stores without consolidated metadata
            return xr.open_dataset(path, decode_times=False, engine=self.engine, cache=False)


def fields_of(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    """The fields of an output, by name; of time series of stations as (time, 1, station)."""
    floats = {str(n): v for n, v in dataset.data_vars.items() if v.dtype.kind == "f"}
    if dataset.attrs.get(FEATURES) == STATION_SERIES:
        return {n: v.transpose("time", ...).expand_dims("y", 1) for n, v in floats.items() if v.ndim == 2}
    return {n: v for n, v in floats.items() if v.ndim >= 3}


def _field(array: xr.DataArray) -> Field:
    members = array.dims.index(MEMBERS) if MEMBERS in array.dims else None
    return Field(array.shape, lambda start, stop: array[start:stop].values, members)


def _laid_out(series: Series, provenance: Mapping[str, str], time_layout: str) -> tuple[Layout, np.ndarray]:
    """What a file is to hold, and its frames [n, ..., C, H, W]."""
    frames = np.asarray(series.values, np.float32)
    if time_layout == "cf":
        return cf.forecast_layout(series, provenance), frames
    return cf.hindcast_layout(series, np.array([cf.init_of(series)]), provenance, time_layout), frames[None]
