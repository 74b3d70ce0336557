"""Events and ranks: counts beside the package `scores`, and what cannot be defined."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scores.categorical import ThresholdEventOperator
from scores.spatial import fss_2d

from pdr_cli.errors import UsageError
from pdr_cli.runs.adaptive import Adaptive
from pdr_cli.verification.events import Event, Tallied, roc_area, window_means
from pdr_cli.verification.ranks import Inits, Intervals, Ranks

SHAPE = (6, 2, 1, 9, 11)


def frames(seed: int, *lead: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(*lead, *SHAPE))


def tallied(truth: np.ndarray, forecast: np.ndarray, text: str = "t>0.4") -> dict[str, float]:
    found = Tallied(Event.parse(text, ["t"]), SHAPE[1], SHAPE[-2:])
    for i in range(0, len(truth), 4):  # in batches
        found.add(truth[i : i + 4], forecast[i : i + 4] if forecast.ndim == 5 else forecast[:, i : i + 4])
    section = found.section()
    made = {name: score.overall for name, score in section.scores.items()}
    return made | ({"roc": section.roc_area} if section.roc_area is not None else {})


def test_contingency_scores_are_those_of_scores() -> None:
    truth, forecast = frames(0), 0.5 * frames(0) + frames(1)
    found = tallied(truth, forecast)
    table = ThresholdEventOperator(default_event_threshold=0.4, default_op_fn=np.greater).make_contingency_manager(
        xr.DataArray(forecast), xr.DataArray(truth)
    )
    table = table.transform()
    expected = {
        "rate": table.base_rate(),
        "csi": table.critical_success_index(),
        "pod": table.probability_of_detection(),
        "far": table.false_alarm_ratio(),
        "ets": table.equitable_threat_score(),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(value)), name
    assert found["brier"] == pytest.approx(np.mean((forecast > 0.4) != (truth > 0.4)))


@pytest.mark.parametrize("side", [1, 3, 5])
def test_fss_is_that_of_scores(side: int) -> None:
    truth, forecast = frames(0), 0.5 * frames(0) + frames(1)
    dims = ("b", "t", "c", "y", "x")
    expected = fss_2d(
        xr.DataArray(forecast, dims=dims),
        xr.DataArray(truth, dims=dims),
        event_threshold=0.4,
        window_size=(side, side),
        spatial_dims=("y", "x"),
        threshold_operator=np.greater,
    )
    assert tallied(truth, forecast)[f"fss_{side}"] == pytest.approx(float(expected), abs=1e-9)


def test_means_of_windows_are_those_of_their_cells() -> None:
    values = frames(2)[0, 0, 0]
    expected = np.lib.stride_tricks.sliding_window_view(values, (5, 5)).mean(axis=(-2, -1))
    np.testing.assert_allclose(window_means(values, 5), expected, atol=1e-12)


def test_probabilities_of_members_have_a_brier_score_and_a_roc_area() -> None:
    truth, members = frames(0), 0.7 * frames(0) + 0.7 * frames(3, 5)
    found = tallied(truth, members)
    share, happened = (members > 0.4).mean(axis=0), truth > 0.4
    assert found["brier"] == pytest.approx(((share - happened) ** 2).mean())
    with_it, without = share[happened], share[~happened]
    pairs = (with_it[:, None] > without).mean() + 0.5 * (with_it[:, None] == without).mean()
    assert found["roc"] == pytest.approx(pairs), "the chance that a case with the event has the higher probability"


def test_downward_events_and_missing_values() -> None:
    truth, forecast = frames(0), frames(1)
    truth[:, :, :, 0], forecast[:, :, :, 0] = np.nan, np.nan
    found = tallied(truth, forecast, "<-0.2")
    rest = truth[:, :, :, 1:] < -0.2
    assert found["rate"] == pytest.approx(rest.mean())
    assert found["brier"] == pytest.approx(np.mean((forecast[:, :, :, 1:] < -0.2) != rest))


def test_an_event_that_never_happens_has_no_scores() -> None:
    found = tallied(frames(0), frames(1, 3), "t>99")
    assert found["rate"] == 0
    assert found["brier"] == 0
    assert all(np.isnan(found[name]) for name in ("csi", "pod", "far", "ets", "fss_1", "roc"))
    assert np.isnan(roc_area({0.0: np.array([3.0, 0.0])}))


@pytest.mark.parametrize(
    ("text", "variables", "says"),
    [
        ("air=3", ["air"], "a variable, > or <, and a number"),
        ("ar>3", ["air"], "Did you mean 'air'"),
        (">3", ["u", "v"], "names no variable"),
    ],
)
def test_what_is_no_event_is_one_line(text: str, variables: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Event.parse(text, variables)


def test_ranks_of_exchangeable_members_are_uniform() -> None:
    drawn = np.random.default_rng(0).normal(size=(5, 40, 2, 1, 30, 30))
    ranks = Ranks()
    ranks.add(drawn[0], drawn[1:])
    section = ranks.section()
    np.testing.assert_allclose(section.share, 1 / 5, atol=0.01)
    assert section.outside == pytest.approx(section.expected, abs=0.02)


def test_tied_ranks_are_shared() -> None:
    ranks = Ranks()
    ranks.add(np.zeros((1, 1, 1, 1, 2)), np.array([0.0, 0.0, 1.0]).reshape(3, 1, 1, 1, 1, 1) * np.ones(2))
    np.testing.assert_allclose(ranks.section().share, [1 / 3, 1 / 3, 1 / 3, 0])


def intervals_of(
    low: float, high: float, inits: Inits, bounds: tuple[np.ndarray, np.ndarray] | None = None
) -> Intervals:
    """Intervals of 80 % from `low` to `high` times the share asked for over 0.8 around a forecast of one lead time."""

    def ends(share: np.ndarray) -> np.ndarray:
        return np.array([low, high]).reshape(2, 1, 1, 1, 1) * share[:, None, None, None] / 0.8 * np.ones(4)

    return Intervals(ends, lambda: Adaptive((0.8,), 1), inits, bounds, np.ones(1))


def test_intervals_count_what_lies_inside_their_width_and_their_score() -> None:
    truth = np.array([0.0, 1.0, 5.0, np.nan]).reshape(1, 1, 1, 1, 4)
    intervals = intervals_of(-1, 2, Inits([(0, 3)]))
    intervals.add(truth, np.zeros_like(truth), np.arange(1))
    (found,) = intervals.section()
    assert found.coverage.overall == pytest.approx(2 / 3)
    assert found.width.overall == pytest.approx(3)
    assert found.score.overall == pytest.approx(3 + (2 / 0.2) * 3 / 3)  # of Gneiting & Raftery (2007), Eq. 43
    assert found.seasons is None
    within = intervals_of(-9, 9, Inits([(0, 3)]), (np.zeros(1), np.ones(1)))
    within.add(truth, np.zeros_like(truth), np.arange(1))
    assert within.section()[0].width.overall == pytest.approx(1)


def test_intervals_hold_in_each_season_what_its_windows_say() -> None:
    truth = np.zeros((3, 1, 1, 1, 4))
    truth[0], truth[1, ..., 0] = 9, 9
    winter = np.array([True, False, False])
    intervals = intervals_of(-1, 1, Inits([(0, 3), (0, 4), (0, 5)], {"DJF": winter, "MAM": ~winter}))
    for which in ([0, 1], [2]):
        intervals.add(truth[which], np.zeros((len(which), 1, 1, 1, 4)), np.array(which))
    (found,) = intervals.section()
    assert found.seasons is not None
    assert {label: held.lead for label, held in found.seasons.items()} == {"DJF": [0.0], "MAM": [7 / 8]}
    assert found.coverage.overall == pytest.approx(7 / 12)


def test_adaptive_intervals_follow_the_windows_before_in_the_same_series() -> None:
    """Windows of a series all miss; each share, and with it the width, is 0.05 · 0.8 above the one before."""
    truth = np.full((4, 1, 1, 1, 4), 9.0)
    intervals = intervals_of(-1, 1, Inits([(0, 3), (0, 4), (0, 6), (1, 0)]))
    for which in ([0, 1], [2, 3]):
        intervals.add(truth[which], np.zeros((2, 1, 1, 1, 4)), np.array(which))
    (found,) = intervals.section()
    assert found.adaptive is not None
    shares = [0.8, 0.84, 0.88, 0.8]
    assert found.adaptive.width.overall == pytest.approx(2 * np.mean(shares) / 0.8)
    assert found.width.overall == pytest.approx(2)
