"""OpenSTL's `dataset.npz` of TaxiBJ: windows cut beforehand, X_train, Y_train, X_test and Y_test [n, T, 2, H, W] in [-1, 1].

X_val and Y_val are read where the file has them. Data of others in these arrays may hold counts, or channels last.

Forecasts are written as the arrays `data` [T, C, H, W], of ensembles [M, T, C, H, W], and `time` [T], with the provenance, and
with `lower_80`, `upper_80` and so on like `data` where there are intervals.
"""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli.data import intervals, partnames
from pdr_cli.data.arrays import CHANNELS_LAST, COUNTS, OPTION, SIGNED, UNIT
from pdr_cli.data.formats import layouts
from pdr_cli.data.formats.base import Field, Format, ReadOptions, WriteOptions, beginning
from pdr_cli.data.formats.hdf5 import channel_names, chosen
from pdr_cli.data.series import LazyFrames, Series, make_series, precut_times
from pdr_cli.errors import DataError, StorageError
from pdr_cli.system import damage
from pdr_cli.system.logs import log

STEP = 1800.0  # seconds between frames
PARTS = ("train", "val", "test")  # the second is not published
SAMPLED = 64  # windows that are read for the range of the values
BLOCK = 256  # windows decompressed at once


@dataclass(frozen=True)
class Member:
    """One array of the file: its shape, its type, and a function that reads it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[], np.ndarray]


class NPZ(Format):
    """Zip files of NumPy arrays."""

    name, title = "npz", "NPZ"
    outputs = (".npz",)
    uncertain = True
    takes = frozenset({"variables", "assume", "learned"})

    def matches(self, path: Path) -> bool:
        """A zip file that holds arrays."""
        if beginning(path)[:4] != b"PK\x03\x04" or not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            return any(n.endswith(".npy") for n in archive.namelist())

    def open(self, paths: Sequence[Path], options: ReadOptions) -> list[Series]:
        """One Series for each part of each file, its windows end to end; values from -1 to 1 as (v + 1) / 2.

        `layouts` says what the values of the test windows and the axes are; all other values are checked when they are read.
        Times are seconds in steps of half an hour, with one step left out between windows: the file does not hold the
        real times. Arrays that are stored uncompressed are mapped; others are decompressed to float32 at the first read.

        Raises:
            DataError: other arrays than these, or of other shapes; lists those of the file. Values of another range
                than a model's.
            VariableError: a channel name that such files do not have.
        """
        return [part for path in paths for part in _parts(path, options)]

    def inside(self, folder: Path, files: Sequence[Path]) -> list[Path]:
        """Files of this format count only in folders without other data files: many programs write .npz."""
        return [p for p in files if p.suffix.lower() in self.outputs]

    def write(self, series: Series, path: Path, provenance: Mapping[str, str], options: WriteOptions) -> None:
        """Write `data`, `time` and the provenance, compressed."""
        arrays: dict[str, Any] = {**intervals.arrays(series), "time": series.time.values.astype(str), **provenance}
        with path.open("wb") as stream:
            np.savez_compressed(stream, **arrays)

    def verify(self, path: Path, series: Series, options: WriteOptions) -> None:
        """Compare all frames."""
        with damage.reading(path), np.load(path) as arrays:
            for name, frames in intervals.arrays(series).items():
                if not np.array_equal(arrays[name], frames, equal_nan=True):
                    raise StorageError(f"{name} read back differently from what was written")

    def provenance(self, path: Path) -> Mapping[str, str]:
        """The arrays that are text of pdr."""
        with np.load(path) as arrays:
            return {name: str(arrays[name]) for name in arrays.files if name.startswith("pdr_")}

    @contextlib.contextmanager
    def stored(self, path: Path) -> Iterator[dict[str, Field]]:
        """The channels of `data`, by number, and those of the ends of its intervals."""
        with np.load(path) as arrays:
            endings = {"": "data"} | {f"_{name}": name for name in arrays.files if name.startswith(intervals.SIDES)}
            every = {end: np.moveaxis(arrays[name], -3, 0) for end, name in endings.items()}
        yield {f"channel {i}{end}": _field(v) for end, channels in every.items() for i, v in enumerate(channels)}


def _field(values: np.ndarray) -> Field:
    return Field(values.shape, lambda start, stop: values[start:stop], 0 if values.ndim > 3 else None)


def members(path: Path) -> dict[str, Member]:
    """Every array of an .npz by name, none of them read."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    found[info.filename.removesuffix(".npy")] = _member(path, archive, info)
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise DataError(f"{path} ({path.stat().st_size} bytes) is damaged: {error}") from error
    return found


