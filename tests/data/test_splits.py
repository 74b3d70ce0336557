import re
from dataclasses import replace
from pathlib import Path

import cftime
import numpy as np
import pytest

from pdr_cli import config
from pdr_cli.data import formats, seen, splits, times, windows
from pdr_cli.data.rules import Periods, Rules
from pdr_cli.data.series import LazyFrames, Series, make_series
from pdr_cli.data.times import Step
from pdr_cli.data.windows import FrameCache
from pdr_cli.errors import TimeError
from tests.builders import taxibj_files
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
    known = seen.of(series, [""], parts, HOUR)
    all_windows = windows.cut(series, [(0, 0, 400)], 4, 4, HOUR, cache)
    test = seen.select(all_windows, [""], known, "test")
    assert frames_of(test) == set(range(328, 400))
    assert frames_of(seen.select(all_windows, [""], known, "train")) == set(range(280))
    assert frames_of(seen.select(all_windows, [""], known, "val")) == set(range(288, 320))


def test_a_later_file_is_all_test_data() -> None:
    known = seen.of([series_with(list(range(400)))], [""], splits.split([series_with(list(range(400)))], RULES), HOUR)
    later = [series_with(list(range(1000, 1100)))]
    whole = windows.cut(later, [(0, 0, 100)], 4, 4, HOUR, FrameCache(later, 1))
    assert len(seen.select(whole, [""], known, "test")) == len(whole) == 93


def test_clips_are_split_as_wholes_and_known_by_their_content() -> None:
    clips = [series_with(list(range(30))) for _ in range(10)]
    parts = splits.split(clips, RULES)
    assert [p[0] for p in parts.train] == list(range(7))
    assert [p[0] for p in parts.val] == [7]
    assert [p[0] for p in parts.test] == [8, 9]
    hashes = [f"clip{i}" for i in range(10)]
    known = seen.of(clips, hashes, parts, HOUR)
    # In another order, under other names: hashes tell which clips were seen.
    reordered = list(reversed(hashes))
    whole = windows.cut(clips, [(n, 0, 30) for n in range(10)], 4, 4, HOUR, FrameCache(clips, 1))
    assert {int(n) for n, _ in seen.select(whole, reordered, known, "test").places} == {0, 1}


def test_too_few_steps_say_how_many_are_needed() -> None:
    with pytest.raises(TimeError, match=r"50 steps are too few .* at least 160"):
        splits.split([series_with(list(range(50)))], RULES)


@pytest.mark.parametrize(("steps", "works"), [(25, True), (10, False)])
def test_a_share_for_validation_is_only_proposed_if_it_is_enough(steps: int, works: bool) -> None:
    series, rules = [series_with(list(range(steps)))], Rules(0.3, 0.15, 2, 2)
    with pytest.raises(TimeError) as refused:
        splits.split(series, rules)
    found = re.search(r"data\.val_fraction=([\d.]+)", refused.value.way_out)
    assert bool(found) is works
    if found:
        assert splits.split(series, replace(rules, val_fraction=float(found[1]))).val


def test_gap_is_counted_in_time_of_the_models_step() -> None:
    known = seen.of(
        [series_with(list(range(0, 1200, 3)))],
        [""],
        splits.split([series_with(list(range(400)))], RULES),
        Step(3 * 3600),
    )
    assert known.gap_seconds == 8 * 3 * 3600
    assert np.isclose(known.entries[0][3] - known.entries[0][2], 279 * 3 * 3600)


def axis(first: str, last: str, minutes: int = 60) -> Series:
    """A series of a real length whose frames are never read, from `first` up to and not including `last`."""
    when = np.arange(np.datetime64(first, "m"), np.datetime64(last, "m"), minutes).astype("datetime64[ns]")

    def frames(start: int, stop: int) -> np.ndarray:
        raise AssertionError("a split reads no frames")

    lazy = LazyFrames((len(when), 1, 32, 64), np.float32, frames)
    return make_series(lazy, when, {"t2m": {}}, {}, kind="weather", files=["t2m.nc"])


