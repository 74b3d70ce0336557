"""Almanac: fields that follow from times and places alone, as hour, weekday, day of year, holidays and the sun's elevation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pdr_cli.data import times as time_axis
from pdr_cli.data.times import DAY, WEEK

MONDAY = 4 * DAY  # 1970-01-05, in seconds since 1970
SUN, HOLIDAYS = "sun", "holidays"
# Spencer's Fourier series in radians: coefficients of cos(n x) and sin(n x), n from 0, of the share x of the year.
DECLINATION = ((0.006918, 0.0), (-0.399912, 0.070257), (-0.006758, 0.000907), (-0.002697, 0.00148))
EQUATION_OF_TIME = ((0.000075, 0.0), (0.001868, -0.032077), (-0.014615, -0.040849))


def cycle(phase: np.ndarray) -> np.ndarray:
    """Sine and cosine of a phase in [0, 1), [n]: [n, 2]."""
    angle = 2 * np.pi * phase
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)


def hour(times: np.ndarray) -> np.ndarray:
    """Hour of day: [n, 2]."""
    return cycle(time_axis.seconds(times) % DAY / DAY)


def weekday(times: np.ndarray) -> np.ndarray:
    """Day of week: [n, 2]; it is constant from midnight to midnight."""
    return cycle((time_axis.seconds(times) - MONDAY) % WEEK // DAY / 7)


def day_of_year(times: np.ndarray) -> np.ndarray:
    """Elapsed fraction of the year: [n, 2]."""
    return cycle(time_axis.year_fraction(times))


# What each entry of data.calendar gives, beside the sun and holidays.
CYCLES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "hour": hour,
    "weekday": weekday,
    "day-of-year": day_of_year,
}


def dates(times: np.ndarray) -> list[str]:
    """ISO dates of times: [n]."""
    if np.issubdtype(times.dtype, np.datetime64):
        return [str(day) for day in times.astype("datetime64[D]")]
    return [time.strftime("%Y-%m-%d") for time in times]


def holidays(times: np.ndarray, days: Sequence[str]) -> np.ndarray:
    """1 on the days of a list of ISO dates, 0 on others: [n, 1]."""
    return np.isin(dates(times), list(days)).astype(float)[:, None]


def sine_of_elevation(times: np.ndarray, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """The sine of the sun's elevation above the horizon, negative at night: [n, H, W].

    Declination and equation of time are Spencer's Fourier series (1971, Search 2, 172), good to 0.3 degrees in any
    year of the cycle of leap years, and 35 s.

    Args:
        times: in UTC, [n].
        latitude: degrees, broadcastable to [H, W], as longitude.
        longitude: degrees east.
    """
    year = 2 * np.pi * time_axis.year_fraction(times)[:, None, None]
    noon = time_axis.seconds(times)[:, None, None] % DAY / DAY - 0.5
    angle = 2 * np.pi * noon + np.deg2rad(longitude) + _sum(EQUATION_OF_TIME, year)  # of the hour, 0 at the sun's noon
    north, sun = np.deg2rad(latitude), _sum(DECLINATION, year)
    return np.asarray(np.sin(north) * np.sin(sun) + np.cos(north) * np.cos(sun) * np.cos(angle))


def _sum(series: Sequence[tuple[float, float]], angle: np.ndarray) -> np.ndarray:
    found = np.zeros_like(angle)
    for n, (cosine, sine) in enumerate(series):
        found = found + cosine * np.cos(n * angle) + sine * np.sin(n * angle)
    return found
