from pathlib import Path

import numpy as np
import pytest

from pdr_cli.data import formats, splits, times, windows
from pdr_cli.data.formats import ReadOptions, human36m
from pdr_cli.data.rules import Rules
from pdr_cli.data.series import names, read_frames, size
from pdr_cli.data.windows import FrameCache
from pdr_cli.errors import DataError
from tests.builders import human36m_folder

TRAIN = [f"images/{clip}.1_,{first},{first + 70}" for clip in ("S1_Eating", "S5_Walking") for first in (1, 26, 51)]
TEST = ["images/S1_Eating.1_,76,146"]


def test_a_list_of_validation_windows_validates(tmp_path: Path) -> None:
    line = "images/S1_Directions.54138969_,0,70"
    human36m_folder(tmp_path, [line] * 3, [line])
    (tmp_path / "val.txt").write_text(f"{line}\n")
    series = formats.open_series(formats.find_inputs([tmp_path]), ReadOptions(color="rgb"))
    parts = splits.split(series, Rules(0.1, 0.1, 4, 4))
    assert [[series[n].attrs["part"] for n, _, _ in p] for p in (parts.train, parts.val, parts.test)] == [
        ["train"],
        ["val"],
        ["test"],
    ]


def test_lists_are_series_of_windows_with_their_part(tmp_path: Path) -> None:
    human36m_folder(tmp_path, TRAIN, TEST)
    paths = formats.find_inputs([tmp_path])
    assert [p.name for p in paths] == ["train.txt", "test.txt"]
    train, test = formats.open_series(paths, ReadOptions(color="rgb"))
    assert (train.attrs["part"], test.attrs["part"]) == ("train", "test")
    assert (train.sizes["time"], test.sizes["time"]) == (6 * 8, 8)
    step = times.find_step(train.time.values)
    assert step.count == pytest.approx(0.1)
    cache = FrameCache([train], 1)
    cut = windows.cut([train], [(0, 0, 48)], 4, 4, step, cache)
    assert [int(s) for _, s in cut.places] == [0, 8, 16, 24, 32, 40], "windows cut beforehand, and no others"


def test_frames_are_every_fifth_picture_in_red_green_blue(tmp_path: Path) -> None:
    human36m_folder(tmp_path, TRAIN, TEST)
    series = human36m.read(tmp_path / "test.txt", ReadOptions(color="rgb"))
    frames = read_frames(series, 0, 8)
    assert names(series) == ["red", "green", "blue"]
    # Pictures 76, 81, ..., 111; JPEG may move a level or two.
    assert np.allclose(frames[:, 0].mean(axis=(1, 2)), np.arange(76, 112, 5), atol=2.5)
    assert np.allclose(frames[:, 1].mean(axis=(1, 2)), 9, atol=2.5)


def test_missing_pictures_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    human36m_folder(tmp_path, TRAIN, TEST)
    for number in (31, 36):
        (tmp_path / f"images/S5_Walking.1_{number:06d}.jpg").unlink()
    with pytest.raises(DataError, match=r"2 pictures that are not there, first .*S5_Walking\.1_000031\.jpg"):
        human36m.read(tmp_path / "train.txt", ReadOptions(color="rgb"))


def test_a_line_that_is_no_window_is_named(tmp_path: Path) -> None:
    human36m_folder(tmp_path, TRAIN, TEST)
    (tmp_path / "train.txt").write_text("images/S1_Eating.1_,1,71\nimages/S1_Eating.1_;26\n")
    with pytest.raises(DataError, match=r"line 2: 'images/S1_Eating\.1_;26' is not a window"):
        human36m.read(tmp_path / "train.txt", ReadOptions(color="rgb"))


def test_validation_is_whole_clips_at_the_end_of_the_training_list(tmp_path: Path) -> None:
    human36m_folder(tmp_path, TRAIN, TEST)
    series = formats.open_series(formats.find_inputs([tmp_path]), ReadOptions(color="rgb"))
    parts = splits.split(series, Rules(0.1, 0.15, 4, 4))
    # Two clips of three windows of 8 frames; 10 % would begin at frame 40, the only border between clips is at 24.
    assert (parts.train, parts.val, parts.test) == ([(0, 0, 24)], [(0, 24, 48)], [(1, 0, 8)])


def test_other_sizes_are_resized_to_the_published_one(tmp_path: Path) -> None:
    human36m_folder(tmp_path, TRAIN, TEST, size=20)
    series = human36m.read(tmp_path / "test.txt", ReadOptions(size=(16, 16), color="rgb"))
    assert size(series) == (16, 16)
    # A constant picture stays constant, whatever the kernel: its weights sum to 1.
    assert np.allclose(read_frames(series, 0, 1)[0, 0], 76, atol=2.5)
