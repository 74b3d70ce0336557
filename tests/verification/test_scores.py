import math

import numpy as np
import pytest

from pdr_cli.data.statistics import Climatology
from pdr_cli.errors import UsageError
from pdr_cli.verification import baselines, scores
from pdr_cli.verification.scores import Tally

RANGE = np.array([1.0])


def tally(forecast: np.ndarray, truth: np.ndarray, *names: str) -> dict:  # type: ignore[type-arg]
    counted = Tally(scores.build(names, np.ones(forecast.shape[2])))
    counted.add(forecast, truth)
    return counted.result([f"v{i}" for i in range(forecast.shape[2])])


def test_scores_by_hand() -> None:
    # Errors of lead 1 are all 1, of lead 2 half +3 and half -1: mse 1 and 5, mae 1 and 2, bias 1 and 1.
    truth = np.zeros((3, 2, 1, 4, 4))
    forecast = truth.copy()
    forecast[:, 0] = 1
    forecast[:, 1, :, :2], forecast[:, 1, :, 2:] = 3, -1
    found = tally(forecast, truth, "mse", "rmse", "mae", "bias")
    assert found["mse"] == {"overall": 3.0, "lead": [1.0, 5.0]}
    assert found["rmse"] == {"overall": math.sqrt(3), "lead": [1.0, math.sqrt(5)]}
    assert found["mae"] == {"overall": 1.5, "lead": [1.0, 2.0]}
    assert found["bias"] == {"overall": 1.0, "lead": [1.0, 1.0]}


def test_psnr_is_the_mean_of_each_frames_decibels() -> None:
    truth = np.zeros((2, 1, 1, 4, 4))
    forecast = truth + np.array([0.1, 0.01])[:, None, None, None, None]
    # 10 log10(1 / 0.01) = 20 dB and 40 dB; the dB of the mean error would be 23.
    assert tally(forecast, truth, "psnr")["psnr"]["overall"] == pytest.approx(30)


def test_ssim_equals_scikit_image() -> None:
    from skimage.metrics import structural_similarity

    rng = np.random.default_rng(0)
    truth = rng.random((2, 2, 1, 40, 36))
    forecast = np.clip(truth + 0.2 * rng.standard_normal(truth.shape), 0, 1)
    wanted = []
    for f, t in zip(forecast.reshape(4, 40, 36), truth.reshape(4, 40, 36), strict=True):
        _, full = structural_similarity(
            t, f, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
        )
        wanted.append(full[5:-5, 5:-5].mean())  # the valid region of an 11 x 11 window
    assert tally(forecast, truth, "ssim")["ssim"]["overall"] == pytest.approx(np.mean(wanted), abs=1e-6)


def test_batches_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(1)
    forecast, truth = rng.random((2, 10, 3, 2, 12, 12))
    whole = tally(forecast, truth, "rmse", "psnr", "ssim")
    counted = Tally(scores.build(["rmse", "psnr", "ssim"], np.ones(2)))
    for i in range(0, 10, 4):
        counted.add(forecast[i : i + 4], truth[i : i + 4])
    pieces = counted.result(["v0", "v1"])
    assert pieces.keys() == whole.keys()
    assert "rmse:v1" in pieces
    for name in whole:
        assert np.allclose(pieces[name]["lead"], whole[name]["lead"], rtol=1e-9)


def test_a_perfect_forecast_scores_perfectly() -> None:
    truth = np.random.default_rng(2).random((2, 2, 1, 12, 12))
    found = tally(truth, truth, "mse", "mae", "bias", "ssim", "psnr")
    assert [found[n]["overall"] for n in ("mse", "mae", "bias", "ssim", "psnr")] == [0, 0, 0, pytest.approx(1), 100]
    assert scores.skill(0.0, 2.0) == 1


def test_skill_of_the_reference_against_itself_is_zero() -> None:
    assert scores.skill(1.7, 1.7) == 0
    assert scores.skill(3.4, 1.7) == -1
    assert scores.skill(0.0, 0.0) == 0


def test_persistence_repeats_the_last_frame() -> None:
    observed = np.arange(2 * 3 * 1 * 2 * 2, dtype=float).reshape(2, 3, 1, 2, 2)
    forecast = baselines.persistence(observed, [np.zeros(4)] * 2)
    assert forecast.shape == (2, 4, 1, 2, 2)
    assert np.array_equal(forecast[:, 3], observed[:, 2])


def test_climatology_goes_by_the_time_of_day() -> None:
    field = np.arange(4, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 2, 2), np.float32)
    times = np.array(["2020-05-01T18:00", "2020-05-02T00:00"], dtype="datetime64[ns]")
    forecast = baselines.build(["climatology"], Climatology(field))["climatology"](np.zeros((1, 3, 1, 2, 2)), [times])
    assert forecast[0, :, 0, 0, 0].tolist() == [3, 0]


def test_unknown_names_are_met_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'rmse'"):
        scores.build(["rms"], RANGE)
    with pytest.raises(UsageError, match="Did you mean 'persistence'"):
        baselines.build(["persistance"], Climatology(np.zeros((1, 1, 2, 2))))
