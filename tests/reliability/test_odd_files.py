"""Files that are valid but odd: the same field, written in any two legal ways, is read as the same field.

`make fuzz` takes the profile `fuzz`, which makes many more of them, and prints the number of pairs that were compared.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdr_cli.data import formats, places, units
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import ReadOptions
from pdr_cli.data.grid import Side
from pdr_cli.data.series import Series, names, read_frames, side
from tests.reliability import odd_files
from tests.reliability.odd_files import Plan, Truth, Written

LONG = settings.get_current_profile_name() == "fuzz"


def some(few: int, many: int) -> settings:
    """So many examples, the same ones each time; many more and others under the profile `fuzz`."""
    return settings(
        max_examples=many if LONG else few,
        deadline=None,
        derandomize=not LONG,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def reference(truth: Truth) -> places.Grid:
    """The grid of the truth."""
    attrs: list[dict[str, Any]] = {
        "sphere": [{"standard_name": "latitude"}, {"standard_name": "longitude"}],
        "plane": [{"units": "m"}, {"units": "m"}],
        "rotated": [{"standard_name": "grid_latitude"}, {"standard_name": "grid_longitude"}],
        "mesh": [{}, {}],
    }[truth.kind]
    y, x = (Side(n, tuple(v), a) for n, v, a in zip("yx", truth.sides, attrs, strict=True))
    if truth.kind == "mesh":
        return places.Grid((y_size := len(y.values), len(x.values)), None, None, dict(zip(("latitude", "longitude"), truth.places, strict=True)))
    return places.Grid((len(y.values), len(x.values)), y, x)


def read(made: Written, variable: str = "t2m") -> Series:
    (series,) = formats.open_series(formats.find_inputs(made.paths), ReadOptions([variable]))
    return series


def meant(series: Series, truth: Truth) -> np.ndarray:
    """The frames of a series in the orientation and unit of the truth: [T, H, W]."""
    wanted = {n: {"units": truth.unit} for n in names(series)}
    series = units.to_model(series, wanted)
    how = places.match(places.of(series), reference(truth))
    return how.apply(read_frames(series, 0, series.sizes["time"]))[:, 0]


def check_times(found: np.ndarray, truth: Truth) -> None:
    assert [time_axis.label(t) for t in found] == [time_axis.label(t) for t in truth.times]
    assert np.array_equal(np.diff(time_axis.seconds(found)), np.diff(time_axis.seconds(truth.times)))
    if truth.calendar != "standard":
        assert time_axis.calendar(found) == truth.calendar


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Truth, Plan, Plan]:
    truth = draw(odd_files.truths)
    return truth, draw(odd_files.plans(truth)), draw(odd_files.plans(truth))


def new(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=folder)) / "files"


@some(60, 3000)
@given(pairs())
def test_a_field_written_in_two_ways_is_one_field(tmp_path: Path, pair: tuple[Truth, Plan, Plan]) -> None:
    truth, *plans = pair
    for plan in plans:
        made = plan.write(truth, new(tmp_path))
        series = read(made)
        check_times(series.time.values, truth)
        found = meant(series, truth)
        assert np.array_equal(np.isnan(found), np.isnan(truth.values))
        assert np.nanmax(np.abs(found - truth.values)) <= made.error
