import numpy as np
import pytest

from pdr_cli.data import splits, windows
from pdr_cli.data.splits import Rules
from pdr_cli.data.times import Step
from pdr_cli.data.windows import FrameCache
from pdr_cli.errors import TimeError
from tests.data.test_windows import HOUR, series_with

RULES = Rules(0.1, 0.2, 4, 4)


def frames_of(cut: windows.Windows) -> set[int]:
    return {int(start) + k for _, start in cut.places for k in range(cut.in_steps + cut.out_steps)}


def test_parts_are_in_order_with_a_gap_of_one_window() -> None:
    series = [series_with(list(range(400)))]
    parts = splits.split(series, RULES)
    assert (parts.train, parts.val, parts.test) == ([(0, 0, 280)], [(0, 288, 320)], [(0, 328, 400)])


def test_no_test_window_shares_a_frame_with_anything_seen() -> None:
    series = [series_with(list(range(400)))]
    parts = splits.split(series, RULES)
    cache = FrameCache(series, 1)
    known = splits.seen(series, [""], parts, HOUR)
    all_windows = windows.cut(series, [(0, 0, 400)], 4, 4, HOUR, cache)
    test = splits.select(all_windows, [""], known, "test")
    assert frames_of(test) == set(range(328, 400))
    assert frames_of(splits.select(all_windows, [""], known, "train")) == set(range(280))
    assert frames_of(splits.select(all_windows, [""], known, "val")) == set(range(288, 320))


def test_a_later_file_is_all_test_data() -> None:
    known = splits.seen(
        [series_with(list(range(400)))], [""], splits.split([series_with(list(range(400)))], RULES), HOUR
    )
    later = [series_with(list(range(1000, 1100)))]
    whole = windows.cut(later, [(0, 0, 100)], 4, 4, HOUR, FrameCache(later, 1))
    assert len(splits.select(whole, [""], known, "test")) == len(whole) == 93


def test_clips_are_split_as_wholes_and_known_by_their_content() -> None:
    clips = [series_with(list(range(30))) for _ in range(10)]
    parts = splits.split(clips, RULES)
    assert [p[0] for p in parts.train] == list(range(7))
    assert [p[0] for p in parts.val] == [7]
    assert [p[0] for p in parts.test] == [8, 9]
    hashes = [f"clip{i}" for i in range(10)]
    known = splits.seen(clips, hashes, parts, HOUR)
    # In another order, under other names: what was seen is told by the hash.
    turned = list(reversed(hashes))
    whole = windows.cut(clips, [(n, 0, 30) for n in range(10)], 4, 4, HOUR, FrameCache(clips, 1))
    assert {int(n) for n, _ in splits.select(whole, turned, known, "test").places} == {0, 1}


def test_too_few_steps_say_how_many_are_needed() -> None:
    with pytest.raises(TimeError, match=r"50 steps are too few .* at least 160"):
        splits.split([series_with(list(range(50)))], RULES)


def test_gap_is_counted_in_time_of_the_models_step() -> None:
    known = splits.seen(
        [series_with(list(range(0, 1200, 3)))],
        [""],
        splits.split([series_with(list(range(400)))], RULES),
        Step(3 * 3600),
    )
    assert known.gap_seconds == 8 * 3 * 3600
    assert np.isclose(known.entries[0][3] - known.entries[0][2], 279 * 3 * 3600)
