"""Covariates of windows: what each channel holds at observed and forecast times."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pdr_cli.data import context, covariates, further, places
from pdr_cli.data.climatology import Climatology
from pdr_cli.data.context import Moments
from pdr_cli.data.covariates import Covariates, CovariateSource, Variable
from pdr_cli.data.formats.datasets import from_datasets
from pdr_cli.data.further import Further
from pdr_cli.data.missing import CellMask
from pdr_cli.data.places import PackedField
from pdr_cli.data.scaling import Scaling
from pdr_cli.data.series import Series
from pdr_cli.data.times import Step
from pdr_cli.data.units import UnitsError
from pdr_cli.errors import ConfigError, GridError, MissingValuesError

STEP = Step(6 * 3600)
HOURS = np.datetime64("2020-01-01T00", "ns") + np.arange(40) * np.timedelta64(6, "h")
T, STEPS = 3, 2


def series_of(values: dict[str, np.ndarray], times: np.ndarray = HOURS, flipped: bool = False) -> Series:
    """Variables [n, 4, 5] on a grid with latitudes and longitudes."""
    lat, lon = np.linspace(40, 37, 4), np.linspace(0, 4, 5)
    sides = {"lat": ("lat", lat, {"units": "degrees_north"}), "lon": ("lon", lon, {"units": "degrees_east"})}
    fields = {name: (("time", "lat", "lon"), v.astype("f4"), {"units": "m s-1"}) for name, v in values.items()}
    dataset = xr.Dataset(fields, {"time": times, **sides})
    return from_datasets([(dataset.isel(lat=slice(None, None, -1 if flipped else 1)), Path("a.nc"))], list(values))


def counting(n: int = 40) -> np.ndarray:
    """Frames whose values are their number, plus a tenth of their row: [n, 4, 5]."""
    return np.arange(n)[:, None, None] + np.arange(4)[:, None] / 10 + np.zeros((n, 4, 5))


def source_of(what: Covariates, fill_missing: str = "none") -> CovariateSource:
    grid = places.of(series_of({"t": counting()}))
    flat = Climatology("mean", np.full((1, 1, 4, 5), 10.0))
    return CovariateSource(what, grid, STEP, Scaling((0.0,), (2.0,), (1.0,)), flat, fill_missing)


def moments_of(read: Callable[[np.ndarray], np.ndarray] | None = None, first: int = 8) -> Moments:
    """One window that begins at frame `first`; the channel counts frames."""
    times, last = HOURS[first : first + T + STEPS], first + T - 1
    frames = counting()
    back = lambda n: np.full((1, 1, 4, 5), np.nan) if n > last else frames[last - n][None, None]  # noqa: E731
    return Moments([times[:T]], [times[T:]], back, [] if read is None else [read])


def reader(values: dict[str, np.ndarray], **options: bool) -> Further:
    return further.beside(series_of({"t": counting()}), series_of(values, **options), STEP)


def test_calendar_and_maps_are_the_same_in_all_windows_of_a_time() -> None:
    map_ = np.arange(20.0).reshape(4, 5)
    made = source_of(Covariates(("hour", "sun"), static={"z": PackedField.of(map_)})).of(moments_of())
    assert made.shape == (1, T + STEPS, 4, 4, 5)
    np.testing.assert_allclose(made[0, :, 0, 2, 3], [0, 1, 0, -1, 0], atol=1e-6)  # the sine from midnight on
    assert made[0, 2, 2, 0, 0] > 0.3 > -0.3 > made[0, 0, 2, 0, 0]  # noon and midnight at 40 N in January
    assert np.array_equal(made[0, :, 3], np.repeat(map_[None], T + STEPS, axis=0))


def test_labels_name_every_channel() -> None:
    what = Covariates(("hour", "holidays"), ("2020-01-01",), {}, {"u": Variable("input", {})}, (4,))
    labels = what.labels(["t", "q"])
    assert labels == ["hour (sine)", "hour (cosine)", "holidays", "u", "t, 4 steps before", "q, 4 steps before"]
    assert len(labels) == what.count(2)
    assert what.words(STEP) == ["hour", "holidays", "u (input)", "1 d before"]


def test_an_input_keeps_its_last_observed_frame_and_a_known_variable_goes_on() -> None:
    what = Covariates(variables={"u": Variable("input", {}, 1.0, 2.0), "k": Variable("known", {}, 0.0, 1.0)})
    made = source_of(what).of(moments_of(reader({"u": counting(), "k": counting()}).at))
    assert (2 * made[0, :, 0, 0, 0] + 1).tolist() == [8, 9, 10, 10, 10]
    assert made[0, :, 1, 0, 0].tolist() == [8, 9, 10, 11, 12]


def test_values_after_the_last_observed_frame_of_an_input_are_not_read() -> None:
    what, values = Covariates(variables={"u": Variable("input", {})}), counting()
    values[8 + T :] = np.nan
    made = source_of(what).of(moments_of(reader({"u": values}).at))
    assert made[0, :, 0, 0, 0].tolist() == [8, 9, 10, 10, 10]


def test_a_missing_future_value_is_refused_by_name_and_first_time() -> None:
    what, values = Covariates(variables={"k": Variable("known", {})}), counting()
    values[8 + T + 1] = np.nan
    with pytest.raises(
        MissingValuesError, match="k has no value at 2020-01-04 00:00, which a forecast from 2020-01-03 12:00"
    ):
        source_of(what).of(moments_of(reader({"k": values}).at))
    with pytest.raises(MissingValuesError):  # a whole frame is not filled
        source_of(what, "persist").of(moments_of(reader({"k": values}).at))


def test_single_missing_values_are_filled_or_refused() -> None:
    what, values = Covariates(variables={"k": Variable("known", {}, 5.0)}), counting()
    values[8 + T, 1, 1] = np.nan
    read = reader({"k": values}).at
    with pytest.raises(MissingValuesError, match="k lacks 1 of 20 values"):
        source_of(what).of(moments_of(read))
    assert source_of(what, "persist").of(moments_of(read))[0, T, 0, 1, 1] == pytest.approx(10.1 - 5)
    assert source_of(what, "mean").of(moments_of(read))[0, T, 0, 1, 1] == 0


def test_cells_that_training_never_observed_get_the_mean() -> None:
    cells = np.zeros((1, 4, 5), bool)
    cells[0, 2] = True
    what, values = Covariates(variables={"u": Variable("input", {}, 7.0, 1.0, CellMask.of(cells))}), counting()
    values[:, 2] = np.nan
    made = source_of(what).of(moments_of(reader({"u": values}).at))
    assert (made[0, :, 0, 2] == 0).all()


def test_frames_a_cycle_before_are_departures_and_0_where_missing() -> None:
    """A day of four steps before frames 8 to 12; the climatology is 10 and the scale 2."""
    made = source_of(Covariates(lagged=(4,))).of(moments_of())
    assert (2 * made[0, :, 0, 0, 0] + 10).tolist() == [4, 5, 6, 7, 8]
    early = source_of(Covariates(lagged=(4,))).of(moments_of(first=3))
    assert early[0, :, 0, 0, 0].tolist()[0] == 0
    assert 2 * early[0, 1, 0, 0, 0] + 10 == 0


def test_a_lead_beyond_the_cycle_takes_the_latest_observed_frame_of_its_time() -> None:
    """With a cycle of one step every forecast frame is given the last observed one."""
    made = source_of(Covariates(lagged=(1,))).of(moments_of())
    assert (2 * made[0, :, 0, 0, 0] + 10).tolist() == [7, 8, 9, 10, 10]


def test_variables_are_found_by_time_on_a_turned_grid() -> None:
    read = reader({"u": counting()}, flipped=True)
    assert read.at(HOURS[[3]])[0, 0, :, 0] == pytest.approx([3, 3.1, 3.2, 3.3])
    assert np.isnan(read.at(HOURS[[3]] + np.timedelta64(3, "h"))).all()
    assert np.isnan(read.at(HOURS[[-1]] + np.timedelta64(6, "h"))).all()


def test_variables_of_another_grid_are_refused() -> None:
    other = series_of({"u": counting()}).isel(x=slice(1, 5))
    with pytest.raises(GridError, match="u is on another grid than t"):
        further.beside(series_of({"t": counting()}), other, STEP)


def test_variables_in_the_units_of_another_model_are_refused() -> None:
    with pytest.raises(UnitsError):
        reader({"u": counting(), "k": counting()}).only({"k": {"units": "km h-1"}})


def test_inits_without_values_of_a_variable_are_left_out() -> None:
    values = counting()
    values[20] = np.nan
    opened, inits = reader({"k": values}), np.arange(2, 40)
    source = source_of(Covariates(variables={"k": Variable("known", {})}))
    keep = covariates.has_values(source, opened, HOURS[inits], T, STEPS)
    assert inits[~keep].tolist() == [18, 19, 20, 21, 22, 38, 39]  # frame 20 is of the window, or the file ends
    source = source_of(Covariates(variables={"k": Variable("input", {})}))
    keep = covariates.has_values(source, opened, HOURS[inits], T, STEPS)
    assert inits[~keep].tolist() == [20, 21, 22]


def test_a_cycle_of_one_step_is_refused_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"data\.lagged is 1d"):
        context.cycles_of(["1d"], Step(86400), weekly=False, frames=0, key="data.lagged")
