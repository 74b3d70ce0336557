import csv
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import pdr_cli
from tests.builders import weather_file
from tests.cli import pdr
from tests.conftest import tiny_settings

PERSISTENCE = """
from torch import nn, zeros

class Nothing(nn.Module):
    "Forecasts no change: with the anchor on the last frame, persistence."

    def __init__(self, **_):
        super().__init__()
        self.weight = nn.Parameter(zeros(1))

    def forward(self, x):
        return 0 * self.weight * x
"""


def test_scores_stand_beside_persistence_and_climatology(weather: Path, weather_run: Path, tmp_path: Path) -> None:
    result = pdr("evaluate", weather, "-m", weather_run, "-o", "scores.json")
    assert result.code == 0, result.err
    document = json.loads((tmp_path / "scores.json").read_text())
    assert list(document["scores"]) == ["run", "persistence", "climatology", "anomaly", "ridge"]
    assert document["lead"] == [6, 12, 18, 24]
    assert (document["units"], document["convention"], document["split"]) == ("K", "standard", "test")
    for row in document["scores"].values():
        assert len(row["rmse"]["lead"]) == 4
        assert row["rmse"]["overall"] == pytest.approx(np.sqrt(row["mse"]["overall"]))
    mse = {name: row["mse"]["overall"] for name, row in document["scores"].items()}
    skill = document["skill"]["run"]["persistence"]["overall"]
    assert skill == pytest.approx(1 - mse["run"] / mse["persistence"])
    assert "rmse (K) by lead time" in result.out
    assert "skill" in result.out


def test_the_numbers_are_those_of_predict(weather: Path, weather_run: Path) -> None:
    document = json.loads(pdr("evaluate", weather, "-m", weather_run, "--json").out)
    model = pdr_cli.load(weather_run)
    with xr.open_dataset(weather) as data:
        # 160 steps, test fraction 0.15: the part begins at step 136, 8 steps of gap after it, so at 144.
        squares = []
        for first in range(144, 160 - 8 + 1):
            truth = data.t2m.values[first + 4 : first + 8]
            forecast = model.predict(data, init=data.time.values[first + 3]).t2m.values
            squares.append(((forecast - truth) ** 2).mean())
    assert document["n_windows"] == len(squares) == 9
    assert document["scores"]["run"]["mse"]["overall"] == pytest.approx(np.mean(squares), rel=1e-5)


def test_a_later_file_is_all_test_and_the_training_file_is_not(
    weather: Path, weather_run: Path, tmp_path: Path
) -> None:
    later = weather_file(tmp_path / "later.nc", 40, size=(13, 15), start="2021-06-01")
    assert json.loads(pdr("evaluate", later, "-m", weather_run, "--json").out)["n_windows"] == 33
    with xr.open_dataset(weather) as data:
        data.isel(time=slice(0, 100)).to_netcdf(tmp_path / "seen.nc")
    result = pdr("evaluate", "seen.nc", "-m", weather_run)
    assert (result.code, "used in training" in result.last) == (65, True)
    assert pdr("evaluate", "seen.nc", "-m", weather_run, "--split", "all").code == 0


def test_orientation_does_not_change_a_score(weather: Path, weather_run: Path, tmp_path: Path) -> None:
    with xr.open_dataset(weather) as data:
        data.isel(lat=slice(None, None, -1)).to_netcdf(tmp_path / "north_up.nc")
    one, other = (json.loads(pdr("evaluate", p, "-m", weather_run, "--json").out) for p in (weather, "north_up.nc"))
    for name, row in one["scores"].items():
        assert row["mse"]["overall"] == pytest.approx(other["scores"][name]["mse"]["overall"], rel=1e-6)


def test_several_models_are_scored_on_the_same_windows(weather: Path, weather_run: Path) -> None:
    document = json.loads(
        pdr("evaluate", weather, "-m", weather_run, "-m", weather_run / "model.safetensors", "--json").out
    )
    assert document["scores"]["run"] == document["scores"]["run'"]


