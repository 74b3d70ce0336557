"""The synthetic echoes of rain that docs/moving.md measures on."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.cli import pdr

SCRIPT = Path(__file__).parents[1] / "docs" / "echoes.py"


def written(path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> xr.Dataset:
    monkeypatch.setattr("sys.argv", [str(SCRIPT), str(path), "--seed", str(seed), "--events", "2"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    with xr.open_dataset(path) as data:
        return data.load()


def test_events_move_and_are_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = written(tmp_path / "a.nc", 1, monkeypatch)
    assert first.equals(written(tmp_path / "b.nc", 1, monkeypatch))
    assert not np.array_equal(first.rain, written(tmp_path / "c.nc", 2, monkeypatch).rain)
    rain = first.rain.values.reshape(2, 40, 64, 64)
    assert rain.min() == 0
    assert 0.1 < (rain > 0).mean() < 0.9
    for event in rain:  # each goes its own way
        later = event[13, 8:-8, 8:-8]
        errors = {
            (y, x): np.abs(later - np.roll(event[10], (y, x), (0, 1))[8:-8, 8:-8]).mean()
            for y in range(-8, 9)
            for x in range(-8, 9)
        }
        assert min(errors.values()) < 0.8 * errors[0, 0]
    result = pdr("inspect", tmp_path / "a.nc")
    assert result.code == 0, result.err
    assert "longest run  40" in result.out
