"""Covariates from the command line: inputs, known variables, maps and dates, in training, prediction and evaluation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import pdr_cli
from pdr_cli.data.covariates import Covariates
from pdr_cli.data.limits import RangeError
from pdr_cli.runs import modelfile
from tests.cli import Result, pdr
from tests.conftest import tiny_settings

FRAMES, BEYOND, SIZE = 160, 6, (8, 10)
START = np.datetime64("2020-01-01", "ns")
SIDES = {
    "lat": ("lat", np.linspace(60, 42.5, 8, dtype="f4"), {"units": "degrees_north"}),
    "lon": ("lon", np.linspace(0, 22.5, 10, dtype="f4"), {"units": "degrees_east"}),
}
SMALL = ["--backbone", "unet", "--fusion", "none", *tiny_settings("n_s=2")]


def dataset(frames: int = FRAMES, beyond: int = BEYOND) -> xr.Dataset:
    """A temperature that follows the cloudiness of its own time, and is not there yet in the last frames, a wind and a map."""
    n, rng = frames + beyond, np.random.default_rng(0)
    y, x = np.mgrid[0:8, 0:10]
    cloud = np.einsum("tk,kyx->tyx", rng.standard_normal((n, 3)), np.stack([np.sin(x), np.cos(x + y), np.sin(y)]))
    t2m = 280 - 3 * cloud + 0.1 * rng.standard_normal((n, *SIZE))
    t2m[frames:] = np.nan
    dims, times = ("time", "lat", "lon"), START + np.arange(n) * np.timedelta64(6, "h")
    fields = {
        "t2m": (dims, t2m.astype("f4"), {"units": "K"}),
        "tcc": (dims, cloud.astype("f4"), {"units": "1"}),
        "u10": (dims, rng.standard_normal((n, *SIZE)).astype("f4"), {"units": "m s-1"}),
        "z": (("lat", "lon"), np.add.outer(np.arange(8.0), np.arange(10.0) ** 2), {"units": "m"}),
    }
    return xr.Dataset(fields, {"time": times, **SIDES})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`past.nc` for training, `now.nc` whose clouds go on for 6 frames, and a run with every kind of covariate."""
    root = tmp_path_factory.mktemp("roles")
    dataset(beyond=0).to_netcdf(root / "past.nc")
    dataset().to_netcdf(root / "now.nc")
    (root / "days.txt").write_text("2020-01-06  # Epiphany\n\n2020-01-01\n")
    trained = train(
        root / "past.nc", root / "run", "--input", "u10", "--known", "tcc", "--static", "z", "--calendar", "hour,sun",
        "--holidays", str(root / "days.txt"), "--set", "data.lagged=1d", steps=3,
    )  # fmt: skip
    assert trained.code == 0, trained.err
    assert "inputs  hour, sun, holidays, z (static), u10 (input), tcc (known), 1 d before" in trained.err
    return root


def train(data: Path, out: Path, *arguments: str, steps: int = 3) -> Result:
    return pdr("train", "--preset", "demo", "--data", data, "-o", out, "--steps", str(steps), *SMALL, *arguments)


def changed(folder: Path, name: str, **values: np.ndarray) -> Path:
    """`now.nc` with other values of some variables, NaN where the arrays are."""
    data = xr.load_dataset(folder / "now.nc")
    for variable, frames in values.items():
        data[variable] = data[variable].where(frames)
    data.to_netcdf(folder / name)
    return folder / name


def frames_with_values(*absent: int) -> xr.DataArray:
    """A mask over the frames of `now.nc`, False where values are taken out."""
    data = dataset()
    return xr.DataArray(~np.isin(np.arange(FRAMES + BEYOND), absent), coords={"time": data.time}, dims="time")


def test_the_model_keeps_what_prediction_needs(folder: Path) -> None:
    card = modelfile.read(folder / "run" / "model.safetensors").card
    assert list(card.variables) == ["t2m"]
    assert list(card.read) == ["u10", "tcc"]
    assert card.covariates is not None
    assert card.covariates.holidays == ("2020-01-01", "2020-01-06")
    assert card.frames.covariates == 2 + 1 + 1 + 1 + 2 + 1
    mean = float(dataset(beyond=0).u10[:120].mean())  # 70 % and more of the frames train
    assert card.covariates.variables["u10"].mean == pytest.approx(mean, abs=0.02)


def test_a_dry_run_names_the_covariates(folder: Path) -> None:
    shown = train(folder / "past.nc", folder / "dry", "--known", "tcc", "--input", "u10", "--dry-run")
    assert "# covariates  u10 (input), tcc (known)" in shown.out
    assert "# data        t2m 160 x 8 x 10" in shown.out  # the only variable that has no role