def test_longer_leads_are_rolled_out(weather: Path, weather_run: Path) -> None:
    document = json.loads(pdr("evaluate", weather, "-m", weather_run, "--steps", "9", "--json").out)
    assert len(document["lead"]) == 9
    assert document["n_windows"] == 160 - 144 - 13 + 1


def test_csv_plot_traffic_and_video(
    traffic: Path, traffic_run: Path, clip: Path, video_run: Path, tmp_path: Path
) -> None:
    assert pdr("evaluate", traffic, "-m", traffic_run, "-o", "scores.csv", "--plot", "skill.png").code == 0
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert {r["score"] for r in rows} >= {"rmse", "rmse:inflow", "mae:outflow"}
    assert (tmp_path / "skill.png").read_bytes()[:4] == b"\x89PNG"
    document = json.loads(pdr("evaluate", clip, "-m", video_run, "--json").out)
    assert document["metrics"] == ["psnr", "ssim", "mae"]
    assert document["lead_units"] == "seconds"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--metrics", "rms"], 2, "Did you mean 'rmse'"),
        (["--against", "persistance"], 2, "Did you mean 'persistence'"),
        (["--split", "tset"], 2, "test, val, train or all"),
        (["-o", "scores.txt"], 2, ".json or .csv"),
        (["-o", "nowhere/scores.json"], 73, "mkdir -p"),
    ],
)
def test_mistakes_are_one_line_with_their_code(
    weather: Path, weather_run: Path, arguments: list[str], code: int, says: str
) -> None:
    result = pdr("evaluate", weather, "-m", weather_run, *arguments)
    assert (result.code, says in result.last) == (code, True), result.last


