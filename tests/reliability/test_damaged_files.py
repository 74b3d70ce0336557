"""Each kind of damage that fuzzing has found to slip past a reader: it ends in an error that names the file."""

from __future__ import annotations

import gc
import json
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest
import torch
import xarray as xr

from pdr_cli.data import formats
from pdr_cli.data.formats import frames, kth, stored, video
from pdr_cli.data.series import make_series, read_frames
from pdr_cli.errors import CheckpointError, DataError, TimeError, VariableError
from pdr_cli.runs.openstl import load_openstl
from tests.builders import moving_square, picture, taxibj_npz, traffic_file, video_file, weather_file


def read(path: Path) -> None:
    """Every value of an input."""
    for series in formats.open_series([path]):
        read_frames(series, 0, series.sizes["time"])


def overwritten(path: Path, mark: bytes, new: bytes, behind: int = 0) -> Path:
    """The file with `new` at every place that is `behind` bytes after `mark`."""
    content, at = bytearray(path.read_bytes()), -1
    while (at := content.find(mark, at + 1)) >= 0:
        content[at + behind : at + behind + len(new)] = new
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("mark", [b"SNOD", b"HEAP", b"TREE"])
def test_hdf5_whose_list_of_names_is_broken(tmp_path: Path, mark: bytes) -> None:
    path = overwritten(traffic_file(tmp_path / "a.h5", 2), mark, b"none")
    with pytest.raises(DataError, match=r"a\.h5"):
        read(path)


@pytest.mark.parametrize("kind", ["h5", "nc"])
@pytest.mark.parametrize(("index", "length"), [(0, 0), (1, 2**64 - 16)])
def test_a_list_of_strings_in_which_the_library_would_never_end(
    tmp_path: Path, kind: str, index: int, length: int
) -> None:
    path = (traffic_file if kind == "h5" else weather_file)(tmp_path / f"a.{kind}", 5)
    with h5py.File(path, "a") as out:
        out.attrs["names"] = ["of", "any", "length"]
    assert len(formats.open_series([path])) == 1
    # The first object of the heap begins 16 bytes behind its mark, and says its length 8 bytes on. 2**64 - 16 and the 16
    # of its header are 0 in 64 bits.
    overwritten(path, b"GCOL", index.to_bytes(2, "little"), behind=16)
    overwritten(path, b"GCOL", length.to_bytes(8, "little"), behind=24)
    with pytest.raises(DataError, match=r"the list of strings at byte \d+ has no end; get the file again"):
        read(path)


def test_netcdf_whose_metadata_fail_their_checksum(tmp_path: Path) -> None:
    path = overwritten(weather_file(tmp_path / "a.nc", 5), b"OHDR", b"\xff", behind=9)
    with pytest.raises(DataError, match=r"a\.nc"):
        read(path)


def test_traffic_dates_that_are_no_text(tmp_path: Path) -> None:
    path = overwritten(traffic_file(tmp_path / "a.h5", 2), b"20140101", b"\xff\xfe")
    with pytest.raises(DataError, match="is not valid; expected YYYYMMDDSS"):
        read(path)


def test_a_time_that_is_missing(tmp_path: Path) -> None:
    path = weather_file(tmp_path / "a.nc", 5)
    with netCDF4.Dataset(path, "a") as out:
        out["time"].units = "seconds since 2000-01-01"
        out["time"][:] = np.array([0, 1, 2, np.iinfo(np.int64).min, 4])
    with pytest.raises(TimeError, match=r"1 of 5 times are missing \(NaT\), first that of step 3"):
        read(path)


def test_times_beyond_what_64_bits_count(tmp_path: Path) -> None:
    path = weather_file(tmp_path / "a.nc", 5)
    with netCDF4.Dataset(path, "a") as out:
        out["time"].units = "hours since 2020-01-01"
        out["time"][:] = np.array([0, 6, 283467841596, 18, 24])  # 32 million years, where xarray looks last
    with pytest.raises(DataError, match=r"a\.nc"):
        read(path)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_zarr_array_that_says_it_is_larger_than_any_memory(tmp_path: Path, zarr_format: int) -> None:
    with xr.open_dataset(weather_file(tmp_path / "a.nc", 5)) as data:
        data.to_zarr(tmp_path / "a.zarr", zarr_format=zarr_format, consolidated=False)  # type: ignore[call-overload]
    for name in ("t2m", "time"):
        about = tmp_path / "a.zarr" / name / (".zarray" if zarr_format == 2 else "zarr.json")
        said = json.loads(about.read_text())
        said["shape"][0] = 10**15
        about.write_text(json.dumps(said))
    with pytest.raises(DataError, match=r"a\.zarr"):
        read(tmp_path / "a.zarr")


def test_a_zarr_chunk_of_less_than_no_length(tmp_path: Path) -> None:
    with xr.open_dataset(weather_file(tmp_path / "a.nc", 5)) as data:
        data.to_zarr(tmp_path / "a.zarr", zarr_format=2, consolidated=False)
    chunk = tmp_path / "a.zarr" / "t2m" / "0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:4] + b"\xff" * 4 + chunk.read_bytes()[8:])  # Blosc's header: size at 4
    with pytest.raises(DataError, match=r"a\.zarr"):
        read(tmp_path / "a.zarr")


