"""Files that are valid but odd: the same field, written in any two legal ways, is read and forecast as the same field.

`make fuzz` takes the profile `fuzz`, which makes many more of them, and prints the number of pairs that were compared.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdr_cli.data import formats, places, units
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import ReadOptions
from pdr_cli.data.grid import Side
from pdr_cli.data.series import Series, names, read_frames, side
from pdr_cli.errors import DataError
from tests.cli import pdr
from tests.reliability import odd_files
from tests.reliability.odd_files import UNITS, Plan, Truth, Way, Written

LONG = settings.get_current_profile_name() == "fuzz"
MOST = 2000  # examples under the profile `fuzz`: those that are drawn when the time is over cost some, too
SECONDS = float(os.environ.get("FUZZ_SECONDS", "600"))  # of all tests together, under the profile `fuzz`
COMPARED: Counter[str] = Counter()  # pairs, by test
BEGAN: dict[str, float] = {}  # when each test began


def is_over(name: str, share: float) -> bool:
    """Whether a test has had its share of the time of `make fuzz`; its further examples are not written."""
    now = time.monotonic()
    return LONG and now - BEGAN.setdefault(name, now) > share * SECONDS


@contextlib.contextmanager
def counted(name: str) -> Iterator[None]:
    """Count a pair; a test that fails has all the time that it takes to find the smallest example."""
    try:
        yield
    except BaseException:
        BEGAN[name] = math.inf
        raise
    COMPARED[name] += 1


@pytest.fixture(scope="module", autouse=True)
def report() -> Iterator[None]:
    """Print the number of pairs that were compared."""
    yield
    if LONG:
        print(f"\npairs compared: {dict(COMPARED)}, {COMPARED.total()} in all", file=sys.__stdout__)


def some(few: int) -> settings:
    """So many examples, the same ones each time; others under the profile `fuzz`, for as long as `is_over` allows."""
    return settings(
        max_examples=min(MOST, 100 * few) if LONG else few,
        deadline=None,
        derandomize=not LONG,
        suppress_health_check=list(HealthCheck),
    )


def new(folder: Path) -> Path:
    """A folder for the files of one example: open files must not be written anew."""
    return Path(tempfile.mkdtemp(dir=folder)) / "files"


def reference(truth: Truth) -> places.Grid:
    """The grid of the truth."""
    size = (len(truth.sides[0]), len(truth.sides[1]))
    if truth.kind == "mesh":
        return places.Grid(size, None, None, dict(zip(("latitude", "longitude"), truth.places, strict=True)))
    attrs: list[dict[str, Any]] = {
        "sphere": [{"standard_name": "latitude"}, {"standard_name": "longitude"}],
        "plane": [{"units": "m"}, {"units": "m"}],
        "rotated": [{"standard_name": "grid_latitude"}, {"standard_name": "grid_longitude"}],
    }[truth.kind]
    y, x = (Side(n, tuple(v), a) for n, v, a in zip("yx", truth.sides, attrs, strict=True))
    return places.Grid(size, y, x)


def read(made: Written, *more: Written) -> Series:
    """The one series of files."""
    files = [path for one in (made, *more) for path in one.paths]
    variables = [one.way.variable for one in (made, *more)]
    (series,) = formats.open_series(formats.find_inputs(files), ReadOptions(variables))
    return series


def meant(series: Series, *truths: Truth) -> np.ndarray:
    """The frames of a series in the orientation and units of the truths of its channels: [T, C, H, W]."""
    wanted = {n: {"units": t.unit} for n, t in zip(names(series), truths, strict=True)}
    series = units.to_model(series, wanted)
    how = places.match(places.of(series), reference(truths[0]))
    return how.apply(read_frames(series, 0, series.sizes["time"]))


def check_times(found: np.ndarray, truth: Truth) -> None:
    assert [time_axis.label(t) for t in found] == [time_axis.label(t) for t in truth.times]
    assert np.array_equal(np.diff(time_axis.seconds(found)), np.diff(time_axis.seconds(truth.times)))
    if truth.calendar != "standard":
        assert time_axis.calendar(found) == truth.calendar


def check_convention(series: Series, truth: Truth, way: Way) -> None:
    """The axes and the unit are those of the file with the first frames."""
    assert units.spelling(units.units(series)[0]) == units.spelling(way.unit)
    for dim, name, values in zip(("y", "x"), way.names, odd_files.along(truth, way), strict=True):
        found = side(series, dim)
        assert found is not None
        assert found.name == name
        if truth.kind != "mesh":
            assert np.allclose(found.values, values, atol=np.abs(np.diff(values)).min() / 200)


def check_values(found: np.ndarray, truth: Truth, made: Written) -> None:
    assert np.array_equal(np.isnan(found), np.isnan(truth.values))
    assert np.nanmax(np.abs(found - truth.values)) <= made.error


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Truth, Plan, Plan]:
    truth = draw(odd_files.truths)
    return truth, draw(odd_files.plans(truth)), draw(odd_files.plans(truth))


@some(20)
@given(pairs())
def test_a_field_written_in_two_ways_is_one_field(tmp_path: Path, pair: tuple[Truth, Plan, Plan]) -> None:
    truth, *plans = pair
    if is_over("one variable", 0.35):
        return
    with counted("one variable"):
        for plan in plans:
            made = plan.write(truth, new(tmp_path))
            series = read(made)
            check_times(series.time.values, truth)
            check_convention(series, truth, made.way)
            check_values(meant(series, truth)[:, 0], truth, made)


@st.composite
def two_variables(draw: st.DrawFn) -> tuple[Truth, Truth, Plan, Plan]:
    truth, other = draw(odd_files.truths), draw(st.sampled_from(list(UNITS)))
    kinds = [draw(st.sampled_from(odd_files.KINDS))]
    second = dataclasses.replace(truth, unit=other)
    return truth, second, draw(odd_files.plans(truth, kinds=kinds)), draw(odd_files.plans(second, "other", kinds))


@some(6)
@given(two_variables())
def test_two_variables_of_files_in_other_ways_are_stacked(
    tmp_path: Path, both: tuple[Truth, Truth, Plan, Plan]
) -> None:
    truth, second, first_plan, second_plan = both
    if is_over("two variables", 0.15):
        return
    with counted("two variables"):
        made, other = first_plan.write(truth, new(tmp_path)), second_plan.write(second, new(tmp_path))
        series = read(made, other)
        check_times(series.time.values, truth)
        found = meant(series, truth, second)
        check_values(found[:, 0], truth, made)
        check_values(found[:, 1], second, other)


# -- what is not the same field

CHANGES: dict[str, Callable[[Truth], Truth]] = {
    "half a cell": lambda t: dataclasses.replace(t, shift=0.5),
    "a twentieth of a cell": lambda t: dataclasses.replace(t, shift=-0.05),
    "level": lambda t: dataclasses.replace(t, pressure=500.0),
    "member": lambda t: dataclasses.replace(t, member=2),
    "calendar": lambda t: dataclasses.replace(t, calendar="noleap" if t.calendar != "noleap" else "360_day"),
    "projection": lambda t: dataclasses.replace(t, meridian=21.0),
    "unit": lambda t: dataclasses.replace(t, unit="mm" if t.unit != "mm" else "Pa"),
}


@st.composite
def changed(draw: st.DrawFn, change: str) -> tuple[Truth, Truth, Plan]:
    """A field in two files or more, of which the last holds another field."""
    truth = draw(odd_files.truths.filter(lambda t: change != "projection" or t.grid == "plane"))
    if change == "projection":
        truth = dataclasses.replace(truth, grid="plane")
    plan = draw(odd_files.plans(truth).filter(lambda p: len(p.ways) > 1))
    needed: dict[str, dict[str, Any]] = {
        "level": {"level": "plev"}, "member": {"scalars": ("realization",)}, "projection": {"mapping": "short"},
    }  # fmt: skip
    found = [dataclasses.replace(w, **needed.get(change, {})) for w in plan.ways]
    last = CHANGES[change](truth)
    how = {"unit": draw(st.sampled_from(list(UNITS[last.unit])))} if change == "unit" else {}
    how |= {"calendar": last.calendar, "stamp": "hours"} if change == "calendar" else {}
    found[-1] = dataclasses.replace(found[-1], **how)
    return truth, last, dataclasses.replace(plan, ways=tuple(found))


@pytest.mark.parametrize("change", CHANGES)
def test_another_field_is_not_joined(tmp_path: Path, change: str) -> None:
    @some(3)
    @given(changed(change))
    def refuse(example: tuple[Truth, Truth, Plan]) -> None:
        truth, last, plan = example
        if is_over(change, 0.025):
            return
        with counted(change):
            made = plan.write(truth, new(tmp_path), last)
            with pytest.raises(DataError) as refused:
                read(made)
            assert refused.value.code == 65

    refuse()


# -- through a model


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model, the field that it continues, and its forecast from the plainest file of that field."""

    run: Path
    truth: Truth
    forecast: np.ndarray
    times: list[str]


