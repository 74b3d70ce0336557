import json
import math
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pdr_cli.data.grid import area_weights
from pdr_cli.errors import UsageError
from pdr_cli.verification import aggregation, scores
from pdr_cli.verification.aggregation import Blocks, Tally
from pdr_cli.verification.sections import ByLead
from pdr_cli.verification.setting import Setting
from pdr_cli.verification.statistics import Sample


def setting(channels: int = 1, **known: object) -> Setting:
    return Setting(data_range=np.ones(channels), **known)  # type: ignore[arg-type]


def scored(
    forecast: np.ndarray,
    truth: np.ndarray,
    *names: str,
    known: Setting | None = None,
    convention: str = "standard",
    climate: np.ndarray | None = None,
) -> dict[str, ByLead]:
    channels = forecast.shape[2]
    wanted = scores.build(names, known or setting(channels), convention)
    counted = Tally(wanted, Blocks(np.arange(len(forecast))), np.ones(channels))
    masked = bool(np.isnan(truth).any())
    counted.add(Sample(forecast, truth, climate, masked), np.arange(len(forecast)))
    return counted.result([f"v{i}" for i in range(channels)])


def random_pair(*shape: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random(shape)
    return np.clip(truth + 0.2 * rng.standard_normal(shape), 0, 1), truth


def test_scores_by_hand() -> None:
    # Errors of lead 1 are all 1, of lead 2 half +3 and half -1: mse 1 and 5, mae 1 and 2, bias 1 and 1.
    truth = np.zeros((3, 2, 1, 4, 4))
    forecast = truth.copy()
    forecast[:, 0] = 1
    forecast[:, 1, :, :2], forecast[:, 1, :, 2:] = 3, -1
    found = scored(forecast, truth, "mse", "rmse", "mae", "bias")
    assert found["mse"] == ByLead(3.0, [1.0, 5.0])
    assert found["rmse"] == ByLead(math.sqrt(3), [1.0, math.sqrt(5)])
    assert found["mae"] == ByLead(1.5, [1.0, 2.0])
    assert found["bias"] == ByLead(1.0, [1.0, 1.0])


def test_errors_equal_those_of_an_independent_library() -> None:
    import xarray as xr
    from scores import continuous

    forecast, truth = random_pair(5, 3, 2, 6, 7)
    latitudes = np.linspace(70, 40, 6)
    area = area_weights(latitudes, 7)
    names = ("mse", "rmse", "mae", "bias", "mse_lat", "rmse_lat", "mae_lat", "bias_lat")
    found = scored(forecast, truth, *names, known=setting(2, area=area))
    said, was, weights = (
        xr.DataArray(a, dims=d) for a, d in ((forecast, list("ntcyx")), (truth, list("ntcyx")), (area, ["y", "x"]))
    )
    theirs = {"mse": continuous.mse, "rmse": continuous.rmse, "mae": continuous.mae, "bias": continuous.mean_error}
    for name, score in theirs.items():
        assert found[name].overall == pytest.approx(float(score(said, was)), rel=1e-12)
        by_lead = score(said, was, preserve_dims=["t"], weights=weights)
        assert found[f"{name}_lat"].lead == pytest.approx(by_lead.values.tolist(), rel=1e-12)


def test_anomaly_correlation_by_hand() -> None:
    climate = np.full((1, 1, 1, 1, 4), 10.0)
    truth = climate + np.array([1.0, -1, 2, -2])
    assert scored(truth * 2 - climate, truth, "acc", climate=climate)["acc"].overall == pytest.approx(1)
    assert scored(2 * climate - truth, truth, "acc", climate=climate)["acc"].overall == pytest.approx(-1)
    # (1, 1, 1, 1) against (1, -1, 2, -2): products sum to 0.
    assert scored(climate + 1, truth, "acc", climate=climate)["acc"].overall == pytest.approx(0)
    # (1, -1, 0, 0): 2 / sqrt(2 · 10).
    one = climate + np.array([1.0, -1, 0, 0])
    assert scored(one, truth, "acc", climate=climate)["acc"].overall == pytest.approx(2 / math.sqrt(20))


def test_a_frame_without_anomalies_does_not_count_for_their_correlation() -> None:
    climate = np.zeros((2, 1, 1, 2, 2))
    truth = climate.copy()
    truth[0] = 1
    assert scored(truth, truth, "acc", climate=climate)["acc"].overall == 1


def test_anomaly_correlation_weighs_by_area() -> None:
    # Rows of area 3 and 1: forecast anomalies 1 and 1, true 1 and -1: (3 - 1) / sqrt(4 · 4).
    known = setting(area=np.array([[1.5], [0.5]]))
    climate = np.zeros((1, 1, 1, 2, 1))
    truth, forecast = climate.copy(), climate + 1
    truth[..., 0, 0], truth[..., 1, 0] = 1, -1
    assert scored(forecast, truth, "acc", known=known, climate=climate)["acc"].overall == pytest.approx(0.5)


def test_psnr_is_the_mean_of_each_frames_decibels() -> None:
    truth = np.zeros((2, 1, 1, 4, 4))
    forecast = truth + np.array([0.1, 0.01])[:, None, None, None, None]
    # 10 log10(1 / 0.01) = 20 dB and 40 dB; the dB of the mean error would be 23.
    assert scored(forecast, truth, "psnr")["psnr"].overall == pytest.approx(30)


def test_psnr_and_ssim_equal_independent_libraries() -> None:
    import torch
    from skimage.metrics import structural_similarity
    from torchmetrics.functional.image import peak_signal_noise_ratio

    forecast, truth = random_pair(2, 2, 1, 40, 36)
    wanted = []
    for f, t in zip(forecast.reshape(4, 40, 36), truth.reshape(4, 40, 36), strict=True):
        _, full = structural_similarity(
            t, f, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
        )
        wanted.append(full[5:-5, 5:-5].mean())  # the valid region of an 11 x 11 window
    found = scored(forecast, truth, "ssim", "psnr")
    assert found["ssim"].overall == pytest.approx(np.mean(wanted), abs=1e-6)
    said, was = (torch.from_numpy(a.reshape(4, 1, 40, 36)) for a in (forecast, truth))
    theirs = peak_signal_noise_ratio(said, was, data_range=1.0, reduction="elementwise_mean", dim=(1, 2, 3))
    assert found["psnr"].overall == pytest.approx(float(theirs), rel=1e-6)


def test_the_published_convention_equals_its_own_numbers(shared: Path) -> None:
    golden = json.loads((shared / "golden" / "metrics_golden.json").read_text())
    arrays = np.load(shared / "golden" / "metrics_golden_arrays.npz")
    for name, case in golden.items():
        said, was = (arrays[f"{name}/{which}"] for which in ("pred", "true"))
        channels = said.shape[2]
        if case["spatial_norm"]:  # a field: in its units, after the training's mean and sd
            mean, sd = (np.asarray(case[k], np.float64)[:, None, None] for k in ("mean", "std"))
            said, was = said * sd + mean, was * sd + mean
        unit = None if case["spatial_norm"] else (np.zeros(channels), np.ones(channels))
        wanted = {k: math.inf if v == "inf" else v for k, v in case["openstl"].items()}
        found = scored(said, was, *wanted, known=setting(channels, unit=unit), convention="openstl")
        for score, value in wanted.items():
            assert found[score].overall == pytest.approx(value, rel=1e-5), (name, score)


def test_the_published_ssim_equals_scikit_image_at_a_range_of_two() -> None:
    from skimage.metrics import structural_similarity

    forecast, truth = random_pair(1, 2, 3, 20, 24)
    forecast = forecast * 1.4 - 0.2  # beyond [0, 1]: clipped before it is compared
    wanted = [
        structural_similarity(t.transpose(2, 1, 0), np.clip(f, 0, 1).transpose(2, 1, 0), channel_axis=-1, data_range=2)
        for f, t in zip(forecast[0], truth[0], strict=True)
    ]
    known = setting(3, unit=(np.zeros(3), np.ones(3)))
    found = scored(forecast, truth, "ssim", known=known, convention="openstl")
    assert found["ssim"].lead == pytest.approx(wanted, abs=1e-9)


def test_batches_add_up_to_the_whole() -> None:
    forecast, truth = random_pair(10, 3, 2, 12, 12)
    names = ("rmse", "psnr", "ssim")
    whole = scored(forecast, truth, *names)
    counted = Tally(scores.build(names, setting(2)), Blocks(np.arange(10) // 3), np.ones(2))
    for i in range(0, 10, 4):
        which = np.arange(i, min(i + 4, 10))
        counted.add(Sample(forecast[which], truth[which]), which)
    pieces = counted.result(["v0", "v1"])
    assert "rmse:v1" in pieces
    for name in pieces:
        assert np.allclose(pieces[name].lead, whole[name].lead, rtol=1e-9)


@pytest.mark.parametrize("convention", scores.CONVENTIONS)
def test_a_perfect_forecast_scores_perfectly_on_every_metric(convention: str) -> None:
    _, truth = random_pair(2, 2, 1, 24, 24)
    known = setting(area=np.ones((24, 24)), unit=(np.zeros(1), np.ones(1)) if convention == "openstl" else None)
    of_members = ("spread_skill", "coverage")  # not defined for a single forecast
    names = [name for name in scores.family(convention).own if name not in ("lpips", *of_members)]
    found = scored(truth, truth, *names, known=known, convention=convention, climate=np.zeros_like(truth))
    best = {"ssim": 1.0, "acc": 1.0, "psnr": 100.0 if convention == "standard" else math.inf, "snr": math.inf}
    best["best_psnr"] = best["psnr"]
    for name in names:
        assert found[name].overall == pytest.approx(best.get(name, 0.0)), name


def test_missing_cells_count_in_no_score() -> None:
    forecast, truth = random_pair(2, 2, 1, 30, 30)
    climate = np.full_like(truth, 0.5)
    area = area_weights(np.linspace(60, 30, 30), 30)
    names = ["mse", "mae", "bias", "acc", "rmse_lat", "psnr"]
    west = scored(
        forecast[..., :20], truth[..., :20], *names, known=setting(area=area[:, :20]), climate=climate[..., :20]
    )
    spoilt_forecast, spoilt_truth = forecast.copy(), truth.copy()
    spoilt_forecast[..., 20:], spoilt_truth[..., 20:] = np.nan, np.nan
    found = scored(spoilt_forecast, spoilt_truth, *names, known=setting(area=area), climate=climate)
    for name in names:
        assert found[name].overall == pytest.approx(west[name].overall, rel=1e-12), name


def test_ssim_leaves_out_windows_that_touch_a_missing_cell() -> None:
    forecast, truth = random_pair(1, 1, 1, 30, 30)
    west = scored(forecast[..., :20], truth[..., :20], "ssim")
    forecast[..., 20:], truth[..., 20:] = np.nan, np.nan
    # The western 20 columns hold 10 places for an 11-wide window; with 30 columns the window is the same size.
    assert scored(forecast, truth, "ssim")["ssim"].overall != pytest.approx(1)
    narrow = scored(forecast, truth, "ssim")["ssim"].overall
    import torch

    from pdr_cli.models.similarity import ssim_map

    whole = ssim_map(
        *(torch.from_numpy(np.nan_to_num(a)) for a in (forecast, truth)), torch.ones(1, dtype=torch.float64)
    )
    assert narrow == pytest.approx(float(whole[..., :10].mean()), rel=1e-12)
    assert west["ssim"].overall == pytest.approx(narrow, abs=0.05)


def test_channels_of_different_units_are_averaged_in_their_own_sd() -> None:
    truth = np.zeros((1, 1, 2, 2, 2))
    forecast = truth.copy()
    forecast[:, :, 0], forecast[:, :, 1] = 3.0, 40.0
    counted = Tally(scores.build(["mse", "mae"], setting(2)), Blocks(np.zeros(1, int)), np.array([3.0, 20.0]))
    counted.add(Sample(forecast, truth), np.arange(1))
    found = counted.result(["t", "z"])
    # In sd: 1 and 2. Mean square (1 + 4) / 2, mean 1.5; each by itself in its own units.
    assert (found["mse"].overall, found["mae"].overall) == (2.5, 1.5)
    assert (found["mse:t"].overall, found["mae:z"].overall) == (9, 40)


@pytest.mark.parametrize(
    ("names", "known", "convention", "says"),
    [
        (["rms"], setting(), "standard", "Did you mean 'rmse'"),
        (["rmse_lat"], setting(), "standard", "latitudes"),
        (["acc"], setting(climate=False), "standard", "name one with -m"),
        (["lpips"], setting(), "standard", "for video"),
        (["lpips"], setting(video=True, unit=(np.zeros(1), np.ones(1))), "standard", "--lpips-weights"),
        (["ssim"], setting(), "openstl", "mse, mae and rmse"),
        (["bias"], setting(), "openstl", "--convention standard"),
        (["snr"], setting(), "standard", "--convention openstl"),
        (["mse"], setting(), "own", "standard or openstl"),
        (["math:pi"], setting(), "standard", "scores.Score"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_the_way_out(
    names: list[str], known: Setting, convention: str, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        scores.build(names, known, convention)


def test_skill_by_hand() -> None:
    assert aggregation.ratio_skill(np.array(0.0), np.array(2.0)) == 1
    assert aggregation.ratio_skill(np.array(1.7), np.array(1.7)) == 0
    assert aggregation.ratio_skill(np.array(3.4), np.array(1.7)) == -1
    assert aggregation.ratio_skill(np.array(0.0), np.array(0.0)) == 0
    assert aggregation.ratio_skill(np.array(1.0), np.array(0.0)) == -math.inf


def test_scores_of_one_statistic_share_its_sums() -> None:
    forecast, truth = random_pair(3, 2, 1, 8, 8)
    counted = Tally(scores.build(["mse", "rmse", "mae"], setting()), Blocks(np.arange(3)), np.ones(1))
    found = counted.add(Sample(forecast, truth), np.arange(3))
    assert list(counted.sums) == list(found) == ["mse", "mae"]
    result = counted.result(["v"])
    assert result["rmse"].overall == np.sqrt(result["mse"].overall)
    # Each window's error has one channel, two leads and 64 cells.
    squares = ((forecast - truth) ** 2).mean(axis=(1, 2, 3, 4))
    assert counted.by_window("rmse", found) == pytest.approx(np.sqrt(squares), rel=1e-12)


def test_scores_of_other_packages_serve_both_conventions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "theirs", SimpleNamespace(ROOT=scores.Score(scores.absolute_error, "1")))
    point = EntryPoint("root", "theirs:ROOT", "pdr.scores")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **wanted: EntryPoints([point]).select(**wanted))
    forecast, truth = random_pair(1, 1, 1, 4, 4)
    for convention in scores.CONVENTIONS:
        for name in ("root", "theirs:ROOT"):
            found = scored(forecast, truth, name, convention=convention)
            assert found[name].overall == pytest.approx(np.abs(forecast - truth).mean())
    with pytest.raises(UsageError, match="Did you mean 'root'"):
        scores.build(["roots"], setting())


@pytest.mark.parametrize(
    ("score", "title", "ideal", "higher"),
    [
        ("rmse:t2m", "RMSE of t2m", None, False),
        ("bias", "bias", 0.0, False),
        ("bias_lat:t2m", "bias lat of t2m", 0.0, False),
        ("ssim", "SSIM", None, True),
        ("snr", "SNR", None, True),
        ("of_another_package", "of another package", None, False),
    ],
)
def test_what_a_score_means(score: str, title: str, ideal: float | None, higher: bool) -> None:
    assert (scores.title(score), scores.ideal(score), scores.higher_is_better(score)) == (title, ideal, higher)


def test_units_of_a_score_follow_from_those_of_the_data() -> None:
    kelvin, share = setting(units="K"), setting(units="1")
    assert [scores.find(n, "standard").units_in(kelvin) for n in ("mse", "rmse", "psnr", "ssim")] == [
        "K²", "K", "dB", "1"
    ]  # fmt: skip
    assert scores.MSE.units_in(share) == "1"