def test_a_model_that_predicts_persistence_has_no_skill_at_all(
    weather: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "persistence_net.py").write_text(PERSISTENCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PDR_TRUST_CODE", "persistence_net")
    settings = tiny_settings("model.anchor=last", "model.fusion=none", "model.backbone=persistence_net:Nothing")
    trained = pdr("train", "-p", "demo", "--data", weather, "-o", "still", "--steps", "1", "-q", *settings)
    assert trained.code == 0, trained.err
    document = json.loads(pdr("evaluate", weather, "-m", "still", "--split", "all", "--json").out)
    skill = document["skill"]["still"]["persistence"]
    assert (skill["overall"], set(skill["lead"]), skill["interval"], skill["significant"]) == (0, {0}, [0, 0], False)
    table = pdr("evaluate", weather, "-m", "still", "--split", "all").out
    assert "+0.000 n.s." in table


def test_skill_comes_with_an_interval_where_there_are_windows_enough(weather: Path, weather_run: Path) -> None:
    document = json.loads(pdr("evaluate", weather, "-m", weather_run, "--split", "all", "--json").out)
    entry = document["skill"]["run"]["climatology"]
    assert entry["interval"][0] < entry["overall"] < entry["interval"][1]
    assert document["bootstrap"]["blocks"] == 20  # 153 windows that start at 0 ... 152, 8 to a block
    assert len(document["scores"]["run"]["rmse"]["low"]) == 4
    few = json.loads(pdr("evaluate", weather, "-m", weather_run, "--json").out)
    assert few["bootstrap"] is None
    assert "interval" not in few["skill"]["run"]["climatology"]
    assert "too few independent windows" in pdr("evaluate", weather, "-m", weather_run).out


def test_missing_truth_counts_in_no_score_and_is_counted(weather: Path, weather_run: Path, tmp_path: Path) -> None:
    with xr.open_dataset(weather) as data:
        holed = data.copy(deep=True)
    # The last frame is the truth of the last four windows, at one lead of each, and observed in none.
    holed.t2m[-1, :, :5] = np.nan
    holed.to_netcdf(tmp_path / "holed.nc")
    document = json.loads(pdr("evaluate", "holed.nc", "-m", weather_run, "--json").out)
    assert document["missing"]["by"] == {"truth": 13 * 5}  # only one of the nine windows ends there
    assert document["missing"]["of"] == 9 * 4 * 13 * 15
    whole = json.loads(pdr("evaluate", weather, "-m", weather_run, "--json").out)
    leads = [document["scores"]["run"]["mse"]["lead"], whole["scores"]["run"]["mse"]["lead"]]
    assert leads[0][:3] == pytest.approx(leads[1][:3], rel=1e-9)
    assert leads[0][3] != leads[1][3]
    assert "missing and count in no score" in pdr("evaluate", "holed.nc", "-m", weather_run).out
    refused = pdr("evaluate", "holed.nc", "-m", weather_run, "--convention", "openstl")
    assert (refused.code, "--convention standard" in refused.last) == (65, True)


def test_missing_observations_are_refused(weather: Path, weather_run: Path, tmp_path: Path) -> None:
    with xr.open_dataset(weather) as data:
        holed = data.copy(deep=True)
    holed.t2m[-6, 3, 3] = np.nan
    holed.to_netcdf(tmp_path / "holed.nc")
    assert pdr("evaluate", "holed.nc", "-m", weather_run).code == 65


def test_a_forecast_file_stands_where_a_model_would(weather: Path, weather_run: Path, tmp_path: Path) -> None:
    with xr.open_dataset(weather) as data:
        init = str(data.time.values[-5])
    assert pdr("predict", weather, "-m", weather_run, "--init", init, "-o", "ours.nc").code == 0
    document = json.loads(pdr("evaluate", weather, "-m", weather_run, "-m", "ours.nc", "--json").out)
    simple = ("persistence", "climatology", "anomaly", "ridge")
    assert document["kinds"] == {"run": "model", "ours": "file", **dict.fromkeys(simple, "baseline")}
    assert document["n_windows"] == 1
    for metric in ("rmse", "mae", "bias"):
        ours, run = (document["scores"][n][metric]["lead"] for n in ("ours", "run"))
        assert ours == pytest.approx(run, rel=1e-5)
    alone = json.loads(pdr("evaluate", weather, "-m", "ours.nc", "--json").out)
    assert alone["scores"]["ours"] == document["scores"]["ours"]
    assert (alone["split"], list(alone["skill"]["ours"])) == ("all", ["persistence"])
    refused = pdr("evaluate", weather, "-m", "ours.nc", "--against", "climatology")
    assert (refused.code, "name a model with -m" in refused.last) == (2, True)


def test_a_forecast_file_says_which_variables_are_meant(weather: Path, weather_run: Path, tmp_path: Path) -> None:
    with xr.open_dataset(weather) as data:
        data.assign(other=data.t2m + 1).to_netcdf("two.nc")
        init = str(data.time.values[-5])
    assert pdr("predict", weather, "-m", weather_run, "--init", init, "-o", "ours.nc").code == 0
    document = json.loads(pdr("evaluate", "two.nc", "-m", "ours.nc", "--json").out)
    assert document["variables"] == ["t2m"]


def test_analyses_stand_in_tables_of_their_own(clip: Path, video_run: Path) -> None:
    wanted = "psnr,spectra,calibration,concentration,warping"
    named = pdr("evaluate", clip, "-m", video_run, "--metrics", "warping", "--against", "flow", "--report", "r.html")
    assert named.code == 0, named.err  # a baseline has the name of what the analysis stands on
    document = json.loads(pdr("evaluate", clip, "-m", video_run, "--metrics", wanted, "--json").out)
    assert document["metrics"] == ["psnr"]
    assert set(document["spectra"]["power"]) == {"truth", "run", "persistence", "climatology", "damped-flow"}
    assert set(document["spectra"]["ratio"]) == {"run", "persistence", "climatology", "damped-flow"}
    # The square moves without changing, but nearer to or further from the fading borders: a copy has about its power.
    assert 0.3 < document["spectra"]["ratio"]["persistence"] < 3
    assert set(document["concentration"]["truth"]) == {"kurtosis", "saturation", "diversity", "p90"}
    assert document["warping"]["errors"]["persistence"]["l1"] > document["warping"]["errors"]["truth"]["l1"]
    assert sum(document["calibration"]["run"]["count"]) == document["n_windows"] * 4 * 32 * 32
    table = pdr("evaluate", clip, "-m", video_run, "--metrics", wanted).out
    assert "concentration" in table
    assert "warping" in table


def test_efficiency_says_what_a_model_costs(weather: Path, weather_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from pdr_cli.verification import efficiency

    monkeypatch.setattr(efficiency, "RUNS", 3)
    monkeypatch.setattr(efficiency, "WARM_UP", 1)
    document = json.loads(pdr("evaluate", weather, "-m", weather_run, "--efficiency", "--json").out)
    cost = document["efficiency"]["run"]
    network = pdr_cli.load(weather_run).loaded.network
    assert cost["parameters"] == sum(p.numel() for p in network.parameters())
    assert cost["flops"] == 2 * cost["macs"]
    assert cost["frames_per_second"] == pytest.approx(4 * cost["sequences_per_second"])
    # 9 Gaussians on a lattice of K x K values, 20 operations each and 2 for the one channel, in 4 frames.
    assert cost["renderer_flops"] == 4 * 9 * network.adapter.kernel_size**2 * 22
    layer = next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d))
    assert cost["macs"] > layer.weight.numel() * 13 * 15  # more than the first layer alone


