"""Input that is not as it should be is refused with the exact reason, or mended where the user says so.

Missing values have a file of their own, test_missing_data.py; damaged files are in tests/data/.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cftime
import netCDF4
import numpy as np
import pytest
import xarray as xr

import pdr_cli
from tests.builders import weather_file
from tests.cli import Result, pdr

MakeRun = Callable[..., Path]
Given = Callable[..., Path]


@pytest.fixture
def given(weather: Path, tmp_path: Path) -> Given:
    """`given(change)`: a copy of the training file that `change(dataset)` has changed; keywords are its encoding."""

    def make(change: Callable[[xr.Dataset], xr.Dataset], **encoding: Any) -> Path:
        path = tmp_path / f"input{len(list(tmp_path.iterdir()))}.nc"
        with xr.open_dataset(weather) as data:
            change(data.load()).to_netcdf(path, encoding={"t2m": encoding} if encoding else None)
        return path

    return make


def edited(index: Any, value: float) -> Callable[[xr.Dataset], xr.Dataset]:
    """Some values of t2m replaced."""

    def change(data: xr.Dataset) -> xr.Dataset:
        data.t2m.values[index] = value
        return data

    return change


def predict(path: Path, run: Path, *options: str) -> Result:
    return pdr("predict", path, "-o", "f.nc", "-m", run, *options)


def refusal(path: Path, run: Path, *options: str) -> str:
    """The last line of a prediction that must be refused as bad data, leaving no output."""
    result = predict(path, run, *options)
    assert result.code == 65, result.err or result.out
    assert not Path("f.nc").exists()
    return result.last


def forecast(path: Path, run: Path, *options: str) -> xr.Dataset:
    result = predict(path, run, *options)
    assert result.code == 0, result.err
    with xr.open_dataset("f.nc", decode_times=xr.coders.CFDatetimeCoder(use_cftime=None)) as made:
        return made.load()


# -- missing and absurd values


def test_missing_values_are_counted_with_variable_step_and_option(given: Given, weather_run: Path) -> None:
    said = refusal(given(edited((158, slice(2), slice(3)), np.nan)), weather_run)
    # 2 x 3 cells; the window is 4 frames of 13 x 15; step 158 of 6 hours from 1 January is 9 February, 12:00.
    assert "6 of 780 values of t2m are missing (NaN)" in said
    assert "first at 2020-02-09 12:00" in said
    assert "--fill-missing persist, mean or interp" in said


@pytest.mark.parametrize("value", [np.inf, -np.inf, 9.97e36])
def test_infinite_values_and_undeclared_fill_values_are_no_data(given: Given, weather_run: Path, value: float) -> None:
    path = given(edited((159, 3, 3), value))
    said = refusal(path, weather_run)
    assert "1 of 780 values of t2m are no data" in said
    assert "infinite, or a fill value that is not declared" in said
    assert "are no data" in refusal(path, weather_run, "--allow-out-of-range")
    assert np.isfinite(forecast(path, weather_run, "--fill-missing", "persist").t2m).all()


def test_absurd_values_stop_training(given: Given) -> None:
    result = pdr(
        "train", "--preset", "demo", "--data", given(edited((3, 3, 3), 9.97e36)), "-o", "r", "--steps", "1", "-q"
    )
    assert (result.code, "declare its fill value as _FillValue" in result.last) == (65, True)


# -- units and range


def celsius(data: xr.Dataset) -> xr.Dataset:
    data["t2m"] = (data.t2m - 273.15).assign_attrs(data.t2m.attrs | {"units": "degC"})
    return data


def test_other_units_are_converted_and_given_back(given: Given, weather: Path, weather_run: Path) -> None:
    kelvin = forecast(weather, weather_run)
    made = forecast(given(celsius), weather_run)
    assert made.t2m.attrs["units"] == "degC"
    assert np.allclose(made.t2m.values, kelvin.t2m.values - 273.15, atol=2e-3)
    assert "t2m converted from degC to K and back" in made.attrs["history"].splitlines()[0]


def test_python_converts_units_too(given: Given, weather_run: Path) -> None:
    path = given(celsius)
    made = forecast(path, weather_run)
    with xr.open_dataset(path) as data:
        dataset = pdr_cli.load(weather_run).predict(data)
    assert np.array_equal(dataset.t2m.values, made.t2m.values)
    assert dataset.t2m.attrs["units"] == "degC"


def test_scores_of_other_units_are_in_the_models(given: Given, weather: Path, weather_run: Path) -> None:
    lines = [pdr("evaluate", path, "-m", weather_run, "-q").out for path in (given(celsius), weather)]
    assert "rmse (K) by lead time" in lines[0]
    assert [line[:30] for line in lines[0].splitlines()[:10]] == [line[:30] for line in lines[1].splitlines()[:10]]


def test_units_of_something_else_are_refused(given: Given, weather_run: Path) -> None:
    said = refusal(given(lambda d: d.assign(t2m=d.t2m.assign_attrs(units="Pa"))), weather_run)
    assert "t2m: units 'Pa' cannot be converted to the model's 'K'" in said
    assert "E_UNITS" in said


def test_celsius_that_calls_itself_kelvin_is_out_of_range(given: Given, weather_run: Path) -> None:
    path = given(lambda d: d.assign(t2m=(d.t2m - 273.15).assign_attrs(d.t2m.attrs)))
    said = refusal(path, weather_run)
    assert "780 of 780 values of t2m lie between" in said
    assert "(in training: 27" in said
    assert "E_OUT_OF_RANGE" in said
    assert np.isfinite(forecast(path, weather_run, "--allow-out-of-range").t2m).all()


def test_a_hot_day_is_not_out_of_range(given: Given, weather_run: Path) -> None:
    assert predict(given(lambda d: d.assign(t2m=(d.t2m + 8).assign_attrs(d.t2m.attrs))), weather_run).code == 0


# -- time


def dropped(*steps: int) -> Callable[[xr.Dataset], xr.Dataset]:
    return lambda data: data.isel(time=np.setdiff1d(np.arange(160), steps))


def test_missing_time_steps_are_listed(given: Given, weather_run: Path) -> None:
    said = refusal(given(dropped(156, 157)), weather_run)
    assert "2 times are missing in the last 4 steps: 2020-02-09 00:00, 2020-02-09 06:00" in said


@pytest.mark.parametrize("step", [158, 157, 156])
def test_a_single_missing_step_is_interpolated_when_asked(given: Given, weather_run: Path, step: int) -> None:
    gap = given(dropped(step))
    said = refusal(gap, weather_run)
    assert "1 time is missing" in said
    assert "--fill-gap interp" in said
    made = forecast(gap, weather_run, "--fill-gap", "interp")
    assert "1 missing time step interpolated" in made.attrs["history"].splitlines()[0]

    def mean_of_both(data: xr.Dataset) -> xr.Dataset:
        data.t2m.values[step] = (data.t2m.values[step - 1] + data.t2m.values[step + 1]) / 2
        return data

    Path("f.nc").unlink()
    assert np.array_equal(forecast(given(mean_of_both), weather_run).t2m.values, made.t2m.values)


def test_longer_gaps_are_not_interpolated(given: Given, weather_run: Path) -> None:
    assert "--fill-gap fills single steps only" in refusal(
        given(dropped(157, 158)), weather_run, "--fill-gap", "interp"
    )


def test_another_step_is_named_beside_the_models(weather_run: Path, tmp_path: Path) -> None:
    path = weather_file(tmp_path / "step.nc", 20, hours=3, size=(13, 15))
    assert "steps of 3 h, but the model was trained on steps of 6 h" in refusal(path, weather_run)


def test_irregular_times_are_named_beside_the_models_step(given: Given, weather_run: Path) -> None:
    def shaken(data: xr.Dataset) -> xr.Dataset:
        hours = np.cumsum(np.resize([7, 8], data.sizes["time"]))
        return data.assign_coords(time=np.datetime64("2020-01-01", "ns") + hours * np.timedelta64(1, "h"))

    said = refusal(given(shaken), weather_run)
    assert "irregular times: steps of 7 h, 8 h" in said
    assert "the model was trained on steps of 6 h" in said


def test_unsorted_time_is_sorted(given: Given, weather: Path, weather_run: Path) -> None:
    expected = forecast(weather, weather_run)
    order = np.random.default_rng(0).permutation(160)
    result = predict(given(lambda d: d.isel(time=order)), weather_run)
    assert result.code == 0, result.err
    assert "is not in order of time; sorted" in result.err
    with xr.open_dataset("f.nc") as made:
        assert made.drop_attrs().equals(expected.drop_attrs())


def test_different_frames_for_one_time_are_refused(given: Given, weather_run: Path) -> None:
    def again(data: xr.Dataset) -> xr.Dataset:
        longer = data.isel(time=[*range(100), 99, *range(100, 160)]).copy(deep=True)
        longer.t2m[100] += 1
        return longer

    said = refusal(given(again), weather_run)
    assert "1 time is repeated, with different values at 2020-01-25 18:00" in said


def test_a_frame_that_is_repeated_unchanged_is_kept_once(given: Given, weather: Path, weather_run: Path) -> None:
    done = predict(given(lambda d: d.isel(time=[*range(100), 99, *range(100, 160)])), weather_run)
    assert done.code == 0
    assert "1 repeated, with the same values, first 2020-01-25 18:00" in done.err


def test_too_few_steps_are_counted(given: Given, weather_run: Path) -> None:
    assert "the model needs 4 steps, found 3" in refusal(given(lambda d: d.isel(time=slice(3))), weather_run)
    assert "the model needs 4 steps, found 1" in refusal(given(lambda d: d.isel(time=[5])), weather_run)


# -- grid


def test_half_a_cell_off_is_another_grid(given: Given, weather_run: Path) -> None:
    said = refusal(given(lambda d: d.assign_coords(lon=d.lon + 1.25)), weather_run)
    assert "another grid" in said
    assert "--regrid bilinear" in said


def test_a_thousandth_of_a_cell_is_the_same_grid(given: Given, weather_run: Path) -> None:
    near = given(lambda d: d.assign_coords(lon=d.lon.astype(float) + 0.9e-3 * 2.5))
    assert predict(near, weather_run).code == 0


def test_another_resolution_is_interpolated_when_asked(given: Given, weather: Path, weather_run: Path) -> None:
    def finer(data: xr.Dataset) -> xr.Dataset:
        lat, lon = (np.linspace(c[0], c[-1], 2 * len(c) - 1) for c in (data.lat.values, data.lon.values))
        fine = data.t2m.interp(lat=lat, lon=lon).astype("f4").assign_attrs(data.t2m.attrs)
        return fine.to_dataset(name="t2m")

    path = given(finer)
    said = refusal(path, weather_run)
    assert (
        "its grid has 25 x 29 cells; expected 13 x 15; regrid the input to the model's grid (pdr predict --regrid bilinear)"
        in said
    )
    made, expected = forecast(path, weather_run, "--regrid", "bilinear"), forecast(weather, weather_run)
    # Every second point of the fine grid is one of the model's: interpolation gives back the values it was made from.
    assert np.allclose(made.t2m.values, expected.t2m.values, atol=1e-3)
    assert made.lat.values.tolist() == expected.lat.values.tolist(), "the forecast is on the model's grid"
    assert "regridded (bilinear)" in made.attrs["history"].splitlines()[0]


def test_a_grid_that_does_not_cover_the_models_is_not_stretched(given: Given, weather_run: Path) -> None:
    said = refusal(given(lambda d: d.isel(lon=slice(1, None))), weather_run, "--regrid", "bilinear")
    assert "the model's grid reaches from 200 to 235 in x, the input from 202.5 to 235" in said


def test_conservative_regridding_says_what_it_needs(
    weather: Path, weather_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = predict(weather, weather_run, "--regrid", "conservative")
    assert (result.code, "pip install 'pdr-cli[regrid]'" in result.last) == (2, True)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (["--regrid", "nearest"], "use bilinear or conservative"),
        (["--fill-gap", "spline"], "use interp"),
        (["--fill-missing", "zeros"], "use persist, mean or interp"),
    ],
)
def test_an_unknown_way_to_mend_names_those_there_are(
    weather: Path, weather_run: Path, option: list[str], says: str
) -> None:
    result = predict(weather, weather_run, *option)
    assert (result.code, says in result.last) == (2, True)


@pytest.fixture(scope="module")
def globe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 x 24 cells of 15 degrees round the globe."""
    path = weather_file(tmp_path_factory.mktemp("globe") / "globe.nc", size=(12, 24))
    with xr.open_dataset(path) as data:
        data = data.load().assign_coords(
            lat=("lat", np.linspace(82.5, -82.5, 12), {"units": "degrees_north"}),
            lon=("lon", np.arange(24) * 15.0, {"units": "degrees_east"}),
        )
    data.to_netcdf(path)
    return path


