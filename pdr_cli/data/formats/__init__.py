"""Which reader and writer a file gets: by content on the way in, by suffix on the way out."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import xarray as xr

from pdr_cli.data import kinds
from pdr_cli.data.formats import cf, frames, hdf5, heaps, human36m, netcdf, npz, video, zarr
from pdr_cli.data.series import Series, names
from pdr_cli.errors import DataError, InputNotFoundError, OutputError, StorageError, UsageError
from pdr_cli.system import atomic, damage
from pdr_cli.system.atomic import atomic_folder, atomic_output

NETCDF_SUFFIXES = (".nc", ".nc4", ".cdf")
HDF5_SUFFIXES = (".h5", ".hdf5")
FIELD_SUFFIXES = (*NETCDF_SUFFIXES, zarr.SUFFIX)  # formats that hold fields with their coordinates
OUTPUTS = (*FIELD_SUFFIXES, *HDF5_SUFFIXES, ".mp4", ".gif", ".npz")
COMPRESSION = 4
OVERHEAD = 2**16  # bytes of coordinates, attributes and the tables of a format
NAMES = {"netcdf": "NetCDF", "zarr": "Zarr", "hdf5": "HDF5", "npz": "NPZ", "frames": "a folder of pictures",
         "windows": "a list of windows"}  # fmt: skip


def find_inputs(arguments: Sequence[str | Path]) -> list[Path]:
    """The data files that files, folders and globs name, sorted within each argument.

    Raises:
        InputNotFoundError: an argument names nothing.
    """
    found: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.exists():
            found += _named(path)
        else:
            matches = sorted(Path(p) for p in glob.glob(str(argument), recursive=True))
            if not matches:
                raise InputNotFoundError(f"no file {argument}{_neighbours(path)}")
            found += [p for m in matches for p in _named(m)]
    return list(dict.fromkeys(found))


def _named(path: Path) -> list[Path]:
    return inside(path) if path.is_dir() and not zarr.is_store(path) else [path]


def inside(folder: Path) -> list[Path]:
    """What a folder holds: data files at any depth, or else lists of windows, arrays, or folders of pictures.

    Raises:
        InputNotFoundError: nothing of these.
    """
    every = sorted(p for p in _under(folder) if p.suffix.lower() in (*known_suffixes(), ".npz"))
    found = [p for p in every if p.suffix.lower() in known_suffixes()] or human36m.lists(folder) or every
    found = found or frames.folders(folder)
    if not found:
        wanted = ", ".join((*known_suffixes(), ".npz"))
        raise InputNotFoundError(f"folder {folder} holds no data files ({wanted}), folders of pictures or train.txt")
    return found


def _under(folder: Path) -> Iterator[Path]:
    """Files and Zarr stores at any depth, without hidden ones; what a store is made of is not looked at."""
    for root, folders, plain in os.walk(folder):
        stores = [f for f in folders if zarr.is_store(Path(root, f))]
        folders[:] = [f for f in folders if f not in stores and not f.startswith(".")]
        yield from (Path(root, name) for name in (*plain, *stores) if not name.startswith("."))


def known_suffixes() -> tuple[str, ...]:
    """Suffixes that a folder is searched for."""
    return (*FIELD_SUFFIXES, *HDF5_SUFFIXES, *video.SUFFIXES)


def detect(path: Path) -> str:
    """The format of a file by its first bytes: "netcdf", "hdf5", "npz", "video", or the name of a plugged-in reader.

    Of what is no single file of data: "zarr" for a store, "frames" for a folder of pictures, "windows" for a list of
    windows.

    Raises:
        DataError: empty, or of no known format.
    """
    with damage.reading(path):
        return _detect(path)


def _detect(path: Path) -> str:
    if zarr.is_store(path):
        return "zarr"
    if path.is_dir():
        if frames.is_folder(path):
            return "frames"
        raise DataError(f"{path} is a folder without numbered pictures; name the files in it")
    with path.open("rb") as stream:
        head = stream.read(16)
    if not head:
        raise DataError(f"{path} is empty (0 bytes); it may still be being written")
    if head[:3] == b"CDF":
        return "netcdf"
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        heaps.check(path)
        return "hdf5" if hdf5.is_traffic(path) or not _looks_like_netcdf(path) else "netcdf"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free") or head[:4] in (b"RIFF", b"\x1aE\xdf\xa3", b"GIF8"):
        return "video"
    if head[:4] == b"PK\x03\x04" and npz.is_npz(path):
        return "npz"
    if human36m.is_list(path):
        return "windows"
    for name, reader in readers().items():
        if getattr(reader, "accepts", lambda _: False)(path):
            return name
    if path.suffix.lower() in video.SUFFIXES:
        return "video"
    raise DataError(
        f"{path} ({path.stat().st_size} bytes) is neither NetCDF, Zarr, HDF5 nor video; "
        f"it begins with {head[:8]!r} and may be damaged or of another kind"
    )


def readers() -> dict[str, object]:
    """Readers that other packages plug in under `pdr.readers`: modules with `accepts(path)` and `read(paths, variables)`."""
    return {point.name: point.load() for point in entry_points(group="pdr.readers")}


def open_series(
    paths: Sequence[Path],
    *,
    variables: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    size: Sequence[int] = (),
    color: str = "gray",
    resample_fps: float = 0,
    gray_to_rgb: bool = False,
) -> list[Series]:
    """Open files of one format as Series: fields and grids joined along time into one, clips each on its own.

    A benchmark that comes split gives a Series for each of its parts, with `attrs["part"]`.

    Args:
        paths: files from `find_inputs`.
        variables: channels to read; none: all, or the only variable of a NetCDF file.
        rename: {channel: name in the file}, NetCDF only.
        size: (H, W) that video frames are resized to.
        color: "gray" or "rgb", video only.
        resample_fps: frames a second that clips are brought to, video files only; 0: as they are.
        gray_to_rgb: whether a gray clip may be read as rgb.
    """
    kind = _kind_of(paths)
    if resample_fps and kind != "video":
        raise UsageError(f"--resample-fps is for video files, but {paths[0]} is {NAMES.get(kind, kind)}")
    with damage.reading(paths[0]):
        if kind == "netcdf":
            return [netcdf.read(paths, variables, rename)]
        if kind == "zarr":
            return [zarr.read(paths, variables, rename)]
        if kind == "hdf5":
            return [hdf5.read(paths, variables)]
        if kind == "video":
            return video.read_all(paths, size, color, resample_fps=resample_fps, gray_to_rgb=gray_to_rgb)
        if kind == "frames":
            return [frames.read(p, size, color, gray_to_rgb=gray_to_rgb) for p in paths]
        if kind == "windows":
            return [human36m.read(p, size, color, gray_to_rgb=gray_to_rgb) for p in paths]
        if kind == "npz":
            return [part for p in paths for part in npz.read(p, variables)]
    return [readers()[kind].read(paths, variables)]  # type: ignore[attr-defined]


def _kind_of(paths: Sequence[Path]) -> str:
    """The one format of all files.

    Raises:
        DataError: they have several.
    """
    kinds = {p: detect(p) for p in paths}
    if len(set(kinds.values())) > 1:
        one, other = (next(p for p, k in kinds.items() if k == kind) for kind in sorted(set(kinds.values()))[:2])
        names_of = [NAMES.get(kinds[p], kinds[p]) for p in (one, other)]
        raise DataError(f"files of one format are wanted, but {one} is {names_of[0]} and {other} is {names_of[1]}")
    return kinds[paths[0]]


def open_fields(path: Path) -> xr.Dataset:
    """A NetCDF file or a Zarr store as a dataset, times decoded, nothing read yet.

    Raises:
        DataError: damaged, or of another format.
    """
    kind = detect(path)
    if kind not in ("netcdf", "zarr"):
        raise DataError(f"{path} is {kind}; fields with their coordinates are read from NetCDF and Zarr")
    with damage.reading(path):
        return zarr.open_dataset(path) if kind == "zarr" else netcdf.open_dataset(path)


def check_output(path: Path, inputs: Sequence[Path] = ()) -> None:
    """Refuse an output that could not be created, before any work is done for it; see `atomic.check_output`.

    Raises:
        UsageError: unknown suffix, or the output is one of the inputs.
        OutputError: no place for it, or a folder in its place that is no Zarr store.
    """
    check_suffix(path)
    store = path.suffix.lower() == zarr.SUFFIX
    atomic.check_output(path, inputs, folder=store)
    if store and path.exists() and not atomic.may_replace(path, zarr.is_store):
        raise OutputError(f"output {path} is a folder of other things than a Zarr store, which is not replaced")


def check_time_layout(path: Path, time_layout: str) -> None:
    """Refuse an unknown time layout, or one that a format has no place for.

    Raises:
        UsageError: either of these.
    """
    if time_layout not in cf.TIME_LAYOUTS:
        raise UsageError(f"--time-layout {time_layout}: use {' or '.join(cf.TIME_LAYOUTS)}")
    if time_layout != "cf" and path.suffix.lower() not in FIELD_SUFFIXES:
        raise UsageError(f"--time-layout {time_layout} is for {', '.join(FIELD_SUFFIXES)}, not {path.suffix}")


def check_suffix(path: Path) -> None:
    """Refuse an output whose suffix names no format.

    Raises:
        UsageError: unknown suffix.
    """
    if path.suffix.lower() not in OUTPUTS:
        raise UsageError(
            f"output {path}: suffix {path.suffix or '(none)'!r} names no format; use one of {', '.join(OUTPUTS)}"
        )


def check_output_format(path: Path, series: Series) -> None:
    """Refuse a format that cannot hold this series, before it is computed.

    Raises:
        UsageError: unknown suffix, or a format for other data.
    """
    check_suffix(path)
    suffix = path.suffix.lower()
    if suffix in (".mp4", ".gif") and not kinds.of(series).pictures:
        raise UsageError(f"{suffix} holds 8-bit pictures, not {', '.join(names(series))}; write the numbers to .nc")
    if suffix in HDF5_SUFFIXES and kinds.of(series) is not kinds.TRAFFIC:
        raise UsageError(f"{suffix} is for traffic grids in the layout data/date; write this forecast to .nc")


def write(
    series: Series,
    path: Path,
    provenance: Mapping[str, str],
    *,
    time_layout: str = "cf",
    compress: int = COMPRESSION,
) -> None:
    """Write a Series to `path`, atomically and verified, in the format its suffix names.

    Args:
        series: a forecast, or any other.
        path: file or store to create or replace.
        provenance: global attributes.
        time_layout: "cf", or "wb2" for a forecast as WeatherBench2 has them; see `cf.many`.
        compress: 0 (fast) to 9 (small), NetCDF and Zarr only.
    """
    check_output_format(path, series)
    suffix = path.suffix.lower()
    if suffix in FIELD_SUFFIXES:
        _write_fields(series, path, provenance, time_layout, compress)
    elif suffix == ".npz":
        with atomic_output(path) as temporary, temporary.open("wb") as stream:
            arrays: dict[str, Any] = {"data": series.values, "time": series.time.values.astype(str), **provenance}
            np.savez_compressed(stream, **arrays)
    else:
        module = hdf5 if suffix in HDF5_SUFFIXES else video
        with atomic_output(path, verify=lambda p: module.verify(p, series)) as temporary:
            module.write(series, temporary, provenance)


def _write_fields(series: Series, path: Path, provenance: Mapping[str, str], time_layout: str, compress: int) -> None:
    frames = np.asarray(series.values, np.float32)
    if time_layout == "cf":
        layout = cf.single(series, provenance)
    else:
        layout, frames = cf.many(series, np.array([cf.init_of(series)]), provenance, time_layout), frames[None]
    store = field_store(path)

    def verify(written: Path) -> None:
        with store.reading_back(written, layout) as stored:
            if not np.array_equal(stored(0, len(frames)), frames, equal_nan=True):
                raise StorageError(f"{path} reads back differently from what was written")

    with atomically(path, verify, need=layout.nbytes) as temporary:
        store.write(temporary, layout, frames, compress)


def field_store(path: Path) -> ModuleType:
    """The module that lays out, fills and reads back fields in the format that a suffix names."""
    return zarr if path.suffix.lower() == zarr.SUFFIX else netcdf


def atomically(
    path: Path, verify: Callable[[Path], None] | None = None, need: int = 0
) -> contextlib.AbstractContextManager[Path]:
    """`atomic.atomic_output`, or `atomic.atomic_folder` for a Zarr store; `need`: bytes of its fields, where known."""
    need += OVERHEAD if need else 0
    if path.suffix.lower() == zarr.SUFFIX:
        return atomic_folder(path, verify, replaces=zarr.is_store, need=need)
    return atomic_output(path, verify, need=need)


def _looks_like_netcdf(path: Path) -> bool:
    """NetCDF-4 files carry its library's mark, or dimension scales."""
    import h5py

    try:
        with h5py.File(path) as handle:
            if "_NCProperties" in handle.attrs:
                return True
            return any(item.attrs.get("CLASS") == b"DIMENSION_SCALE" for item in handle.values())
    except damage.FAILURES:
        return path.suffix.lower() in NETCDF_SUFFIXES


def _neighbours(path: Path) -> str:
    from pdr_cli.errors import did_you_mean

    folder = path.parent
    if not folder.is_dir():
        return f": there is no folder {folder}"
    return "." + did_you_mean(path.name, [p.name for p in folder.iterdir()])
