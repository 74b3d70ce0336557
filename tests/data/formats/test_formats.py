import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from pdr_cli import choices
from pdr_cli.data import formats
from pdr_cli.data.formats import Field, Format, ReadOptions, WriteOptions, stored
from pdr_cli.data.series import Series, make_series, names
from pdr_cli.errors import ConfigError, DataError, InputNotFoundError, StorageError, UsageError
from tests.builders import traffic_file, video_file, weather_file
from tests.cli import pdr


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
    with pytest.raises(DataError, match=r"a\.nc is NetCDF and .*b\.h5 is HDF5; expected files of one format"):
        formats.open_series(paths)


def test_foreign_files_are_refused_by_what_they_begin_with(tmp_path: Path) -> None:
    (tmp_path / "a.nc").write_bytes(b"no netcdf at all")
    with pytest.raises(
        DataError, match="neither NetCDF, Zarr, GRIB, a zipped Zarr store, a compressed file, HDF5 nor video"
    ):
        formats.open_series([tmp_path / "a.nc"])


def test_an_unknown_suffix_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"'\.xyz' names no format"):
        formats.of_output(Path("out.xyz"))


class Rows(Format):
    """A tiny format of another package: a line of text for each frame of one row."""

    name, title = "rows", "rows of text"
    suffixes = outputs = (".rows",)
    takes = frozenset({"variables", "rename", "size"})

    def matches(self, path: Path) -> bool:
        return path.is_file() and path.read_bytes()[:4] == b"ROWS"

    def open(self, paths: Sequence[Path], options: ReadOptions) -> list[Series]:
        return [self._read(path, options) for path in paths]

    def _read(self, path: Path, options: ReadOptions) -> Series:
        name, *lines = path.read_text().splitlines()[1:]
        frames = np.array([[float(v) for v in line.split()] for line in lines], np.float32)[:, None, None]
        wanted = options.variables[0] if options.variables else name
        assert options.rename.get(wanted, wanted) == name
        times = np.datetime64("2020-01-01", "ns") + np.arange(len(lines)) * np.timedelta64(1, "h")
        series = make_series(frames, times, {wanted: {"units": "K"}}, {}, kind="weather", files=[path])
        return series.assign_attrs(options=options)

    def check(self, series: Series, suffix: str) -> None:
        if series.sizes["y"] > 1:
            raise UsageError(f"{suffix} holds frames of one row")

    def write(self, series: Series, path: Path, provenance: Mapping[str, str], options: WriteOptions) -> None:
        lines = [" ".join(map(str, frame[0, 0])) for frame in series.values]
        path.write_text("\n".join(["ROWS", names(series)[0], *lines]))

    def verify(self, path: Path, series: Series, options: WriteOptions) -> None:
        (back,) = self.open([path], ReadOptions())
        if not np.array_equal(back.values, series.values):
            raise StorageError("rows read back differently")

    @contextlib.contextmanager
    def stored(self, path: Path) -> Iterator[dict[str, Field]]:
        values = self.open([path], ReadOptions())[0].values[:, 0]
        yield {"row": Field(values.shape, lambda start, stop: values[start:stop])}


@pytest.fixture
def installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny format, as pip installs a package that announces it."""
    folder = tmp_path_factory.mktemp("site") / "rows-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: rows\nVersion: 1\n")
    (folder / "entry_points.txt").write_text(f"[pdr.formats]\nrows = {__name__}:Rows\n")
    monkeypatch.syspath_prepend(folder.parent)


ROWS = "ROWS\nt\n1.0 2.0 3.0\n4.0 5.0 6.0\n7.0 8.0 9.0"


@pytest.mark.usefixtures("installed")
def test_a_format_of_another_package_is_detected_and_found_in_folders(tmp_path: Path) -> None:
    (tmp_path / "a.rows").write_text(ROWS)
    (tmp_path / "notes.md").write_text("no data")
    assert formats.find_inputs([tmp_path]) == [tmp_path / "a.rows"]
    assert formats.detect(tmp_path / "a.rows") == "rows"
    assert pdr("inspect", tmp_path / "a.rows").out.count("rows") >= 1
    (tmp_path / "b.nc").write_text("neither")
    with pytest.raises(DataError, match=r"neither NetCDF, Zarr, GRIB, .*, HDF5, video nor rows of text"):
        formats.detect(tmp_path / "b.nc")


@pytest.mark.usefixtures("installed")
def test_a_format_of_another_package_gets_the_options_that_it_takes(tmp_path: Path) -> None:
    (tmp_path / "a.rows").write_text(ROWS)
    options = ReadOptions(["t2m"], {"t2m": "t"}, (1, 3), "rgb", gray_to_rgb=True)
    (series,) = formats.open_series([tmp_path / "a.rows"], options)
    assert names(series) == ["t2m"]
    assert series.attrs["options"] == ReadOptions(["t2m"], {"t2m": "t"}, (1, 3)), "colours have no meaning for it"
    with pytest.raises(UsageError, match=r"--resample-fps is for video files, but .*a\.rows is rows of text"):
        formats.open_series([tmp_path / "a.rows"], ReadOptions(resample_fps=25))


@pytest.mark.usefixtures("installed")
def test_a_format_of_another_package_writes_verifies_and_is_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.rows").write_text(ROWS)
    (series,) = formats.open_series([tmp_path / "a.rows"])
    formats.write(series, tmp_path / "b.rows", {})
    assert (tmp_path / "b.rows").read_text() == ROWS
    assert ".rows" in formats.outputs()
    with stored.fields(tmp_path / "b.rows") as fields:
        assert stored.data_sha256(f.blocks() for f in fields.values()) == stored.data_sha256([[series.values[:, 0]]])
    with pytest.raises(UsageError, match=r"\.rows holds frames of one row"):
        formats.check_output_format(tmp_path / "c.rows", series.isel(y=[0, 0]))
    monkeypatch.setattr(Rows, "write", lambda self, series, path, *_: path.write_text(ROWS.replace("9", "8")))
    with pytest.raises(StorageError, match=r"b\.rows: rows read back differently"):
        formats.write(series, tmp_path / "b.rows", {})
    assert (tmp_path / "b.rows").read_text() == ROWS, "the file before stays"


def test_what_a_package_announces_must_be_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("odd", "pathlib:Path", "pdr.formats")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point] if group == "pdr.formats" else [])
    (tmp_path / "a.odd").write_text("odd")
    with pytest.raises(ConfigError, match=r"format 'odd' of group pdr.formats .* expected a subclass"):
        formats.detect(tmp_path / "a.odd")


def test_formats_are_those_of_the_list() -> None:
    found = {name: choices.FORMATS.find(name) for name in choices.FORMATS.own}
    assert {name: form.name for name, form in found.items()} == {name: name for name in found}
    options = {field.name for field in dataclasses.fields(ReadOptions)}
    assert all(form.takes <= options for form in found.values())
