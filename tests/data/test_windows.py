import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdr_cli.data import windows
from pdr_cli.data.series import Series, make_series
from pdr_cli.data.times import Step
from pdr_cli.data.windows import FrameCache
from pdr_cli.errors import TimeError

HOUR = Step(3600)


def series_with(steps: list[int]) -> Series:
    """A series whose frame at hour h is filled with h."""
    times = np.datetime64("2020-01-01", "ns") + np.array(steps) * np.timedelta64(1, "h")
    frames = np.broadcast_to(np.array(steps, np.float32)[:, None, None, None], (len(steps), 1, 4, 4)).copy()
    return make_series(frames, times, {"v": {}}, {}, kind="weather", files=["v.nc"])


@given(st.sets(st.integers(0, 90), min_size=2), st.integers(1, 5), st.integers(1, 5))
def test_no_window_crosses_a_gap_and_none_is_missed(hours: set[int], observed: int, ahead: int) -> None:
    steps = sorted(hours)
    series = series_with(steps)
    cache = FrameCache([series], 1)
    cut = windows.cut([series], [(0, 0, len(steps))], observed, ahead, HOUR, cache)
    expected = [h for h in steps if all(h + k in hours for k in range(observed + ahead))]
    assert [steps[start] for _, start in cut.places] == expected
    for i, hour in enumerate(expected):
        x, y = cut.batch([i])
        assert np.concatenate([x, y], axis=1)[0, :, 0, 0, 0].tolist() == list(range(hour, hour + observed + ahead))


@given(st.sets(st.integers(0, 90), min_size=4), st.integers(0, 30))
def test_frames_of_earlier_times_are_found_by_time_and_missing_ones_are_nan(hours: set[int], n: int) -> None:
    steps = sorted(hours)
    series = series_with(steps)
    cut = windows.cut([series], [(0, 0, len(steps))], 1, 1, HOUR, FrameCache([series], 1))
    everything = np.arange(len(cut))
    last = [steps[start] for _, start in cut.places]
    expected = [h - n if h - n in hours else np.nan for h in last]
    assert np.array_equal(cut.before(everything, n)[:, 0, 0, 0], expected, equal_nan=True)


def test_a_cache_smaller_than_the_series_changes_nothing() -> None:
    series = series_with(list(range(500)))
    small, large = FrameCache([series], 1), FrameCache([series], 100)
    small._limit = 2
    for start in (0, 470, 31, 5, 250, 0):
        assert np.array_equal(small.frames(0, start, start + 30), large.frames(0, start, start + 30))
    assert len(small._blocks) <= 2


def test_last_window_needs_enough_steps() -> None:
    with pytest.raises(TimeError, match="needs 12 steps, found 7"):
        windows.last_window(series_with(list(range(7))), 12, HOUR)


def test_last_window_names_the_times_it_lacks() -> None:
    gap = series_with([*range(10), 11, 12])
    with pytest.raises(TimeError, match=r"1 time is missing.*2020-01-01 10:00"):
        windows.last_window(gap, 4, HOUR)
    assert windows.last_window(gap, 4, HOUR, init=9) == (6, 10)


def test_another_step_than_the_models_is_named() -> None:
    with pytest.raises(TimeError, match="steps of 3 h, but the model was trained on steps of 1 h"):
        windows.last_window(series_with(list(range(0, 60, 3))), 4, HOUR)