def test_inspect_names_the_covariates(folder: Path) -> None:
    report = json.loads(pdr("inspect", folder / "run", "--json").out)
    assert report["covariates"] == "hour, sun, holidays, z (static), u10 (input), tcc (known), 1 d before"
    assert pdr("inspect", folder / "now.nc", "--for", folder / "run").code == 0
    refused = pdr("inspect", folder / "past.nc", "--for", folder / "run")
    assert refused.code == 65
    assert "tcc has no value at 2020-02-10 00:00" in refused.last


def test_a_forecast_begins_where_the_forecast_variable_ends(folder: Path, tmp_path: Path) -> None:
    made = pdr(
        "predict", folder / "now.nc", "-m", folder / "run", "-o", tmp_path / "f.nc", "--preview", tmp_path / "f.png"
    )
    assert made.code == 0, made.err
    assert "init 2020-02-09 18:00  valid 2020-02-10 00:00 to 2020-02-10 18:00" in made.out
    written = xr.load_dataset(tmp_path / "f.nc")
    assert not {"tcc", "u10", "z"} & set(written.variables)
    assert np.isfinite(written.t2m).all()
    assert pdr("verify", tmp_path / "f.nc").code == 0


def test_known_values_change_the_forecast_and_later_values_of_inputs_do_not(folder: Path) -> None:
    data = xr.load_dataset(folder / "now.nc")
    first = pdr_cli.predict(data, folder / "run").t2m
    later = data.assign(u10=data.u10.where(frames_with_values(*range(FRAMES, FRAMES + BEYOND))))
    assert pdr_cli.predict(later, folder / "run").t2m.equals(first)
    assert not pdr_cli.predict(data.assign(tcc=data.tcc + 1), folder / "run").t2m.equals(first)
    assert not pdr_cli.predict(data.assign(u10=data.u10 + 1), folder / "run").t2m.equals(first)


@pytest.mark.parametrize("steps", [5, 6])
def test_a_forecast_beyond_the_horizon_reads_known_values_further_on(folder: Path, tmp_path: Path, steps: int) -> None:
    made = pdr("predict", folder / "now.nc", "-m", folder / "run", "-o", tmp_path / "f.nc", "--steps", str(steps))
    assert made.code == 0, made.err
    assert xr.load_dataset(tmp_path / "f.nc").sizes["time"] == steps


def test_known_values_that_end_too_early_are_refused(folder: Path, tmp_path: Path) -> None:
    refused = pdr("predict", folder / "now.nc", "-m", folder / "run", "-o", tmp_path / "f.nc", "--steps", "7")
    assert refused.code == 65
    assert "tcc has no value at 2020-02-11 12:00, which a forecast from 2020-02-09 18:00 needs" in refused.last
    assert pdr("predict", folder / "past.nc", "-m", folder / "run", "-o", tmp_path / "f.nc").code == 65
    earlier = ["--init", "2020-02-08T18:00", "-o", tmp_path / "f.nc"]
    assert pdr("predict", folder / "past.nc", "-m", folder / "run", *earlier).code == 0


def test_a_missing_known_value_is_refused_by_name_and_time(folder: Path, tmp_path: Path) -> None:
    hole = changed(folder, "hole.nc", tcc=frames_with_values(FRAMES + 2))
    refused = pdr("predict", hole, "-m", folder / "run", "-o", tmp_path / "f.nc")
    assert refused.code == 65
    assert "hole.nc: tcc has no value at 2020-02-10 12:00, which a forecast from 2020-02-09 18:00 needs" in refused.last


def test_a_missing_observation_of_an_input_is_refused_or_filled(folder: Path, tmp_path: Path) -> None:
    hole = changed(folder, "calm.nc", u10=frames_with_values(FRAMES - 1))
    request = ["predict", hole, "-m", folder / "run", "-o", tmp_path / "f.nc"]
    refused = pdr(*request)
    assert refused.code == 65
    assert "u10 has no value at 2020-02-09 18:00" in refused.last
    assert pdr(*request, "--fill-missing", "persist").code == 0


def test_a_renamed_variable_is_found(folder: Path, tmp_path: Path) -> None:
    xr.load_dataset(folder / "now.nc").rename(tcc="clouds").to_netcdf(tmp_path / "named.nc")
    request = ["predict", tmp_path / "named.nc", "-m", folder / "run", "-o", tmp_path / "f.nc"]
    assert "'tcc'" in pdr(*request).last
    made = pdr(*request, "--var", "tcc=clouds")
    assert made.code == 0, made.err


