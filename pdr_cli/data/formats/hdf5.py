"""HDF5 in the TaxiBJ layout: `data` [T, C, H, W] and `date` [T] as bytes YYYYMMDDSS with a slot of the day SS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from pdr_cli.data.series import LazyFrames, Series, end_to_end, make_series, names
from pdr_cli.errors import DataError, GridError, StorageError, TimeError, VariableError
from pdr_cli.system import damage

FLOWS = ("inflow", "outflow")  # what the two channels of such files are, in this order


def read(paths: Sequence[Path], variables: Sequence[str] = ()) -> Series:
    """Open one or more files as one Series, lazily, joined in the order of their first slots.

    Slots are 1-based, or 0-based if a slot 0 occurs; their number in a day is the file's attribute `slots_per_day`,
    or else the smallest of 24, 48, 96, 144 and 288 that holds all of them. Times are the city's local time.

    Raises:
        DataError: damaged file or another layout.
        TimeError: dates that are no YYYYMMDDSS.
        GridError: files of different shapes.
        VariableError: a channel name that such files do not have.
    """
    opened = [_open(p) for p in paths]
    dates = [_dates(handle, path) for handle, path in opened]
    slots = np.concatenate([s for _, s in dates])
    base, per_day = _slots_of_a_day(slots, opened[0][0].attrs, paths[0])
    parts = sorted(
        (
            (_times(days, s, base, per_day), handle["data"], path)
            for (handle, path), (days, s) in zip(opened, dates, strict=True)
        ),
        key=lambda part: part[0][0],
    )
    shape = parts[0][1].shape[1:]
    for _, data, path in parts:
        if data.shape[1:] != shape:
            raise GridError(f"{path}: frames of {data.shape[1:]}, but {parts[0][2]} has {shape}")
    frames = end_to_end([(partial(_read, data, path), len(t)) for t, data, path in parts])
    times = np.concatenate([t for t, _, _ in parts])
    series = make_series(
        LazyFrames((len(times), *shape), np.float32, frames),
        times,
        {name: {"units": "count", "long_name": f"{name} per cell and interval"} for name in channel_names(shape[0])},
        {},
        kind="traffic",
        files=[p for _, _, p in parts],
        file_attrs={"slots_per_day": per_day, "first_slot": base},
    )
    if variables and list(variables) != names(series):
        unknown = [v for v in variables if v not in names(series)]
        if unknown:
            raise VariableError(f"{paths[0]} has no channel {unknown[0]!r}; it has {', '.join(names(series))}")
        series = series.sel(channel=list(variables))
    return series


def write(series: Series, path: Path, provenance: Mapping[str, str]) -> None:
    """Write a Series in the same layout; `provenance` becomes the file's attributes."""
    import h5py

    attrs = series.attrs["file_attrs"]
    per_day, base = int(attrs.get("slots_per_day", 0)), int(attrs.get("first_slot", 1))
    stamps = [_stamp(t, per_day, base) for t in series.time.values]
    with h5py.File(path, "w") as out:
        out.create_dataset(
            "data", data=series.values.astype(np.float32), compression="gzip", shuffle=True, fletcher32=True
        )
        out.create_dataset("date", data=np.array(stamps, dtype="S"))
        # Of fixed length where pdr reads them: damage to the heap that others stand in hangs the library for ever.
        out.attrs.update({k: np.bytes_(v.encode()) if k.startswith("pdr_") else v for k, v in provenance.items() if v})
        out.attrs["channels"] = np.array([name.encode() for name in names(series)])
        # A short file may lack the late slots of a day, from which readers would tell how many there are.
        out.attrs["slots_per_day"], out.attrs["first_slot"] = per_day or 24, base


def verify(path: Path, series: Series) -> None:
    """Re-open a written file and compare it with what was meant to be in it."""
    import h5py

    with h5py.File(path) as back:
        try:
            data = back["data"][:]
        except KeyError as error:  # so h5py says that the disk could not be read
            raise StorageError(f"{path.name} cannot be read again: {error}") from error
        if not np.array_equal(data, series.values.astype(np.float32), equal_nan=True):
            raise StorageError(f"{path.name}: data reads back differently from what was written")


