"""`pdr evaluate` of ensembles: models that draw, models together, ensemble files, and the dressed forecast as their rival."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pdr_cli.runs import modelfile
from tests.cli import pdr


@pytest.fixture(scope="module")
def drawing_run(make_run: Callable[..., Path], longer_weather: Path) -> Path:
    """A run that draws members and is calibrated."""
    noise = ("--backbone", "unet", "--loss", "crps", "--set", "train.members=2", "--set", "model.noise=4")
    return make_run(longer_weather, *noise, "--set", "fusion=none", "--set", "val_windows=40")


def document(data: Path, *arguments: object) -> dict[str, Any]:
    result = pdr("evaluate", data, *map(str, arguments), "--json")
    assert result.code == 0, result.err
    found: dict[str, Any] = json.loads(result.out)
    return found


def test_members_are_scored_by_crps_beside_the_dressed_forecast(longer_weather: Path, drawing_run: Path) -> None:
    found = document(longer_weather, "-m", drawing_run, "--members", "4", "--seed", "3")
    assert found["metrics"] == ["crps", "rmse", "mae", "bias", "spread_skill", "coverage"]
    assert list(found["scores"]) == ["run", "persistence", "climatology", "dressed"]
    assert found["skill_of"] == "crps"
    rows = found["scores"]
    assert rows["persistence"]["crps"]["overall"] == pytest.approx(rows["persistence"]["mae"]["overall"])
    assert rows["dressed"]["crps"]["overall"] < rows["dressed"]["mae"]["overall"]
    assert rows["persistence"]["spread_skill"]["overall"] is None
    expected = 1 - rows["run"]["crps"]["overall"] / rows["dressed"]["crps"]["overall"]
    assert found["skill"]["run"]["dressed"]["overall"] == pytest.approx(expected)
    printed = pdr("evaluate", longer_weather, "-m", drawing_run, "--members", "4").out
    assert "by CRPS" in printed.replace("\n", " ")
    assert "skill = 1 - CRPS / CRPS of the reference" in printed


def test_an_ensemble_file_has_the_scores_of_its_model(longer_weather: Path, drawing_run: Path) -> None:
    drawn = ("-m", drawing_run, "--members", "3", "--seed", "1")
    assert pdr("predict", longer_weather, *drawn, "--every-init", "-o", "ens.nc").code == 0
    with xr.open_dataset("ens.nc") as made:
        made.rename(realization="number").drop_vars("number").to_netcdf("theirs.nc")
    found = document(longer_weather, *drawn, "-m", "ens.nc", "-m", "theirs.nc", "--against", "persistence")
    for key in ("crps", "rmse", "spread_skill", "coverage"):
        model, ours, theirs = (found["scores"][name][key]["overall"] for name in ("run", "ens", "theirs"))
        assert ours == theirs == pytest.approx(model, rel=1e-5), key


def test_models_together_are_one_ensemble(longer_weather: Path, calibrated_run: Path, drawing_run: Path) -> None:
    found = document(longer_weather, "-m", f"{calibrated_run}+{drawing_run}", "--against", "persistence")
    assert list(found["scores"]) == ["run+run'", "persistence"]
    alone = document(
        longer_weather, "-m", calibrated_run, "-m", drawing_run, "--against", "persistence", "--metrics", "crps"
    )
    each = [alone["scores"][name]["crps"]["overall"] for name in ("run", "run'")]
    assert found["scores"]["run+run'"]["crps"]["overall"] < np.mean(each)


def test_a_cell_that_one_member_lacks_counts_for_no_forecaster(longer_weather: Path, drawing_run: Path) -> None:
    drawn = ("-m", drawing_run, "--members", "2")
    assert pdr("predict", longer_weather, *drawn, "--every-init", "-o", "ens.nc").code == 0
    with xr.open_dataset("ens.nc") as made:
        made.load()
    made.t2m[:, 1, 0, 0, 0] = np.nan
    made.to_netcdf("holed.nc")
    found = document(longer_weather, "-m", "holed.nc", "--against", "persistence", "--split", "all")
    assert found["missing"]["cells"] == found["n_windows"]
    assert found["missing"]["by"] == {"holed": found["n_windows"]}


def test_deterministic_scores_are_as_before_and_dressed_comes_with_crps(
    longer_weather: Path, calibrated_run: Path
) -> None:
    plain = document(longer_weather, "-m", calibrated_run)
    assert list(plain["scores"]) == ["run", "persistence", "climatology"]
    assert "skill_of" not in plain
    named = document(longer_weather, "-m", calibrated_run, "--metrics", "rmse,crps")
    assert list(named["scores"]) == ["run", "persistence", "climatology", "dressed"]
    assert named["scores"]["run"]["rmse"] == plain["scores"]["run"]["rmse"]
    assert named["skill"]["run"]["persistence"] == plain["skill"]["run"]["persistence"]


@pytest.mark.parametrize("members", ["mean", "4"])
def test_a_model_that_draws_none_is_scored_by_its_direct_forecast(
    longer_weather: Path, calibrated_run: Path, members: str
) -> None:
    plain = document(longer_weather, "-m", calibrated_run)
    found = document(longer_weather, "-m", calibrated_run, "--members", members)
    assert found["scores"]["run"] == plain["scores"]["run"]


def test_a_run_may_have_a_plus_in_its_name(longer_weather: Path, calibrated_run: Path) -> None:
    plain = document(longer_weather, "-m", calibrated_run)
    shutil.copytree(calibrated_run, "runs/a+b")
    found = document(longer_weather, "-m", "a+b")
    assert found["scores"]["a+b"] == plain["scores"]["run"]


def test_the_dressed_forecast_needs_known_errors(longer_weather: Path, calibrated_run: Path, tmp_path: Path) -> None:
    file = modelfile.read(calibrated_run / "model.safetensors")
    assert file.calibration is not None
    bare = pdr("evaluate", longer_weather, "--against", "dressed", "-m", uncalibrated(calibrated_run, tmp_path))
    assert (bare.code, "pdr calibrate" in bare.last) == (2, True), bare.err


def uncalibrated(run: Path, folder: Path) -> Path:
    """The model of a run as an older version wrote it."""
    from safetensors.torch import load, save

    from pdr_cli.runs.digest import digest

    content = (run / "model.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    tensors = {name: value for name, value in load(content).items() if not name.startswith("calibration.")}
    header = {name: value for name, value in header.items() if name not in ("calibration", "sha256")}
    path = folder / "old.safetensors"
    path.write_bytes(save(tensors, header | {"sha256": digest(tensors, header)}))
    return path


def test_the_crps_of_the_dressed_forecast_does_not_depend_on_its_members(
    longer_weather: Path, calibrated_run: Path
) -> None:
    """Evenly spaced quantiles would be taken for draws by the fair CRPS, which is then the lower the fewer they are."""
    crps = []
    for members in (4, 60):
        drawn = ("--metrics", "crps", "--against", "dressed", "--members", members)
        found = document(longer_weather, "-m", calibrated_run, *drawn, "--split", "all")
        crps.append(found["scores"]["dressed"]["crps"]["overall"])
    assert crps[0] == pytest.approx(crps[1], rel=0.03)


def test_intervals_have_a_table_and_warn_of_the_windows_that_they_are_from(
    longer_weather: Path, calibrated_run: Path
) -> None:
    arguments = ("evaluate", longer_weather, "-m", calibrated_run, "--metrics", "rmse,intervals")
    result = pdr(*arguments)
    assert (result.code, "95 %: coverage" in result.out, "in that period" in result.err) == (0, True, False), result.err
    again = pdr(*arguments, "--split", "val")
    assert (again.code, "are scored in that period" in again.err) == (0, True), again.err


def test_the_sharpness_of_an_ensemble_is_that_of_a_member(longer_weather: Path) -> None:
    """The mean of two fields of noise has half of their power."""
    with xr.open_dataset(longer_weather) as truth:
        truth.load()
    noise = np.random.default_rng(0).normal(size=(2, 400, 7, 9)).astype(np.float32)
    lat, lon = truth.t2m.dims[1:]
    dims = ("number", "time", "prediction_timedelta", lat, lon)
    coords = {
        "time": truth.time[100:500],
        "prediction_timedelta": np.array([6], "timedelta64[h]"),
        lat: truth[lat],
        lon: truth[lon],
    }
    for name, fields in (("two.nc", noise), ("one.nc", noise[:1])):
        xr.Dataset({"t2m": (dims, 280 + 20 * fields[:, :, None], truth.t2m.attrs)}, coords).to_netcdf(name)
    arguments = (
        "-m",
        "two.nc",
        "-m",
        "one.nc",
        "--var",
        "t2m",
        "--metrics",
        "rmse,spectra",
        "--against",
        "persistence",
    )
    found = document(longer_weather, *arguments)["spectra"]
    assert found["ratio"]["two"] == pytest.approx(found["ratio"]["one"])
