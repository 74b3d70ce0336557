import csv
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import pdr_cli
from pdr_cli.verification import scores
from tests.builders import weather_file
from tests.cli import pdr


def test_scores_stand_beside_persistence_and_climatology(weather: Path, weather_run: Path, tmp_path: Path) -> None:
    result = pdr("evaluate", weather, "-m", weather_run, "-o", "scores.json")
    assert result.code == 0, result.err
    document = json.loads((tmp_path / "scores.json").read_text())
    assert list(document["scores"]) == ["run", "persistence", "climatology"]
    assert document["lead"] == [6, 12, 18, 24]
    assert (document["units"], document["convention"], document["split"]) == ("K", "standard", "test")
    for row in document["scores"].values():
        assert len(row["rmse"]["lead"]) == 4
        assert row["rmse"]["overall"] == pytest.approx(np.sqrt(row["mse"]["overall"]))
    mse = {name: row["mse"]["overall"] for name, row in document["scores"].items()}
    assert document["skill"]["run"]["persistence"]["overall"] == scores.skill(mse["run"], mse["persistence"])
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
            forecast = model.predict(data, init=str(data.time.values[first + 3])).values[:, 0]
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
        (["--split", "tset"], 2, "use test, val, train or all"),
        (["-o", "scores.txt"], 2, ".json or .csv"),
        (["-o", "nowhere/scores.json"], 73, "mkdir -p"),
    ],
)
def test_mistakes_are_one_line_with_their_code(
    weather: Path, weather_run: Path, arguments: list[str], code: int, says: str
) -> None:
    result = pdr("evaluate", weather, "-m", weather_run, *arguments)
    assert (result.code, says in result.last) == (code, True), result.last
