"""HDF5 in the TaxiBJ layout: `data` [T, C, H, W] and `date` [T] as bytes YYYYMMDDSS with a slot of the day SS."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli.data import kinds
from pdr_cli.data import times as time_axis
from pdr_cli.data.arrays import CHANNELS_FIRST, CHANNELS_LAST, COUNTS, DAY_MINUTES, SIGNED, UNIT, Slots
from pdr_cli.data.formats import dayslots, heaps, layouts
from pdr_cli.data.formats.base import Field, Format, ReadOptions, WriteOptions, beginning
from pdr_cli.data.formats.dayslots import Decision, Stamps
from pdr_cli.data.series import LazyFrames, Series, end_to_end, make_series, names
from pdr_cli.data.times import Step
from pdr_cli.errors import DataError, GridError, StorageError, TimeError, UsageError, VariableError
from pdr_cli.system.logs import log

SIGNATURE = b"\x89HDF\r\n\x1a\n"
LAYOUT = "the data sets `data` [T, C, H, W] (or [T, H, W, C], [T, H, W]) of numbers and `date` [T] (YYYYMMDDSS)"
FLOWS = ("inflow", "outflow")  # the two channels of such files, in this order
ZONES = ("timezone", "time_zone", "tz", "utc_offset")  # attributes that may state the zone of the stamps
EIGHT_BITS = 255  # largest number of 8 bits
SAMPLED = 16  # frames that are read for the range of the values
ROUNDING = 1e-3  # minutes or slots
TO_NETCDF = "write this forecast to .nc"


@dataclass(frozen=True)
class _File:
    """An open file: its frames, and the day and slot of each.

    Args:
        path: of the file.
        handle: of h5py.
        days: [T] datetime64[D].
        slots: [T].
        decision: the slots of a day.
        values: convention of the values.
        axes: order of the axes of a frame.
    """

    path: Path
    handle: Any
    days: np.ndarray
    slots: np.ndarray
    decision: Decision = field(default_factory=lambda: Decision(Slots(24), "default"))
    values: str = COUNTS
    axes: str = CHANNELS_FIRST

    @property
    def times(self) -> np.ndarray:
        """[T] datetime64."""
        counted = self.decision.slots
        minutes = ((self.slots - counted.first) * counted.minutes).astype("timedelta64[m]")
        return (self.days + minutes).astype("datetime64[ns]")

    @property
    def stamps(self) -> Stamps:
        """The stamps, and what the attributes of the file state of them."""
        attrs = self.handle.attrs
        stated = (
            Slots(int(attrs["slots_per_day"]), int(attrs.get("first_slot", 1))) if "slots_per_day" in attrs else None
        )
        return Stamps.of(self.path, self.days, self.slots, stated)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        shape = self.handle["data"].shape[1:]
        if len(shape) == 2:
            return 1, *shape
        return (shape[2], *shape[:2]) if self.axes == CHANNELS_LAST else shape

    @property
    def channels(self) -> list[str]:
        """Names of the channels, as the file has them or in the usual order."""
        stated = [_text(name) for name in np.atleast_1d(self.handle.attrs.get("channels", []))]
        return stated if len(set(stated)) == self.shape[0] else channel_names(self.shape[0])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames [start, stop) as float32, [stop - start, C, H, W]; scaled values in [0, 1]."""
        frames = self.stored(start, stop)
        layouts.refuse_others(self.path, frames, self.values)
        return (frames + 1) / 2 if self.values == SIGNED else frames

    def stored(self, start: int, stop: int) -> np.ndarray:
        """Frames [start, stop) with the values of the file."""
        try:
            frames = np.asarray(self.handle["data"][start:stop], dtype=np.float32)
        except OSError as error:
            what = f"steps {start} to {stop - 1} cannot be read, the file is damaged: {error}"
            raise DataError(f"{self.path}: {what}") from error
        if frames.ndim == 3:
            return frames[:, None]
        return np.moveaxis(frames, -1, 1) if self.axes == CHANNELS_LAST else frames

    def sample(self, count: int) -> np.ndarray:
        """The values of `count` frames, evenly spaced."""
        chosen = np.unique(np.linspace(0, len(self.days) - 1, count).round().astype(int))
        return np.concatenate([self.stored(int(i), int(i) + 1) for i in chosen])


class HDF5(Format):
    """Traffic grids in the layout of TaxiBJ."""

    name, title = "hdf5", "HDF5"
    suffixes = outputs = (".h5", ".hdf5")
    takes = frozenset({"variables", "assume", "learned"})

    def matches(self, path: Path) -> bool:
        """Any HDF5 file; NetCDF 4, which is HDF5 too, stands before it in the list of formats."""
        if beginning(path)[:8] != SIGNATURE:
            return False
        heaps.check(path)
        return True

    def open(self, paths: Sequence[Path], options: ReadOptions) -> list[Series]:
        """One Series of all files, joined in the order of their first slots. Times are the city's local time.

        `dayslots.decide` says which slots a day has, `layouts` what the values and the axes are.

        Raises:
            DataError: damaged file, another layout, or values of another range than a model's.
            TimeError: dates that are not YYYYMMDDSS or occur twice, or slots of several conventions.
            GridError: files of different shapes.
            VariableError: a channel name that such files do not have.
        """
        files = _decided([_open(p) for p in paths], options)
        files.sort(key=lambda file: file.times[0])
        return [chosen(_joined(files), options.variables, paths[0])]

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
            # A short file may lack the first and the last slot of a day, and small values may look scaled.
            out.attrs["slots_per_day"], out.attrs["first_slot"] = slots.per_day, slots.first
            out.attrs["values"] = _values_of(series)

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
    if (
        data.ndim not in (3, 4)
        or 0 in data.shape[1:]
        or data.dtype.kind not in "fiu"
        or len(data) != len(handle["date"])
    ):
        raise DataError(f"{path}: data has shape {data.shape} and date {handle['date'].shape}", LAYOUT)
    if len(data) == 0:
        raise TimeError(f"{path} has no time steps", way_out="if it is still being written, wait")
    days, slots = _dates(handle, path)
    _refuse_repeated(days, slots, path)
    return _File(path, handle, days, slots)


