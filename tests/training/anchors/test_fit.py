"""Moments of the departures of training windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pdr_cli import config
from pdr_cli.runs import inputs
from pdr_cli.training import run
from pdr_cli.training.anchors import fit
from pdr_cli.training.anchors.fit import Windows
from pdr_cli.training.batches import TrainingData
from pdr_cli.training.prepare import measure
from tests.builders import weather_file


@pytest.fixture
def windows(tmp_path: Path) -> Windows:
    """Of a field whose departures alternate between plus and minus one, ten in the first column."""
    steps = np.arange(240)
    day = np.array([0.0, 5.0, 9.0, 4.0])[steps % 4]
    sign = np.where(steps // 4 % 2, 1.0, -1.0)
    values = (
        280 + day[:, None, None] + sign[:, None, None] * np.where(np.arange(9) == 0, 10.0, 1.0) * np.ones((1, 8, 9))
    )
    path = weather_file(tmp_path / "air.nc", 240, values=values.astype(np.float32), size=(8, 9))
    chosen = config.load("demo", [f"data.paths={path}", "model.anchor=anomaly", "data.kind=weather"])
    prepared = run.open_data(chosen)
    measured = measure(prepared, chosen)
    contexts = inputs.contexts_of(chosen, measured.climatology, ())
    data = TrainingData(prepared.train, prepared.val, measured.encoding, None, contexts)
    return Windows(data, run.frames_of(chosen, prepared))


def test_the_spread_is_that_of_each_cell_in_network_units(windows: Windows) -> None:
    (scale,) = windows.data.encoding.scaling.scale
    assert windows.spread[0, :, 0].numpy() * scale == pytest.approx(np.full(8, 10.0), rel=0.02)
    assert windows.spread[0, :, 1:].numpy() * scale == pytest.approx(np.ones((8, 8)), rel=0.02)


def test_the_spread_does_not_depend_on_the_size_of_batches(windows: Windows, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = windows.spread.clone()
    monkeypatch.setattr("pdr_cli.training.anchors.ridge.BATCH_BYTES", 1.0)
    again = Windows(windows.data, windows.frames)
    assert np.allclose(again.spread, whole, rtol=1e-5)


def test_a_departure_that_turns_each_day_is_damped_and_not_reversed(windows: Windows) -> None:
    share = fit.damping(windows)[:, 0].tolist()
    # Of the four leads 3, 2, 1 and 0 of four windows still have the sign of the last observed frame: 1/2, 0, -1/2 and -1.
    assert share == pytest.approx([0.5, 0, 0, 0], abs=0.05)
