"""`pdr predict --members`: ensembles in files, from a model that draws, from several models, and from every init."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pdr_cli.data.formats import stored
from tests.cli import pdr

NOISE = ["--loss", "crps", "--backbone", "unet", "--set", "train.members=2", "--set", "model.noise=4"]


@pytest.fixture(scope="module")
def noisy_run(make_run: Callable[..., Path], weather: Path) -> Path:
    """A run that draws members."""
    return make_run(weather, *NOISE, "--set", "train.baselines=false")


@pytest.fixture(scope="module")
def recalibrated_run(calibrated_run: Path, longer_weather: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model than that of the calibrated run, with the same forecasts."""
    made = tmp_path_factory.mktemp("recalibrated") / "other"
    shutil.copytree(calibrated_run, made)
    assert pdr("calibrate", made, longer_weather, "--split", "val", "--steps", "5").code == 0
    return made


def predict(out: str, data: Path, *arguments: str | Path) -> np.ndarray:
    """The frames of a forecast that pdr writes."""
    result = pdr("predict", data, "-o", out, *arguments)
    assert result.code == 0, result.err
    return frames(out)


def frames(path: str) -> np.ndarray:
    """The frames of a forecast file."""
    if path.endswith(".npz"):
        with np.load(path) as arrays:
            return arrays["data"][..., 0, :, :]
    with xr.open_zarr(path, chunks=None) if path.endswith(".zarr") else xr.open_dataset(path) as data:
        return data.t2m.values


def test_members_are_drawn_by_seed_and_number_into_any_file(weather: Path, noisy_run: Path) -> None:
    five = ["-m", noisy_run, "--members", "5", "--seed", "1"]
    made = predict("f.nc", weather, *five)
    assert made.shape == (5, 4, 13, 15)
    assert len({member.tobytes() for member in made}) == 5
    for name in ("again.nc", "f.zarr", "f.npz"):
        assert np.array_equal(predict(name, weather, *five), made), name
        assert stored.sha256_of(Path(name)) == stored.provenance(Path(name))["pdr_data_sha256"]
        result = pdr("verify", name)
        assert (result.code, "5 members of each forecast, all different" in result.out) == (0, True), result.err
    three = predict("three.nc", weather, "-m", noisy_run, "--members", "3", "--seed", "1")
    np.testing.assert_allclose(three, made[:3], rtol=1e-6)
    other = predict("other.nc", weather, "-m", noisy_run, "--members", "5", "--seed", "2")
    assert not np.isclose(other, made).all(axis=(1, 2, 3)).any()


def test_the_mean_of_the_members_is_one_forecast(weather: Path, noisy_run: Path) -> None:
    made = predict("f.nc", weather, "-m", noisy_run, "--members", "5")
    mean = predict("mean.nc", weather, "-m", noisy_run, "--members", "mean:5")
    np.testing.assert_allclose(mean, made.mean(axis=0), rtol=1e-6)


def test_several_models_are_members_of_one_ensemble(weather: Path, weather_run: Path, noisy_run: Path) -> None:
    alone = [predict("a.nc", weather, "-m", weather_run), *predict("b.nc", weather, "-m", noisy_run, "--members", "2")]
    both = predict("both.nc", weather, "-m", weather_run, "-m", noisy_run, "--members", "2")
    np.testing.assert_allclose(both, np.stack(alone), rtol=1e-6)
    with xr.open_dataset("both.nc") as made:
        assert len(made.attrs["pdr_ensemble_sha256"].split()) == 2
    assert predict("mean.nc", weather, "-m", weather_run, "-m", noisy_run, "--members", "mean").shape == (4, 13, 15)


@pytest.mark.parametrize("out", ["h.nc", "h.zarr"])
def test_ensembles_from_every_init_are_those_from_each(
    weather: Path, noisy_run: Path, tmp_path: Path, out: str
) -> None:
    with xr.open_dataset(weather) as data:
        data.isel(time=slice(12)).to_netcdf(tmp_path / "short.nc")
    three = ["-m", noisy_run, "--members", "3", "--seed", "1"]
    made = predict(out, Path("short.nc"), "--every-init", *three)
    assert made.shape == (9, 3, 4, 13, 15)
    np.testing.assert_allclose(
        predict(f"batch-{out}", Path("short.nc"), "--every-init", *three, "--batch", "2"), made, rtol=1e-6
    )
    for number, init in ((0, "2020-01-01T18:00"), (8, "2020-01-03T18:00")):
        one = predict("one.nc", Path("short.nc"), *three, "--init", init)
        np.testing.assert_allclose(one, made[number], rtol=1e-6)
    result = pdr("verify", out)
    assert (result.code, "3 members of each forecast" in result.out) == (0, True), result.err