def test_an_input_in_other_units_is_converted(folder: Path) -> None:
    data = xr.load_dataset(folder / "now.nc")
    fast = data.assign(u10=(3.6 * data.u10).assign_attrs(units="km h-1"))
    first, second = (pdr_cli.predict(one, folder / "run").t2m for one in (data, fast))
    np.testing.assert_allclose(second, first, rtol=1e-6)


def test_values_of_a_covariate_far_outside_of_training_are_refused(folder: Path, tmp_path: Path) -> None:
    data = xr.load_dataset(folder / "now.nc")
    request = ["predict", tmp_path / "far.nc", "-m", folder / "run", "-o", tmp_path / "f.nc"]
    data.assign(u10=data.u10 + 1000).to_netcdf(tmp_path / "far.nc")
    refused = pdr(*request)
    assert refused.code == 65
    assert "E_OUT_OF_RANGE" in refused.last
    assert "far.nc: 320 of 640 values of u10 lie between" in refused.last  # the 4 observed frames, 8 x 10 each
    assert pdr(*request, "--every-init").code == 65
    assert pdr(*request, "--allow-out-of-range").code == 0


def test_values_that_the_network_does_not_read_may_lie_anywhere(folder: Path) -> None:
    """An input is read at observed times alone; what is known is read at forecast times too."""
    data = xr.load_dataset(folder / "now.nc")
    ahead = xr.DataArray(np.arange(FRAMES + BEYOND) >= FRAMES, dims="time")
    assert pdr_cli.predict(data.assign(u10=data.u10 + 1000 * ahead), folder / "run").t2m.notnull().all()
    with pytest.raises(RangeError, match=r"dataset: 320 of 640 values of tcc .* 2020-02-10 00:00"):
        pdr_cli.predict(data.assign(tcc=data.tcc + 1000 * ahead), folder / "run")


def test_models_without_ranges_of_covariates_accept_any_value() -> None:
    kept = {"role": "input", "attrs": {}, "mean": 1.0, "sd": 2.0, "never_observed": None}  # as before they were kept
    card = {"calendar": [], "holidays": [], "static": {}, "variables": {"u10": kept}, "lagged": []}
    assert Covariates.from_json(card).limits is None


def test_a_forecast_holds_the_hash_of_its_covariates(folder: Path) -> None:
    data = xr.load_dataset(folder / "now.nc")
    first, windy, later = (
        pdr_cli.predict(one, folder / "run").pdr_covariates_sha256
        for one in (data, data.assign(u10=data.u10 + 1), data.assign(u10=data.u10.where(frames_with_values(FRAMES))))
    )
    assert first != windy
    assert first == later  # of an input, frames after the observed ones are not read


def test_a_turned_grid_gives_the_same_forecast(folder: Path) -> None:
    data = xr.load_dataset(folder / "now.nc")
    first, second = (pdr_cli.predict(one, folder / "run").t2m for one in (data, data.isel(lat=slice(None, None, -1))))
    np.testing.assert_array_equal(second.isel(lat=slice(None, None, -1)), first)


def test_a_forecast_is_renewed_if_a_covariate_has_changed(folder: Path, tmp_path: Path) -> None:
    request = ["predict", folder / "again.nc", "-m", folder / "run", "-o", tmp_path / "f.nc", "--skip-existing"]
    changed(folder, "again.nc")
    assert "init" in pdr(*request).out
    assert "up to date" in pdr(*request).out
    data = xr.load_dataset(folder / "again.nc")
    data["tcc"][FRAMES + 1] += 1
    (folder / "again.nc").unlink()
    data.to_netcdf(folder / "again.nc")
    assert "init" in pdr(*request).out


def test_a_hindcast_has_the_inits_whose_covariates_are_there(folder: Path, tmp_path: Path) -> None:
    hole = changed(
        folder, "gap.nc", tcc=frames_with_values(60), t2m=frames_with_values(*range(FRAMES, FRAMES + BEYOND))
    )
    made = pdr("predict", hole, "-m", folder / "run", "-o", tmp_path / "h.nc", "--every-init")
    assert made.code == 0, made.err
    written = xr.load_dataset(tmp_path / "h.nc")
    assert len(written.pdr_covariates_sha256) == 64
    assert "8 of 157 inits lack values of u10, tcc" in made.err  # frame 60 is in the windows of 8 inits
    assert written.sizes["forecast_reference_time"] == 149
    alone = pdr_cli.predict(xr.load_dataset(hole), folder / "run")
    np.testing.assert_allclose(written.t2m[-1], alone.t2m, rtol=1e-6)