def _refuse_repeated(days: np.ndarray, slots: np.ndarray, path: Path) -> None:
    """Refuse stamps that occur twice; the hour that is repeated at the end of summer time makes such."""
    stamps = days.astype(int) * (DAY_MINUTES + 1) + slots
    _, first, counts = np.unique(stamps, return_index=True, return_counts=True)
    if (counts > 1).any():
        at = first[np.argmax(counts > 1)]
        what = f"{path}: {int((counts > 1).sum())} stamps occur twice, first slot {slots[at]} of {days[at]}"
        raise TimeError(what, way_out="keep one of each; at the end of summer time, keep the mean of the hour's two")


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
    for file in files:
        if file.shape != first.shape:
            raise GridError(f"{file.path}: frames of {file.shape}, but {first.path} has {first.shape}")
        if (file.channels, file.values) != (first.channels, first.values):
            found = (f"{', '.join(f.channels)} ({f.values})" for f in (file, first))
            raise DataError(
                f"{file.path} holds {next(found)}, {first.path} {next(found)}", way_out="read them one by one"
            )
    return first.shape


def _joined(files: Sequence[_File]) -> Series:
    """One Series of files in the order of their times."""
    first, slots = files[0], files[0].decision.slots
    channels, height, width = _shape(files)
    times = np.concatenate([file.times for file in files])
    frames = end_to_end([(file.read, len(file.days)) for file in files])
    series = make_series(
        LazyFrames((len(times), channels, height, width), np.float32, frames),
        times,
        layouts.channel_attributes(first.values, first.channels),
        {},
        kind="traffic",
        files=[file.path for file in files],
        file_attrs={"slots_per_day": slots.per_day, "first_slot": slots.first},
    )
    kept = {"slots": str(slots), "values": first.values, "axes": first.axes}
    return series.assign_attrs(conventions=kept, assumed=_assumed(files))


def _decided(files: Sequence[_File], options: ReadOptions) -> list[_File]:
    """The files with what slots, values and axes mean in them."""
    decisions = dayslots.decide([file.stamps for file in files], options.assume, options.learned)
    files = [replace(file, axes=_axes_of(file, options)) for file in files]
    each = max(2, SAMPLED // len(files))
    ends = [layouts.Ends.of(file.sample(each)) for file in files]
    # Values of all files together: a quiet month may have no value above 1.
    whole = layouts.Ends(min(e.low for e in ends), max(e.high for e in ends), all(e.whole for e in ends))
    return [
        replace(file, decision=decision, values=_values(file, whole, options))
        for file, decision in zip(files, decisions, strict=True)
    ]


def _axes_of(file: _File, options: ReadOptions) -> str:
    shape = file.handle["data"].shape[1:]
    return CHANNELS_FIRST if len(shape) == 2 else layouts.axes_of(file.path, shape, options.assume, options.learned)


def _values(file: _File, ends: layouts.Ends, options: ReadOptions) -> str:
    stated = _text(file.handle.attrs.get("values", ""))
    if file.handle["data"].dtype == np.uint8 and ends.high == EIGHT_BITS:
        log.warning(
            "values  %s: whole numbers of 8 bits that reach %d: larger counts may be cut off", file.path, EIGHT_BITS
        )
    return layouts.values_of(file.path, ends, (options.assume.values, stated, options.learned.values), scaled=False)


def _assumed(files: Sequence[_File]) -> tuple[str, ...]:
    """What is assumed of the files, in words."""
    first = files[0]
    doubts = dict.fromkeys(file.decision.doubt for file in files if file.decision.doubt)
    order = () if "channels" in first.handle.attrs else (f"channels {', '.join(first.channels)} in this order",)
    unusual = layouts.unusual(first.values, first.axes, COUNTS)
    return (*doubts, *unusual, *order, _zone(first))


def _zone(file: _File) -> str:
    """The time zone of the stamps, as far as the file states it."""
    stated = next((_text(file.handle.attrs[name]) for name in ZONES if name in file.handle.attrs), "")
    return f"times of the zone {stated}, as stamped" if stated else "times are local, as stamped"


def _slots_of(series: Series) -> Slots:
    """The slots of a series: those of the HDF5 files that it came from, or else as many as its step divides a day into.

    Of a forecast from other files, the first slot has the number that it has in the model's training.

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
    kept = series.attrs.get("conventions", {}).get("slots")
    trained, counted = Slots.parse(kept) if kept else None, Slots(DAY_MINUTES // minutes)
    return trained if trained is not None and trained.per_day == counted.per_day else counted


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


def _values_of(series: Series) -> str:
    """The convention of a series' values, for the file that is written: scaled values are read from 0 to 1."""
    values = str(series.attrs.get("conventions", {}).get("values", COUNTS))
    return UNIT if values == SIGNED else values


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
