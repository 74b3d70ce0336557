"""HDF5 in the TaxiBJ layout: `data` [T, C, H, W] and `date` [T] as bytes YYYYMMDDSS with a slot of the day SS."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli.data import kinds
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import heaps
from pdr_cli.data.formats.base import Field, Format, ReadOptions, WriteOptions, beginning
from pdr_cli.data.series import LazyFrames, Series, end_to_end, make_series, names
from pdr_cli.data.times import Step
from pdr_cli.errors import DataError, GridError, StorageError, TimeError, UsageError, VariableError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
LAYOUT = "the data sets `data` [T, C, H, W] of numbers and `date` [T] (YYYYMMDDSS)"
FLOWS = ("inflow", "outflow")  # the two channels of such files, in this order
DAY_MINUTES = 24 * 60
USUAL_SLOTS = (24, 48, 96, 144, 288)  # of a day
ROUNDING = 1e-3  # minutes or slots
TO_NETCDF = "write this forecast to .nc"


@dataclass(frozen=True)
class Slots:
    """The slots of a day.

    Args:
        per_day: their number.
        first: the number of the first one.
    """

    per_day: int
    first: int = 1

    @property
    def minutes(self) -> int:
        """Length of a slot."""
        return DAY_MINUTES // self.per_day


@dataclass(frozen=True)
class _File:
    """An open file: its frames, and the day and slot of each."""

    path: Path
    handle: Any
    days: np.ndarray
    slots: np.ndarray

    def times(self, slots: Slots) -> np.ndarray:
        """[T] datetime64."""
        minutes = ((self.slots - slots.first) * slots.minutes).astype("timedelta64[m]")
        return (self.days + minutes).astype("datetime64[ns]")


class HDF5(Format):
    """Traffic grids in the layout of TaxiBJ."""

    name, title = "hdf5", "HDF5"
    suffixes = outputs = (".h5", ".hdf5")
    takes = frozenset({"variables"})

    def matches(self, path: Path) -> bool:
        """Any HDF5 file; NetCDF 4, which is HDF5 too, stands before it in the list of formats."""
        if beginning(path)[:8] != SIGNATURE:
            return False
        heaps.check(path)
        return True

    def open(self, paths: Sequence[Path], options: ReadOptions) -> list[Series]:
        """One Series of all files, joined in the order of their first slots. Times are the city's local time.

        Slots are 1-based, or 0-based if a slot 0 occurs; their number in a day is the file's attribute `slots_per_day`,
        or else the smallest of 24, 48, 96, 144 and 288 that holds all of them.

        Raises:
            DataError: damaged file or another layout.
            TimeError: dates that are not YYYYMMDDSS.
            GridError: files of different shapes.
            VariableError: a channel name that such files do not have.
        """
        files = [_open(p) for p in paths]
        slots = _slots_of_files(files)
        files.sort(key=lambda file: file.times(slots)[0])
        channels, height, width = _shape(files)
        times = np.concatenate([file.times(slots) for file in files])
        frames = end_to_end([(partial(_read, file), len(file.days)) for file in files])
        flows = channel_names(channels)
        series = make_series(
            LazyFrames((len(times), channels, height, width), np.float32, frames),
            times,
            {name: {"units": "count", "long_name": f"{name} per cell and interval"} for name in flows},
            {},
            kind="traffic",
            files=[file.path for file in files],
            file_attrs={"slots_per_day": slots.per_day, "first_slot": slots.first},
        )
        return [chosen(series, options.variables, paths[0])]

    def check(self, series: Series, suffix: str) -> None:
        """Refuse what is not traffic, and times that are not slots of a day."""
        if kinds.of(series) is not kinds.TRAFFIC:
            raise UsageError(f"{suffix} is for traffic grids in the layout data/date", way_out=TO_NETCDF)
        _stamps(series, _slots_of(series))

    def write(self, series: Series, path: Path, provenance: Mapping[str, str], options: WriteOptions) -> None:
        """Write the same layout; `provenance` becomes the file's attributes."""
        import h5py

        slots = _slots_of(series)
        with h5py.File(path, "w") as out:
            out.create_dataset(
                "data", data=series.values.astype(np.float32), compression="gzip", shuffle=True, fletcher32=True
            )
            out.create_dataset("date", data=np.array(_stamps(series, slots), dtype="S"))
            # Of fixed length where pdr reads them: damage to the heap of other strings makes the library loop forever.
            out.attrs.update(
                {k: np.bytes_(v.encode()) if k.startswith("pdr_") else v for k, v in provenance.items() if v}
            )
            out.attrs["channels"] = np.array([name.encode() for name in names(series)])
            # A short file may lack the late slots of a day, from which readers would infer their number.
            out.attrs["slots_per_day"], out.attrs["first_slot"] = slots.per_day, slots.first

    def verify(self, path: Path, series: Series, options: WriteOptions) -> None:
        """Compare all frames."""
        import h5py

        with h5py.File(path) as back:
            try:
                data = back["data"][:]
            except KeyError as error:  # h5py's error for a disk that cannot be read
                raise StorageError(f"what was written cannot be read again: {error}") from error
            if not np.array_equal(data, series.values.astype(np.float32), equal_nan=True):
                raise StorageError("data read back differently from what was written")

    def provenance(self, path: Path) -> Mapping[str, str]:
        """The attributes of the file that pdr wrote."""
        import h5py

        with h5py.File(path) as handle:
            return {name: _text(handle.attrs[name]) for name in handle.attrs if name.startswith("pdr_")}

    @contextlib.contextmanager
    def stored(self, path: Path) -> Iterator[dict[str, Field]]:
        """The channels."""
        import h5py

        with h5py.File(path) as handle:
            channels, data = [_text(n) for n in handle.attrs.get("channels", [])], handle["data"]
            shape = (data.shape[0], *data.shape[2:])
            yield {n: Field(shape, lambda a, b, i=i: data[a:b, i]) for i, n in enumerate(channels)}  # type: ignore[misc]


