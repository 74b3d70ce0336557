"""Fans: the cell that is shown, and bands that are those of `pdr predict`."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pdr_cli.inference import model as inference
from pdr_cli.inference.intake import Intake
from pdr_cli.inference.members import DIRECT, Drawing
from pdr_cli.inference.model import Model
from pdr_cli.verification import fans
from pdr_cli.verification.cellwise import CellErrors
from pdr_cli.verification.fans import Cell, Fan
from tests.cli import pdr

CELL, INIT = Cell((2, 3), 1.5), 99
NOISE = ["--loss", "crps", "--backbone", "unet", "--set", "train.members=2", "--set", "model.noise=4"]


def loaded(run: Path) -> Model:
    return inference.load(run / "model.safetensors", "cpu")


def fan_of(data: Path, runs: list[Path], drawing: Drawing = DIRECT) -> Fan:
    models = [loaded(run) for run in runs]
    made = fans.of_window(models, drawing, Intake(models[0]).open([data])[0], INIT, 4, CELL)
    assert made is not None
    return made


def predicted(data: Path, *arguments: str | Path) -> xr.Dataset:
    """The forecast from the same init at the cell."""
    with xr.open_dataset(data) as given:
        init = str(given.time.values[INIT])
    result = pdr("predict", data, "-o", "f.nc", "--init", init, *arguments)
    assert result.code == 0, result.err
    with xr.open_dataset("f.nc") as made:
        return made.load().isel(lat=2, lon=3)


def test_bands_are_the_intervals_of_predict(longer_weather: Path, calibrated_run: Path) -> None:
    made = fan_of(longer_weather, [calibrated_run])
    expected = predicted(longer_weather, "-m", calibrated_run, "--interval", "0.8,0.95")
    assert list(made.bands) == [0.8, 0.95]
    for share, (low, high) in made.bands.items():
        assert np.array_equal(low, expected[f"t2m_lower_{100 * share:.0f}"].values)
        assert np.array_equal(high, expected[f"t2m_upper_{100 * share:.0f}"].values)
    assert np.array_equal(made.forecast, expected.t2m.values)
    with xr.open_dataset(longer_weather) as given:
        assert np.array_equal(made.observed, given.t2m.values[INIT - 3 : INIT + 1, 2, 3])
        assert np.array_equal(made.truth, given.t2m.values[INIT + 1 : INIT + 5, 2, 3])
    assert made.members == 0


def test_members_take_the_place_of_intervals(make_run: Callable[..., Path], weather: Path, weather_run: Path) -> None:
    noisy = make_run(weather, *NOISE, "--set", "train.baselines=false")
    drawn = fan_of(weather, [noisy], Drawing(5, seed=1))
    members = predicted(weather, "-m", noisy, "--members", "5", "--seed", "1").t2m.values
    assert (drawn.members, list(drawn.bands)) == (5, [4 / 6])
    np.testing.assert_allclose(drawn.bands[4 / 6], [members.min(axis=0), members.max(axis=0)], rtol=1e-6)
    np.testing.assert_allclose(drawn.forecast, members.mean(axis=0), rtol=1e-6)
    joined = fan_of(weather, [noisy, weather_run])
    both = predicted(weather, "-m", noisy, "-m", weather_run).t2m.values
    np.testing.assert_allclose(joined.bands[1 / 3], [both.min(axis=0), both.max(axis=0)], rtol=1e-6)


def test_without_errors_and_members_there_is_none(weather: Path, weather_run: Path) -> None:
    model = loaded(weather_run)
    (series,) = Intake(model).open([weather])
    assert model.calibration is None
    assert fans.of_window([model], DIRECT, series, INIT, 4, CELL) is None


@pytest.mark.parametrize(
    ("members", "bands"),
    [
        (39, {0.8: (4, 36), 0.95: (1, 39)}),  # 40 · 0.1, 40 · 0.9, 40 · 0.025 and 40 · 0.975
        (9, {0.8: (1, 9)}),
        (3, {0.5: (1, 3)}),
        (19, {0.8: (2, 18), 0.9: (1, 19)}),
    ],
)
def test_quantiles_of_members_have_the_ranks_of_a_further_one(
    members: int, bands: dict[float, tuple[int, int]]
) -> None:
    ladder = np.random.default_rng(0).permutation(np.arange(1.0, members + 1))[:, None]
    found = fans.quantiles(ladder)
    assert list(found) == pytest.approx(list(bands))
    for band, ranks in zip(found.values(), bands.values(), strict=True):
        np.testing.assert_allclose(band[:, 0], ranks)


def test_the_cell_is_the_one_with_the_median_rmse_of_the_first_channel() -> None:
    squares = np.array([[[9.0, 1.0], [4.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    count = np.array([[1.0, 1.0], [1.0, 0.0]]) * np.ones((2, 1, 1))  # nothing known at (1, 1)
    assert CellErrors("pdr", np.stack([squares, squares, count])).median == (1, 0)
    assert CellErrors("pdr", np.stack([squares, squares, np.zeros((2, 2, 2))])).median is None


def test_a_report_has_the_fans_of_a_calibrated_model(longer_weather: Path, calibrated_run: Path) -> None:
    result = pdr("evaluate", longer_weather, "-m", calibrated_run, "--report", "report.html", "-q")
    assert result.code == 0, result.err
    assert {p.name for p in Path("report").glob("fan-*")} == {"fan-best.png", "fan-median.png", "fan-worst.png"}
    words = r"24 h ahead truth \d+\.\d K, forecast \d+\.\d K, 80 % from \d+\.\d to \d+\.\d K, 95 % from"
    assert len(re.findall(words, Path("report.html").read_text())) == 3
