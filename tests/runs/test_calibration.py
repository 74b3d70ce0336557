"""The quantiles of a model's errors: ranks, coverage, blocks, missing truths, lead times."""

import numpy as np
import pytest

from pdr_cli.runs import calibration
from pdr_cli.runs.calibration import Calibration, windows_needed


def errors(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_the_ends_are_the_errors_of_the_split_conformal_ranks() -> None:
    # 399 errors 1 .. 399: (399 + 1) * 0.1 = 40 and (399 + 1) * 0.9 = 360 are the ranks of an 80 % interval.
    ladder = np.random.default_rng(0).permutation(np.arange(1, 400, dtype=np.float32)).reshape(-1, 1, 1, 1, 1)
    found = Calibration.of_errors(ladder)
    assert found.ends(0.8, 1, (1, 1)).ravel().tolist() == [40, 360]
    assert found.ends(0.95, 1, (1, 1)).ravel().tolist() == [10, 390]


def test_intervals_of_exchangeable_errors_hold_their_share() -> None:
    known, new = errors(300, 2, 1, 8, 8), errors(300, 2, 1, 8, 8, seed=1)
    found = Calibration.of_errors(known)
    for share in (0.5, 0.8, 0.95):
        low, high = found.ends(share, 2, (8, 8))
        inside = ((new >= low) & (new <= high)).mean()
        # 300 errors behind each of 128 cells: the mean coverage has a standard error of about 0.003.
        assert share - 0.01 < inside < share + 0.03


def test_levels_between_the_stored_ones_are_interpolated() -> None:
    found = Calibration.of_errors(errors(400, 1, 1, 2, 2))
    near = found.at(np.array([0.025, 0.0375, 0.05]), 1, (2, 2))
    np.testing.assert_allclose(near[1], (near[0] + near[2]) / 2, rtol=1e-5)
    every = found.at(np.linspace(0, 1, 50), 1, (2, 2))
    assert (np.diff(every, axis=0) >= 0).all()


def test_each_lead_time_may_have_a_share_of_its_own() -> None:
    found = Calibration.of_errors(errors(400, 2, 1, 2, 2))
    asked = found.ends(np.array([0.8, 0.9]), 2, (2, 2))
    for lead, share in enumerate((0.8, 0.9)):
        assert np.array_equal(asked[:, lead], found.ends(share, 2, (2, 2))[:, lead])


def test_lead_times_beyond_the_calibrated_keep_the_last() -> None:
    found = Calibration.of_errors(errors(200, 2, 1, 2, 2) * np.array([1, 3], np.float32)[:, None, None, None])
    wide = found.at(np.array([0.9]), 4, (2, 2))
    assert wide.shape == (1, 4, 1, 2, 2)
    assert (wide[:, 2:] == wide[:, 1:2]).all()
    assert (wide[:, 1] > wide[:, 0]).all()


@pytest.mark.parametrize(("count", "side"), [(200, 1), (199, 2), (50, 2), (49, 3), (9, 5)])
def test_neighbours_are_pooled_where_windows_are_few(count: int, side: int) -> None:
    found = Calibration.of_errors(errors(count, 1, 1, 7, 9))
    assert (found.blocks, found.count) == (side, count)
    spread = found.at(np.array([0.5]), 1, (7, 9))[0, 0, 0]
    assert spread.shape == (7, 9)
    assert (spread[:side, :side] == spread[0, 0]).all()
    assert np.isfinite(spread).all()


def test_a_large_grid_is_stored_in_two_megabytes() -> None:
    side = calibration.block_side(5000, 21 * 10 * 3, (181, 360))
    assert 4 * 21 * 10 * 3 * -(-181 // side) * -(-360 // side) <= calibration.MOST_BYTES
    assert 4 * 21 * 10 * 3 * -(-181 // (side - 1)) * -(-360 // (side - 1)) > calibration.MOST_BYTES


def test_missing_truths_are_left_out_and_cells_without_any_are_nan() -> None:
    known = errors(300, 2, 1, 4, 4)
    holes = known.copy()
    holes[:100, :, :, 0, 0] = np.nan
    holes[:, :, :, 3, 3] = np.nan
    holes[:, 1, :, 2, 2] = np.nan  # at one lead time only
    found, without = (Calibration.of_errors(e) for e in (holes, known[100:]))
    assert (found.ends(0.8, 2, (4, 4))[..., 0, 0] == without.ends(0.8, 2, (4, 4))[..., 0, 0]).all()
    lacking = np.isnan(found.ends(0.8, 2, (4, 4))[0, :, 0])
    assert lacking[:, 3, 3].all()
    assert lacking[:, 2, 2].all()
    assert lacking.sum() == 4


def test_an_interval_needs_a_window_in_each_tail() -> None:
    assert [windows_needed(share) for share in (0.5, 0.8, 0.9, 0.95)] == [3, 9, 19, 39]
    few = Calibration.of_errors(errors(38, 1, 1, 4, 4))
    assert (few.holds(0.9), few.holds(0.95)) == (True, False)
    many = Calibration.of_errors(errors(1000, 1, 1, 2, 2))
    assert (many.holds(0.99), many.holds(0.995), many.holds(1.0)) == (True, False, False)


def test_a_calibration_comes_back_from_its_parts() -> None:
    found = Calibration.of_errors(errors(50, 2, 1, 5, 5), {"period": "2013"})
    again = Calibration.of_parts(found.to_tensors(), found.to_json())
    assert (again.count, again.blocks, again.about) == (50, 2, {"period": "2013"})
    assert np.array_equal(again.offsets, found.offsets)
