"""Compressed files and zipped stores, which are read, and formats that are not: each has its own sentence."""

import bz2
import gzip
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pdr_cli.data import formats
from pdr_cli.data.formats import ReadOptions
from pdr_cli.errors import DataError, StorageError
from pdr_cli.system import scratch
from tests.builders import field, traffic_file, video_file, weather_file
from tests.cli import pdr


def packed(path: Path, how: Callable[[bytes], bytes], suffix: str) -> Path:
    """A file, compressed; the plain one is removed."""
    made = path.with_name(f"{path.name}.{suffix}")
    made.write_bytes(how(path.read_bytes()))
    path.unlink()
    return made


def zipped(path: Path, *, folder: bool, steps: int = 160) -> Path:
    """A Zarr store as a ZIP archive, at its top or in a folder."""
    with xr.open_dataset(weather_file(path.with_name("plain.nc"), steps)) as dataset:
        dataset.to_zarr(path.with_name("a.zarr"), zarr_format=2)
    root = path.parent if folder else path.with_name("a.zarr")
    made = shutil.make_archive(str(path.with_suffix("")), "zip", root, "a.zarr" if folder else None)
    shutil.rmtree(path.with_name("a.zarr"))
    path.with_name("plain.nc").unlink()
    return Path(made)


@pytest.mark.parametrize("how", [gzip.compress, bz2.compress, lzma.compress], ids=["gz", "bz2", "xz"])
def test_a_compressed_file_is_read(tmp_path: Path, how: Callable[[bytes], bytes]) -> None:
    path = packed(weather_file(tmp_path / "a.nc", 20), how, "data")
    assert formats.detect(path) == "compressed", "by its content, not by its name"
    (series,) = formats.open_series([path])
    assert np.array_equal(series.values[:, 0], field(20))
    assert series.attrs["files"] == [str(path)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nc.data"]


def test_compressed_files_are_found_in_folders_and_joined(tmp_path: Path) -> None:
    for name, start in (("a.nc", "2020-01-01"), ("b.nc", "2020-01-03")):
        packed(weather_file(tmp_path / name, 8, start=start), gzip.compress, "gz")
    (series,) = formats.open_series(formats.find_inputs([tmp_path]))
    assert series.sizes["time"] == 16


def test_a_change_of_a_compressed_file_is_seen(tmp_path: Path) -> None:
    path = packed(weather_file(tmp_path / "a.nc", 8), gzip.compress, "gz")
    assert formats.open_series([path])[0].sizes["time"] == 8
    path = packed(weather_file(tmp_path / "a.nc", 12), gzip.compress, "gz")
    assert formats.open_series([path])[0].sizes["time"] == 12


def test_a_truncated_compressed_file_is_damaged(tmp_path: Path) -> None:
    path = packed(weather_file(tmp_path / "a.nc", 8), gzip.compress, "gz")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"a\.nc\.gz \(\d+ bytes\) is damaged, truncated or still being written"):
        formats.open_series([path])


def test_errors_of_the_content_name_the_compressed_file(tmp_path: Path) -> None:
    (tmp_path / "a.nc").write_bytes(b"CDF\x01 cut")
    path = packed(tmp_path / "a.nc", gzip.compress, "gz")
    with pytest.raises(DataError) as raised:
        formats.open_series([path])
    assert str(path) in str(raised.value)
    assert scratch.PREFIX not in str(raised.value)


