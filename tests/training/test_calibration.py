"""At the end of training a model file holds the quantiles of its errors on the validation windows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pdr_cli.inference import header
from pdr_cli.inference.intake import Intake
from pdr_cli.runs import modelfile
from pdr_cli.runs.folder import RunFolder
from tests.cli import pdr
from tests.conftest import CALIBRATED


def test_the_calibration_is_of_the_errors_of_the_saved_model(longer_weather: Path, calibrated_run: Path) -> None:
    path = RunFolder(calibrated_run).model
    found = modelfile.read_header(path).calibration
    assert found is not None
    # 40 windows give 200 errors to blocks of 3 x 3 cells.
    assert (found.count, found.blocks, found.steps) == (40, 3, 4)
    assert found.offsets.shape[1:] == (4, 1, 3, 3)
    assert found.about["split"] == "val"
    assert found.about["data"] == ["air.nc"]
    series = Intake(header.read_header(path)).open([longer_weather])[0]
    # The middle of persistence's errors lies between the extremes of the change in so many steps.
    change = np.array([np.abs(series.values[lead:] - series.values[:-lead]).max() for lead in (1, 2, 3, 4)])
    assert (np.abs(found.offsets).max(axis=(0, 2, 3, 4)) <= change + 1e-3).all()
    assert (np.diff(found.offsets, axis=0) >= 0).all()


def test_a_resumed_run_has_the_same_calibration(calibrated_run: Path) -> None:
    path = RunFolder(calibrated_run).model
    before = path.read_bytes()
    assert pdr("train", "--resume", "-o", calibrated_run, "-q").code == 0
    assert path.read_bytes() == before


def test_few_windows_leave_a_model_without_calibration(weather_run: Path) -> None:
    assert modelfile.read(RunFolder(weather_run).model).calibration is None  # 8 validation windows


@pytest.mark.parametrize("settings", [["--set", "fallback=true", "--set", "train.lr=1", "--loss", "l1ssim"]])
def test_the_anchor_that_takes_the_networks_place_is_calibrated(
    make_run: Callable[..., Path], longer_weather: Path, calibrated_run: Path, settings: list[str]
) -> None:
    run = make_run(longer_weather, *CALIBRATED, *settings)
    file = modelfile.read(RunFolder(run).model)
    assert file.card.training["saved"] == "anchor alone"
    assert file.calibration is not None
    # Its forecast is that of the anchor alone, persistence.
    alone = modelfile.read(RunFolder(calibrated_run).model).calibration
    assert alone is not None
    np.testing.assert_allclose(file.calibration.offsets, alone.offsets, atol=1e-3)
