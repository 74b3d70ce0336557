import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import kurtosis
from torch import Tensor

from pdr_cli.errors import GridError, UsageError
from pdr_cli.models.motion import flow_between
from pdr_cli.verification import analysis
from pdr_cli.verification.analysis import Calibration, Concentration, Sharpness, Spectra, WarpingError
from pdr_cli.verification.networks.flow import Flow
from tests.drawing.scenes import cells, texture


def concentration(frames: np.ndarray) -> dict[str, float | None]:
    counted = Concentration()
    counted.add(frames)
    return counted.result()


def test_concentration_of_all_levels_alike() -> None:
    found = concentration(np.arange(256).reshape(1, 1, 1, 16, 16) / 255)
    # A discrete uniform distribution of n levels has the kurtosis 3 - 6/5 (n² + 1) / (n² - 1): 1.8 for many.
    assert found["kurtosis"] == pytest.approx(3 - 6 / 5 * (256**2 + 1) / (256**2 - 1))
    assert found["saturation"] == 1 / 256
    assert found["diversity"] == 256
    assert found["p90"] == pytest.approx(0.9)


def test_concentration_of_two_levels() -> None:
    frames = np.zeros((1, 2, 1, 5, 5))
    frames[0, 0, 0, 0] = 1  # a tenth of 50 pixels
    found = concentration(frames)
    # Bernoulli with p = 0.1: kurtosis 3 + (1 - 6 p q) / (p q) = 3 + 0.46 / 0.09.
    assert found["kurtosis"] == pytest.approx(3 + 0.46 / 0.09)
    assert found["saturation"] == pytest.approx(0.1)
    assert found["diversity"] == 2


def test_concentration_clips_rounds_and_skips_missing_cells() -> None:
    frames = np.full((1, 1, 1, 10, 10), 0.4)
    frames[..., 0, 0], frames[..., 0, 1], frames[..., 0, 2] = -5, 7, np.nan
    frames[..., 1, 0], frames[..., 1, 1] = 254.6 / 255, 0.4 + 0.2 / 255
    found = concentration(frames)
    assert found["saturation"] == pytest.approx(2 / 99)  # 7 and what rounds up to 255
    assert found["diversity"] == 3  # 0, 102 and 255
    assert found["p90"] == pytest.approx(0.4)


def test_concentration_is_a_mean_over_sequences_not_of_all_pixels() -> None:
    rng = np.random.default_rng(0)
    dark, bright = 0.4 * rng.random((2, 3, 1, 20, 20)), 0.5 + 0.5 * rng.random((1, 3, 1, 20, 20)) ** 4
    counted = Concentration()
    counted.add(dark)
    counted.add(bright)
    found = counted.result()
    rounded = [np.rint(s * 255).ravel() for s in (*dark, *bright)]
    assert found["kurtosis"] == pytest.approx(np.mean([kurtosis(s, fisher=False) for s in rounded]))
    assert found["diversity"] == pytest.approx(np.mean([len(np.unique(s)) for s in rounded]))


def test_a_constant_sequence_has_no_kurtosis() -> None:
    assert concentration(np.ones((1, 2, 1, 4, 4))) == {"kurtosis": None, "saturation": 1, "diversity": 1, "p90": 1}
    assert set(concentration(np.full((1, 2, 1, 4, 4), np.nan)).values()) == {None}
    two_levels = (np.arange(32).reshape(1, 2, 1, 4, 4) % 2).astype(float)
    mixed = concentration(np.concatenate([np.ones((1, 2, 1, 4, 4)), two_levels]))
    assert mixed["kurtosis"] == pytest.approx(1)  # of the two levels alone: each one deviation from the mean


def exactly(u: int, v: int) -> Flow:
    """A flow function that knows the motion of truth, (u, v) cells a frame, and sees whether it is asked for its way back."""

    def known(a: Tensor, b: Tensor) -> Tensor:
        assert a.isfinite().all()
        assert b.isfinite().all()
        sign = 1 if (a.roll((v, u), (-2, -1)) == b).double().mean() > 0.5 else -1
        return sign * torch.tensor([u, v]).to(a)[None, :, None, None].expand(len(a), 2, *a.shape[-2:])

    return known


