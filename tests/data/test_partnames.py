from pathlib import Path

import pytest

from pdr_cli.data import formats, partnames, splits
from pdr_cli.data.arrays import Conventions
from pdr_cli.data.formats import ReadOptions
from pdr_cli.data.rules import Rules
from pdr_cli.errors import DataError, TimeError
from tests.builders import kth_folder, moving_square, picture, traffic_file, video_file

RULES = Rules(0.2, 0.2, 2, 2)


def parts_of(*names: str) -> list[str]:
    return partnames.of([Path("data", name) for name in names])


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (("train/a.avi", "val/b.avi", "test/c.avi"), ["train", "val", "test"]),
        (("Training_set/a.avi", "valid/b.avi", "TEST/c.avi"), ["train", "val", "test"]),
        (("boxing/train/a.avi", "boxing/dev/b.avi", "walking/test/c.avi"), ["train", "val", "test"]),
        (("train2017/a.avi", "validation2017/b.avi"), ["train", "val"]),
        (("train_1.avi", "train_2.avi", "test_1.avi"), ["train", "train", "test"]),
        # One part names nothing that the others do not have, nor does a word inside of another name.
        (("test/a.avi", "test/b.avi"), ["", ""]),
        (("test_track/a.avi", "train_station/b.avi"), ["", ""]),
        (("test_1.avi", "film.avi", "train_1.avi"), ["", "", ""]),
        (("val_1.avi", "test_1.avi"), ["", ""]),
        (("train/a.avi", "test/b.avi", "more/c.avi"), ["train", "test", ""]),
        (("test/a.avi", "b.avi", "c.avi"), ["test", "", ""]),
        (("train/a.avi", "eval/b.avi"), ["train", "test"]),
    ],
)
def test_names_of_folders_and_files_give_parts(names: tuple[str, ...], parts: list[str]) -> None:
    assert parts_of(*names) == parts


def clips(root: Path, *names: str) -> list[Path]:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        video_file(path, 12 + len(list(root.rglob("*.mp4"))))
    return formats.find_inputs([root])


def named(series: list[formats.Field], periods: list[splits.Period]) -> list[str]:
    return [Path(series[n].attrs["files"][0]).stem for n, _, _ in periods]


def test_clips_in_folders_of_parts_are_divided_as_the_folders_say(tmp_path: Path) -> None:
    paths = clips(tmp_path / "ex", "train/a.mp4", "train/b.mp4", "val/c.mp4", "val/d.mp4", "test/e.mp4")
    series = formats.open_series(paths)
    parts = splits.split(series, RULES)
    assert [named(series, p) for p in (parts.train, parts.val, parts.test)] == [["a", "b"], ["c", "d"], ["e"]]
    assert "by the names of folders or files" in parts.rule
    assert "part test, by the names of folders or files" in series[0].attrs["assumed"]
    # With parts=none, all are divided in the order of their paths: test/e, train/a, train/b, val/c, val/d.
    series = formats.open_series(paths, ReadOptions(assume=Conventions(parts="none")))
    parts = splits.split(series, RULES)
    assert [named(series, p) for p in (parts.train, parts.val, parts.test)] == [["e", "a", "b"], ["c"], ["d"]]


def test_without_a_folder_for_validation_training_clips_validate(tmp_path: Path) -> None:
    series = formats.open_series(clips(tmp_path, "train/a.mp4", "train/b.mp4", "train/c.mp4", "test/d.mp4"))
    parts = splits.split(series, RULES)
    assert [named(series, p) for p in (parts.train, parts.val, parts.test)] == [["a", "b"], ["c"], ["d"]]


def test_folders_of_pictures_that_are_parts_themselves(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        for number in range(8):
            picture(tmp_path / part / f"{number:03d}.png", moving_square(number))
    series = formats.open_series(formats.find_inputs([tmp_path]))
    assert [s.attrs["part"] for s in series] == ["test", "train", "val"]
    parts = splits.split(series, RULES)
    assert (parts.train, parts.val, parts.test) == ([(1, 0, 8)], [(2, 0, 8)], [(0, 0, 8)])


def test_one_folder_of_parts_alone_is_no_split(tmp_path: Path) -> None:
    clips(tmp_path, "train/a.mp4", "test/b.mp4", "test/c.mp4")
    series = formats.open_series(formats.find_inputs([tmp_path / "test"]))
    assert not any("part" in s.attrs for s in series)


def test_clips_beside_the_folders_of_parts_are_refused(tmp_path: Path) -> None:
    series = formats.open_series(clips(tmp_path, "train/a.mp4", "test/b.mp4", "more/c.mp4"))
    with pytest.raises(
        DataError, match=r"more/c\.mp4 lies in no folder called train, val or test.*--assume parts=none"
    ):
        splits.split(series, RULES)


def test_folders_without_training_clips_are_refused_in_training(tmp_path: Path) -> None:
    series = formats.open_series(clips(tmp_path, "val/a.mp4", "test/b.mp4"))
    with pytest.raises(TimeError, match="0 series to train and 1 to test, 1 to validate"):
        splits.split(series, RULES)


def test_files_that_are_joined_along_time_in_spite_of_their_names_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    traffic_file(tmp_path / "test.h5", 12)
    import h5py

    with h5py.File(tmp_path / "test.h5", "a") as late, h5py.File(tmp_path / "train.h5", "w") as early:
        frames, dates = late["data"][:], late["date"][:]
        early["data"], early["date"] = frames[:240], dates[:240]
        del late["data"], late["date"]
        late["data"], late["date"] = frames[240:], dates[240:]
    series = formats.open_series(formats.find_inputs([tmp_path]))
    splits.split(series, RULES)
    assert "are named test, train, but joined along time and divided by the fractions" in caplog.text


def test_a_test_folder_among_other_clips_is_not_trained_on(tmp_path: Path) -> None:
    series = formats.open_series(clips(tmp_path, "a.mp4", "b.mp4", "test/c.mp4"))
    with pytest.raises(DataError, match=r"a\.mp4 lies in no folder called train, val or test"):
        splits.split(series, RULES)


def test_persons_of_kth_in_the_folder_of_another_part_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kth_folder(tmp_path / "train", "person01_walking_d1", range(1, 5))
    kth_folder(tmp_path / "test", "person02_walking_d1", range(1, 5))
    series = formats.open_series(formats.find_inputs([tmp_path]))
    assert [s.attrs["part"] for s in series] == ["train", "train"]
    assert "person02_walking_d1_uncomp/image_0001.png is train data by its benchmark" in caplog.text
