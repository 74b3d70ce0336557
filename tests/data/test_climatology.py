import cftime
import numpy as np
import pytest

from pdr_cli.data import climatology, statistics
from pdr_cli.data.climatology import Climatology, Design, Fit
from pdr_cli.data.series import Series, make_series
from pdr_cli.data.times import DAY, WEEK, YEAR, Step, following, seconds, year_fraction

HOUR, SIX_HOURS, DAILY = Step(3600), Step(6 * 3600), Step(DAY)


def dates(n: int, hours: int, start: str = "2019-01-01") -> np.ndarray:
    return np.datetime64(start, "ns") + np.arange(n) * np.timedelta64(hours, "h")


def series_of(values: np.ndarray, times: np.ndarray, kind: str = "weather") -> Series:
    """A series whose every cell has `values` [T], plus its column number."""
    frames = values[:, None, None, None] + np.arange(3.0) * np.ones((1, 1, 2, 3))
    return make_series(frames.astype(np.float32), times, {"v": {}}, {}, kind=kind, files=["v.nc"])


def fitted(values: np.ndarray, times: np.ndarray, kind: str = "weather", stop: int | None = None) -> Climatology:
    return statistics.measure([(series_of(values, times, kind), 0, stop or len(times))], 1000, 0).climatology


def first_cell(usual: Climatology, times: np.ndarray) -> np.ndarray:
    return usual.at(times)[:, 0, 0, 0]


def test_six_hourly_fields_have_a_mean_for_each_hour() -> None:
    usual = fitted(np.tile([10.0, 20.0, 40.0, 30.0], 10), dates(40, 6))
    assert (usual.kind, usual.coefficients.shape) == ("day", (4, 1, 2, 3))
    # A date far from training, and one between two hours, which goes to the nearer.
    when = np.array(["2031-07-09T18:00", "2031-07-09T11:00"], "datetime64[ns]")
    assert usual.at(when)[:, 0, 0].tolist() == [[30, 31, 32], [40, 41, 42]]
    assert usual.description == "hour of day, 10 days of training"


def test_traffic_has_a_mean_for_each_hour_of_the_week_from_three_weeks_on() -> None:
    times = dates(24 * 7 * 4, 1)
    rhythm = np.random.default_rng(0).normal(100, 20, 168).round()
    usual = fitted(np.tile(rhythm, 4), times, "traffic", stop=24 * 21)
    assert (usual.kind, len(usual.coefficients)) == ("week", 168)
    assert usual.description == "hour of day and day of week, 3 weeks of training"
    # The week that was not seen repeats those that were.
    assert np.allclose(first_cell(usual, times[-168:]), rhythm)
    # Group 0 is Monday at 0 h; training begins on Tuesday, 2019-01-01, at 0 h.
    assert np.allclose(usual.coefficients[24:48, 0, 0, 0], rhythm[:24])
    assert fitted(np.tile(rhythm, 4), times, "traffic", stop=24 * 20).kind == "day"
    assert fitted(np.tile(rhythm, 4), times, "weather", stop=24 * 21).kind == "day"