def is_traffic(path: Path) -> bool:
    """True if an HDF5 file has the two data sets of this layout."""
    import h5py

    try:
        with h5py.File(path) as handle:
            return "data" in handle and "date" in handle
    except damage.FAILURES:
        return False


def _open(path: Path) -> tuple:
    import h5py

    size = path.stat().st_size
    try:
        handle = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path} ({size} bytes) is damaged, truncated or still being written: {error}") from error
    if "data" not in handle or "date" not in handle:
        there: list[str] = []
        handle.visititems(lambda name, item: there.append(name) if isinstance(item, h5py.Dataset) else None)
        raise DataError(
            f"{path} is HDF5 of another layout: it has {', '.join(there[:5]) or 'no data sets'}; "
            "wanted are `data` [T, C, H, W] and `date` [T] (YYYYMMDDSS)"
        )
    data = handle["data"]
    if data.ndim != 4 or 0 in data.shape[1:] or data.dtype.kind not in "fiu" or len(data) != len(handle["date"]):
        raise DataError(
            f"{path}: data has shape {data.shape} and date {handle['date'].shape}; wanted are [T, C, H, W] numbers and [T]"
        )
    if len(data) == 0:
        raise TimeError(f"{path} has no time steps; it may still be being written")
    return handle, path


def _dates(handle, path: Path) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[no-untyped-def]
    """Days [T] as datetime64[D] and slots [T]."""
    stamps = [s.decode(errors="replace") if isinstance(s, bytes) else str(s) for s in handle["date"][:]]
    try:
        days = np.array([f"{s[:4]}-{s[4:6]}-{s[6:8]}" for s in stamps], dtype="datetime64[D]")
        slots = np.array([int(s[8:]) for s in stamps])
    except ValueError:
        wrong = next((s for s in stamps if not (s.isdigit() and len(s) >= 10)), stamps[0])
        raise TimeError(f"{path}: date {wrong!r} is no YYYYMMDDSS (day and slot of the day)") from None
    return days, slots


def _slots_of_a_day(slots: np.ndarray, attrs: Mapping[str, int], path: Path) -> tuple[int, int]:
    """First slot and slots of a day, as the first file, `path`, states them, or else from the slots that occur."""
    if "slots_per_day" in attrs:
        base, stated = int(attrs.get("first_slot", 1)), int(attrs["slots_per_day"])
        if not (1 <= stated <= 24 * 60 and base <= slots.min() and slots.max() < base + stated):
            raise TimeError(
                f"{path}: slots {int(slots.min())} to {int(slots.max())} do not lie in a day of {stated} slots from {base} on"
            )
        return base, stated
    base = 0 if slots.min() == 0 else 1
    highest = int(slots.max()) - base + 1
    per_day = next((n for n in (24, 48, 96, 144, 288) if highest <= n), None)
    if slots.min() < 0:
        raise TimeError(f"{path}: slot {int(slots.min())} is before the first of a day")
    if per_day is None:
        raise TimeError(f"{path}: slot {int(slots.max())} is past the end of a day of 288 five-minute slots")
    return base, per_day


def _times(days: np.ndarray, slots: np.ndarray, base: int, per_day: int) -> np.ndarray:
    minutes = ((slots - base) * (24 * 60 // per_day)).astype("timedelta64[m]")
    return (days + minutes).astype("datetime64[ns]")


def _stamp(time: np.datetime64, per_day: int, base: int) -> bytes:
    day = time.astype("datetime64[D]")
    minutes = int((time - day) / np.timedelta64(1, "m"))
    slot = minutes * (per_day or 24) // (24 * 60) + base
    return f"{str(day).replace('-', '')}{slot:02d}".encode()


def channel_names(count: int) -> list[str]:
    """What the channels of a traffic grid are called."""
    return list(FLOWS) if count == 2 else [f"flow_{i}" for i in range(count)]


def _read(data, path: Path, start: int, stop: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    try:
        return np.asarray(data[start:stop], dtype=np.float32)
    except OSError as error:
        raise DataError(f"{path}: steps {start} to {stop - 1} cannot be read, the file is damaged: {error}") from error