def test_evaluate_scores_the_windows_that_have_covariates(folder: Path) -> None:
    scored = json.loads(pdr("evaluate", folder / "past.nc", "-m", folder / "run", "--json").out)
    assert scored["n_windows"] > 3
    data = xr.load_dataset(folder / "past.nc")
    data["tcc"][-2] = np.nan
    data.to_netcdf(folder / "evaluated.nc")
    fewer = pdr("evaluate", folder / "evaluated.nc", "-m", folder / "run", "--json")
    assert f"2 of {scored['n_windows']} windows to score lack values of u10 or tcc" in fewer.err
    assert json.loads(fewer.out)["n_windows"] == scored["n_windows"] - 2


def test_models_with_other_covariates_are_scored_side_by_side(folder: Path) -> None:
    assert train(folder / "past.nc", folder / "windy", "--var", "t2m", "--input", "u10").code == 0
    both = json.loads(pdr("evaluate", folder / "past.nc", "-m", folder / "run", "-m", folder / "windy", "--json").out)[
        "scores"
    ]
    alone = json.loads(pdr("evaluate", folder / "past.nc", "-m", folder / "windy", "--json").out)["scores"]
    assert both["windy"]["rmse"]["overall"] == pytest.approx(alone["windy"]["rmse"]["overall"])


def test_windows_without_covariates_are_left_out_of_training(folder: Path) -> None:
    data = xr.load_dataset(folder / "past.nc")
    data["tcc"][20, 0, 0] = np.nan
    data.to_netcdf(folder / "holes.nc")
    trained = train(folder / "holes.nc", folder / "holes", "--var", "t2m", "--known", "tcc")
    assert trained.code == 0, trained.err
    assert "8 of" in trained.err
    assert "windows to train on lack values of tcc and are left out" in trained.err
    filled = train(
        folder / "holes.nc", folder / "filled", "--var", "t2m", "--known", "tcc", "--set", "fill_missing=mean"
    )
    assert filled.code == 0
    assert "left out" not in filled.err


def test_a_model_uses_what_is_known_ahead(folder: Path) -> None:
    """The temperature follows the clouds of its own time, which no past frame tells."""
    options = [
        "--var",
        "t2m",
        "--set",
        "hid_s=8",
        "--set",
        "hid_t=16",
        "--set",
        "train.loss=mse",
        "--set",
        "model.anchor=none",
    ]
    for name, more in (("knowing", ["--known", "tcc"]), ("guessing", [])):
        trained = train(folder / "past.nc", folder / name, *options, *more, steps=80)
        assert trained.code == 0, trained.err
    run = [part for name in ("knowing", "guessing") for part in ("-m", folder / name)]
    scores = json.loads(pdr("evaluate", folder / "past.nc", *run, "--json").out)["scores"]
    assert scores["knowing"]["rmse"]["overall"] < 0.75 * scores["guessing"]["rmse"]["overall"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--known", "tc"], "Did you mean 'tcc'?"),
        (["--var", "t2m", "--static", "y"], "no variable 'y'"),
        (["--var", "t2m", "--static", "u10"], "use --input u10"),
        (["--input", "u10", "--known", "u10"], "u10 has two roles"),
        (["--calendar", "houre"], "Did you mean 'hour'?"),
        (["--var", "t2m", "--calendar", "holidays"], "--holidays FILE"),
        (["--known", "tcc,u10,t2m", "--static", "z"], "no variable to forecast"),
        (["--var", "t2m", "--known", "tcc", "--backbone", "convlstm"], "reads no covariates"),
        (["--var", "t2m", "--set", "data.lagged=7h"], "write days and weeks"),
    ],
)
def test_what_cannot_be_is_refused_with_a_way_out(folder: Path, arguments: list[str], words: str) -> None:
    refused = train(folder / "past.nc", folder / "refused", *arguments, "--dry-run")
    assert refused.code in (65, 78), refused.err
    assert words in refused.last


def test_clips_have_no_dates(clip: Path, tmp_path: Path) -> None:
    refused = train(clip, tmp_path / "run", "--calendar", "hour", "--dry-run")
    assert refused.code == 78
    assert "has no dates for hour" in refused.last


def test_the_sun_needs_latitudes(traffic: Path, tmp_path: Path) -> None:
    refused = train(traffic, tmp_path / "run", "--calendar", "sun", "--dry-run")
    assert refused.code == 78
    assert "no latitudes and longitudes" in refused.last