def span(series: Series, periods: list[splits.Period]) -> list[tuple[str, str]]:
    return [(times.label(series.time.values[a]), times.label(series.time.values[b - 1])) for _, a, b in periods]


WEATHER = Rules(0.1, 0.2, 12, 12, Periods("2010/2015", "2016", "2017/2018"))


def test_periods_are_kept_apart_by_one_window() -> None:
    series = axis("2010-01-01", "2019-01-01")
    parts = splits.split([series], WEATHER)
    # The earlier part gives up its last 24 hours, so that the test years are whole.
    assert span(series, parts.train) == [("2010-01-01 00:00", "2015-12-30 23:00")]
    assert span(series, parts.val) == [("2016-01-01 00:00", "2016-12-30 23:00")]
    assert span(series, parts.test) == [("2017-01-01 00:00", "2018-12-31 23:00")]
    known = seen.of([series], [""], parts, HOUR)
    whole = windows.cut([series], [(0, 0, series.sizes["time"])], 12, 12, HOUR, FrameCache([series], 1))
    assert len(seen.select(whole, [""], known, "test")) == 17520 - 23


@pytest.mark.parametrize(
    ("years", "count"),
    # Published: hours less the last one, L; L - 24 windows. 2010-2015 have 2191 days with 29 February 2012, 2016 has
    # 366 and 2017-2018 have 730: 52584 - 25, 8784 - 25 and 17520 - 25.
    [("2010/2015", 52559), ("2016", 8759), ("2017/2018", 17495)],
)
def test_published_weather_windows_are_as_many_as_published(years: str, count: int) -> None:
    series = [axis("2010-01-01", "2019-01-01")]
    data = config.load("weatherbench", [f"data.test_period={years}"]).data
    assert len(splits.benchmark_windows(series, data, "test", FrameCache(series, 1))) == count


def test_published_validation_is_the_test_set_without_a_gap() -> None:
    series = [axis("2010-01-01", "2019-01-01")]
    data = config.load("weatherbench", ["data.protocol=openstl"]).data
    parts = splits.split(series, Rules.of(data))
    assert parts.val == parts.test
    assert (parts.gap, len(parts.train), parts.train[0][:2]) == (0, 1, (0, 0))
    # What such a model was chosen on is recorded as seen, so nothing of it is test data for an honest evaluation.
    known = seen.of(series, [""], parts, HOUR)
    found = splits.benchmark_windows(series, data, "test", FrameCache(series, 1))
    assert len(seen.select(found, [""], known, "test")) == 0
    assert len(seen.select(found, [""], known, "val")) == len(found)


def test_the_test_years_alone_have_published_windows() -> None:
    series = [axis("2017-01-01", "2019-01-01")]
    data = config.load("weatherbench").data
    assert len(splits.benchmark_windows(series, data, "test", FrameCache(series, 1))) == 17495
    with pytest.raises(TimeError, match=r"no published window of 12 \+ 12 steps is train data"):
        splits.benchmark_windows(series, data, "train", FrameCache(series, 1))


def test_years_that_are_not_there_are_named_with_the_way_out() -> None:
    with pytest.raises(TimeError, match=r"no steps to train on; the data run from 2016.*--set data\.train_period="):
        splits.split([axis("2016-01-01", "2018-01-01")], WEATHER)


def test_the_last_days_are_the_test_and_the_last_of_the_rest_validates() -> None:
    series = axis("2015-01-01", "2015-04-11", 30)  # 100 days of 48 slots
    parts = splits.split([series], Rules(0.1, 0.15, 4, 4, Periods(test="28d")))
    # 28 days are 1344 of 4800 slots: the test begins at 3456. A tenth of 3456 validates: from round(3110.4) on; each
    # earlier part gives up 8 slots.
    assert (parts.train, parts.val, parts.test) == ([(0, 0, 3102)], [(0, 3110, 3448)], [(0, 3456, 4800)])


