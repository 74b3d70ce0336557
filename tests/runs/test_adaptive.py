"""The shares that intervals ask for follow how earlier ones have held."""

import numpy as np
import pytest

from pdr_cli.runs.adaptive import Adaptive
from pdr_cli.runs.calibration import Calibration


def errors(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_intervals_hold_their_share_though_errors_double() -> None:
    found = Calibration.of_errors(errors(400, 1, 1, 5, 5))
    adaptive, fixed, held = Adaptive((0.8,), 1, found.largest), [], []
    for init, sd in enumerate(np.repeat([1.0, 2.0], 300)):
        new = errors(1, 1, 5, 5, seed=init) * sd
        for share, into in ((np.array([0.8]), fixed), (adaptive.asked(init)[0], held)):
            lower, upper = found.ends(share, 1, (5, 5))
            into.append(float(((new >= lower) & (new <= upper)).mean()))
        adaptive.learn(init, np.full((1, 1), held[-1]))
    # Of errors with twice the sd, 48 % lie within 1.28 of the calibrated one.
    assert np.mean(fixed[300:]) == pytest.approx(0.48, abs=0.02)
    assert np.mean(held) == pytest.approx(0.8, abs=1 / (0.05 * 600))
    assert np.mean(held[400:]) == pytest.approx(0.8, abs=0.03)


def test_a_share_is_asked_for_by_the_truths_known_at_the_time() -> None:
    adaptive, asked = Adaptive((0.8,), 3, largest=0.95, rate=0.1), []
    for init in range(5):
        asked.append(adaptive.asked(init)[0])
        adaptive.learn(init, np.zeros((1, 3)))
    # At lead 1 the truth of init 0 is known at init 1, at lead 3 at init 3; each, all missed, adds 0.1 · 0.8 up to the largest.
    np.testing.assert_allclose(np.array(asked)[:, 0], [0.8, 0.88, 0.95, 0.95, 0.95])
    np.testing.assert_allclose(np.array(asked)[:, 2], [0.8, 0.8, 0.8, 0.88, 0.95])


def test_a_gap_between_inits_makes_more_truths_known() -> None:
    adaptive = Adaptive((0.8,), 3, rate=0.1)
    adaptive.asked(0)
    adaptive.learn(0, np.ones((1, 3)))
    # Two steps later the truths of leads 1 and 2 are known, all inside: 0.1 · (0.8 - 1) less.
    np.testing.assert_allclose(adaptive.asked(2)[0], [0.78, 0.78, 0.8])
    np.testing.assert_allclose(adaptive.asked(9)[0], [0.78, 0.78, 0.78])


def test_a_share_does_not_run_ahead_of_the_largest() -> None:
    adaptive = Adaptive((0.8,), 1, largest=0.9, rate=0.1)
    for init in range(20):
        adaptive.asked(init)
        adaptive.learn(init, np.full((1, 1), 0.0 if init < 18 else 1.0))
    # Down from 0.9 at once, by 0.02 for each of the two inits whose truths were all inside.
    np.testing.assert_allclose(adaptive.asked(20), [[0.86]])


def test_without_truth_nothing_changes() -> None:
    adaptive = Adaptive((0.8, 0.95), 2)
    adaptive.learn(0, np.full((2, 2), np.nan))
    np.testing.assert_array_equal(adaptive.asked(9), [[0.8, 0.8], [0.95, 0.95]])


def test_an_interval_of_a_larger_share_is_never_the_narrower() -> None:
    adaptive = Adaptive((0.8, 0.95), 1, rate=1.0)
    adaptive.learn(0, np.array([[0.6], [1.0]]))
    # Alone the first would ask for 0.8 + 0.2 = 1, the second for 0.95 - 0.05 = 0.9.
    np.testing.assert_allclose(adaptive.asked(1), [[1.0], [1.0]])


def test_inits_come_in_the_order_of_their_times() -> None:
    adaptive = Adaptive((0.8,), 1)
    adaptive.asked(5)
    with pytest.raises(ValueError, match="init 4 comes after 5"):
        adaptive.asked(4)
