import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdr_cli.data import formats, published, splits, windows
from pdr_cli.data.formats import kth
from pdr_cli.data.rules import Rules
from pdr_cli.data.series import Series, make_series, read_frames
from pdr_cli.data.times import Step
from pdr_cli.data.windows import FrameCache
from pdr_cli.errors import TimeError
from tests.builders import kth_folder, kth_video, moving_square

FRAME = Step(1 / 25)
OFFICIAL = """Below is the list of sequences, and the frames that each consists of.

person01_boxing_d1\t\tframes\t1-12, 13-20, 25-99
person01_boxing_d2\t\tframes\t1-30
person13_handclapping_d3\t*missing*
person17_jogging_d4 \tframes\t5-40,41-60
"""


def clip(name: str, numbers: list[int]) -> Series:
    """A clip of 4 x 4 whose frames have these numbers."""
    frames = np.zeros((len(numbers), 1, 4, 4), np.float32)
    series = make_series(frames, np.array(numbers) / 25, {"gray": {}}, {}, kind="video", files=[f"{name}/a.png"])
    return kth.label(series.assign_attrs(identity=name), Path(f"{name}_uncomp.avi"))


def test_the_official_list_is_read_past_its_header(tmp_path: Path) -> None:
    (tmp_path / "00sequences.txt").write_text(OFFICIAL)
    assert kth.read_list(tmp_path / "00sequences.txt") == {
        "person01_boxing_d1": [(1, 12), (13, 20), (25, 99)],
        "person01_boxing_d2": [(1, 30)],
        "person17_jogging_d4": [(5, 40), (41, 60)],
    }


def test_each_listed_sequence_is_a_series_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "00sequences.txt").write_text(OFFICIAL)
    path = kth_video(tmp_path, "person01_boxing_d1", 40)
    series = formats.open_series([path])
    # Frames 1-12, 13-20 and 25-99 of 40, counted from 1: 12, 8 and 40 - 24 = 16 frames from 0, 12 and 24 on.
    assert [s.sizes["time"] for s in series] == [12, 8, 16]
    assert np.allclose([s.time.values[0] for s in series], [0, 12 / 25, 24 / 25], atol=1e-3)
    assert np.allclose(series[2].time.values[-1], 39 / 25, atol=1e-3)
    assert {(s.attrs["part"], s.attrs["person"], s.attrs["action"]) for s in series} == {
        ("train", "person01", "boxing")
    }
    # The square of frame 12 begins in column 12; MPEG-4 smears it by a few levels.
    assert np.abs(read_frames(series[1], 0, 1)[0, 0] - moving_square(12, (32, 32))).mean() < 6


def test_no_window_crosses_from_one_sequence_to_the_next(tmp_path: Path) -> None:
    (tmp_path / "00sequences.txt").write_text(OFFICIAL)
    series = formats.open_series([kth_video(tmp_path, "person01_boxing_d1", 40)])
    whole = [(n, 0, int(s.sizes["time"])) for n, s in enumerate(series)]
    # Windows of 8 in 12, 8 and 16 frames: 5 + 1 + 9.
    assert len(windows.cut(series, whole, 4, 4, FRAME, FrameCache(series, 1))) == 15


def test_without_the_list_clips_are_whole_and_one_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [kth_video(tmp_path, f"person01_boxing_d{d}", 20) for d in (1, 2)]
    with caplog.at_level(logging.INFO, "pdr"):
        series = formats.open_series(paths)
    assert [s.sizes["time"] for s in series] == [20, 20]
    assert [r.getMessage() for r in caplog.records if "00sequences.txt" in r.getMessage()] != []
    assert sum("read whole" in r.getMessage() for r in caplog.records) == 1


def test_persons_are_split_as_published_and_validation_is_a_training_person() -> None:
    series = [clip(f"person{p:02d}_boxing_d{d}", list(range(20))) for p in (15, 16, 17, 25) for d in (1, 2)]
    parts = splits.split(series, Rules(0.1, 0.3, 4, 4))
    # Series 0, 1 are person 15; 2, 3 person 16; then 17 and 25. max(1, round(2 * 0.1)) = 1 person validates.
    assert [[n for n, _, _ in p] for p in (parts.train, parts.val, parts.test)] == [[0, 1], [2, 3], [4, 5, 6, 7]]
    as_published = splits.split(series, Rules(0.1, 0.3, 4, 4, protocol="openstl"))
    assert [n for n, _, _ in as_published.train] == [0, 1, 2, 3]
    assert as_published.val == as_published.test == parts.test