def test_automatic_dates_follow_the_kind_and_what_training_covers(traffic: Path, folder: Path, tmp_path: Path) -> None:
    city = train(traffic, tmp_path / "a", "--calendar", "auto", "--dry-run")
    assert "# covariates  hour\n" in city.out  # 12 days are too few for weekdays
    field = train(folder / "past.nc", tmp_path / "b", "--var", "t2m", "--calendar", "auto", "--dry-run")
    assert "# covariates  hour, sun\n" in field.out


def test_a_forecast_beyond_the_holidays_warns(traffic: Path, tmp_path: Path) -> None:
    (tmp_path / "days.txt").write_text("2013-12-25\n")
    trained = train(traffic, tmp_path / "run", "--holidays", str(tmp_path / "days.txt"))
    assert trained.code == 0, trained.err
    made = pdr("predict", traffic, "-m", tmp_path / "run", "-o", tmp_path / "f.nc")
    assert made.code == 0, made.err
    assert made.err.count("holidays that the model was trained with end in 2013") == 1


def test_a_map_of_another_file_is_turned_to_the_data(folder: Path, tmp_path: Path) -> None:
    maps = xr.load_dataset(folder / "past.nc")[["z"]]
    maps.isel(lat=slice(None, None, -1)).to_netcdf(tmp_path / "maps.nc")
    maps.isel(lon=slice(1, None)).to_netcdf(tmp_path / "part.nc")
    for name, source in (("own", "z"), ("other", f"{tmp_path / 'maps.nc'}:z")):
        assert train(folder / "past.nc", tmp_path / name, "--var", "t2m", "--static", source).code == 0
    own, other = (modelfile.read(tmp_path / n / "model.safetensors").card.covariates for n in ("own", "other"))
    assert own is not None
    assert other is not None
    np.testing.assert_array_equal(own.static["z"].values, other.static["z"].values)
    assert own.static["z"].values.std() == pytest.approx(1)
    refused = train(folder / "past.nc", tmp_path / "part", "--var", "t2m", "--static", f"{tmp_path / 'part.nc'}:z")
    assert refused.code == 65
    assert "z is on another grid than the data" in refused.last


def test_a_dataset_in_memory_has_roles_too(folder: Path, tmp_path: Path) -> None:
    settings = dict(part.split("=", 1) for part in tiny_settings("n_s=2") if part != "--set") | {
        "model.backbone": "unet", "model.fusion": "none", "train.steps": 2,
        "data.roles": ["tcc=known"], "data.static": ["z"],
    }  # fmt: skip
    run = pdr_cli.train(dataset(beyond=0), preset="demo", variables=["t2m"], settings=settings, out=tmp_path / "run")
    model = pdr_cli.load(run.path)
    assert np.isfinite(model.predict(dataset()).t2m).all()


def test_an_exported_graph_takes_covariates_and_describes_them(folder: Path, tmp_path: Path) -> None:
    made = pdr("export", "-m", folder / "run", "-o", tmp_path / "model.pt2")
    assert made.code == 0, made.err
    assert "verified" in made.out
    extra = {"pdr.json": ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    about = json.loads(json.loads(extra["pdr.json"])["pdr_covariates"])
    assert about["shape"] == "[batch, 8, 3, 8, 10]"
    by_name = {channel["name"]: channel for channel in about["channels"]}
    assert len(by_name) == 3, "the calendar, the sun and the map are computed in the program"
    assert by_name["tcc"]["role"] == "known"
    assert by_name["u10"]["sd"] == pytest.approx(1, abs=0.05)  # of standard normal numbers
    assert by_name["t2m, 4 steps before"]["sd"] > 1


@pytest.mark.slow
def test_onnx_takes_covariates(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    made = pdr("export", "-m", folder / "run", "-o", tmp_path / "model.onnx")
    assert made.code == 0, made.err
    forecasts = []
    for model in (folder / "run", tmp_path / "model.onnx"):
        result = pdr("predict", folder / "now.nc", "-m", model, "-o", tmp_path / "f.nc")
        assert result.code == 0, result.err
        with xr.open_dataset(tmp_path / "f.nc") as forecast:
            forecasts.append(forecast.load())
    own, exported = forecasts
    assert float(np.abs(own.t2m - exported.t2m).max()) < 4 * 2**-23 * float(np.abs(own.t2m).max())
    assert own.attrs["pdr_covariates_sha256"] == exported.attrs["pdr_covariates_sha256"]