def drifting(steps: int, u: int, v: int, channels: int = 1) -> np.ndarray:
    """A picture that moves (u, v) cells a frame and comes in at the other side: [1, steps, C, 24, 32]."""
    start = np.random.default_rng(0).random((channels, 24, 32))
    return np.stack([np.roll(start, (v * t, u * t), axis=(-2, -1)) for t in range(steps)])[None]


def test_a_shift_by_whole_cells_has_no_warping_error_where_visible() -> None:
    truth = drifting(4, 3, -2, channels=2)
    error = WarpingError(exactly(3, -2))
    error.add(truth, {})
    found = error.result()["truth"]
    # float32 places a cell to some millionths of its distance from the border.
    assert found["l1_visible"] == pytest.approx(0, abs=1e-5)
    # 3 of 32 columns and 2 of 24 rows come from beyond the border.
    assert found["visible"] == pytest.approx(29 / 32 * 22 / 24)
    # There, two unrelated numbers of [0, 1] differ by 1/3 on average, and by 1/6 squared; cells of one frame: ±10 %.
    assert found["l1"] == pytest.approx((1 - 29 / 32 * 22 / 24) / 3, rel=0.1)
    assert found["l2"] == pytest.approx((1 - 29 / 32 * 22 / 24) / 6, rel=0.15)


def test_warping_error_compares_forecasts_along_the_truths_motion() -> None:
    truth = drifting(3, 3, -2)
    flicker = truth + np.array([0, 0.3, 0])[None, :, None, None, None]
    error = WarpingError(exactly(3, -2))
    error.add(truth, {"flickers": flicker, "stands": np.repeat(truth[:, :1], 3, axis=1), "grey": 0 * truth + 0.5})
    found = error.result()
    assert set(found) == {"truth", "flickers", "stands", "grey"}
    assert found["flickers"]["l1_visible"] == pytest.approx(0.3, rel=1e-4)
    assert found["flickers"]["l2_visible"] == pytest.approx(0.09, rel=1e-4)
    # Standing still where the truth moves is an error: two unrelated numbers again.
    assert found["stands"]["l1_visible"] == pytest.approx(1 / 3, rel=0.1)
    # And showing nothing is none: why the truth's own error stands beside it.
    assert found["grey"]["l1"] == pytest.approx(0, abs=1e-6)


def test_warping_error_is_the_same_in_one_batch_or_two() -> None:
    rng = np.random.default_rng(1)
    truth, forecast = rng.random((2, 3, 4, 1, 24, 24))
    whole, parts = WarpingError(flow_between), WarpingError(flow_between)
    whole.add(truth, {"m": forecast})
    parts.add(truth[:1], {"m": forecast[:1]})
    parts.add(truth[1:], {"m": forecast[1:]})
    assert whole.result()["m"] == pytest.approx(parts.result()["m"])


def test_warping_error_leaves_missing_cells_out() -> None:
    truth = drifting(3, 1, 0)
    truth[..., :4, :4] = np.nan
    error = WarpingError(exactly(1, 0))
    error.add(truth, {"forecast": np.nan_to_num(truth)})
    found = error.result()
    assert found["truth"]["l1_visible"] == pytest.approx(0, abs=1e-5)
    assert all(v is not None and math.isfinite(v) for one in found.values() for v in one.values())


def test_one_lead_time_has_no_warping_error() -> None:
    with pytest.raises(UsageError, match="consecutive frames; the forecasts have 1"):
        WarpingError(flow_between).add(np.zeros((1, 1, 1, 8, 8)), {})


def spectrum(frames: np.ndarray, **options: object) -> Spectra:
    counted = Spectra(frames.shape[-2:], **options)  # type: ignore[arg-type]
    counted.add(frames)
    return counted


@pytest.mark.parametrize("windowed", [True, False])
def test_white_noise_has_the_same_power_at_every_wavelength(windowed: bool) -> None:
    noise = 280 + 3 * np.random.default_rng(0).standard_normal((400, 1, 24, 40))
    found = spectrum(noise, spacing=(2.0, 2.0), windowed=windowed)
    # σ² dy dx = 9 · 4. A bin of m modes, m / 2 of them independent, has a standard error of √(2 / m) / √400:
    # at most 5 % for the two modes of the longest waves, whose window removes some power with the mean.
    power = found.power[0]
    assert power[2:] == pytest.approx(np.full(len(power) - 2, 36.0), rel=0.2)
    assert (power * found.modes)[2:].sum() / found.modes[2:].sum() == pytest.approx(36, rel=0.02)
    assert found.wavelength[0] == pytest.approx(80)  # 40 cells of 2 units
    assert found.wavelength[-1] == pytest.approx(4, rel=0.03)