@pytest.fixture(scope="module")
def globe_run(make_run: MakeRun, globe: Path) -> Path:
    return make_run(globe)


def rewritten(source: Path, target: Path, change: Callable[[xr.Dataset], xr.Dataset]) -> Path:
    with xr.open_dataset(source) as data:
        change(data.load()).to_netcdf(target)
    return target


def west_first(data: xr.Dataset) -> xr.Dataset:
    data = data.assign_coords(lon=("lon", (data.lon.values + 180) % 360 - 180, data.lon.attrs))
    return data.sortby("lon")


def with_cyclic_column(data: xr.Dataset) -> xr.Dataset:
    first = data.isel(lon=[0])
    again = first.assign_coords(lon=("lon", first.lon.values + 360, data.lon.attrs))
    return xr.concat([data, again], "lon")


@pytest.mark.parametrize(
    ("change", "back"),
    [
        (lambda d: d.isel(lat=slice(None, None, -1)), lambda d: d.isel(lat=slice(None, None, -1))),
        (west_first, lambda d: west_first(d)),
        (with_cyclic_column, with_cyclic_column),
        (lambda d: with_cyclic_column(west_first(d)), lambda d: with_cyclic_column(west_first(d))),
        (lambda d: d.transpose("lon", "lat", "time"), lambda d: d),
        (lambda d: d.expand_dims(height=[2.0], member=[0]), lambda d: d),
    ],
    ids=["latitude ascending", "-180 to 180", "a column again", "both", "transposed", "dimensions of one"],
)
def test_the_same_globe_in_another_order_gives_the_same_forecast_in_that_order(
    globe: Path, globe_run: Path, tmp_path: Path, change: Any, back: Any
) -> None:
    plain = forecast(globe, globe_run)
    path = rewritten(globe, tmp_path / "turned.nc", change)
    made = forecast(path, globe_run)
    with xr.open_dataset(path) as data:
        for name in ("lat", "lon"):
            assert made[name].values.tobytes() == data[name].values.tobytes(), "coordinates come back bit for bit"
    assert np.array_equal(made.t2m.values, back(plain)[["t2m"]].t2m.values)


