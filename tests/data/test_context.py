"""Context: climatology at the times of windows, and frames of earlier cycles."""

from __future__ import annotations

import numpy as np
import pytest

from pdr_cli.data.climatology import Climatology
from pdr_cli.data.context import Context, ContextSource, Moments, cycles_of, latest_age
from pdr_cli.data.times import Step
from pdr_cli.errors import ConfigError

HOUR, SIX_HOURS = Step(3600), Step(6 * 3600)


def moments(back: object = None) -> Moments:
    times = np.datetime64("2020-01-06T22", "ns") + np.arange(5) * np.timedelta64(1, "h")

    def frames_back(n: int) -> np.ndarray:
        return np.full((1, 1, 2, 2), float(n), np.float32)

    return Moments([times[:2]], [times[2:]], frames_back)


def test_normal_frames_are_those_of_observed_and_forecast_times() -> None:
    hours = np.arange(24.0, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 2, 2), np.float32)
    made = ContextSource(Climatology("day", hours)).of(moments())
    assert made.normal is not None
    assert made.normal[0, :, 0, 0, 0].tolist() == [22, 23, 0, 1, 2]
    assert made.earlier is None


def test_earlier_frames_are_the_latest_observed_ones_of_the_same_place_in_the_cycle() -> None:
    # Of a cycle of two steps, the first lead has the frame before the last, the second lead the last itself.
    made = ContextSource(None, (2, 24)).of(moments())
    assert made.earlier is not None
    assert made.earlier[0, :, :, 0, 0, 0].tolist() == [[1, 0, 1], [23, 22, 21]]
    assert [latest_age(lead, 24) for lead in (1, 24, 25)] == [23, 0, 23]


def test_a_source_of_nothing_gives_nothing() -> None:
    made = ContextSource().of(moments())
    assert made.arrays() == {}
    assert Context.joined([made, made]).arrays() == {}
    assert made.part(0, 1) == made


@pytest.mark.parametrize(
    ("option", "step", "weekly", "frames", "cycles"),
    [
        (["auto"], HOUR, True, 24 * 7 * 3, (24, 168)),
        (["auto"], HOUR, True, 24 * 7 * 3 - 1, (24,)),  # a week is not covered three times
        (["auto"], HOUR, True, 71, ()),
        (["auto"], HOUR, False, 10**6, ()),
        (["auto"], Step(1, "month"), True, 10**6, ()),
        (["auto"], Step(86400), True, 10**6, (7,)),  # a day has one step
        (["auto"], Step(5 * 3600), True, 10**6, ()),
        (["1d", "2w"], SIX_HOURS, False, 1, (4, 56)),
        ([], HOUR, True, 10**6, ()),
    ],
)
def test_cycles_in_steps(option: list[str], step: Step, weekly: bool, frames: int, cycles: tuple[int, ...]) -> None:
    assert cycles_of(option, step, weekly, frames) == cycles


def test_a_cycle_that_the_step_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.back is 1d, which steps of 5 h do not divide"):
        cycles_of(["1d"], Step(5 * 3600), False, 100)