def test_the_card_says_how_the_numbers_came_about(weather: Path, weather_run: Path) -> None:
    document = json.loads(pdr("evaluate", weather, "-m", weather_run, "--json").out)
    card = document["card"]
    assert card["data"] == ["air.nc"]
    assert card["models"]["run"]["preset"] == "demo"
    assert len(card["truth_sha256"]) == len(card["models"]["run"]["sha256"]) == 64
    assert "Gaussian 11 x 11, range" in card["ssim"]
    assert card["climatology"].startswith("hour of day")
    again = json.loads(pdr("evaluate", weather, "-m", weather_run, "--json", "--against", "trend").out)
    assert again["card"]["truth_sha256"] == card["truth_sha256"]


def test_the_published_convention_is_labelled_and_scores_on_its_own_scale(traffic: Path, traffic_run: Path) -> None:
    ours = json.loads(pdr("evaluate", traffic, "-m", traffic_run, "--json").out)
    theirs = json.loads(pdr("evaluate", traffic, "-m", traffic_run, "--convention", "openstl", "--json").out)
    assert (theirs["convention"], theirs["metrics"], theirs["units"]) == (
        "openstl",
        ["mse", "mae", "ssim", "psnr"],
        "1",
    )
    scale = pdr_cli.load(traffic_run).loaded.card.scaling.scale
    by_channel = [
        ours["scores"]["run"][f"mse:{c}"]["overall"] / s**2 for c, s in zip(("inflow", "outflow"), scale, strict=True)
    ]
    # A sum over 2 channels of 8 x 8 cells, on the scale of [0, 1].
    assert theirs["scores"]["run"]["mse"]["overall"] == pytest.approx(64 * sum(by_channel), rel=1e-5)
    assert "openstl convention" in pdr("evaluate", traffic, "-m", traffic_run, "--convention", "openstl").out