def test_a_globe_is_regridded_across_its_seam(globe: Path, globe_run: Path, tmp_path: Path) -> None:
    # Shifted by half a cell: the values at 0 lie between those at -7.5 and 7.5 degrees, that is 352.5 and 7.5.
    def shifted(data: xr.Dataset) -> xr.Dataset:
        return data.assign_coords(lon=("lon", data.lon.values + 7.5, data.lon.attrs))

    path = rewritten(globe, tmp_path / "shifted.nc", shifted)
    made = forecast(path, globe_run, "--regrid", "bilinear")

    def averaged(data: xr.Dataset) -> xr.Dataset:
        values = (data.t2m.values + np.roll(data.t2m.values, 1, axis=-1)) / 2
        return data.assign(t2m=data.t2m.copy(data=values))

    expected = forecast(rewritten(globe, tmp_path / "averaged.nc", averaged), globe_run)
    assert np.allclose(made.t2m.values, expected.t2m.values, atol=1e-3)


def test_a_globe_is_known_to_be_round_and_a_region_is_not(globe_run: Path, weather_run: Path) -> None:
    around = [pdr_cli.load(run).loaded.network.predictor.periodic for run in (globe_run, weather_run)]
    assert around == [True, False]


def test_periodic_can_be_said(make_run: MakeRun, globe: Path, weather: Path) -> None:
    plain = make_run(globe, "--set", "model.periodic=none")
    forced = make_run(weather, "--set", "model.periodic=lon")
    around = [pdr_cli.load(run).loaded.network.predictor.periodic for run in (plain, forced)]
    assert around == [False, True]


