import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import EntryPoint, EntryPoints
from types import SimpleNamespace

import numpy as np
import pytest

from pdr_cli.data import windows
from pdr_cli.data.climatology import Climatology
from pdr_cli.data.series import make_series
from pdr_cli.data.times import DAY, Step, following
from pdr_cli.data.windows import FrameCache
from pdr_cli.errors import DataError, UsageError
from pdr_cli.verification import baselines
from pdr_cli.verification.baselines import Request

NONE = Climatology("mean", np.zeros((1, 1, 2, 3), np.float32))
T, STEPS = 4, 6


def request_of(
    value: Callable[[np.ndarray], np.ndarray],
    hours: int,
    *,
    init: int = 400,
    steps: int = STEPS,
    drop: Sequence[int] = (),
) -> tuple[Request, np.ndarray]:
    """A window of 4 frames that ends with frame `init` of a series whose frame at hour h is `value(h)`; its truth."""
    clock = np.setdiff1d(np.arange(init + steps + 1), drop) * hours
    times = np.datetime64("2024-01-01", "ns") + clock * np.timedelta64(1, "h")
    frames = np.repeat(np.repeat(value(clock.astype(float))[:, None, None, None], 2, axis=2), 3, axis=3)
    step = Step(hours * 3600.0)
    series = make_series(frames.astype(np.float32), times, {"v": {}}, {}, kind="weather", files=["v.nc"])
    cut = windows.cut([series], [(0, 0, len(clock))], T, steps, step, FrameCache([series], 10))
    which = [len(cut) - 1]
    observed, truth = cut.batch(which)
    return Request(observed, [cut.times(which[0])[T:]], step, partial(cut.before, which), NONE), truth


def forecast(name: str, request: Request) -> np.ndarray:
    return baselines.build([name])[name](request)


def daily(hours: np.ndarray) -> np.ndarray:
    return 100 + (hours % 24) ** 2


def weekly(hours: np.ndarray) -> np.ndarray:
    return 100 + (hours % 168) * 1.5


def test_persistence_repeats_the_last_frame() -> None:
    request, truth = request_of(lambda h: h, 1)
    assert np.array_equal(forecast("persistence", request), truth - np.arange(1, 7)[:, None, None, None])


def test_climatology_is_that_of_the_valid_times() -> None:
    request, _ = request_of(lambda h: h, 6, init=7)
    usual = Climatology("day", np.arange(4, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 2, 3), np.float32))
    # Frame 7 is 18 h of the second day, so that the next six are of 0, 6, 12, 18, 0 and 6 h.
    found = forecast("climatology", replace(request, climatology=usual))
    assert found[0, :, 0, 0, 0].tolist() == [0, 1, 2, 3, 0, 1]
    with pytest.raises(UsageError, match="name a model with -m"):
        forecast("climatology", replace(request, climatology=None))


@pytest.mark.parametrize("steps", [1, 24, 25, 60])
def test_a_daily_rhythm_is_forecast_exactly_by_yesterday(steps: int) -> None:
    request, truth = request_of(daily, 1, steps=steps)
    assert np.array_equal(forecast("yesterday", request), truth)


@pytest.mark.parametrize("steps", [1, 200])
def test_a_weekly_rhythm_is_forecast_exactly_by_last_week(steps: int) -> None:
    request, truth = request_of(weekly, 1, steps=steps)
    assert np.array_equal(forecast("last-week", request), truth)


def test_yesterday_is_the_latest_known_day_and_no_older_one() -> None:
    # Six-hourly steps in hours since the start: lead 1 is 18 h before the init, lead 4 the init itself, lead 5 as lead 1.
    request, _ = request_of(lambda h: h, 6, init=40)
    expected = [240 - 18, 240 - 12, 240 - 6, 240, 240 - 18, 240 - 12]
    assert forecast("yesterday", request)[0, :, 0, 0, 0].tolist() == expected


def test_what_a_gap_hides_is_nan_and_the_rest_is_forecast() -> None:
    # Lead 2 would take hour 400 + 2 - 24.
    request, truth = request_of(daily, 1, drop=[378])
    found = forecast("yesterday", request)[0, :, 0, 0, 0]
    assert np.flatnonzero(np.isnan(found)).tolist() == [1]
    assert np.array_equal(np.delete(found, 1), np.delete(truth[0, :, 0, 0, 0], 1))


def test_last_week_is_unknown_in_the_first() -> None:
    request, _ = request_of(weekly, 1, init=100)
    assert np.isnan(forecast("last-week", request)).all()