def is_traffic(handle: Any) -> bool:
    """True if an open HDF5 file has the two data sets of this layout."""
    return "data" in handle and "date" in handle


def channel_names(count: int) -> list[str]:
    """Names of the channels of a traffic grid."""
    return list(FLOWS) if count == 2 else [f"flow_{i}" for i in range(count)]


def chosen(series: Series, variables: Sequence[str], path: Path) -> Series:
    """The channels `variables` of a series, or all.

    Raises:
        VariableError: a name that the series does not have.
    """
    unknown = [v for v in variables if v not in names(series)]
    if unknown:
        raise VariableError(f"{path} has no channel {unknown[0]!r}; it has {', '.join(names(series))}")
    return series.sel(channel=list(variables)) if variables and list(variables) != names(series) else series


def _open(path: Path) -> _File:
    import h5py

    try:
        handle = h5py.File(path, "r")
    except OSError as error:
        what = f"{path} ({path.stat().st_size} bytes) is damaged, truncated or still being written: {error}"
        raise DataError(what) from error
    if not is_traffic(handle):
        found: list[str] = []
        handle.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        raise DataError(f"{path} is HDF5 of another layout: it has {', '.join(found[:5]) or 'no data sets'}", LAYOUT)
    data = handle["data"]
    if data.ndim != 4 or 0 in data.shape[1:] or data.dtype.kind not in "fiu" or len(data) != len(handle["date"]):
        raise DataError(f"{path}: data has shape {data.shape} and date {handle['date'].shape}", LAYOUT)
    if len(data) == 0:
        raise TimeError(f"{path} has no time steps", way_out="if it is still being written, wait")
    return _File(path, handle, *_dates(handle, path))