# -- dimensions and names


def test_levels_to_choose_from_are_listed(given: Given, weather_run: Path) -> None:
    path = given(lambda d: d.expand_dims(level=[850, 500, 250]))
    assert "level with 3 values (850, 500, 250); choose one of them with --var t2m@850" in refusal(path, weather_run)
    assert predict(path, weather_run, "--var", "t2m=t2m@500").code == 0


def test_a_wrong_name_is_met_with_the_nearest(given: Given, weather_run: Path) -> None:
    path = given(lambda d: d.rename(t2m="t2mm"))
    assert "Did you mean 't2mm'? --var t2m=NAME" in refusal(path, weather_run)
    assert predict(path, weather_run, "--var", "t2m=t2mm").code == 0


# -- storage


def test_packed_values_are_decoded_and_not_packed_again(given: Given, weather: Path, weather_run: Path) -> None:
    packed = given(lambda d: d, dtype="int16", scale_factor=0.01, add_offset=280.0, _FillValue=-32768)
    expected, made = forecast(weather, weather_run), forecast(packed, weather_run)
    assert np.allclose(made.t2m.values, expected.t2m.values, atol=0.05)
    assert made.t2m.encoding["dtype"] == np.float32
    assert "scale_factor" not in made.t2m.encoding


def stored(
    path: Path, source: Path, dtype: str, attrs: dict[str, Any], pack: Callable[[np.ndarray], np.ndarray]
) -> Path:
    """A copy of a file whose t2m is stored as `pack` says, with attributes that no library sets by itself."""
    with xr.open_dataset(source) as data:
        values = data.t2m.values
        data.drop_vars("t2m").to_netcdf(path)
    with netCDF4.Dataset(path, "a") as out:
        variable = out.createVariable("t2m", dtype, ("time", "lat", "lon"))
        variable.set_auto_maskandscale(False)
        variable.setncatts({"units": "K", **attrs})
        variable[:] = pack(values)
    return path


