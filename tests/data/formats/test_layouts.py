from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pdr_cli.data import formats
from pdr_cli.data.arrays import Conventions
from pdr_cli.data.formats import ReadOptions
from pdr_cli.data.series import Series, names, read_frames, size, units
from pdr_cli.errors import DataError


def windows_file(
    path: Path, scale: tuple[float, float], dtype: str = "f4", parts: str = "train test", **arrays: Any
) -> Path:
    """OpenSTL's arrays of 8 windows a part, 2 channels on 10 x 12, with values evenly between two ends."""
    made = {
        f"{side}_{part}": np.linspace(*scale, 8 * 4 * 2 * 10 * 12).reshape(8, 4, 2, 10, 12).astype(dtype)
        for part in parts.split()
        for side in "XY"
    }
    np.savez(path, **made | arrays)
    return path


def grid_file(path: Path, data: np.ndarray, **attrs: Any) -> Path:
    """HDF5 of whole days of 24 slots."""
    dates = np.datetime64("2014-05-01") + np.arange(len(data)) // 24
    with h5py.File(path, "w") as out:
        out["data"] = data
        stamps = [f"{str(d).replace('-', '')}{k % 24 + 1:02d}" for k, d in enumerate(dates)]
        out["date"] = np.array(stamps, dtype="S")
        out.attrs.update(attrs)
    return path


def read(path: Path, *assume: str, learned: str = "") -> Series:
    options = ReadOptions(assume=Conventions.parse(assume), learned=Conventions(values=learned))
    return formats.open_series([path], options)[0]


def ends(series: Series) -> tuple[float, float]:
    frames = read_frames(series, 0, series.sizes["time"])
    return float(frames.min()), float(frames.max())


def test_counts_in_windows_are_kept_as_they_are_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    series = read(windows_file(tmp_path / "counts.npz", (0, 500)))
    assert (ends(series), units(series)) == ((0, 500), ["count", "count"])
    assert series.attrs["variables"]["inflow"]["long_name"] == "inflow per cell and interval"
    assert "value_range" not in series.attrs
    assert "0 to 500, where such files hold -1..1: kept as they are, taken as counts" in caplog.text
    assert series.attrs["assumed"][0] == "values taken as counts"


def test_the_published_range_needs_no_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    series = read(windows_file(tmp_path / "a.npz", (-1, 1)))
    assert (ends(series), units(series), series.attrs["value_range"]) == ((0, 1), ["1", "1"], (0, 1))
    assert not caplog.messages


@pytest.mark.parametrize(
    ("scale", "taken", "unit"), [((0, 0.9), "0..1", "1"), ((-4, 3), "plain", ""), ((0, 3), "counts", "count")]
)
def test_other_ranges_are_kept_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, scale: tuple[float, float], taken: str, unit: str
) -> None:
    series = read(windows_file(tmp_path / "a.npz", scale))
    assert np.allclose(ends(series), scale)
    assert (units(series)[0], series.attrs["conventions"]["values"]) == (unit, taken)
    assert f"taken as {taken}" in caplog.text


@pytest.mark.parametrize(
    ("scale", "learned", "way_out"),
    [
        ((0, 500), "-1..1", "bring them to the range of the training"),
        ((-1, 1), "counts", "bring them to the range of the training"),
        ((0, 0.9), "-1..1", "if they are -1..1 too, --assume values=-1..1"),
        ((0, 0.9), "counts", "if they are counts too, --assume values=counts"),
        ((-1, 1), "0..1", "bring them"),
    ],
)
def test_values_of_another_kind_than_the_models_are_refused(
    tmp_path: Path, scale: tuple[float, float], learned: str, way_out: str
) -> None:
    path = windows_file(tmp_path / "a.npz", scale)
    with pytest.raises(DataError, match=rf"expected {learned}, as the model was trained on; .*{way_out}"):
        read(path, learned=learned)
    if "assume" in way_out:
        assert read(path, f"values={learned}", learned=learned).attrs["conventions"]["values"] == learned


def test_a_quiet_night_of_counts_is_not_taken_for_scaled_values(tmp_path: Path) -> None:
    arrays = {n: np.zeros((8, 4, 2, 10, 12), np.float32) for n in ("X_train", "Y_train", "X_test", "Y_test")}
    arrays["X_test"][0, 0, 0, 0, 0] = 1
    np.savez(tmp_path / "a.npz", **arrays)
    assert units(read(tmp_path / "a.npz", learned="counts")) == ["count", "count"]


def test_values_that_a_sample_does_not_show_are_refused_when_they_are_read(tmp_path: Path) -> None:
    wild = np.zeros((8, 4, 2, 10, 12), np.float32)
    wild[5, 2, 1, 3, 3] = 7
    series = read(windows_file(tmp_path / "a.npz", (-1, 1), X_train=wild))
    with pytest.raises(DataError, match=r"values from -1 to 7 among values taken as -1\.\.1; --assume values=plain"):
        read_frames(series, 0, 64)
    assert ends(read(tmp_path / "a.npz", "values=plain")) == (-1, 7)


def test_an_option_that_the_values_exclude_is_refused(tmp_path: Path) -> None:
    path = windows_file(tmp_path / "a.npz", (0, 500))
    with pytest.raises(DataError, match=r"values from 0 to 500 are not -1\.\.1"):
        read(path, "values=-1..1")