@pytest.mark.parametrize("length", [4, 8, 16])
@pytest.mark.parametrize("along", ["x", "y"])
def test_a_sine_peaks_at_its_wavelength(length: int, along: str) -> None:
    x, y = cells(48, 80)
    wave = np.sin(2 * np.pi * (x if along == "x" else y) / length)
    found = spectrum(wave[None, None])
    assert found.wavelength[found.power[0].argmax()] == pytest.approx(length, rel=0.06)  # a bin is 1/80 wide


def test_power_of_periodic_waves_sums_to_their_variance() -> None:
    x, y = cells(30, 40)
    waves = 2 * np.sin(2 * np.pi * x / 8) + np.cos(2 * np.pi * (y / 6 + x / 10))
    found = spectrum(5 + waves[None, None], windowed=False)
    # Parseval: Σ density / (H W) over modes = variance = (2² + 1²) / 2.
    assert (found.power[0] * found.modes).sum() / (30 * 40) == pytest.approx(2.5)


def test_the_window_keeps_borders_from_looking_like_detail() -> None:
    x, _ = cells(64, 64)
    slope = (x / 64)[None, None]
    fine = [spectrum(slope, windowed=w) for w in (True, False)]
    # A slope has no detail; that it starts again at the border is a jump, whose power falls off with k², the window's
    # with k⁶: four octaves make 2^-16 at the border of the fine scales, and less beyond.
    with_window, without = ((s.power * s.modes)[0, s.fine].sum() for s in fine)
    assert with_window < 2**-16 * without


def test_spacing_names_wavelengths_and_each_direction_reaches_all_scales() -> None:
    found = Spectra((10, 40), spacing=(100.0, 50.0))
    assert found.wavelength[0] == pytest.approx(2000)
    assert found.wavelength[-1] == pytest.approx(200, rel=0.05)  # two cells of the wider spacing
    assert (found.modes > 0).all()
    assert found.wavelength[found.fine].max() < 400 <= found.wavelength[~found.fine].min()


def test_fine_power_tells_blurred_from_alike_from_noisy() -> None:
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((20, 2, 32, 48)) * np.array([1, 50])[None, :, None, None]
    truth = spectrum(frames)
    assert analysis.ratio(truth, truth) == 1
    assert analysis.ratio(spectrum(frames / 2), truth) == pytest.approx(1 / 4)
    blurred = torch.nn.functional.avg_pool2d(torch.from_numpy(frames), 3, 1, 1).numpy()
    assert analysis.ratio(spectrum(blurred), truth) < 0.2  # type: ignore[operator]
    noisy = frames + rng.standard_normal(frames.shape) * np.array([1, 50])[None, :, None, None]
    assert analysis.ratio(spectrum(noisy), truth) == pytest.approx(2, rel=0.05)  # variances add
    # Power of one channel alone: the mean of 1/4 and 1, whatever their units.
    assert analysis.ratio(spectrum(frames * np.array([0.5, 1])[None, :, None, None]), truth) == pytest.approx(5 / 8)


def test_fine_power_is_that_of_all_fine_modes_together() -> None:
    x, y = cells(48, 48)
    long, short = np.sin(2 * np.pi * x / 3), np.sin(2 * np.pi * y * 22 / 48)
    truth = spectrum((2 * long + short + 10 * np.sin(2 * np.pi * x / 24))[None, None], windowed=False)
    # Of the variance 2²/2 + 1²/2 below four cells the forecast has 1²/2; longer waves are not asked for.
    assert analysis.ratio(spectrum(short[None, None], windowed=False), truth) == pytest.approx(1 / 5)


def test_there_is_no_ratio_to_nothing() -> None:
    flat = spectrum(np.full((2, 1, 7, 9), 280.1))
    assert analysis.ratio(flat, flat) is None
    # A channel without detail, or all of whose frames are NaN, leaves the ratio to the others.
    frames = np.random.default_rng(0).standard_normal((2, 3, 8, 8))
    frames[:, 1] = 280.1
    forecast = 3 * frames
    forecast[:, 2] = np.nan
    assert analysis.ratio(spectrum(forecast), spectrum(frames)) == pytest.approx(9)
    assert analysis.ratio(flat, Spectra((8, 8))) is None