def test_the_last_person_validates_whatever_the_order_of_the_clips() -> None:
    series = [clip(f"person{p:02d}_boxing_d1", list(range(20))) for p in (16, 3, 2, 17)]
    assert [n for n, _, _ in splits.split(series, Rules(0.1, 0.3, 4, 4)).val] == [0]


def test_test_persons_alone_are_not_trained_on() -> None:
    series = [clip(f"person{p}_boxing_d1", list(range(20))) for p in (17, 18, 19, 20)]
    with pytest.raises(TimeError, match="0 series to train and 4 to test"):
        splits.split(series, Rules(0.1, 0.3, 4, 4))


def test_windows_of_the_test_follow_one_another() -> None:
    series = [clip("person17_boxing_d1", list(range(20))), clip("person17_boxing_d2", [*range(9), *range(10, 30)])]
    found = windows.cut(series, [(0, 0, 20), (1, 0, 29)], 4, 4, FRAME, FrameCache(series, 1))
    # 20 frames hold 2 windows of 8; 9 frames one, and the 20 frames from index 9 on two more.
    assert splits.apart(found).places.tolist() == [[0, 0], [0, 8], [1, 0], [1, 9], [1, 17]]


@pytest.mark.parametrize(
    ("action", "starts"),
    [
        # Frames 1-15 and 20-30 have indices 0-14 and 15-25; windows of 6. The last window begins at 26 - 6 = 20.
        # Jumping back 6 after each: 14 is before 15, so from the end of the first run: 15 - 6 = 9, then 3.
        ("walking", [3, 9, 20]),
        # Jumping back 3: 20, 17, and 14 is before 15; then 9, 6, 3, 0.
        ("jogging", [0, 3, 6, 9, 17, 20]),
    ],
)
def test_published_windows_of_a_clip_with_a_gap(action: str, starts: list[int]) -> None:
    series = [clip(f"person01_{action}_d1", [*range(1, 16), *range(20, 31)])]
    parts = splits.Split([(0, 0, 26)], [], [], 0, "")
    found = published.cut(series, parts.train, Rules(0.1, 0.1, 2, 4), FRAME, FrameCache(series, 1))
    assert [int(s) for _, s in found.places] == starts


CLIPS = st.lists(
    st.tuples(st.sampled_from(kth.ACTIONS), st.sets(st.integers(1, 70), min_size=2)), min_size=1, max_size=4
)


@given(CLIPS, st.integers(1, 4), st.integers(2, 6))
def test_published_windows_are_those_of_the_scan_over_all_clips(
    made: list[tuple[str, set[int]]], observed: int, ahead: int
) -> None:
    series = [clip(f"person01_{action}_d{d}", sorted(numbers)) for d, (action, numbers) in enumerate(made)]
    length = observed + ahead
    # The scan as it is described: one list of the frames of all clips, from its end.
    listed = [(n, k, number, action) for n, (action, s) in enumerate(made) for k, number in enumerate(sorted(s))]
    index, expected = len(listed) - 1, set()
    while index >= length - 1:
        first, last = listed[index - length + 1], listed[index]
        if first[0] == last[0] and last[2] - first[2] == length - 1:
            expected.add((first[0], first[1]))
            index -= 3 if last[3] in ("jogging", "running") else length
        else:
            index -= 1
    whole = [(n, 0, int(s.sizes["time"])) for n, s in enumerate(series)]
    found = published.cut(series, whole, Rules(0.1, 0.1, observed, ahead), FRAME, FrameCache(series, 1))
    assert {(int(n), int(s)) for n, s in found.places} == expected


def test_frame_folders_of_a_tree_are_clips_by_person(tmp_path: Path) -> None:
    for name in ("person01_walking_d1", "person02_walking_d1", "person17_walking_d1"):
        kth_folder(tmp_path, name, range(1, 21))
    paths = formats.find_inputs([tmp_path])
    assert [p.name for p in paths] == [f"person{n}_walking_d1_uncomp" for n in ("01", "02", "17")]
    series = formats.open_series(paths)
    assert [s.attrs["part"] for s in series] == ["train", "train", "test"]
