from pathlib import Path

import numpy as np
import pytest

from pdr_cli.export import gaussians
from pdr_cli.inference import model as inference
from pdr_cli.inference.forecast import forecast
from pdr_cli.inference.intake import Intake
from pdr_cli.verification import cases


@pytest.mark.parametrize("steps", [0, 6])
def test_a_case_is_the_models_own_forecast(weather: Path, weather_run: Path, steps: int) -> None:
    """The window of 4 frames that starts at 10 ends at 13; its forecast is `forecast` from there, bit for bit."""
    model = inference.load(weather_run / "model.safetensors", "cpu")
    intake = Intake(model)
    (series,) = intake.open([weather])
    made = cases.case_of(model, series, 10, "best", 1.5, steps=steps)
    expected = forecast(model, intake, series, 13, steps or None).frames
    assert np.array_equal(made.forecast.values, expected.values)
    assert np.array_equal(made.forecast.time.values, made.truth.time.values)
    assert np.array_equal(made.observed.time.values, series.time.values[10:14])
    assert np.array_equal(made.truth.values, series.values[14 : 14 + (steps or 4)])
    assert made.coarse is not None
    assert made.painted is not None
    assert made.gaussians is not None
    assert made.coarse.shape == made.painted.shape == expected.shape
    assert (made.label, made.score, made.model) == ("best", 1.5, weather_run.name)
    assert made.gaussians["x"].shape == (9,)


def test_gaussians_are_those_of_the_last_forecast_frame(weather: Path, weather_run: Path) -> None:
    model = inference.load(weather_run / "model.safetensors", "cpu")
    intake = Intake(model)
    (series,) = intake.open([weather])
    drawn = gaussians.of_forecast(model, series, intake.observe(series, 13), 6)
    assert np.array_equal(drawn.time.values, series.time.values[14:20])
    made = cases.case_of(model, series, 10, "best", 1.5, steps=6)
    assert made.gaussians is not None
    assert np.array_equal(made.gaussians["amplitude"], drawn.amplitude.values[-1])