def test_unsigned_bytes_are_read_as_such(weather: Path, weather_run: Path, tmp_path: Path) -> None:
    # NetCDF-3 has no unsigned bytes: 200 is stored as -56 and marked.
    attrs = {"_Unsigned": "true", "scale_factor": np.float32(0.1), "add_offset": np.float32(265.0)}
    path = stored(
        tmp_path / "u.nc", weather, "i1", attrs, lambda v: np.round((v - 265) * 10).astype(np.uint8).view(np.int8)
    )
    expected = forecast(weather, weather_run)
    assert np.allclose(forecast(path, weather_run).t2m.values, expected.t2m.values, atol=0.5)


@pytest.mark.parametrize(
    "attrs",
    [
        {"missing_value": np.float32(-999)},
        {"valid_range": np.array([200, 350], np.float32)},
        {"valid_min": np.float32(200)},
    ],
    ids=lambda attrs: next(iter(attrs)),
)
def test_what_attributes_call_missing_is_missing(
    weather: Path, weather_run: Path, tmp_path: Path, attrs: dict[str, Any]
) -> None:
    def holed(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        values[-1, 3, :2] = -999
        return values

    path = stored(tmp_path / "m.nc", weather, "f4", attrs, holed)
    assert "2 of 780 values of t2m are missing (NaN)" in refusal(path, weather_run)


def test_a_valid_range_of_packed_data_is_packed_too(weather: Path, weather_run: Path, tmp_path: Path) -> None:
    def pack(values: np.ndarray) -> np.ndarray:
        packed = np.round((values - 280) / 0.01).astype(np.int16)
        packed[-1, 3, :2] = 30000  # 580 K
        return packed

    attrs = {"scale_factor": 0.01, "add_offset": 280.0, "valid_range": np.array([-3000, 3000], np.int16)}
    path = stored(tmp_path / "p.nc", weather, "i2", attrs, pack)
    assert "2 of 780 values of t2m are missing (NaN)" in refusal(path, weather_run)


# -- calendars


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "julian"])
def test_other_calendars_are_kept(make_run: MakeRun, given: Given, calendar: str) -> None:
    times = xr.date_range("2000-01-01", periods=160, freq="D", calendar=calendar, use_cftime=True)
    path = given(lambda d: d.assign_coords(time=times))
    made = forecast(path, make_run(path), "--init", "2000-02-28")
    days = [(t.month, t.day) for t in made.time.values[:2]]
    assert made.time.encoding["calendar"] == calendar
    # 2000 is a leap year to julian as well; noleap has no 29 February, 360_day even a 30 February.
    assert days == {"noleap": [(3, 1), (3, 2)], "360_day": [(2, 29), (2, 30)], "julian": [(2, 29), (3, 1)]}[calendar]
    assert isinstance(made.time.values[0], cftime.datetime)