def test_a_day_of_week_that_was_never_seen_gets_the_mean_of_its_hour() -> None:
    # Five weeks of hourly data without Sundays (2019-01-06 is one): hour h of day d is h + 100 d.
    times = dates(24 * 35, 1)
    weekday = (np.arange(len(times)) // 24 + 1) % 7
    keep = weekday != 6
    usual = fitted((np.arange(len(times)) % 24 + 100.0 * weekday)[keep], times[keep], "traffic")
    assert usual.kind == "week"
    # Monday to Saturday are days 0 to 5, of mean 2.5.
    sunday = np.array(["2019-02-10T05:00"], "datetime64[ns]")
    assert first_cell(usual, sunday).tolist() == [5 + 250]


def test_two_years_of_daily_fields_give_the_annual_sine_back_and_forecast_the_third() -> None:
    times = dates(3 * 365, 24, "2021-01-01")

    def wave(t: np.ndarray) -> np.ndarray:
        return 280 + 15 * np.sin(2 * np.pi * year_fraction(t)) - 4 * np.cos(4 * np.pi * year_fraction(t) + 1)

    usual = fitted(wave(times), times, stop=730)
    assert (usual.kind, usual.coefficients.shape[0]) == ("year", 5)
    assert np.allclose(first_cell(usual, times[730:]), wave(times[730:]), atol=1e-3)
    assert usual.description == "day of year, 2 years of training"
    assert fitted(wave(times), times, stop=700).kind == "mean"


def test_each_hour_of_the_day_has_an_annual_cycle_of_its_own() -> None:
    times = dates(4 * 365 * 3, 6, "2021-01-01")
    # The daily range is wider in summer, which no sum of a daily and an annual cycle can say.
    night = np.arange(len(times)) % 4 == 0
    values = 280 + np.where(night, -5.0, 5.0) * (2 - np.cos(2 * np.pi * year_fraction(times)))
    usual = fitted(values, times, stop=4 * 730)
    assert (usual.kind, len(usual.coefficients)) == ("day+year", 20)
    assert np.allclose(first_cell(usual, times[4 * 730 :]), values[4 * 730 :], atol=1e-3)
    assert usual.description == "hour of day and day of year, 2 years of training"


def test_monthly_fields_have_a_mean_for_each_month() -> None:
    times = np.arange("2000-01", "2003-01", dtype="datetime64[M]").astype("datetime64[ns]")
    usual = fitted(np.arange(36) % 12 * 10.0, times, stop=24)
    assert (usual.kind, usual.description) == ("month", "month of year, 2 years of training")
    assert first_cell(usual, times[24:]).tolist() == [10.0 * m for m in range(12)]


@pytest.mark.parametrize(("calendar", "days"), [("noleap", 365), ("360_day", 360)])
def test_other_calendars_have_their_own_year(calendar: str, days: int) -> None:
    first = cftime.datetime(2001, 1, 1, calendar=calendar)
    times = np.concatenate([[first], following(first, DAILY, 3 * days - 1)])
    # From zero at New Year's Eve, the phase grows by 1/days a day and starts again.
    assert np.allclose(year_fraction(times), np.arange(3 * days) % days / days)
    values = 280 + 15 * np.sin(2 * np.pi * np.arange(3 * days) / days)
    usual = fitted(values, times, stop=735)
    assert usual.kind == "year"
    assert np.allclose(first_cell(usual, times[735:]), values[735:], atol=1e-3)


def test_clips_have_their_mean_frame() -> None:
    usual = fitted(np.arange(10.0), np.arange(10) * 0.04, "video")
    assert (usual.kind, usual.description) == ("mean", "mean of all times")
    assert first_cell(usual, np.array([7.0, 8.0])).tolist() == [4.5, 4.5]


def test_steps_finer_than_half_an_hour_share_the_groups_of_half_hours() -> None:
    times = dates(2, 1)[0] + np.arange(144 * 4) * np.timedelta64(10, "m")
    assert climatology.choose(times, Step(600), False, 100) == Design("day", 48)


@pytest.mark.parametrize(
    ("megabytes", "design"),
    [
        # An hourly field of 1e6 values takes 8 MB a sum; 24 hours with 5 terms each would take 960 MB.
        (1000, Design("day+year", 24)),
        (256, Design("day+year", 6)),
        (40, Design("year", 1)),
        (39, Design("day", 4)),
        (8, Design("mean", 1)),
        (1, Design("mean", 1)),
    ],
)
def test_large_grids_get_a_coarser_climatology(megabytes: int, design: Design, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(climatology, "SUMS_MB", megabytes)
    monkeypatch.setattr(climatology, "HARMONICS_MB", 0)
    assert climatology.choose(dates(24 * 731, 1), HOUR, False, 1_000_000) == design


def test_two_years_of_summers_are_no_annual_cycle() -> None:
    summers = np.concatenate([dates(180, 24, f"{year}-04-01") for year in range(2000, 2006)])
    assert climatology.covered(summers, DAILY) > 2 * YEAR
    assert climatology.choose(summers, DAILY, False, 100) == Design("mean", 1)


def test_a_group_seen_in_one_season_gets_the_annual_cycle_of_all() -> None:
    design, times = Design("day+year", 2), dates(2 * 731, 12)
    cycle = np.sin(2 * np.pi * year_fraction(times))
    values = cycle + 0.01 * np.random.default_rng(0).standard_normal(len(times))
    # Noons are known in January only, from where the noise alone would send the other seasons far astray.
    keep = (np.arange(len(times)) % 2 == 0) | (np.arange(len(times)) < 60)
    fit = Fit(design, (1, 1, 1))
    fit.add(values[keep, None, None, None], times[keep])
    usual = Climatology(design.kind, fit.coefficients())
    assert np.allclose(first_cell(usual, times), cycle, atol=0.01)


def test_blocks_add_up_to_the_whole() -> None:
    times = dates(4 * 731, 6)
    frames = np.random.default_rng(0).normal(280, 10, (len(times), 2, 3, 4))
    design = climatology.choose(times, SIX_HOURS, False, 24)
    whole, parts = Fit(design, (2, 3, 4)), Fit(design, (2, 3, 4))
    whole.add(frames, times)
    for low in range(0, len(times), 777):
        parts.add(frames[low : low + 777], times[low : low + 777])
    assert np.allclose(whole.coefficients(), parts.coefficients(), rtol=1e-5)
    # The least squares of one hour, written out.
    noon = frames[2::4].reshape(-1, 24)
    expected, *_ = np.linalg.lstsq(design.annual(times[2::4]), noon, rcond=None)
    assert np.allclose(whole.coefficients().reshape(4, 5, 24)[2], expected, rtol=1e-4, atol=1e-4)


def test_a_climatology_follows_the_orientation_of_the_grid() -> None:
    usual = fitted(np.tile([10.0, 20.0, 40.0, 30.0], 10), dates(40, 6)).reoriented(lambda a: a[..., ::-1])
    assert usual.at(dates(1, 6))[0, 0, 0].tolist() == [12, 11, 10]


def test_a_week_begins_on_monday() -> None:
    monday = np.array(["2024-04-01"], "datetime64[ns]")
    assert Design("week", 168).group_of(monday).tolist() == [0]
    assert seconds(monday)[0] % WEEK == 4 * DAY


def weeks(values: np.ndarray) -> Fit:
    """A fit of the means of a week to daily frames of one cell that begin on a Monday: [n, 7]."""
    fit = Fit(Design("week", 7), (1, 1, 1))
    fit.add(values.reshape(-1, 1, 1, 1), dates(values.size, 24, "2024-04-01"))
    return fit


def test_days_that_differ_by_noise_alone_get_the_mean_of_the_working_days_or_of_the_weekend() -> None:
    """The noise would give the five means a variance of σ²/n; a draw with a smaller one is drawn wholly to the pool."""
    noise = np.array([[1, -1, 1, -1, 0, 1, -1], [-1, 1, -1, 1, 0, -1, 1]], float)  # each day's mean is 0
    level = np.array([10.0, 10, 10, 10, 10, 4, 4])
    found = weeks(level + noise).coefficients()[:, 0, 0, 0]
    assert found.tolist() == [10, 10, 10, 10, 10, 4, 4]
    apart = np.array([0.1, -0.1, 0.1, -0.1, 0, 0.1, -0.1])  # far below the noise of a mean, √(1/2)
    assert np.allclose(weeks(level + apart + noise).coefficients()[:, 0, 0, 0], level)


def test_days_that_repeat_themselves_exactly_keep_their_own_means() -> None:
    rhythm = np.array([10.0, 20, 15, 30, 25, 4, 8])
    found = weeks(np.tile(rhythm, (4, 1))).coefficients()[:, 0, 0, 0]
    assert np.allclose(found, rhythm)


def test_the_share_of_the_noise_in_the_differences_of_days_is_drawn_to_the_mean() -> None:
    """Of two weeks, ±1 around the means 8, 9, 10, 11, 12 and 3, 5; the pools are 10 and 4.

    The noise of a value is Σ (±1)² / (14 - 7) = 14/7 = 2, of a mean of two 1. The means depart from the pools by
    4 + 1 + 0 + 1 + 4 + 1 + 1 = 12, with 4 + 1 degrees of freedom 12/5. The noise's share is 1 / (12/5) = 5/12.
    """
    means = np.array([8.0, 9, 10, 11, 12, 3, 5])
    pools = np.array([10.0] * 5 + [4.0] * 2)
    found = weeks(np.stack([means + 1, means - 1])).coefficients()[:, 0, 0, 0]
    assert np.allclose(found, means + 5 / 12 * (pools - means))


def test_each_channel_is_drawn_by_its_own_share() -> None:
    means = np.array([8.0, 9, 10, 11, 12, 3, 5])
    frames = np.stack([np.concatenate([means + 1, means - 1]), np.tile(means, 2)], axis=1)[:, :, None, None]
    fit = Fit(Design("week", 7), (2, 1, 1))
    fit.add(frames, dates(14, 24, "2024-04-01"))
    noisy, exact = fit.coefficients()[:, :, 0, 0].T
    assert np.allclose(noisy[0], 8 + 5 / 12 * 2)
    assert np.allclose(exact, means)


def test_a_week_with_a_day_that_was_never_seen_is_not_drawn() -> None:
    means = np.array([8.0, 9, 10, 11, 12, 3])  # no Sunday
    fit = Fit(Design("week", 7), (1, 1, 1))
    times = dates(14, 24, "2024-04-01").reshape(2, 7)[:, :6]
    fit.add(np.stack([means + 1, means - 1]).reshape(-1, 1, 1, 1), times.ravel())
    found = fit.coefficients()[:, 0, 0, 0]
    assert np.allclose(found, [*means, means.mean()])


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits in which the six values of a frame are a large grid: 3 terms of groups, 9 of harmonics."""
    monkeypatch.setattr(climatology, "SUMS_MB", 3 * 8 * 6 / 1e6)
    monkeypatch.setattr(climatology, "HARMONICS_MB", 9 * 8 * 6 / 1e6)


@pytest.mark.usefixtures("large")
def test_a_large_grid_has_harmonics_of_the_day_and_of_the_year() -> None:
    times = dates(4 * 366 * 2, 6)
    day, year = 2 * np.pi * (seconds(times) % DAY / DAY), 2 * np.pi * year_fraction(times)
    values = 280 + 3 * np.cos(day) - 2 * np.sin(day) + 8 * np.sin(year) + np.cos(2 * year)
    usual = fitted(values, times)
    assert (usual.kind, usual.coefficients.shape) == ("harmonics:1,2", (7, 1, 2, 3)), (
        "6-hourly steps resolve one harmonic"
    )
    assert usual.coefficients[:, 0, 0, 0] == pytest.approx([280, 3, -2, 0, 1, 8, 0], abs=2e-3)
    assert np.abs(first_cell(usual, times) - values).max() < 1e-3
    assert usual.description == "1 harmonic of the day and 2 harmonics of the year, 2 years of training"


@pytest.mark.usefixtures("large")
def test_harmonics_are_left_out_as_far_as_they_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    hourly = dates(24 * 366 * 2, 1)

    def kind(terms: int) -> str:
        monkeypatch.setattr(climatology, "HARMONICS_MB", terms * 8 * 6 / 1e6)
        return climatology.choose(hourly, HOUR, weekly=False, frame_values=6).kind

    found = [kind(n) for n in (9, 8, 6, 4)]
    assert found == ["harmonics:2,2", "harmonics:1,2", "harmonics:0,2", "harmonics:0,1"]
    assert kind(2) == "day", "three groups, as before there were harmonics"


def test_groups_stay_where_they_fit() -> None:
    """What was chosen before there were harmonics: 256 MB hold 32 million sums."""
    hourly = dates(24 * 366 * 2, 1)
    chosen = [climatology.choose(hourly, HOUR, weekly=False, frame_values=n) for n in (1_000, 500_000, 3_000_000)]
    assert [(design.kind, design.groups) for design in chosen] == [("day+year", 24), ("day+year", 12), ("day+year", 2)]


@pytest.mark.usefixtures("large")
def test_times_that_do_not_determine_harmonics_have_a_mean() -> None:
    fit = Fit(Design.of_harmonics(1, 0), (1, 2, 3))
    when = dates(10, 24)
    fit.add(np.arange(10.0)[:, None, None, None] * np.ones((1, 1, 2, 3)), when)
    assert fit.coefficients()[:, 0, 0, 0].tolist() == [4.5, 0, 0]