def test_other_baselines(weather: Path, weather_run: Path) -> None:
    document = json.loads(
        pdr("evaluate", weather, "-m", weather_run, "--against", "persistence,yesterday,trend,flow", "--json").out
    )
    assert [n for n, k in document["kinds"].items() if k == "baseline"] == ["persistence", "yesterday", "trend", "flow"]
    assert document["missing"]["cells"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--convention", "own"], 2, "standard or openstl"),
        (["--protocol", "own"], 2, "honest or openstl"),
        (["--report", "report.pdf"], 2, ".html"),
        (["--lpips-weights", "nowhere.safetensors"], 66, "no such file"),
        (["--metrics", "lpips"], 2, "video alone"),
        (["--metrics", "ssim", "--convention", "openstl"], 2, "mse, mae and rmse"),
    ],
)
def test_new_mistakes_too(weather: Path, weather_run: Path, arguments: list[str], code: int, says: str) -> None:
    result = pdr("evaluate", weather, "-m", weather_run, *arguments)
    assert (result.code, says in result.last) == (code, True), result.last


def weatherbench2_file(path: Path, data: xr.Dataset, inits: list[int], frames: np.ndarray, units: str = "K") -> None:
    """Forecasts [n, τ, H, W] from the frames numbered `inits`, every 6 hours, as WeatherBench 2 lays them out."""
    leads = (np.arange(frames.shape[1]) + 1) * np.timedelta64(6, "h")
    dims = ("time", "prediction_timedelta", "lat", "lon")
    xr.Dataset(
        {"t2m": (dims, frames, {"units": units})},
        coords={"time": data.time.values[inits], "prediction_timedelta": leads, "lat": data.lat, "lon": data.lon},
    ).to_netcdf(path)


def test_forecasts_of_others_are_aligned_by_valid_time(weather: Path, weather_run: Path, tmp_path: Path) -> None:
    model, inits = pdr_cli.load(weather_run), [150, 148, 155]
    with xr.open_dataset(weather) as data:
        frames = [model.predict(data, init=data.time.values[i]).t2m.values for i in inits]
        weatherbench2_file(
            tmp_path / "theirs.nc", data.isel(lat=slice(None, None, -1)), inits, np.stack(frames)[:, :, ::-1]
        )
    document = json.loads(pdr("evaluate", weather, "-m", weather_run, "-m", "theirs.nc", "--json").out)
    assert document["n_windows"] == 3
    theirs, ours = (document["scores"][name]["rmse"]["lead"] for name in ("theirs", "run"))
    assert theirs == pytest.approx(ours, rel=1e-5)
    assert document["card"]["files"]["theirs"]["layout"]


def test_land_that_is_missing_everywhere_counts_nowhere(weather: Path, tmp_path: Path) -> None:
    with xr.open_dataset(weather) as data:
        sea = data.copy(deep=True)
    sea.t2m[:, :, :5] = np.nan
    sea.to_netcdf(tmp_path / "sea.nc")
    inits = [20, 21, 40]
    still = np.repeat(sea.t2m.values[inits][:, None], 4, axis=1)
    weatherbench2_file(tmp_path / "still.nc", sea, inits, still)
    document = json.loads(pdr("evaluate", "sea.nc", "-m", "still.nc", "--json").out)
    assert document["missing"]["share"] == pytest.approx(5 / 15)
    skill = document["skill"]["still"]["persistence"]
    assert (skill["overall"], skill["lead"]) == (0, [0, 0, 0, 0])
    first = [np.nanmean((sea.t2m.values[i + 1].astype(float) - sea.t2m.values[i]) ** 2) for i in inits]
    one = json.loads(pdr("evaluate", "sea.nc", "-m", "still.nc", "--json", "--metrics", "mse,ssim,psnr").out)
    assert one["scores"]["still"]["mse"]["lead"][0] == pytest.approx(np.mean(first), rel=1e-6)
    assert np.isfinite([one["scores"]["still"][m]["overall"] for m in ("ssim", "psnr")]).all()


