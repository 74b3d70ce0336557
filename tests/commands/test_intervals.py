"""`pdr predict --interval` and `pdr calibrate`: intervals around a forecast, from the errors of its model."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pdr_cli.data.formats import stored
from pdr_cli.runs import modelfile
from tests.cli import pdr
from tests.conftest import CALIBRATED
from tests.data.formats.test_cf import findings

LAND = (slice(0, 2), slice(0, 3))


def opened(path: str) -> xr.Dataset:
    """A forecast file, in memory."""
    with xr.open_zarr(path, chunks=None) if path.endswith(".zarr") else xr.open_dataset(path) as data:
        return data.load()


def predict(out: str, data: Path | str, run: Path, *arguments: str) -> xr.Dataset:
    """The forecast that pdr writes."""
    result = pdr("predict", data, "-o", out, "-m", run, *arguments)
    assert result.code == 0, result.err
    return opened(out)


def changed(data: Path, change: Callable[[xr.Dataset], xr.Dataset], name: str = "changed.nc") -> str:
    """A copy of a file."""
    with xr.open_dataset(data) as given:
        change(given.load()).to_netcdf(name)
    return name


@pytest.fixture
def copied(calibrated_run: Path, tmp_path: Path) -> Path:
    """A model file that a test may change."""
    copy = tmp_path / "model.safetensors"
    copy.write_bytes((calibrated_run / "model.safetensors").read_bytes())
    return copy


def test_an_interval_is_the_forecast_and_quantiles_of_the_models_errors(
    longer_weather: Path, calibrated_run: Path
) -> None:
    plain = predict("p.nc", longer_weather, calibrated_run)
    made = predict("f.nc", longer_weather, calibrated_run, "--interval", "0.8,0.95")
    assert np.array_equal(made.t2m.values, plain.t2m.values)
    calibration = modelfile.read_header(calibrated_run / "model.safetensors").calibration
    assert calibration is not None
    for share, label in ((0.8, "80"), (0.95, "95")):
        lower, upper = calibration.ends(share, 4, (7, 9))[:, :, 0]
        np.testing.assert_allclose(made[f"t2m_lower_{label}"].values, made.t2m.values + lower, atol=1e-4)
        np.testing.assert_allclose(made[f"t2m_upper_{label}"].values, made.t2m.values + upper, atol=1e-4)
    assert (made.t2m_lower_95 <= made.t2m_lower_80).all()
    assert (made.t2m_lower_80 <= made.t2m_upper_80).all()
    assert "in 40 windows" in made.t2m_upper_80.attrs["comment"]
    about = json.loads(made.attrs["pdr_intervals"])
    assert (about["shares"], about["windows"], about["data"]) == ([0.8, 0.95], 40, ["air.nc"])
    assert findings(Path("f.nc")) == ""


def test_all_files_hold_the_same_ends_under_one_hash(longer_weather: Path, calibrated_run: Path) -> None:
    made = predict("f.nc", longer_weather, calibrated_run, "--interval", "0.8")
    predict("f.zarr", longer_weather, calibrated_run, "--interval", "0.8")
    assert pdr("predict", longer_weather, "-o", "f.npz", "-m", calibrated_run, "--interval", "0.8").code == 0
    with np.load("f.npz") as arrays:
        assert np.array_equal(arrays["data"][:, 0], made.t2m.values)
        assert np.array_equal(arrays["lower_80"][:, 0], made.t2m_lower_80.values)
        assert np.array_equal(arrays["upper_80"][:, 0], made.t2m_upper_80.values)
    hashes = {stored.provenance(Path(name))["pdr_data_sha256"] for name in ("f.nc", "f.zarr", "f.npz")}
    assert hashes == {stored.sha256_of(Path("f.nc"))}
    for name in ("f.nc", "f.zarr", "f.npz"):
        assert pdr("verify", name).code == 0


def test_an_offset_is_a_difference_in_the_units_and_orientation_of_the_input(
    longer_weather: Path, calibrated_run: Path
) -> None:
    def in_celsius(data: xr.Dataset) -> xr.Dataset:
        data["t2m"] = (data.t2m - 273.15).assign_attrs(data.t2m.attrs, units="degC")
        return data.isel(lat=slice(None, None, -1))

    kelvin = predict("k.nc", longer_weather, calibrated_run, "--interval", "0.8")
    celsius = predict("c.nc", changed(longer_weather, in_celsius), calibrated_run, "--interval", "0.8")
    for name in ("t2m", "t2m_lower_80", "t2m_upper_80"):
        assert celsius[name].attrs["units"] == "degC"
        expected = kelvin[name].values[:, ::-1] - 273.15
        np.testing.assert_allclose(celsius[name].values, expected, atol=1e-3)


def test_ends_keep_the_bounds_of_the_variable_and_the_missing_cells(
    make_run: Callable[..., Path], longer_weather: Path
) -> None:
    def rain(data: xr.Dataset) -> xr.Dataset:
        data["tp"] = (data.t2m - data.t2m.mean()).clip(0).assign_attrs(units="mm", long_name="rain")
        data.tp[:, LAND[0], LAND[1]] = np.nan
        return data.drop_vars("t2m")

    path = changed(longer_weather, rain)
    run = make_run(Path(path).resolve(), *CALIBRATED, "--backbone", "none", "--set", "inputs=frames")
    made = predict("f.nc", path, run, "--interval", "0.8,0.95")
    for name in ("tp_lower_95", "tp_lower_80", "tp_upper_80", "tp_upper_95"):
        assert made[name].attrs["valid_min"] == 0
        assert (made[name].values[np.isfinite(made[name].values)] >= 0).all()
        assert np.array_equal(np.isnan(made[name].values), np.isnan(made.tp.values))
        assert np.isnan(made[name].values[:, LAND[0], LAND[1]]).all()
    assert (made.tp_lower_95 == 0).any()
    assert pdr("verify", "f.nc").code == 0


@pytest.mark.parametrize("out", ["h.nc", "h.zarr"])
def test_every_init_has_the_intervals_of_its_own_forecast(longer_weather: Path, calibrated_run: Path, out: str) -> None:
    short = changed(longer_weather, lambda data: data.isel(time=slice(10)))
    made = predict(out, short, calibrated_run, "--every-init", "--interval", "0.8")
    assert made.t2m_lower_80.dims == ("forecast_reference_time", "forecast_period", "lat", "lon")
    one = predict("one.nc", short, calibrated_run, "--interval", "0.8")
    for name in ("t2m", "t2m_lower_80", "t2m_upper_80"):
        np.testing.assert_allclose(made[name].values[-1], one[name].values, rtol=1e-6)
    result = pdr("verify", out)
    assert result.code == 0, result.out
    assert pdr("evaluate", longer_weather, "-m", out, "-q").code == 0


def test_the_identity_of_a_request_holds_its_intervals(longer_weather: Path, calibrated_run: Path) -> None:
    made = ["predict", longer_weather, "-o", "f.nc", "-m", calibrated_run, "--skip-existing"]
    assert pdr(*made, "--interval", "0.8").code == 0
    assert "up to date" in pdr(*made, "--interval", "0.80").out
    assert "up to date" not in pdr(*made, "--interval", "0.8,0.9").out
    assert "up to date" not in pdr(*made).out


def test_what_gives_no_interval_is_refused(
    longer_weather: Path, weather: Path, weather_run: Path, calibrated_run: Path
) -> None:
    for data, run, out, arguments, code, way_out in (
        (weather, weather_run, "f.nc", ["--interval", "0.8"], 65, f"pdr calibrate {weather_run}"),
        (longer_weather, calibrated_run, "f.nc", ["--interval", "0.99"], 2, "needs 199 windows"),
        (longer_weather, calibrated_run, "f.nc", ["--interval", "0.8", "--steps", "6"], 2, "DATA --steps 6"),
        (longer_weather, calibrated_run, "f.h5", ["--interval", "0.8"], 2, ".nc"),
        (longer_weather, calibrated_run, "f.mp4", ["--interval", "0.8"], 2, ".nc"),
        (longer_weather, calibrated_run, "f.nc", ["--interval", "80"], 2, "0.8,0.95"),
        (longer_weather, calibrated_run, "f.nc", ["--interval", ""], 2, "0.8,0.95"),
        (longer_weather, calibrated_run, "f.nc", ["--interval", "0.8", "--members", "3"], 2, "leave out one"),
        (longer_weather, calibrated_run, "f.nc", ["--interval", "0.8", "-m", str(weather_run)], 2, "name one model"),
    ):
        result = pdr("predict", data, "-o", out, "-m", run, *arguments)
        assert (result.code, way_out in result.last, Path(out).exists()) == (code, True, False), result.err


def test_damaged_ends_are_found(longer_weather: Path, calibrated_run: Path) -> None:
    predict("f.nc", longer_weather, calibrated_run, "--interval", "0.8")
    made = opened("f.nc")
    made.t2m_lower_80[0, 0, 0] = made.t2m_upper_80[0, 0, 0] + 1
    made.to_netcdf("crossed.nc")
    result = pdr("verify", "crossed.nc")
    assert (result.code, "SHA-256" in result.out, "above the upper end" in result.out) == (65, True, True), result.out
    made.drop_vars("t2m_upper_80").to_netcdf("lacking.nc")
    assert "lacks an end" in pdr("verify", "lacking.nc").out


def test_calibrate_renews_the_errors_from_data_that_training_has_not_seen(longer_weather: Path, copied: Path) -> None:
    before = modelfile.read(copied)
    result = pdr("calibrate", copied, longer_weather, "--split", "all")
    assert result.code == 0, result.err
    after = modelfile.read(copied)
    assert before.calibration is not None
    assert after.calibration is not None
    assert after.calibration.count == 553  # windows of 4 + 4 among 560 steps
    assert after.calibration.blocks == 1
    assert after.calibration.about == {
        "split": "all", "data": ["air.nc"], "period": ["2020-01-01 00:00", "2020-05-19 18:00"]
    }  # fmt: skip
    assert "553 windows, 2020-01-01 00:00 to 2020-05-19 18:00, 4 steps, each cell" in result.out
    assert all(before.weights[name].equal(tensor) for name, tensor in after.weights.items())
    assert pdr("calibrate", copied, longer_weather, "--split", "val").code == 0
    renewed = modelfile.read(copied).calibration
    assert renewed is not None
    # The training took 40 of the 41 windows.
    assert (renewed.count, renewed.about["split"]) == (41, "val")
    np.testing.assert_allclose(renewed.offsets[10], before.calibration.offsets[10], atol=0.3)


def test_calibrate_gives_longer_lead_times(longer_weather: Path, copied: Path) -> None:
    assert pdr("calibrate", copied, longer_weather, "--split", "all", "--steps", "8").code == 0
    made = predict("f.nc", longer_weather, copied, "--interval", "0.8", "--steps", "8")
    width = (made.t2m_upper_80 - made.t2m_lower_80).mean(("lat", "lon")).values
    assert width.shape == (8,)
    assert len(set(width.round(4))) > 4, "each lead time has its own errors"


def test_calibrate_keeps_the_runs_model_as_its_previous_one(
    make_run: Callable[..., Path], longer_weather: Path, weather_run: Path, weather: Path
) -> None:
    run = make_run(longer_weather, *CALIBRATED, "--backbone", "none", "--set", "inputs=frames")
    before = (run / "model.safetensors").read_bytes()
    assert pdr("calibrate", run, longer_weather, "--split", "all").code == 0
    assert (run / "state" / "model-1.safetensors").read_bytes() == before
    assert (run / "model.safetensors").read_bytes() != before
    assert pdr("verify", run).code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "way_out"),
    [
        ([], 2, "--split val"),
        (["--split", "train"], 2, "test, val or all"),
        (["--split", "all", "--steps", "2"], 2, "more"),
    ],
)
def test_calibrate_refuses_what_gives_no_intervals(
    longer_weather: Path, copied: Path, arguments: list[str], code: int, way_out: str
) -> None:
    before = copied.read_bytes()
    # Some 10 of the 495 steps are test data.
    data = changed(longer_weather, lambda data: data.isel(time=slice(0, 495)))
    result = pdr("calibrate", copied, data, *arguments)
    assert (result.code, way_out in result.last) == (code, True), result.err
    assert copied.read_bytes() == before