def test_days_that_are_more_than_half_of_the_data_give_way_to_the_fractions() -> None:
    series = axis("2015-01-01", "2015-02-10", 30)  # 40 days
    parts = splits.split([series], Rules(0.1, 0.15, 4, 4, Periods(test="28d")))
    # 15 % of 1920 slots are 288, of which the first 8 are the gap.
    assert parts.test == [(0, 1640, 1920)]
    assert parts.rule == "in time, 8 steps between parts"


def test_periods_hold_in_calendars_without_leap_days() -> None:
    when = np.array(cftime.num2date(np.arange(4 * 365), "days since 2000-01-01", "noleap"))
    series = make_series(
        np.zeros((len(when), 1, 4, 4), np.float32), when, {"t": {}}, {}, kind="weather", files=["t.nc"]
    )
    parts = splits.split([series], Rules(0.1, 0.1, 2, 2, Periods("2000/2001-06", "2002-02/2002", "2003")))
    # 2000 and January to June 2001: 365 + 181 days; February to December 2002 from day 2 * 365 + 31, less the gap of 4.
    assert (parts.train, parts.val, parts.test) == ([(0, 0, 546)], [(0, 761, 1091)], [(0, 1095, 1460)])


def test_short_days_of_traffic_are_used_or_dropped_by_the_protocol(tmp_path: Path) -> None:
    paths = sorted(taxibj_files(tmp_path, 8, short=[(13, 2), (16, 6)]).glob("*.h5"))
    series = formats.open_series(paths)
    # Four years of 8 days of 48 slots, two days of 40: 1536 - 16 = 1520 slots.
    assert series[0].sizes["time"] == 1520
    honest = Rules(0.1, 0.15, 4, 4, Periods(test="3d"))
    parts = splits.split(series, honest)
    # The last three days are 48 + 40 + 48 slots, a gap of 8 slots in the middle.
    assert parts.test == [(0, 1384, 1520)]
    published = config.load("taxibj", ["data.test_period=3d"]).data
    cache = FrameCache(series, 1)
    # Test days 6 and 8 of 2016 (the 6th and 8th of March) have 48 slots, or 41 windows of 8 each; the 7th is dropped.
    assert len(splits.benchmark_windows(series, published, "test", cache)) == 2 * 41
    # Training: 2013 is cut into two and five whole days, 2014 and 2015 have eight days, 2016 the five before the test.
    runs = [2 * 48, 5 * 48, 8 * 48, 8 * 48, 5 * 48]
    assert len(splits.benchmark_windows(series, published, "train", cache)) == sum(n - 7 for n in runs)


def test_a_series_that_comes_split_keeps_its_test() -> None:
    train, test = series_with(list(range(400))), series_with(list(range(1000, 1050)))
    parts = splits.split([test.assign_attrs(part="test"), train.assign_attrs(part="train")], RULES)
    # A tenth of 400 validates, 8 steps apart.
    assert (parts.train, parts.val, parts.test) == ([(1, 0, 360)], [(1, 368, 400)], [(0, 0, 50)])


def test_clips_that_come_split_validate_on_whole_training_clips() -> None:
    clips = [series_with(list(range(30))).assign_attrs(part=p) for p in ("train",) * 10 + ("test",) * 2]
    parts = splits.split(clips, RULES)
    assert [[n for n, _, _ in p] for p in (parts.train, parts.val, parts.test)] == [list(range(9)), [9], [10, 11]]


def test_dates_of_other_data_give_way_to_the_fractions_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    # 400 hours from 2020 on, none of them in the years that WeatherBench is split by.
    series = [series_with(list(range(400)))]
    dated = Rules(0.1, 0.2, 4, 4, Periods("2010/2015", "2016", "2017/2018"))
    with caplog.at_level("WARNING", logger="pdr"):
        parts = splits.split(series, dated)
    assert parts == splits.split(series, RULES)
    assert "no time of train_period 2010/2015, val_period 2016, test_period 2017/2018" in caplog.text
    # One of the years being there makes it a mistake to be mended.
    with pytest.raises(TimeError, match="no steps to validate on"):
        splits.split(series, Rules(0.1, 0.2, 4, 4, Periods("2019/2021", "2016", "2017/2018")))
