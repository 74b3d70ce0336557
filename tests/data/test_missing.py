import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdr_cli.data import missing, statistics
from pdr_cli.data.climatology import Climatology
from pdr_cli.data.missing import CellMask, Filling
from pdr_cli.data.series import Series, make_series
from pdr_cli.errors import MissingValuesError, UsageError

NAN = np.nan


def column(*values: float) -> np.ndarray:
    """One cell's values in time: [T, 1, 1, 1]."""
    return np.array(values, np.float32).reshape(-1, 1, 1, 1)


def series_of(frames: np.ndarray) -> Series:
    times = np.datetime64("2020-01-01", "ns") + np.arange(len(frames)) * np.timedelta64(6, "h")
    return make_series(
        frames.astype(np.float32),
        times,
        {f"v{i}": {} for i in range(frames.shape[1])},
        {},
        kind="weather",
        files=["v.nc"],
    )


@given(st.integers(1, 3), st.integers(1, 7), st.integers(1, 9), st.randoms(use_true_random=False))
def test_a_mask_comes_back_from_its_packed_form(channels: int, height: int, width: int, random: object) -> None:
    cells = np.random.default_rng(random.getrandbits(32)).random((channels, height, width)) < 0.3  # type: ignore[attr-defined]
    mask = CellMask.of(cells)
    assert np.array_equal(CellMask(mask.shape, mask.packed).cells, cells)


def test_persisted_takes_the_last_known_value_and_before_it_the_first() -> None:
    assert missing.persisted(column(NAN, 2, NAN, NAN, 5, NAN)).flatten().tolist() == [2, 2, 2, 2, 5, 5]
    assert np.isnan(missing.persisted(column(NAN, NAN))).all()


def test_between_draws_a_line_and_goes_no_further() -> None:
    found = missing.between(column(NAN, 2, NAN, NAN, 5, NAN)).flatten()
    assert np.array_equal(found, [NAN, 2, 3, 4, 5, NAN], equal_nan=True)


def test_interpolated_looks_around_where_time_gives_no_line() -> None:
    y, x = np.mgrid[:6, :7]
    plane = (2 * y + 3 * x).astype(np.float32)
    frames = np.stack([plane, plane + 10, plane + 20])[:, None]
    frames[2, 0, 2:4, 3] = NAN  # the last frame: nothing after it, so across the plane, where the field is linear
    frames[1, 0, 0, 0] = NAN  # in the middle: in time
    frames[:, 0, 5, 6] = NAN  # never known
    filled = missing.interpolated(frames)
    assert filled[2, 0, 2:4, 3] == pytest.approx([2 * 2 + 9 + 20, 2 * 3 + 9 + 20])
    assert filled[1, 0, 0, 0] == pytest.approx(10)
    assert np.isnan(filled[:, 0, 5, 6]).all()


def test_a_corner_that_nothing_surrounds_persists() -> None:
    frames = np.ones((2, 1, 4, 4), np.float32)
    frames[1, 0, 0, 0] = NAN
    assert missing.interpolated(frames)[1, 0, 0, 0] == 1


def test_never_observed_cells_are_filled_by_the_mean_whatever_the_input_says() -> None:
    never_observed = np.array([[[True, False]]])
    known = Climatology("mean", np.full((1, 1, 1, 2), 7.0))
    filling = Filling(np.array([4.0]), never_observed, "none", known)
    frames = np.array([NAN, 1.0, 99.0, NAN], np.float32).reshape(1, 2, 1, 1, 2)
    filled = filling.apply(frames, [np.arange(2.0)])
    assert np.array_equal(filled.flatten(), [4, 1, 4, NAN], equal_nan=True)


@pytest.mark.parametrize(("method", "expected"), [("persist", [1, 1, 3]), ("interp", [1, 2, 3]), ("mean", [1, 7, 3])])
def test_each_method_says_what_stands_for_a_gap(method: str, expected: list[float]) -> None:
    known = Climatology("mean", np.full((1, 1, 1, 1), 7.0))
    frames = column(1, NAN, 3)[None]
    assert Filling(np.array([4.0]), None, method, known).apply(frames, [np.arange(3.0)]).flatten().tolist() == expected
    lost = column(NAN, NAN, NAN)[None]
    filled = Filling(np.array([4.0]), None, method, known).apply(lost, [np.arange(3.0)])
    assert filled.flatten().tolist() == [7, 7, 7], "never known in the window: the climatology"


def test_an_unknown_method_names_the_others() -> None:
    with pytest.raises(UsageError, match="--fill-missing zeros is not known; use persist, mean or interp"):
        missing.check_method("zeros")


def test_a_survey_tells_never_observed_cells_from_gaps() -> None:
    frames = np.ones((100, 2, 4, 5))
    frames[:, 0, :2, 0] = NAN
    frames[:, 1, 3, 3] = NAN
    frames[30, 0, 2, 2] = NAN
    frames[80:, 0, 1, 1] = NAN  # not in training
    series = series_of(frames)
    found = statistics.survey([series], [(0, 0, 70)], [(0, 78, 100)], 100, 0)
    assert found is not None
    assert np.argwhere(found.never_observed).tolist() == [[0, 0, 0], [0, 1, 0], [1, 3, 3]]
    assert np.flatnonzero(found.broken[0]).tolist() == [30, *range(80, 100)]
    # 92 of the 100 frames were looked at, of 40 values each; 3 never observed in each, 1 gap, and 20 later ones.
    assert found.share == pytest.approx((92 * 3 + 1 + 20) / (92 * 40))
    assert statistics.survey([series_of(np.ones((9, 1, 3, 3)))], [(0, 0, 9)], [], 100, 0) is None


def test_a_fill_value_that_is_not_declared_is_no_data() -> None:
    frames = np.ones((10, 1, 3, 3))
    frames[4, 0, 1, 1] = 9.97e36
    with pytest.raises(
        MissingValuesError, match=r"1 of 90 values of v0 are no data \(9.97e\+36: .* 2020-01-02 00:00; declare"
    ):
        statistics.survey([series_of(frames)], [(0, 0, 10)], [], 100, 0)


def test_a_channel_without_any_value_is_refused() -> None:
    frames = np.ones((10, 2, 3, 3))
    frames[:, 1] = NAN
    with pytest.raises(MissingValuesError, match="v1 has no value at all in the training period"):
        statistics.survey([series_of(frames)], [(0, 0, 10)], [], 100, 0)


def test_missing_values_count_in_no_statistic() -> None:
    rng = np.random.default_rng(0)
    frames = rng.normal(10, 3, (200, 1, 6, 6))
    frames[:, 0, 0, :3] = NAN
    frames[rng.random(frames.shape) < 0.1] = NAN
    found = statistics.measure([(series_of(frames), 0, 200)], 100, 0, np.isnan(frames).all(axis=0))
    assert found.mean[0] == pytest.approx(np.nanmean(frames), rel=1e-6)
    assert found.sd[0] == pytest.approx(np.nanstd(frames), rel=1e-6)
    assert (found.minimum[0], found.maximum[0]) == pytest.approx((np.nanmin(frames), np.nanmax(frames)))
    assert found.spread[0] == pytest.approx(np.subtract(*np.nanquantile(frames, [0.999, 0.001])), rel=1e-5)
    assert np.isfinite(found.climatology.coefficients).all()