def _dates(handle: Any, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Days [T] as datetime64[D] and slots [T]."""
    stamps = [s.decode(errors="replace") if isinstance(s, bytes) else str(s) for s in handle["date"][:]]
    try:
        days = np.array([f"{s[:4]}-{s[4:6]}-{s[6:8]}" for s in stamps], dtype="datetime64[D]")
        return days, np.array([int(s[8:]) for s in stamps])
    except ValueError:
        wrong = next((s for s in stamps if not (s.isdigit() and len(s) >= 10)), stamps[0])
        raise TimeError(f"{path}: date {wrong!r} is not valid", "YYYYMMDDSS (day and slot of the day)") from None


def _shape(files: Sequence[_File]) -> tuple[int, int, int]:
    """(C, H, W) of all files."""
    first = files[0]
    channels, height, width = first.handle["data"].shape[1:]
    for file in files:
        if file.handle["data"].shape[1:] != (channels, height, width):
            what = f"{file.path}: frames of {file.handle['data'].shape[1:]}, but {first.path} has"
            raise GridError(f"{what} {(channels, height, width)}")
    return channels, height, width


def _slots_of_files(files: Sequence[_File]) -> Slots:
    """The slots of a day as the attributes of the first file state them, or else as they occur."""
    attrs, path = files[0].handle.attrs, files[0].path
    low, high = (int(f(np.concatenate([file.slots for file in files]))) for f in (np.min, np.max))
    if "slots_per_day" not in attrs:
        return _slots_between(low, high, path)
    stated = Slots(int(attrs["slots_per_day"]), int(attrs.get("first_slot", 1)))
    if not (1 <= stated.per_day <= DAY_MINUTES and stated.first <= low and high < stated.first + stated.per_day):
        raise TimeError(
            f"{path}: slots {low} to {high} do not lie in a day of {stated.per_day} slots from {stated.first} on"
        )
    return stated


def _slots_between(low: int, high: int, path: Path) -> Slots:
    """The slots of a day by the lowest and the highest number that occur."""
    if low < 0:
        raise TimeError(f"{path}: slot {low} is before the first of a day", "slots from 0 or 1 on")
    first = 0 if low == 0 else 1
    per_day = next((n for n in USUAL_SLOTS if high - first + 1 <= n), None)
    if per_day is None:
        raise TimeError(f"{path}: slot {high} is past the end of a day of 288 five-minute slots")
    return Slots(per_day, first)


def _slots_of(series: Series) -> Slots:
    """The slots of a series: those of the HDF5 files that it came from, or else as many as its step divides a day into.

    Raises:
        UsageError: a step that does not divide a day.
    """
    attrs = series.attrs["file_attrs"]
    if "slots_per_day" in attrs:
        return Slots(int(attrs["slots_per_day"]), int(attrs.get("first_slot", 1)))
    step = _step(series)
    minutes = round(60 * step.hours)
    if abs(60 * step.hours - minutes) > ROUNDING or minutes < 1 or DAY_MINUTES % minutes:
        raise UsageError(f".h5 numbers the slots of a day, and steps of {step} do not divide a day", way_out=TO_NETCDF)
    return Slots(DAY_MINUTES // minutes)


def _step(series: Series) -> Step:
    """The step between frames; of a single forecast frame its lead time, of another single frame an hour."""
    if series.sizes["time"] > 1:
        return time_axis.find_step(series.time.values)
    leads = series.coords.get("forecast_period")
    return Step(3600.0 if leads is None else 3600 * float(leads.values[0]))


def _stamps(series: Series, slots: Slots) -> list[bytes]:
    """YYYYMMDDSS of each frame.

    Raises:
        UsageError: times without a date of the standard calendar, or between the beginnings of two slots.
    """
    if series.time.dtype.kind != "M":
        what = ".h5 dates each frame, and these times have no dates of the standard calendar"
        raise UsageError(what, way_out=TO_NETCDF)
    times = (series.time.values + np.timedelta64(500, "ms")).astype("datetime64[s]")
    days = times.astype("datetime64[D]")
    places = (times - days) / np.timedelta64(slots.minutes, "m")
    off = np.flatnonzero(np.abs(places - np.round(places)) > ROUNDING)
    if len(off):
        what = (
            f".h5 numbers the {slots.per_day} slots of a day, and {time_axis.label(times[off[0]])} begins none of them"
        )
        raise UsageError(what, way_out=TO_NETCDF)
    numbers = np.round(places).astype(int) + slots.first
    return [f"{str(day).replace('-', '')}{slot:02d}".encode() for day, slot in zip(days, numbers, strict=True)]


def _read(file: _File, start: int, stop: int) -> np.ndarray:
    try:
        return np.asarray(file.handle["data"][start:stop], dtype=np.float32)
    except OSError as error:
        what = f"steps {start} to {stop - 1} cannot be read, the file is damaged: {error}"
        raise DataError(f"{file.path}: {what}") from error


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