def rewrite_members(path: Path, change: Callable[[bytes], bytes], how: int) -> Path:
    """An .npz with each array's bytes changed before it is packed."""
    with zipfile.ZipFile(path) as archive:
        members = {i.filename: archive.read(i) for i in archive.infolist()}
    with zipfile.ZipFile(path, "w", how) as out:
        for name, content in members.items():
            out.writestr(name, change(content))
    return path


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "compressed"])
@pytest.mark.parametrize(
    ("old", "new"),
    [(b"(3, 4,", b"(3, 4\0"), (b"), }", b"),  "), (b"(3, 4, 2, 8, 8), }   ", b"(3, 4, 2, 8, 10**9)}")],
    ids=["no number", "no end", "no size"],
)
def test_npz_whose_header_is_no_header(tmp_path: Path, old: bytes, new: bytes, how: int) -> None:
    path = rewrite_members(taxibj_npz(tmp_path / "a.npz", 3, 3), lambda content: content.replace(old, new), how)
    with pytest.raises(DataError, match=r"a\.npz"):
        read(path)


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "compressed"])
def test_npz_that_says_it_is_larger_than_any_memory(tmp_path: Path, how: int) -> None:
    def enlarge(content: bytes) -> bytes:
        old, new = b"(3, 4, 2, 8, 8)", b"(3, 4, 2, 8000000, 8000000)"
        return content.replace(old + b", }" + b" " * len(new), new + b", }" + b" " * len(old))

    path = rewrite_members(taxibj_npz(tmp_path / "a.npz", 3, 3), enlarge, how)
    with pytest.raises(DataError, match=r"a\.npz"):
        read(path)


def test_compressed_npz_with_a_wrong_byte(tmp_path: Path) -> None:
    path = taxibj_npz(tmp_path / "a.npz", 3, 3, compressed=True)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        second = archive.infolist()[1]
    content[second.header_offset - second.compress_size // 2] ^= 1  # in the middle of the array before it
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz"):
        read(path)


def test_a_png_whose_pixels_fail_their_checksum(tmp_path: Path) -> None:
    for number in (1, 2):
        picture(tmp_path / "f" / f"p_{number}.png", moving_square(number))
    # The checksum stands before the length and the name of the next and last part.
    overwritten(tmp_path / "f" / "p_2.png", b"IEND", b"\0\0\0\0", behind=-8)
    with pytest.raises(DataError, match=r"p_2\.png"):
        read_frames(frames.read(tmp_path / "f"), 0, 2)


@pytest.mark.parametrize("frames_of", ["9-3", "0-5"])
def test_a_kth_list_of_sequences_that_cannot_be(tmp_path: Path, frames_of: str) -> None:
    (tmp_path / "00sequences.txt").write_text(f"person01_boxing_d1\t\tframes\t{frames_of}\n")
    with pytest.raises(DataError, match="person01_boxing_d1 has a sequence from frame"):
        kth.read_list(tmp_path / "00sequences.txt")


@pytest.mark.parametrize("opcode", [b"u", b"t", b"R"])
def test_weights_whose_pickle_is_broken(tmp_path: Path, opcode: bytes) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.zeros(3)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {i.filename: archive.read(i) for i in archive.infolist()}
    with zipfile.ZipFile(path, "w") as out:
        for name, content in members.items():
            at = content.rindex(opcode) if name.endswith("data.pkl") else len(content)
            out.writestr(name, content[:at] + (opcode * 3 if at < len(content) else b"") + content[at + 1 :])
    with pytest.raises(CheckpointError, match=r"a\.pth"):
        load_openstl(path)


def test_what_pdr_reads_of_its_own_hdf5_stands_in_no_heap(tmp_path: Path) -> None:
    """HDF5 2.0 reads the heap of strings of any length for ever if the length of one is damaged."""
    times = np.datetime64("2020-01-01", "ns") + np.arange(3) * np.timedelta64(1, "h")
    series = make_series(np.zeros((3, 2, 4, 4), np.float32), times, {"inflow": {}, "outflow": {}}, {}, kind="traffic")
    formats.write(series, tmp_path / "a.h5", {"title": "°", "pdr_version": "1", "pdr_note": "°"})
    with h5py.File(tmp_path / "a.h5") as handle:
        for name in ("channels", "pdr_version", "pdr_note"):
            kind = h5py.check_string_dtype(handle.attrs.get_id(name).dtype)
            assert kind is not None
            assert kind.length is not None, f"{name} is of any length"
    assert stored.provenance(tmp_path / "a.h5") == {"pdr_version": "1", "pdr_note": "°"}


def test_a_clip_whose_title_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    series = make_series(np.zeros((3, 1, 16, 16), np.float32), np.arange(3) / 25, {"gray": {}}, {}, kind="video")
    formats.write(series, path, {"title": "kurz und knapp"})
    read(overwritten(path, b"kurz und", b"\xff\xfe"))


def test_reading_a_clip_leaves_no_threads(tmp_path: Path) -> None:
    path = video_file(tmp_path / "a.mp4", 20)
    gc.collect()
    before = _threads()
    kept = [read_frames(video.read(path), 0, 20) for _ in range(3)]
    assert len(kept) == 3
    assert _threads() <= before


def _threads() -> int:
    """Of this process, those of libraries too."""
    status = Path("/proc/self/status")
    if not status.exists():
        return threading.active_count()
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("Threads"))


def test_levels_are_not_taken_for_rows(tmp_path: Path) -> None:
    """Of (level 2, row 1, column 3) without coordinates, the two that are longer than 1 are no grid."""
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as out:
        for name, size in (("time", 2), ("level", 2), ("row", 1), ("spalte", 3)):
            out.createDimension(name, size)
        time = out.createVariable("time", "f8", ("time",))
        time.units = "hours since 2000-01-01"
        time[:] = [0, 1]
        out.createVariable("v", "f4", ("time", "level", "row", "spalte"))[:] = 0
    with pytest.raises(VariableError, match="no variable on"):
        read(tmp_path / "a.nc")