def test_the_published_protocol_scales_each_part_by_itself(weather: Path, weather_run: Path) -> None:
    document = json.loads(pdr("evaluate", weather, "-m", weather_run, "--protocol", "openstl", "--json").out)
    assert document["protocol"] == "openstl"
    with xr.open_dataset(weather) as data:
        # 160 steps, test fraction 0.15, no gap: frames 136 ... 159, windows of 4 + 4 at every step.
        frames = data.t2m.values[136:].astype(np.float64)
    assert document["n_windows"] == 24 - 8 + 1
    errors = [(frames[i + 4 : i + 8] - frames[i + 3]) ** 2 for i in range(17)]
    # Standardised by the test's sd and brought back by the training's: errors grow by the ratio of the two.
    ratio = pdr_cli.load(weather_run).loaded.card.scaling.scale[0] / frames.std()
    wanted = np.mean(errors) * ratio**2
    assert document["scores"]["persistence"]["mse"]["overall"] == pytest.approx(wanted, rel=1e-4)
    refused = pdr("evaluate", weather, "-m", weather_run, "--protocol", "openstl", "--split", "all")
    assert refused.code == 2


def test_a_kind_that_is_named_stands_for_the_one_found_in_the_file(
    weather: Path, weather_run: Path, tmp_path: Path
) -> None:
    with xr.open_dataset(weather) as data:
        counts = data.assign(t2m=data.t2m.assign_attrs(units="1"))
        counts.to_netcdf(tmp_path / "counts.nc")
        still = np.repeat(counts.t2m.values[[20]][:, None], 4, axis=1)
        weatherbench2_file(tmp_path / "still.nc", counts, [20], still, units="1")
    arguments = ("evaluate", "counts.nc", "-m", "still.nc", "--convention", "openstl", "--metrics", "mse")
    assert pdr(*arguments).code == 0  # weather is scored in its own units
    traffic = pdr(*arguments, "--kind", "traffic")  # traffic on the scale of [0, 1] of its model
    assert (traffic.code, "name one with -m" in traffic.last) == (2, True)
    assert pdr(*arguments, "--kind", "video").code == 65
    other = pdr("evaluate", weather, "-m", weather_run, "--kind", "traffic")
    assert (other.code, "a model for weather" in other.last) == (2, True)


def test_a_report_is_one_page_and_its_pictures(weather: Path, weather_run: Path, tmp_path: Path) -> None:
    arguments = ["--metrics", "rmse,acc", "--split", "all", "--report", "report.html"]
    result = pdr("evaluate", weather, "-m", weather_run, *arguments)
    assert result.code == 0, result.err
    page = (tmp_path / "report.html").read_text()
    for words in ("skill against", "Best forecast", "Worst forecast", "Calibration", "wavelength"):
        assert words.lower() in page.lower()
    pictures = {p.stem for p in (tmp_path / "report").glob("*.png")}
    assert {"score-rmse", "skill", "spectra", "calibration", "case-best", "case-median", "case-worst"} <= pictures
    document = json.loads(pdr("evaluate", weather, "-m", weather_run, *arguments[:4], "--json").out)
    assert document["card"]["truth_sha256"][:12] in page


def test_what_is_not_defined_is_null_in_json_and_a_dash_in_the_table(weather: Path, weather_run: Path) -> None:
    arguments = ("evaluate", weather, "-m", weather_run, "--metrics", "acc")
    text = pdr(*arguments, "--json").out
    assert "NaN" not in text
    # The climatology has no anomalies, so nothing that they could be correlated with.
    assert json.loads(text)["scores"]["climatology"]["acc"]["overall"] is None
    assert "–" in pdr(*arguments).out


def test_a_skill_that_is_not_known_is_a_dash(longer_weather: Path, calibrated_run: Path) -> None:
    """Of a file whose forecasts are shorter than those that are scored."""
    assert pdr("predict", longer_weather, "-m", calibrated_run, "--every-init", "-o", "h.nc").code == 0
    result = pdr("evaluate", longer_weather, "-m", calibrated_run, "-m", "h.nc", "--steps", "6")
    assert (result.code, "nan" in result.out) == (0, False), result.out
    assert "–" in result.out