def tidy(truth: Truth, folder: Path, *, repeated: bool = False) -> Written:
    """A field in one file, without anything odd."""
    kind = {"sphere": ("lat", "lon"), "plane": ("y", "x")}.get(truth.kind, ("j", "i"))
    return Plan((Way(names=kind, unit=truth.unit, repeated=repeated),), ((0, truth.steps),), (0,)).write(truth, folder)


def predict(made: Written, run: Path) -> Series:
    """The forecast of `pdr predict`, as it is written."""
    out = made.paths[0].with_name("forecast.nc")
    result = pdr("predict", *made.paths, "-o", out, "-m", run, "--var", f"t2m={made.way.variable}")
    assert result.code == 0, result.err
    return formats.open_series([out])[0]


@pytest.fixture(scope="module")
def trained(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """A tiny model of each kind of grid, trained when it is needed."""
    found: dict[str, Trained] = {}

    def of(grid: str) -> Trained:
        if grid not in found:
            unit = {"globe": "mm", "plane": "Pa"}.get(grid, "K")
            folder = tmp_path_factory.mktemp(grid)
            run = make_run(tidy(Truth(grid, unit, 160), folder / "train", repeated=grid == "globe").paths[0])
            truth = Truth(grid, unit)
            series = predict(tidy(truth, folder / "tidy"), run)
            labels = [time_axis.label(t) for t in series.time.values]
            found[grid] = Trained(run, truth, meant(series, truth), labels)
        return found[grid]

    return of


@st.composite
def of_a_model(draw: st.DrawFn) -> tuple[str, Plan]:
    grid = draw(st.sampled_from(["region", "globe", "plane", "mesh"] if LONG else ["region", "globe"]))
    unit = {"globe": "mm", "plane": "Pa"}.get(grid, "K")
    plan = draw(odd_files.plans(Truth(grid, unit), draw(st.sampled_from(["t2m", "2t", "air temperature"]))))
    exact = [dataclasses.replace(w, stored="packed" if w.stored == "unsigned" else w.stored) for w in plan.ways]
    return grid, dataclasses.replace(plan, ways=tuple(exact))


@some(5)
@given(of_a_model())
def test_a_forecast_does_not_depend_on_how_its_input_is_written(
    tmp_path: Path, trained: Callable[[str], Trained], example: tuple[str, Plan]
) -> None:
    grid, plan = example
    if is_over("forecasts", 0.25):
        return
    model = trained(grid)
    with counted("forecasts"):
        made = plan.write(model.truth, new(tmp_path))
        series = predict(made, model.run)
        assert [time_axis.label(t) for t in series.time.values] == model.times
        check_convention(series, model.truth, made.way)
        # The network passes on an error of its input, of packing or rounding, a few times larger at most.
        assert np.abs(meant(series, model.truth) - model.forecast).max() <= 20 * made.error


@some(2)
@given(
    st.sampled_from(["region", "plane", "mesh"] if LONG else ["region"]), st.sampled_from([0.5, -0.05, 3.0]), st.data()
)
def test_a_field_elsewhere_is_not_forecast(
    tmp_path: Path, trained: Callable[[str], Trained], grid: str, shift: float, data: st.DataObject
) -> None:
    model = trained(grid)
    truth = dataclasses.replace(model.truth, shift=shift)
    plan = data.draw(odd_files.plans(truth))
    if is_over("elsewhere", 0.05):
        return
    with counted("elsewhere"):
        made = plan.write(truth, new(tmp_path))
        result = pdr("predict", *made.paths, "-o", made.paths[0].with_name("forecast.nc"), "-m", model.run)
        assert result.code == 65, result.err
        assert "E_GRID_MISMATCH" in result.err