def test_missing_cells_are_counted_and_frames_of_little_else_skipped() -> None:
    frames = np.random.default_rng(0).standard_normal((3, 1, 16, 16)) + 280
    frames[0, :, :4] = np.nan  # a quarter
    frames[1, :, :9] = np.nan  # more than half
    found = spectrum(frames)
    result = found.result()
    assert (result["frames"], result["skipped"], result["missing"]) == (2, 1, 64)
    assert np.isfinite(result["power"]).all()
    # A hole filled with the mean holds no power: less than noise has, and nothing like the jump from 280 to 0.
    assert 0.3 < found.power[0, 2:].mean() < 1.2


def test_spectra_are_the_mean_over_all_frames_added() -> None:
    frames = np.random.default_rng(0).standard_normal((6, 1, 12, 10))
    parts = Spectra((12, 10))
    parts.add(frames[:1])
    parts.add(frames[1:])
    assert parts.result()["power"] == pytest.approx(spectrum(frames).result()["power"])
    assert Spectra((12, 10)).result()["power"] is None
    with pytest.raises(GridError, match="frames are 1 x 40; expected 2 x 2 cells"):
        Spectra((1, 40))


def test_calibration_by_hand() -> None:
    counted = Calibration(0, 10, bins=5)
    counted.add(np.array([[1.0, 1.5], [9.0, 12.0]]), np.array([[2.0, 4.0], [7.0, 8.0]]))
    counted.add(np.array([1.0, 5.0, -3.0]), np.array([3.0, np.nan, 0.0]), valid=np.array([True, True, True]))
    counted.add(np.array([5.0]), np.array([5.0]), valid=np.array([False]))
    # Bins of width 2: the first holds 1, 1.5, 1 and what lies below, the last 9 and what lies above.
    assert counted.result() == {
        "forecast": pytest.approx([(1 + 1.5 + 1 - 3) / 4, 10.5]),
        "observed": pytest.approx([(2 + 4 + 3 + 0) / 4, 7.5]),
        "count": [4, 2],
    }


def test_calibration_puts_a_value_on_an_edge_above_it_and_the_highest_below() -> None:
    counted = Calibration(0, 4, bins=4)
    counted.add(np.array([0.0, 1.0, 4.0]), np.zeros(3))
    assert counted.result()["forecast"] == [0, 1, 4]
    with pytest.raises(UsageError, match="from 3 to 3 in 20"):
        Calibration(3, 3)


def test_sharpness_is_the_ratio_of_slopes() -> None:
    x, y = cells(12, 15)
    plane = (3 * x + 4 * y)[None, None, None]
    counted = Sharpness()
    counted.add(0.5 * plane, plane)
    assert counted.result() == {"gradient_ratio": pytest.approx(0.5)}
    # |∇| of (3, 4) is 5 everywhere and of (0, 2) is 2: together (2.5 + 2) / (5 + 5).
    counted.add((2 * y)[None, None, None], plane)
    assert counted.result() == {"gradient_ratio": pytest.approx(4.5 / 10)}


def test_sharpness_sees_a_checkerboard_and_skips_missing_cells() -> None:
    x, y = cells(10, 10)
    board, plane = (x + y) % 2, x.copy()
    counted = Sharpness()
    counted.add(board, plane)
    assert counted.result() == {"gradient_ratio": pytest.approx(2**0.5)}  # one up and one across everywhere
    plane[3:5, 3:5] = np.nan
    masked = Sharpness()
    masked.add(board, plane)
    assert masked.result() == {"gradient_ratio": pytest.approx(2**0.5)}
    assert Sharpness().result() == {"gradient_ratio": None}


def test_results_are_json() -> None:
    x, y = cells(20, 20)
    frames = np.stack([texture(x - t, y) for t in range(3)])[None, :, None].astype(np.float32)
    flicker, calibration, sharpness = WarpingError(flow_between), Calibration(0, 1), Sharpness()
    flicker.add(frames, {"a": frames})
    calibration.add(frames, frames)
    sharpness.add(frames, frames)
    results = [concentration(frames), flicker.result(), spectrum(frames[0]).result(), calibration.result()]
    assert json.loads(json.dumps([*results, sharpness.result()], allow_nan=False))
