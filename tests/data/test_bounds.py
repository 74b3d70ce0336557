"""Bounds of quantities: where they come from, and what refutes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pdr_cli.data import bounds
from pdr_cli.data.bounds import Bounds
from pdr_cli.data.formats.datasets import from_datasets
from pdr_cli.data.limits import Limits
from pdr_cli.data.series import Series, make_series, names
from pdr_cli.data.units import to_model
from pdr_cli.errors import ConfigError, DataError
from pdr_cli.settings import parse_bound


def series_of(kind: str = "weather", **variables: dict[str, Any]) -> Series:
    frames = np.zeros((3, len(variables), 2, 2), np.float32)
    return make_series(frames, np.arange(3.0), variables, {}, kind=kind, files=["f.nc"])


def resolved(series: Series, *option: str, low: float = 0, high: float = 1, sd: float = 1) -> Bounds | None:
    n = len(names(series))
    limits = Limits(*((value,) * n for value in (0.0, sd, low, high)))
    return bounds.resolve(option or ["auto"], series, limits, lambda channel, low, high: 7)


def of_variable(attrs: dict[str, Any], *option: str, name: str = "v", **extremes: float) -> list[str] | None:
    found = resolved(series_of(**{name: attrs}), *option, **extremes)
    return None if found is None else found.words()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", ("", None, None)),
        ("none", ("", None, None)),
        ("tp=0..", ("tp", 0, None)),
        ("t@850=..5", ("t@850", None, 5)),
        ("a=-1e-3 .. 2.5", ("a", -1e-3, 2.5)),
        ("a=none", ("a", None, None)),
    ],
)
def test_an_entry_names_a_variable_and_its_ends(text: str, expected: tuple[Any, ...]) -> None:
    assert parse_bound(text) == expected


@pytest.mark.parametrize("text", ["", "tp", "tp=", "tp=..", "=0..1", "tp=1..0", "tp=1..1", "tp=auto", "tp=0...1"])
def test_other_entries_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="bound"):
        parse_bound(text)


@pytest.mark.parametrize(
    ("standard_name", "units", "expected"),
    [
        ("precipitation_flux", "kg m-2 s-1", "0.."),
        ("lwe_thickness_of_precipitation_amount", "m", "0.."),
        ("convective_rainfall_rate", "m s-1", "0.."),
        ("surface_snow_thickness", "m", "0.."),
        ("cloud_area_fraction", "1", "0..1"),
        ("sea_ice_area_fraction", "%", "0..100"),
        ("sea_ice_area_fraction", "", "0.."),  # a share or percent: the upper end would be a guess
        ("relative_humidity", "%", "0.."),  # air can be supersaturated
        ("specific_humidity", "g kg-1", "0.."),
        ("mass_concentration_of_pm10_ambient_aerosol_in_air", "kg m-3", "0.."),
        ("wind_speed", "m s-1", "0.."),
        ("sea_surface_wave_significant_height", "m", "0.."),
        ("surface_downwelling_shortwave_flux_in_air", "W m-2", "0.."),
    ],
)
def test_physical_quantities_have_bounds(standard_name: str, units: str, expected: str) -> None:
    assert of_variable({"standard_name": standard_name, "units": units}) == [expected]


@pytest.mark.parametrize(
    ("standard_name", "units"),
    [
        ("air_temperature", "K"),
        ("eastward_wind", "m s-1"),
        ("lwe_thickness_of_water_evaporation_amount", "m"),  # dew
        ("surface_net_downward_shortwave_flux", "W m-2"),
        ("tendency_of_specific_humidity", "s-1"),
        ("change_over_time_in_surface_snow_amount", "kg m-2"),
        ("wind_speed_shear", "s-1"),
        ("mass_concentration_of_chlorophyll_in_sea_water", "log10(mg m-3)"),
        ("equivalent_reflectivity_factor", "dBZ"),
        ("", "mm"),
    ],
)
def test_signed_quantities_have_none_even_where_no_value_is_negative(standard_name: str, units: str) -> None:
    assert of_variable({"standard_name": standard_name, "units": units}) is None


def test_short_names_count_only_with_a_fitting_unit() -> None:
    assert of_variable({"units": "mm"}, name="tp") == ["0.."]
    assert of_variable({"units": "m**2 s**-1"}, name="tp") is None
    assert of_variable({"units": "(0 - 1)"}, name="tcc") == ["0..1"]
    assert of_variable({"units": "kg kg-1"}, name="hus@850") == ["0.."]
    assert of_variable({"units": "m"}, name="total_precipitation_6hr") == ["0.."]


def test_the_kind_bounds_its_counts_and_pixels() -> None:
    traffic, video = series_of("traffic", a={"units": "cars"}), series_of("video", gray={"units": "1"})
    assert resolved(traffic) == Bounds((0.0,), (None,))
    assert resolved(video, high=255) == Bounds((0.0,), (255.0,))


def test_an_option_takes_precedence_and_none_switches_the_others_off() -> None:
    series = series_of(tp={"units": "mm"}, tcc={"units": "1"})
    assert resolved(series, "tp=-1..5") == Bounds((-1.0, 0.0), (5.0, 1.0))
    assert resolved(series, "tp=none") == Bounds((None, 0.0), (None, 1.0))
    assert resolved(series, "none", "tp=0..") == Bounds((0.0, None), (None, None))
    assert resolved(series, "none") is None


def test_training_data_refute_an_inferred_bound_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    anomaly = {"standard_name": "precipitation_flux", "units": "mm d-1"}
    assert of_variable(anomaly, low=-3) is None
    assert "0.. is not applied: the training data reach -3 mm d-1" in caplog.text
    # Each end is judged alone: percents without the unit keep their lower end.
    assert of_variable({"standard_name": "cloud_area_fraction", "units": "1"}, high=100) == ["0.."]


def test_noise_of_packing_refutes_nothing() -> None:
    rain = {"standard_name": "precipitation_flux", "units": "mm d-1"}
    assert of_variable(rain, low=-1e-5, sd=1) == ["0.."]
    assert of_variable(rain, low=-2e-3, sd=1) is None  # beyond 1/1000 of the sd


def test_training_data_beyond_an_explicit_bound_are_refused_with_their_number() -> None:
    with pytest.raises(DataError, match=r"7 training values of tp .* 0\.\.; the training data reach -3 mm"):
        of_variable({"units": "mm"}, "tp=0..", name="tp", low=-3)
    assert of_variable({"units": "mm"}, "tp=0..", name="tp", low=-1e-5) == ["0.."]


def test_a_variable_that_the_data_do_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'to'.*Did you mean 'tp'\?"):
        bounds.check_names(["auto", "to=0.."], series_of(tp={}))


def test_the_valid_range_of_a_file_is_decoded_and_bounds_the_forecast(tmp_path: Path) -> None:
    values = np.linspace(250, 300, 5 * 4 * 4).reshape(5, 4, 4)
    attrs = {"units": "K", "valid_range": np.array([-4000, 4000], "i2")}
    coords = {"time": np.arange(5).astype("datetime64[h]").astype("datetime64[ns]")}
    dataset = xr.Dataset({"t": (("time", "y", "x"), values, attrs)}, coords=coords)
    packing = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 275.0, "_FillValue": -32767}
    dataset.to_netcdf(tmp_path / "packed.nc", encoding={"t": packing})
    with xr.open_dataset(tmp_path / "packed.nc") as opened:
        series = from_datasets([(opened, tmp_path / "packed.nc")])
        # -4000 · 0.01 + 275 and 4000 · 0.01 + 275
        assert resolved(series, low=250, high=300) == Bounds((235.0,), (315.0,))


def test_values_are_held_in_the_units_of_the_input() -> None:
    metres = make_series(
        np.array([-1e-9, 0.002, np.nan, 0.0], np.float32).reshape(1, 1, 2, 2), np.arange(1.0),
        {"tp": {"units": "m"}}, {}, kind="weather",
    )  # fmt: skip
    held = bounds.hold(to_model(metres, {"tp": {"units": "mm"}}), Bounds((0.0,), (1.0,)))
    assert np.array_equal(held.values.ravel(), np.float32([0, 0.001, np.nan, 0]), equal_nan=True)
    assert held.attrs["variables"]["tp"]["units"] == "m"
    assert held.attrs[bounds.BOUNDED].high == pytest.approx((0.001,))


def test_water_is_held_in_the_units_of_the_input() -> None:
    depth = make_series(
        np.full((1, 1, 2, 2), 0.002, np.float32), np.arange(1.0), {"tp": {"units": "m"}}, {}, kind="weather"
    )
    held = bounds.hold(to_model(depth, {"tp": {"units": "kg m-2"}}), Bounds((0.0,), (1.0,)))
    assert np.allclose(held.values, 0.001)