def rewrite_time(path: Path, units: str, values: np.ndarray, calendar: str | None) -> Path:
    with netCDF4.Dataset(path, "a") as out:
        time = out["time"]
        time.units = units
        if calendar is None:
            time.delncattr("calendar")
        else:
            time.calendar = calendar
        time[:] = values
    return path


def test_an_offset_from_utc_is_taken_off(given: Given, weather_run: Path) -> None:
    path = rewrite_time(given(lambda d: d), "hours since 2020-01-01 08:00:00 +08:00", np.arange(160) * 6, "standard")
    assert str(forecast(path, weather_run).time.values[0])[:16] == "2020-02-10T00:00"


def test_no_calendar_is_the_standard_one(given: Given, weather_run: Path) -> None:
    path = rewrite_time(given(lambda d: d), "hours since 2020-01-01 00:00:00", np.arange(160) * 6, None)
    assert str(forecast(path, weather_run).time.values[0])[:16] == "2020-02-10T00:00"


def test_years_since_are_no_time(given: Given, weather_run: Path) -> None:
    path = rewrite_time(given(lambda d: d), "years since 2000-01-01", np.arange(160), "standard")
    said = refusal(path, weather_run)
    assert "the time axis cannot be decoded" in said
    assert "a month or a year has no fixed length" in said


def test_fractions_of_months_are_no_time(given: Given, weather_run: Path) -> None:
    path = given(lambda d: d)
    with netCDF4.Dataset(path, "a") as out:
        out["time"].scale_factor = 0.1  # the file's times are whole numbers
    path = rewrite_time(path, "months since 2000-01-01", 0.3 * np.arange(160), "standard")
    said = refusal(path, weather_run)
    assert "the time axis cannot be decoded" in said
    assert "a month or a year has no fixed length" in said