def describe(arrays: dict[str, Member]) -> str:
    """The arrays' names and shapes, for messages."""
    return ", ".join(f"{name} {list(m.shape)}" for name, m in arrays.items()) or "none"


def _parts(path: Path, options: ReadOptions) -> list[Series]:
    arrays = members(path)
    if not _are_windows(arrays):
        raise DataError(
            f"{path} holds the arrays {describe(arrays)}",
            "X_train, Y_train, X_test and Y_test of numbers [windows, steps, channels, rows, columns], as in OpenSTL's "
            "dataset.npz of TaxiBJ; X_val and Y_val may be there too",
        )
    layout = _layout(path, arrays, options)
    identity = _identity(path)
    parts = parts_of(arrays)
    read = {f"{side}_{name}" for name in parts.values() for side in "XY"}
    if rest := [name for name in arrays if name not in read]:
        log.warning("arrays  %s: %s not read; values are not scaled back by them", path, ", ".join(rest))
    made = (
        _part(path, name, arrays, layout).assign_attrs(part=part, identity=f"{identity}:{part}")
        for part, name in parts.items()
    )
    return [chosen(one, options.variables, path) for one in made]


def parts_of(arrays: Mapping[str, Member]) -> dict[str, str]:
    """{part: its name in the file}, such as {"train": "train", "val": "valid", "test": "test"}."""
    held = {name[2:] for name in arrays if name[:2] in ("X_", "Y_")}
    names = {partnames.NAMES[word]: word for word in sorted(held) if word in partnames.NAMES}
    return {part: names.get(part, part) for part in PARTS if part != "val" or "val" in names}


def _are_windows(arrays: dict[str, Member]) -> bool:
    parts = parts_of(arrays).values()
    expected = [f"{side}_{part}" for part in parts for side in "XY"]
    shapes = [arrays[n].shape for n in expected if n in arrays]
    good = len(shapes) == len(expected) and all(len(s) == 5 and s[2:] == shapes[0][2:] and 0 not in s for s in shapes)
    good = good and all(arrays[n].dtype.kind in "fiu" for n in expected)
    good = good and all(arrays[f"X_{p}"].shape[0] == arrays[f"Y_{p}"].shape[0] for p in parts)
    return good and len({arrays[f"X_{p}"].shape[1] + arrays[f"Y_{p}"].shape[1] for p in parts}) == 1


@dataclass(frozen=True)
class _Layout:
    """What the values of a file and the axes of its frames are."""

    values: str
    axes: str

    def shape(self, frame: tuple[int, ...]) -> tuple[int, int, int]:
        """(C, H, W) of frames of a stored shape."""
        a, b, c = frame
        return (c, a, b) if self.axes == CHANNELS_LAST else (a, b, c)

    def frames(self, path: Path, windows: np.ndarray) -> np.ndarray:
        """Windows as stored, as frames end to end: [T, C, H, W]; scaled values in [0, 1]."""
        layouts.refuse_others(path, windows, self.values)
        flat = windows.reshape(-1, *windows.shape[2:])
        flat = np.moveaxis(flat, -1, 1) if self.axes == CHANNELS_LAST else flat
        return (flat + 1) / 2 if self.values == SIGNED else flat


