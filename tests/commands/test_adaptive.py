"""`pdr predict --every-init --interval --adaptive`: intervals that follow how those of earlier inits have held."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import xarray as xr

import pdr_cli
from pdr_cli.data.formats import cf, stored
from pdr_cli.errors import UsageError
from pdr_cli.inference.hindcast import Hindcast
from pdr_cli.inference.intervals import Intervals
from pdr_cli.runs import modelfile
from pdr_cli.runs.calibration import Calibration
from tests.builders import field, weather_file
from tests.cli import pdr
from tests.data.formats.test_cf import findings

STEPS, SIZE, GAP = 120, (7, 9), 50
ADAPTIVE = ("--every-init", "--interval", "0.8,0.95", "--adaptive")


@pytest.fixture(scope="module")
def louder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 steps of the field that the model knows, noisier in the second half; one step is missing."""
    noise = (
        np.random.default_rng(1).standard_normal((STEPS, *SIZE)) * np.where(np.arange(STEPS) < 60, 0, 3)[:, None, None]
    )
    values = (field(STEPS, *SIZE) + noise).astype(np.float32)
    return weather_file(tmp_path_factory.mktemp("data") / "air.nc", STEPS, values=values, drop=[GAP])


@pytest.fixture(scope="module")
def spring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 steps from 22 February on, noisier than what the model was calibrated on."""
    noise = np.random.default_rng(2).standard_normal((60, *SIZE))
    values = (field(60, *SIZE) + noise).astype(np.float32)
    return weather_file(tmp_path_factory.mktemp("data") / "spring.nc", 60, start="2021-02-22", values=values)


def hindcast(name: str, data: Path | str, run: Path, *arguments: str) -> xr.Dataset:
    """The hindcast that pdr writes."""
    result = pdr("predict", data, "-o", name, "-m", run, *arguments)
    assert result.code == 0, result.err
    with xr.open_dataset(name) if name.endswith(".nc") else xr.open_zarr(name, chunks=None) as made:
        return made.load()


def truth_of(data: Path, made: xr.Dataset) -> np.ndarray:
    """The truth of each forecast, NaN where the file has none: [n, τ, H, W]."""
    valid = made.forecast_reference_time.values[:, None] + made.forecast_period.values.astype("timedelta64[h]")
    with xr.open_dataset(data) as given:
        return given.t2m.reindex(time=valid.ravel()).values.reshape(*valid.shape, *SIZE)


def calibration_of(run: Path) -> Calibration:
    found = modelfile.read_header(run / "model.safetensors").calibration
    assert found is not None
    return found


def test_each_end_is_of_the_share_that_truths_known_at_its_init_ask_for(louder: Path, calibrated_run: Path) -> None:
    made = hindcast("h.nc", louder, calibrated_run, *ADAPTIVE)
    truth, calibration = truth_of(louder, made), calibration_of(calibrated_run)
    hours = (made.forecast_reference_time.values - made.forecast_reference_time.values[0]) / np.timedelta64(1, "h")
    for lead in (0, 3):
        low, high = made.t2m_lower_80.values[:, lead], made.t2m_upper_80.values[:, lead]
        known = np.isfinite(truth[:, lead]).all(axis=(1, 2))
        inside = ((truth[:, lead] >= low) & (truth[:, lead] <= high)).mean(axis=(1, 2))
        share, told = 0.8, 0
        for init, hour in enumerate(hours):
            while hours[told] + 6 * (lead + 1) <= hour:  # the truth of init `told` is known
                share = min(share + (0.05 * (0.8 - inside[told]) if known[told] else 0), calibration.largest)
                told += 1
            lower, upper = calibration.ends(share, 4, SIZE)[:, lead, 0]
            np.testing.assert_allclose(low[init], made.t2m.values[init, lead] + lower, atol=1e-4)
            np.testing.assert_allclose(high[init], made.t2m.values[init, lead] + upper, atol=1e-4)
        assert share > 0.85, "errors have grown"
        assert not known.all(), "a truth is missing"


def test_the_forecast_is_the_same_and_the_file_says_how_its_intervals_were_made(
    louder: Path, calibrated_run: Path
) -> None:
    fixed = hindcast("f.nc", louder, calibrated_run, "--every-init", "--interval", "0.8,0.95")
    made = hindcast("h.nc", louder, calibrated_run, *ADAPTIVE)
    assert np.array_equal(made.t2m.values, fixed.t2m.values)
    assert np.array_equal(made.t2m_lower_80.values[0], fixed.t2m_lower_80.values[0])
    assert (made.t2m_lower_80.values[-1] < fixed.t2m_lower_80.values[-1]).all()
    assert json.loads(made.attrs["pdr_intervals"])["adaptive"] == {"rate": 0.05}
    assert "adaptive" not in json.loads(fixed.attrs["pdr_intervals"])
    assert "adaptive conformal inference" in made.t2m_upper_95.attrs["comment"]
    assert "adaptive" not in fixed.t2m_upper_95.attrs["comment"]
    assert pdr("verify", "h.nc").code == 0
    assert findings(Path("h.nc")) == ""


def test_truths_are_compared_in_the_units_of_the_input(louder: Path, calibrated_run: Path) -> None:
    with xr.open_dataset(louder) as given:
        data = given.load()
    data["t2m"] = (data.t2m - 273.15).assign_attrs(data.t2m.attrs, units="degC")
    data.to_netcdf("celsius.nc")
    kelvin = hindcast("k.nc", louder, calibrated_run, *ADAPTIVE)
    celsius = hindcast("c.nc", "celsius.nc", calibrated_run, *ADAPTIVE)
    # A truth at an end may be on its other side after rounding, of which one in 63 cells moves a share by 0.05 / 63.
    np.testing.assert_allclose(celsius.t2m_upper_80.values, kelvin.t2m_upper_80.values - 273.15, atol=0.02)


@pytest.mark.parametrize("name", ["h.nc", "h.zarr"])
def test_a_hindcast_that_was_cut_off_continues_to_the_same_bytes(
    louder: Path, calibrated_run: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(cf, "CHUNK_BYTES", 20 * 4 * 4 * 7 * 9)  # blocks of 20 forecasts
    hindcast("whole.nc", louder, calibrated_run, *ADAPTIVE)
    whole = stored.sha256_of(Path("whole.nc"))
    right, began = Hindcast.frames, []

    def frames(self: Hindcast, low: int, high: int) -> np.ndarray:
        began.append(low)
        if low == 60 and len(began) == 4:
            raise KeyboardInterrupt
        return right(self, low, high)

    monkeypatch.setattr(Hindcast, "frames", frames)
    assert pdr("predict", louder, "-o", name, "-m", calibrated_run, *ADAPTIVE).code == 130
    result = pdr("predict", louder, "-o", name, "-m", calibrated_run, *ADAPTIVE)
    assert (result.code, "continues: 60 of" in result.err) == (0, True), result.err
    assert began == [0, 20, 40, 60, 60, 80, 100]
    assert stored.sha256_of(Path(name)) == whole


def test_the_identity_of_a_request_holds_that_its_intervals_adapt(louder: Path, calibrated_run: Path) -> None:
    made = ["predict", louder, "-o", "h.nc", "-m", calibrated_run, "--skip-existing", *ADAPTIVE]
    assert pdr(*made).code == 0
    assert "up to date" in pdr(*made).out
    assert "up to date" not in pdr(*made[:-1]).out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--interval", "0.8", "--adaptive"], "add --every-init"),
        (["--every-init", "--adaptive"], "--interval 0.8,0.95"),
    ],
)
def test_what_cannot_adapt_is_refused(louder: Path, calibrated_run: Path, arguments: list[str], says: str) -> None:
    result = pdr("predict", louder, "-o", "h.zarr", "-m", calibrated_run, *arguments)
    assert (result.code, says in result.last, Path("h.zarr").exists()) == (2, True, False), result.err


def test_several_processes_are_refused(louder: Path, calibrated_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = pdr("predict", louder, "-o", "h.zarr", "-m", calibrated_run, *ADAPTIVE)
    assert (result.code, "depend on those of all earlier inits" in result.last) == (2, True), result.err


def test_a_model_that_does_not_read_its_truth_is_refused(calibrated_run: Path) -> None:
    card = SimpleNamespace(config=SimpleNamespace(data=SimpleNamespace(targets=["ozone"])))
    model = cast("Any", SimpleNamespace(calibration=calibration_of(calibrated_run), card=card, label="run"))
    Intervals((0.8,)).check(model, 4)
    with pytest.raises(UsageError, match="does not read that of ozone"):
        Intervals((0.8,), adaptive=True).check(model, 4)


def test_from_python_it_is_that_of_the_command(louder: Path, calibrated_run: Path) -> None:
    expected = hindcast("h.nc", louder, calibrated_run, *ADAPTIVE)
    made = pdr_cli.predict(louder, calibrated_run, every_init=True, interval=(0.8, 0.95), adaptive=True)
    assert np.array_equal(made.t2m_lower_95.values, expected.t2m_lower_95.values)
    for wrong in ({"interval": (0.8,)}, {"every_init": True}):
        with pytest.raises(UsageError):
            pdr_cli.predict(louder, calibrated_run, adaptive=True, **wrong)


def test_evaluate_counts_in_each_season_and_of_adaptive_intervals_what_predict_makes(
    spring: Path, calibrated_run: Path
) -> None:
    result = pdr(
        "evaluate", spring, "-m", calibrated_run, "--metrics", "rmse,intervals", "--split", "all", "-o", "s.json"
    )
    assert (result.code, "80 %: adaptive" in result.out, "80 %: MAM" in result.out) == (0, True, True), result.err
    found = json.loads(Path("s.json").read_text())
    (of_80, _), windows = found["intervals"]["run"], slice(found["n_windows"])
    for arguments, section in (
        (ADAPTIVE, {"": of_80["adaptive"]["coverage"]}),
        (ADAPTIVE[:-1], of_80["seasons"] | {"": of_80["coverage"]}),
    ):
        made = hindcast("h.nc", spring, calibrated_run, *arguments).isel(forecast_reference_time=windows)
        truth, month = truth_of(spring, made), made.forecast_reference_time.dt.month.values
        inside = (truth >= made.t2m_lower_80.values) & (truth <= made.t2m_upper_80.values)
        rows = {"": month > 0, "DJF": month < 3, "MAM": month >= 3}
        assert set(section) <= set(rows)
        for label, held in section.items():
            np.testing.assert_allclose(held["lead"], inside[rows[label]].mean(axis=(0, 2, 3)), atol=1e-6)
        assert len(section) in (1, 3)
