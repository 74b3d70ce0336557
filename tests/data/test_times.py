import cftime
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdr_cli.data import times
from pdr_cli.data.times import Step
from pdr_cli.errors import TimeError


def hourly(n: int, hours: int = 6) -> np.ndarray:
    return np.datetime64("2020-02-27", "ns") + np.arange(n) * np.timedelta64(hours, "h")


def test_step_is_the_usual_spacing_and_gaps_are_its_multiples() -> None:
    axis = np.delete(hourly(20), [7, 8])
    assert times.find_step(axis) == Step(6 * 3600)
    assert times.segments(axis, Step(6 * 3600)) == [(0, 7), (7, 18)]
    assert [times.label(t) for t in times.missing(axis, Step(6 * 3600))] == ["2020-02-28 18:00", "2020-02-29 00:00"]


def test_months_of_unequal_length_are_one_step() -> None:
    axis = np.array(["2019-11-01", "2019-12-01", "2020-01-01", "2020-02-01", "2020-03-01"], dtype="datetime64[ns]")
    assert times.find_step(axis) == Step(1, "month")
    assert times.label(times.following(axis[-1], Step(1, "month"), 2)[1]) == "2020-05-01 00:00"


@pytest.mark.parametrize(
    ("days", "anchor", "expected"),
    [
        (["01-01", "02-01", "03-01", "04-01"], "start", "2021-05-01 00:00"),
        (["01-15", "02-15", "03-15", "04-15"], "start", "2021-05-15 00:00"),
        (["01-31", "02-28", "03-31", "04-30"], "end", "2021-05-31 00:00"),
        (["01-16T12", "02-15", "03-16T12", "04-16"], "middle", "2021-05-16 12:00"),
        (["01-16", "02-15", "03-16", "04-16"], "middle", "2021-05-16 12:00"),
    ],
)
def test_months_are_counted_from_their_start_middle_or_end(days: list[str], anchor: str, expected: str) -> None:
    axis = np.array([f"2021-{d}" for d in days], dtype="datetime64[ns]")
    step = times.find_step(axis)
    assert step == Step(1, "month", anchor)  # type: ignore[arg-type]
    assert times.label(times.following(axis[-1], step, 1)[0]) == expected
    assert times.segments(np.delete(axis, 2), step) == [(0, 2), (2, 3)]


def test_months_of_climate_calendars_follow_each_other_too() -> None:
    axis = np.array(
        [cftime.DatetimeNoLeap(2000, month, 15) for month in (11, 12)] + [cftime.DatetimeNoLeap(2001, 1, 15)]
    )
    after = times.following(axis[-1], times.find_step(axis), 2)[1]
    assert (after.year, after.month, after.day, after.calendar) == (2001, 3, 15, "noleap")


def test_calendar_of_360_days_keeps_its_30_february() -> None:
    axis = np.array([cftime.Datetime360Day(2000, 2, d) for d in (28, 29, 30)])
    after = times.following(axis[-1], times.find_step(axis), 1)[0]
    assert (after.month, after.day, after.calendar) == (3, 1, "360_day")


@pytest.mark.parametrize(
    ("axis", "says"),
    [
        (hourly(1), "at least 2"),
        (np.concatenate([hourly(3), hourly(3)[-1:]]), "repeated"),
        (hourly(4)[::-1], "backwards"),
        (
            np.datetime64("2020-01-01", "ns") + np.array([0, 7, 15, 22, 30]) * np.timedelta64(1, "h"),
            "irregular times: steps of 7 h, 8 h",
        ),
    ],
)
def test_unusable_axes_are_refused_with_the_reason(axis: np.ndarray, says: str) -> None:
    with pytest.raises(TimeError, match=says):
        times.find_step(axis)


def test_time_stamps_rounded_to_milliseconds_are_regular() -> None:
    axis = np.round(np.arange(60) / 29.97, 3)
    assert len(times.segments(axis, times.find_step(axis))) == 1


def test_a_time_is_found_by_its_name_and_the_nearest_is_offered_otherwise() -> None:
    axis = hourly(8)
    assert times.parse("2020-02-27T12:00", axis) == 2
    with pytest.raises(TimeError, match="nearest is 2020-02-27 12:00"):
        times.parse("2020-02-27 13:00", axis)
    with pytest.raises(TimeError, match="not a time; write it like"):
        times.parse("yesterday", axis)


@given(st.integers(2, 60), st.integers(1, 86400), st.sets(st.integers(1, 58), max_size=5))
def test_segments_cover_the_axis_and_never_span_a_gap(n: int, seconds: int, dropped: set[int]) -> None:
    keep = [i for i in range(n) if i not in dropped]
    axis = np.datetime64("2000-01-01", "ns") + np.array(keep) * np.timedelta64(seconds, "s")
    parts = times.segments(axis, Step(seconds))
    assert [i for low, high in parts for i in range(low, high)] == list(range(len(keep)))
    assert all(keep[high - 1] - keep[low] == high - 1 - low for low, high in parts)


@pytest.mark.parametrize(
    ("step", "text"),
    [(Step(6 * 3600), "6 h"), (Step(1800), "30 min"), (Step(86400), "1 d"), (Step(1, "month"), "1 month")],
)
def test_steps_read_as_people_say_them(step: Step, text: str) -> None:
    assert str(step) == text


def test_times_are_the_same_up_to_rounding() -> None:
    exact = np.arange(5) / 29.97
    assert times.same(exact, np.round(exact, 3), Step(1 / 29.97))
    assert not times.same(exact, exact + 1 / 29.97, Step(1 / 29.97))
    assert not times.same(exact, exact[:4], Step(1 / 29.97))