def _layout(path: Path, arrays: dict[str, Member], options: ReadOptions) -> _Layout:
    """The layout of a file, by the option, a sample of the test windows, and the model."""
    test = arrays[f"X_{parts_of(arrays)['test']}"]
    if test.dtype == np.uint8 and not options.assume.values:
        raise DataError(
            f"{path} holds whole numbers of 8 bits, which may be pictures or counts",
            way_out=f"{OPTION} values={COUNTS} reads counts; write pictures as clips or as folders of .png",
        )
    chosen_ = np.unique(np.linspace(0, test.shape[0] - 1, SAMPLED).round().astype(int))
    ends = layouts.Ends.of(np.asarray(test.load()[chosen_], np.float32))
    a, b, c = test.shape[2:]
    return _Layout(
        layouts.values_of(path, ends, (options.assume.values, "", options.learned.values), scaled=True),
        layouts.axes_of(path, (a, b, c), options.assume, options.learned),
    )


def _part(path: Path, part: str, arrays: dict[str, Member], layout: _Layout) -> Series:
    before, after = arrays[f"X_{part}"], arrays[f"Y_{part}"]
    count, (channels, height, width) = before.shape[0], layout.shape(before.shape[2:])
    length, flows = before.shape[1] + after.shape[1], channel_names(channels)

    def frames(start: int, stop: int) -> np.ndarray:
        first, last = start // length, (stop - 1) // length + 1
        whole = np.concatenate([before.load()[first:last], after.load()[first:last]], axis=1, dtype=np.float32)
        return layout.frames(path, whole)[start - first * length : stop - first * length]

    series = make_series(
        LazyFrames((count * length, channels, height, width), np.float32, frames),
        precut_times(count, length, STEP),
        layouts.channel_attributes(layout.values, flows),
        {},
        kind="traffic",
        files=[path],
    ).assign_attrs(
        window=length,
        conventions={"values": layout.values, "axes": layout.axes},
        assumed=(
            *layouts.unusual(layout.values, layout.axes, SIGNED),
            f"channels {', '.join(flows)} in this order",
            "steps of 30 min, without dates",
        ),
    )
    return series.assign_attrs(value_range=(0.0, 1.0)) if layout.values in (SIGNED, UNIT) else series


def _identity(path: Path) -> str:
    """A hash of the arrays' names, sizes and checksums, which the directory of the zip file lists."""
    with zipfile.ZipFile(path) as archive:
        entries = sorted((i.filename, i.file_size, i.CRC) for i in archive.infolist())
    return hashlib.sha256(repr(entries).encode()).hexdigest()


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    with archive.open(info) as stream:
        shape, fortran, dtype = _header(stream)
        head = stream.tell()
    if info.compress_type == zipfile.ZIP_STORED and not fortran and not dtype.hasobject:
        return Member(shape, dtype, cache(lambda: _mapped(path, info, head, shape, dtype)))
    return Member(shape, dtype, cache(lambda: _decompressed(path, info.filename, shape, fortran)))


def _header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read_header(stream)


def _mapped(path: Path, info: zipfile.ZipInfo, head: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    with path.open("rb") as stream:
        stream.seek(info.header_offset + 26)
        # A zip entry's local header: 30 bytes, the file's name and extra fields, then the data.
        name, extra = np.frombuffer(stream.read(4), "<u2")
    return np.memmap(path, dtype, "r", info.header_offset + 30 + int(name) + int(extra) + head, shape)


def _decompressed(path: Path, name: str, shape: tuple[int, ...], fortran: bool) -> np.ndarray:
    """The array as float32, converted in pieces, so that no whole copy in float64 is made."""
    with zipfile.ZipFile(path) as archive, archive.open(name) as stream:
        _, _, dtype = _header(stream)
        if fortran:
            flat = np.frombuffer(stream.read(), dtype)
            return flat.reshape(shape, order="F").astype(np.float32)
        out = np.empty(shape, np.float32)
        each = int(np.prod(shape[1:]))
        try:
            for low in range(0, shape[0], BLOCK):
                piece = out[low : low + BLOCK]
                piece[...] = np.frombuffer(stream.read(len(piece) * each * dtype.itemsize), dtype).reshape(piece.shape)
        except (zipfile.BadZipFile, ValueError, EOFError) as error:
            raise DataError(f"{path}: {name} is damaged: {error}") from error
    return out