def test_validation_windows_are_a_part_of_their_own(tmp_path: Path) -> None:
    series = formats.open_series([windows_file(tmp_path / "a.npz", (-1, 1), parts="train val test")])
    assert [s.attrs["part"] for s in series] == ["train", "val", "test"]
    assert len({s.attrs["identity"] for s in series}) == 3
    np.savez(tmp_path / "b.npz", **{k: v for k, v in np.load(tmp_path / "a.npz").items() if k != "Y_val"})
    with pytest.raises(DataError, match="X_val and Y_val may be there too"):
        formats.open_series([tmp_path / "b.npz"])


def test_whole_numbers_are_counts_but_8_bits_may_be_pictures(tmp_path: Path) -> None:
    assert units(read(windows_file(tmp_path / "a.npz", (0, 500), "i4"))) == ["count", "count"]
    path = windows_file(tmp_path / "b.npz", (0, 255), "u1")
    with pytest.raises(
        DataError, match="whole numbers of 8 bits, which may be pictures or counts; --assume values=counts"
    ):
        read(path)
    assert ends(read(path, "values=counts")) == (0, 255)


def test_channels_last_are_recognised_by_the_lengths_of_the_axes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = np.arange(24 * 2 * 10 * 12, dtype=np.float32).reshape(24, 2, 10, 12)
    first = read(grid_file(tmp_path / "first.h5", frames))
    assert not caplog.messages
    last = read(grid_file(tmp_path / "last.h5", np.moveaxis(frames, 1, -1)))
    assert "frames of 10 x 12 x 2 are taken as channels-last" in caplog.text
    assert names(last) == ["inflow", "outflow"]
    assert np.array_equal(read_frames(last, 3, 9), read_frames(first, 3, 9))
    assert "the last axis taken as channels" in last.attrs["assumed"]
    assert names(read(tmp_path / "last.h5", "axes=channels-first")) == [f"flow_{i}" for i in range(10)]


def test_windows_may_have_channels_last(tmp_path: Path) -> None:
    first = read(windows_file(tmp_path / "first.npz", (-1, 1)))
    np.savez(tmp_path / "last.npz", **{k: np.moveaxis(v, 2, -1) for k, v in np.load(tmp_path / "first.npz").items()})
    last = read(tmp_path / "last.npz")
    assert size(last) == (10, 12)
    assert np.array_equal(read_frames(last, 5, 20), read_frames(first, 5, 20))


def test_frames_without_an_axis_of_channels_have_one(tmp_path: Path) -> None:
    frames = np.arange(24 * 10 * 12, dtype=np.float32).reshape(24, 10, 12)
    series = read(grid_file(tmp_path / "a.h5", frames))
    assert (names(series), np.array_equal(series.values[:, 0], frames)) == (["flow_0"], True)


@pytest.mark.parametrize(("low", "high", "taken"), [(0, 0.9, "0..1"), (-1, 1, "plain")])
def test_grids_that_hold_no_counts_are_not_called_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, low: float, high: float, taken: str
) -> None:
    frames = np.linspace(low, high, 24 * 2 * 10 * 12, dtype=np.float32).reshape(24, 2, 10, 12)
    series = read(grid_file(tmp_path / "a.h5", frames))
    assert units(series)[0] != "count"
    assert f"where such files hold counts: kept as they are, taken as {taken}" in caplog.text
    with pytest.raises(DataError, match="expected counts, as the model was trained on"):
        read(tmp_path / "a.h5", learned="counts")


def test_channels_have_the_names_that_the_file_gives_them(tmp_path: Path) -> None:
    frames = np.zeros((24, 2, 10, 12), np.float32)
    series = read(grid_file(tmp_path / "a.h5", frames, channels=np.array([b"outflow", b"inflow"])))
    assert names(series) == ["outflow", "inflow"]
    assert not any("in this order" in text for text in series.attrs["assumed"])
    other = read(grid_file(tmp_path / "b.h5", frames))
    assert "channels inflow, outflow in this order" in other.attrs["assumed"]


def test_a_small_forecast_is_read_back_as_counts(tmp_path: Path) -> None:
    counts = read(grid_file(tmp_path / "a.h5", np.full((24, 2, 10, 12), 3, np.float32)))
    formats.write(counts.copy(data=counts.values / 10), tmp_path / "b.h5", {})
    back = read(tmp_path / "b.h5", learned="counts")
    assert (units(back), back.attrs["conventions"]["slots"]) == (["count", "count"], "1-24")


def test_counts_of_8_bits_that_reach_their_largest_number_are_suspected(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = np.zeros((24, 2, 10, 12), np.uint8)
    frames[0, 0, 0, 0] = 254
    read(grid_file(tmp_path / "a.h5", frames))
    assert not caplog.messages
    frames[0, 0, 0, 0] = 255
    read(grid_file(tmp_path / "b.h5", frames))
    assert "whole numbers of 8 bits that reach 255: larger counts may be cut off" in caplog.text


def test_validation_windows_may_have_other_names_and_other_arrays_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = windows_file(tmp_path / "a.npz", (-1, 1), parts="train valid test", mean=np.zeros(2))
    assert [s.attrs["part"] for s in formats.open_series([path])] == ["train", "val", "test"]
    assert "mean not read; values are not scaled back by them" in caplog.text
