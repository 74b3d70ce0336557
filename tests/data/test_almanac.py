"""Calendar terms and the sun's elevation against known values."""

import cftime
import numpy as np
import pytest

from pdr_cli.data import almanac


def dates(*texts: str) -> np.ndarray:
    return np.array(texts, "datetime64[ns]")


@pytest.mark.parametrize(
    ("time", "sine", "cosine"), [("00:00", 0, 1), ("06:00", 1, 0), ("12:00", 0, -1), ("18:00", -1, 0)]
)
def test_the_hour_is_a_point_on_a_circle(time: str, sine: float, cosine: float) -> None:
    np.testing.assert_allclose(almanac.hour(dates(f"2020-05-17T{time}")), [[sine, cosine]], atol=1e-12)


def test_weekdays_are_constant_from_midnight_to_midnight() -> None:
    monday = almanac.weekday(dates("2024-07-01T00:00", "2024-07-01T23:59", "2024-07-02T00:00", "2024-07-08T12:00"))
    np.testing.assert_allclose(monday[0], [0, 1], atol=1e-12)
    assert np.array_equal(monday[1], monday[0])
    assert not np.allclose(monday[2], monday[0])
    np.testing.assert_allclose(monday[3], monday[0])


def test_the_day_of_year_follows_the_calendar() -> None:
    """July 1 is the middle of a year of 360 days: 180 of 360."""
    middle = almanac.day_of_year(np.array([cftime.Datetime360Day(2001, 7, 1)]))
    np.testing.assert_allclose(middle, [[0, -1]], atol=1e-12)


def test_holidays_are_whole_days_of_any_calendar() -> None:
    listed = ["2014-12-25", "2015-02-30"]
    assert almanac.holidays(dates("2014-12-25T23:00", "2014-12-26T00:00"), listed).tolist() == [[1], [0]]
    odd = np.array([cftime.Datetime360Day(2015, 2, 30, 12), cftime.Datetime360Day(2015, 3, 1)])
    assert almanac.holidays(odd, listed).tolist() == [[1], [0]]


PLACES = (np.array([[0.0], [66.56], [90.0], [-90.0]]), np.array([[0.0, 90.0]]))


def test_the_sun_is_overhead_at_the_equator_at_noon_of_the_equinox() -> None:
    """At 12 UTC in March the sun is 7.5 minutes behind the clock: 1.9 degrees, whose cosine is 0.9995."""
    elevation = almanac.sine_of_elevation(dates("2021-03-20T12:00", "2021-03-20T12:07:30"), *PLACES)
    assert elevation[0, 0, 0] == pytest.approx(0.9995, abs=2e-4)
    assert elevation[1, 0, 0] == pytest.approx(1, abs=2e-5)  # leap years move the equinox by half a day, 0.2 degrees
    assert elevation[1, 0, 1] == pytest.approx(0, abs=5e-3)  # 90 degrees east, the sun sets


def test_the_sun_at_the_solstice() -> None:
    """The declination is 23.44 degrees: at noon 46.9 at the polar circle, at midnight on the horizon there."""
    noon, midnight = almanac.sine_of_elevation(dates("2021-06-21T12:00", "2021-06-21T00:02"), *PLACES)
    assert np.rad2deg(np.arcsin(noon[1, 0])) == pytest.approx(90 - 66.56 + 23.44, abs=0.1)
    assert np.rad2deg(np.arcsin(midnight[1, 0])) == pytest.approx(0, abs=0.1)
    assert np.rad2deg(np.arcsin(noon[2:, 0])) == pytest.approx([23.44, -23.44], abs=0.1)
    assert midnight[0, 0] < -0.9


def test_the_sun_moves_west() -> None:
    """Six hours after noon in Greenwich it is noon at 90 degrees west."""
    west = almanac.sine_of_elevation(dates("2021-03-20T18:07:30"), np.array([[0.0]]), np.array([[-90.0, 270.0]]))
    np.testing.assert_allclose(west, 1, atol=1e-4)