def test_a_ramp_is_extrapolated_exactly_by_trend() -> None:
    request, truth = request_of(lambda h: 300 - 0.5 * h, 6)
    assert np.allclose(forecast("trend", request), truth, rtol=1e-6)


def test_trend_is_the_least_squares_line() -> None:
    request, _ = request_of(lambda h: 0 * h, 1)
    observed = np.random.default_rng(0).normal(280, 5, (3, T, 2, 4, 5)).astype(np.float32)
    found = forecast("trend", Request(observed, request.following * 3, request.step, request.back))
    slope, offset = np.polyfit(np.arange(T), observed[2, :, 1, 3, 4].astype(float), 1)
    # Steps count from the first observed frame, so that the first forecast is at T.
    assert np.allclose(found[2, :, 1, 3, 4], offset + slope * np.arange(T, T + STEPS), rtol=1e-6)


def test_trend_of_one_frame_is_persistence() -> None:
    request, _ = request_of(daily, 1)
    one = Request(request.observed[:, -1:], request.following, request.step, request.back)
    assert np.array_equal(forecast("trend", one), forecast("persistence", one))


def test_flow_asks_for_as_many_steps_as_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    def extrapolate(observed: np.ndarray, steps: int, damping: float = 0.0) -> np.ndarray:
        return np.repeat(observed[:, -1:] + 1 + damping, steps, axis=1)

    monkeypatch.setitem(sys.modules, "pdr_cli.verification.networks.flow", SimpleNamespace(extrapolate=extrapolate))
    request, _ = request_of(daily, 1)
    last = forecast("persistence", request)
    assert np.array_equal(forecast("flow", request), last + 1)
    # The forecast is that of the model's fitted damping, if it has one.
    assert np.allclose(forecast("damped-flow", request), last + 1.1)
    assert np.allclose(
        forecast("damped-flow", replace(request, fitted={"damped-flow": lambda given: last + 2})), last + 2
    )


@pytest.mark.parametrize(
    ("name", "step", "says"),
    [
        ("yesterday", Step(DAY), "with steps of 1 d every frame has the same time of day"),
        ("yesterday", Step(5 * 3600), "steps of 5 h do not divide a day"),
        ("yesterday", Step(1, "month"), "steps of 1 month do not divide a day"),
        ("last-week", Step(5 * 3600), "steps of 5 h do not divide a week"),
        ("last-week", Step(7 * DAY), "with steps of 7 d last week's frame is persistence"),
        ("last-week", Step(10 * DAY), "steps of 10 d do not divide a week"),
    ],
)
def test_steps_without_a_cycle_are_refused_with_the_reason(name: str, step: Step, says: str) -> None:
    request, _ = request_of(daily, 1)
    after = following(np.datetime64("2024-01-01", "ns"), step, STEPS)
    with pytest.raises(UsageError, match=says):
        forecast(name, Request(request.observed, [after], step, request.back))


def test_daily_steps_have_a_last_week() -> None:
    request, truth = request_of(lambda h: (h / 24) % 7, 24)
    assert np.array_equal(forecast("last-week", request), truth)


def test_clips_have_no_yesterday() -> None:
    request, _ = request_of(daily, 1)
    with pytest.raises(
        UsageError,
        match="times are seconds, not dates, so a frame has no time of day; compare with persistence, trend or flow",
    ):
        forecast("yesterday", Request(request.observed, [np.arange(6) * 0.04], Step(0.04), request.back))


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        UsageError,
        match=r"Did you mean 'last-week'\? Expected one of persistence, climatology, anomaly, ridge, yesterday",
    ):
        baselines.build(["lastweek"])


def test_baselines_of_others_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def double(request: Request) -> np.ndarray:
        return 2 * baselines.persistence(request)

    def short(request: Request) -> np.ndarray:
        return request.observed

    monkeypatch.setitem(sys.modules, "theirs", SimpleNamespace(double=double, short=short))
    point = EntryPoint("double", "theirs:double", "pdr.baselines")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **wanted: EntryPoints([point]).select(**wanted))
    request, _ = request_of(daily, 1)
    for name in ("double", "theirs:double"):
        assert np.array_equal(forecast(name, request), 2 * forecast("persistence", request))
    with pytest.raises(DataError, match=r"shape \[1, 4, 1, 2, 3\]; expected .* = \[1, 6, 1, 2, 3\]"):
        forecast("theirs:short", request)
    with pytest.raises(UsageError, match="Did you mean 'double'"):
        baselines.build(["duoble"])
    with pytest.raises(UsageError, match="theirs:triple"):
        baselines.build(["theirs:triple"])