def test_what_holds_or_draws_no_members_is_refused(
    weather: Path, weather_run: Path, noisy_run: Path, clip: Path
) -> None:
    for data, run, out, way_out in (
        (weather, weather_run, "f.nc", "--preset weather-ensemble-crps"),
        (weather, noisy_run, "f.mp4", "--members mean"),
        (weather, noisy_run, "f.h5", ".nc"),
    ):
        result = pdr("predict", data, "-o", out, "-m", run, "--members", "3")
        assert (result.code, way_out in result.last, Path(out).exists()) == (2, True, False), result.err
    result = pdr("predict", weather, "-o", "f.gif", "-m", weather_run, "-m", noisy_run)
    assert (result.code, "--members mean" in result.last) == (2, True), result.err


def test_a_model_that_is_named_twice_is_refused(weather: Path, weather_run: Path) -> None:
    shutil.copytree(weather_run, "other")
    for name, words in (weather_run, "named twice"), ("other", "are one model"):
        for options in [], ["--every-init"]:
            result = pdr("predict", weather, "-o", "f.nc", "-m", weather_run, "-m", name, *options)
            assert (result.code, words in result.last, Path("f.nc").exists()) == (2, True, False), result.err
        result = pdr("evaluate", weather, "-m", f"{weather_run}+{name}")
        assert (result.code, words in result.last) == (2, True), result.err


def test_a_number_of_members_of_models_that_draw_none_is_refused(
    longer_weather: Path, calibrated_run: Path, recalibrated_run: Path
) -> None:
    both = ["predict", longer_weather, "-m", calibrated_run, "-m", recalibrated_run, "-o"]
    for options in [], ["--every-init"]:
        result = pdr(*both, "f.nc", "--members", "3", *options)
        assert (result.code, "draw no members" in result.last) == (2, True), result.err
        assert not Path("f.nc").exists()
    assert pdr(*both, "mean.nc", "--members", "mean").code == 0


@pytest.mark.parametrize("members", ["mean5", "mean:", ":5", "0", "mean:0", "", "five"])
def test_an_unknown_number_of_members_is_refused(weather: Path, noisy_run: Path, members: str) -> None:
    result = pdr("predict", weather, "-o", "f.nc", "-m", noisy_run, "--members", members)
    assert (result.code, "mean:NUMBER" in result.err, Path("f.nc").exists()) == (2, True, False), result.err


def test_the_identity_of_a_request_holds_its_members(weather: Path, noisy_run: Path) -> None:
    made = ["predict", weather, "-o", "f.nc", "-m", noisy_run, "--skip-existing", "--members", "2"]
    assert pdr(*made).code == 0
    assert "up to date" in pdr(*made).out
    assert "up to date" not in pdr(*made, "--seed", "1").out
    assert "up to date" not in pdr(*made[:-2]).out


def test_members_that_are_alike_or_altered_are_found(
    longer_weather: Path, calibrated_run: Path, recalibrated_run: Path, weather: Path, noisy_run: Path
) -> None:
    predict("twice.nc", longer_weather, "-m", calibrated_run, "-m", recalibrated_run)
    result = pdr("verify", "twice.nc")
    assert (result.code, "1 member equal another member" in result.last) == (65, True), result.err
    predict("f.zarr", weather, "-m", noisy_run, "--members", "3")
    with xr.open_zarr("f.zarr", chunks=None) as made:
        made.load()
    made.t2m[1, 0, 0, 0] = np.inf
    made.to_zarr("g.zarr", mode="w")
    result = pdr("verify", "g.zarr")
    assert (result.code, "SHA-256" in result.out, "infinite" in result.out) == (65, True, True), result.out


def test_members_in_parts_are_those_in_one_batch(weather: Path, weather_run: Path, noisy_run: Path) -> None:
    five = ["-m", noisy_run, "--members", "5", "--seed", "1"]
    whole, parts = predict("f.nc", weather, *five), predict("g.nc", weather, *five, "--batch", "2")
    np.testing.assert_allclose(parts, whole, rtol=1e-6)
    result = pdr("predict", weather, "-m", weather_run, "-o", "h.nc", "--batch", "2")
    assert (result.code, "--every-init, or members" in result.last) == (2, True), result.err