@pytest.mark.parametrize("make", [lambda p: traffic_file(p / "a.h5", 1), lambda p: video_file(p / "a.mp4", 3)])
def test_other_data_are_unpacked_first(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = packed(make(tmp_path), gzip.compress, "gz")
    with pytest.raises(DataError) as raised:
        formats.open_series([path])
    assert str(raised.value).endswith(f"compressed; unpack it first: gunzip -k {path}")


def test_a_compressed_file_without_room_is_an_io_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(weather_file(tmp_path / "a.nc", 9), gzip.compress, "gz")
    full = SimpleNamespace(f_bavail=1, f_frsize=1024, f_blocks=10)
    monkeypatch.setattr(os, "statvfs", lambda folder: full)
    with pytest.raises(StorageError, match=r"needs about .* are free in .*; free some space"):
        formats.open_series([path])


def test_nothing_is_left_behind_even_by_a_killed_process(tmp_path: Path) -> None:
    path = packed(weather_file(tmp_path / "a.nc", 8), gzip.compress, "gz")
    code = f"""
import os, signal, sys
from pathlib import Path
from pdr_cli.data import formats
formats.open_series([Path({str(path)!r})])
sys.argv[1] == "kill" and os.kill(os.getpid(), signal.SIGKILL)
"""

    def run(how: str) -> None:
        environment = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
        subprocess.run([sys.executable, "-c", code, how], env=environment, check=False)

    (tmp_path / "tmp").mkdir()
    run("kill")
    assert len(list((tmp_path / "tmp").iterdir())) == 1
    run("end")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_forecast_is_made_from_a_compressed_file(tmp_path: Path, weather_run: Path, weather: Path) -> None:
    copy = Path(shutil.copy(weather, tmp_path / "a.nc"))
    plain, path = tmp_path / "plain.nc", packed(copy, gzip.compress, "gz")
    for data, out in ((weather, plain), (path, tmp_path / "b.nc")):
        result = pdr("predict", data, "-m", weather_run, "-o", out)
        assert result.code == 0, result.err
    with xr.open_dataset(plain) as one, xr.open_dataset(tmp_path / "b.nc") as other:
        assert one.pdr_request_id == other.pdr_request_id, "the observed values are the same"
    assert "up to date" in pdr("predict", path, "-m", weather_run, "-o", tmp_path / "b.nc", "--skip-existing").out


@pytest.mark.parametrize("folder", [False, True])
def test_a_zipped_zarr_store_is_read(tmp_path: Path, folder: bool) -> None:
    path = zipped(tmp_path / "a.zarr.zip", folder=folder, steps=20)
    assert formats.detect(path) == "zarr-zip"
    assert formats.find_inputs([tmp_path]) == [path]
    (series,) = formats.open_series([path])
    assert np.array_equal(series.values[:, 0], field(20))
    assert pdr("inspect", path).code == 0


def test_a_group_of_a_zipped_store_is_read(tmp_path: Path) -> None:
    with xr.open_dataset(weather_file(tmp_path / "plain.nc", 6)) as dataset:
        dataset.to_zarr(tmp_path / "a.zarr", group="inside")
    shutil.make_archive(str(tmp_path / "a.zarr"), "zip", tmp_path / "a.zarr")
    for group in ("", "/inside"):
        (series,) = formats.open_series([tmp_path / "a.zarr.zip"], ReadOptions(group=group))
        assert np.array_equal(series.values[:, 0], field(6))


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(weather_file(path.with_name("inside.nc"), 3))


def zip_of_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no store")


def references(path: Path) -> None:
    path.write_text(json.dumps({"version": 1, "refs": {".zgroup": '{"zarr_format":2}'}}))


def parquet(path: Path) -> None:
    (path / "t2m").mkdir(parents=True)
    (path / ".zmetadata").write_text("{}")
    (path / "t2m" / "refs.0.parq").write_bytes(b"PAR1")


def icechunk(path: Path) -> None:
    for folder in ("refs", "snapshots", "manifests"):
        (path / folder).mkdir(parents=True)


FOREIGN: list[Any] = [
    ("a.tar", tar, "is a tar archive, which is not read; unpack it first: tar xf {}"),
    ("a.zip", zip_of_text, "is a ZIP archive, which is not read; unpack it first: unzip {}"),
    ("a.tif", lambda p: p.write_bytes(b"II*\0" + bytes(60)), "is TIFF, a format without times, which is not read; read "),
    ("a.nc", lambda p: p.write_text("<!DOCTYPE html><html>login</html>"), "is a web page, which is not read; the download"),
    ("a.json", references, "is a kerchunk reference file, which is not read; write it to Zarr (pip install kerchunk"),
    ("a.parq", parquet, "is a kerchunk reference folder, which is not read; write it to Zarr (pip install kerchunk"),
    ("a.ice", icechunk, "is an Icechunk repository, which is not read; write it to Zarr (pip install icechunk)"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "message"), FOREIGN, ids=[name for name, _, _ in FOREIGN])
def test_what_is_not_read_is_named_with_its_way_out(
    tmp_path: Path, name: str, make: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / name
    make(path)
    result = pdr("inspect", path)
    assert result.code == 65
    assert f"{path} {message.format(path)}" in result.last
    assert "damaged" not in result.last


def test_a_compressed_archive_is_named_as_one(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar")
    path = packed(tmp_path / "a.tar", gzip.compress, "gz")
    assert f"{path} is a tar archive, which is not read; unpack it first: tar xf {path}" in pdr("inspect", path).last
