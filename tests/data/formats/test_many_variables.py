"""Files of many variables: what opening them costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pdr_cli.data.formats.datasets import from_datasets


def file_of(count: int) -> xr.Dataset:
    """Fields of 3 x 4 cells at 2 times, with an auxiliary coordinate that half of them list."""
    fields = {
        f"v{n}": (("time", "lat", "lon"), np.full((2, 3, 4), n, np.float32), {"coordinates": "height"} if n % 2 else {})
        for n in range(count)
    }
    sides = {"lat": [10.0, 0.0, -10.0], "lon": [0.0, 10.0, 20.0, 30.0], "height": 2.0}
    return xr.Dataset(fields, {"time": pd.date_range("2020", periods=2, freq="6h"), **sides})


def lookups(count: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often opening all of so many variables makes an array of one of them."""
    found = 0
    make = xr.Dataset.__getitem__

    def counted(dataset: xr.Dataset, key: Any) -> Any:
        nonlocal found
        found += 1
        return make(dataset, key)

    with monkeypatch.context() as patched:
        patched.setattr(xr.Dataset, "__getitem__", counted)
        assert from_datasets([(file_of(count), Path("many.nc"))], ["all"]).sizes["channel"] == count
    return found


def test_opening_costs_each_variable_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    few, more, many = (lookups(count, monkeypatch) for count in (4, 14, 24))
    assert many - more == more - few
    assert more - few <= 10 * 12  # for each variable, a few


def test_a_coordinate_of_some_variables_is_that_of_no_other() -> None:
    scalars = from_datasets([(file_of(4), Path("many.nc"))], ["all"]).attrs["scalars"]
    assert {name: set(found) for name, found in scalars.items()} == {
        "v0": set(), "v1": {"height"}, "v2": set(), "v3": {"height"},
    }  # fmt: skip
