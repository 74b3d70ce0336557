from pathlib import Path

import pytest

from pdr_cli.data import formats
from pdr_cli.errors import DataError, InputNotFoundError, UsageError
from tests.builders import traffic_file, video_file, weather_file


def test_format_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    for path, kind in (
        (weather_file(tmp_path / "a.nc", 10), "netcdf"),
        (traffic_file(tmp_path / "b.h5", 1), "hdf5"),
        (video_file(tmp_path / "c.mp4", 3), "video"),
    ):
        renamed = path.rename(path.with_suffix(".data"))
        assert formats.detect(renamed) == kind


def test_files_folders_and_globs_are_found_in_order(tmp_path: Path) -> None:
    for name in ("b.nc", "a.nc"):
        weather_file(tmp_path / name, 3)
    (tmp_path / "notes.txt").write_text("no data")
    expected = [tmp_path / "a.nc", tmp_path / "b.nc"]
    assert formats.find_inputs([tmp_path]) == expected
    assert formats.find_inputs([str(tmp_path / "*.nc")]) == expected


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    weather_file(tmp_path / "temperature.nc", 3)
    with pytest.raises(InputNotFoundError, match=r"Did you mean 'temperature\.nc'"):
        formats.find_inputs([tmp_path / "temprature.nc"])
    with pytest.raises(InputNotFoundError, match="there is no folder"):
        formats.find_inputs([tmp_path / "nowhere" / "a.nc"])


def test_files_of_two_formats_are_not_mixed(tmp_path: Path) -> None:
    paths = [weather_file(tmp_path / "a.nc", 10), traffic_file(tmp_path / "b.h5", 1)]
    with pytest.raises(DataError, match="one format"):
        formats.open_series(paths)


def test_foreign_files_are_refused_by_what_they_begin_with(tmp_path: Path) -> None:
    (tmp_path / "a.nc").write_bytes(b"PK\x03\x04 no netcdf at all")
    with pytest.raises(DataError, match="neither NetCDF, Zarr, HDF5 nor video"):
        formats.open_series([tmp_path / "a.nc"])


def test_an_unknown_suffix_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"'\.xyz' names no format"):
        formats.check_suffix(Path("out.xyz"))
