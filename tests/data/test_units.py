import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdr_cli.data import units
from pdr_cli.data.series import Series, make_series, read_frames
from pdr_cli.data.units import UnitsError

UNITS = [(quantity, unit) for quantity, rows in units.TABLE.items() for unit in rows]


def words_of(symbol: str) -> list[str]:
    """A symbol, its other words, and the plurals of those that are words."""
    found = [symbol, *units.WORDS.get(symbol.lower(), ())]
    return found + [f"{word}s" for word in found if len(word) > 4 and word.isalpha()]


@st.composite
def spellings(draw: st.DrawFn, unit: str) -> str:
    """A unit of the table, written in one of the ways that files write it: any words, powers, products and case."""
    factors = [re.fullmatch(r"(.*?)(-?\d+)?", factor).groups() for factor in unit.split()]  # type: ignore[union-attr]
    raised, product, divide = draw(st.sampled_from(["", "**", "^"])), draw(st.sampled_from(" .*")), draw(st.booleans())
    text = ""
    for symbol, power in factors:
        number, below = int(power or 1), divide and text != "" and int(power or 1) < 0
        number = -number if below else number
        word = draw(st.sampled_from(words_of(symbol))) if symbol else str(number)
        written = word if not symbol or number == 1 else f"{word}{raised}{number}"
        text += (draw(st.sampled_from(["/", " / ", " per "])) if below else product if text else "") + written
    return draw(st.sampled_from([text, f" {text} ", text.lower(), text.upper()]))


@st.composite
def two_spellings(draw: st.DrawFn) -> tuple[str, str]:
    unit = draw(st.sampled_from(UNITS))[1]
    return draw(spellings(unit)), draw(spellings(unit))


def series_in(*of: str, value: float = 15.0) -> Series:
    frames = np.full((3, len(of), 2, 2), value, np.float32)
    names = {f"v{i}": {"units": u} for i, u in enumerate(of)}
    return make_series(frames, np.arange(3.0), names, {}, kind="weather", files=["v.nc"])


@pytest.mark.parametrize(
    ("given", "wanted", "value", "expected"),
    [
        ("degC", "K", 15, 288.15),
        ("degF", "degC", 212, 100),
        ("℃", "K", 15, 288.15),
        ("hPa", "Pa", 1013.25, 101325),
        ("Pa", "millibars", 101325, 1013.25),
        ("km/h", "m s-1", 36, 10),
        ("knots", "m s**-1", 3600 / 1852, 1),
        ("mm", "m", 2, 0.002),
        ("mm/day", "kg m-2 s-1", 86400, 1),
        ("g/kg", "kg kg-1", 5, 0.005),
        ("%", "1", 40, 0.4),
    ],
)
def test_common_units_are_converted(given: str, wanted: str, value: float, expected: float) -> None:
    how = units.conversion(given, wanted)
    assert how is not None
    assert how.apply(np.float64(value)) == pytest.approx(expected, rel=1e-6)
    assert how.invert(np.float64(expected)) == pytest.approx(value, rel=1e-6)


@given(two_spellings())
def test_all_spellings_of_a_unit_need_no_conversion(two: tuple[str, str]) -> None:
    assert units.conversion(*two) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("K", "degK"),
        ("k", "degrees kelvin"),
        ("degC", "degrees_Celsius"),
        ("deg_C", "° C"),
        ("c", "°C"),
        ("F", "F"),
        ("degree_F", "fahrenheit"),
        ("hPa", "mbar"),
        ("mb", "MB"),
        ("millibars", "hectopascal"),
        ("m s-1", "meters per second"),
        ("m s-1", "metres/sec"),
        ("m.s-1", "m s^(-1)"),
        ("m s**-1", "m s⁻¹"),
        ("m/s", "m·s⁻¹"),
        ("kmh", "km/hr"),
        ("kg m-2 s-1", "mm s-1"),
        ("kg/m2/s", "kg/(m^2 s)"),
        ("kg m**-2 s**-1", "kg*m-2*s-1"),
        ("W/m²", "W m**-2"),
        ("m**2 s**-2", "J/kg"),
        ("(0 - 1)", "kg kg**-1"),
        ("0-1", "1"),
        ("counts", "count"),
        ("degrees", "deg"),
        # Not in the table, but the same.
        ("Pa s**-1", "Pa/s"),
        ("m of water equivalent", "M OF WATER EQUIVALENT"),
        ("", "K"),
    ],
)
def test_spellings_of_one_unit_need_no_conversion(one: str, other: str) -> None:
    assert units.conversion(one, other) is None
    assert units.conversion(other, one) is None


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("K", "Pa"),
        ("mm", "mm h-1"),
        ("counts of cars", "K"),
        ("Mb", "mbar"),
        ("MPa", "Pa"),
        ("ms", "m"),
        ("m s", "m s-1"),
        ("0.1 m", "0.01 m"),
    ],
)
def test_what_is_not_the_same_quantity_is_refused(given: str, wanted: str) -> None:
    with pytest.raises(UnitsError, match="cannot be converted"):
        units.conversion(given, wanted)


@given(st.sampled_from(UNITS), st.floats(-100, 100))
def test_every_conversion_comes_back(one: tuple[str, str], value: float) -> None:
    for other in units.TABLE[one[0]]:
        if (how := units.conversion(one[1], other)) is not None:
            back = how.invert(how.apply(np.float64(value)).astype(np.float64))
            # Both ways are rounded to float32; an offset of 273.15 leaves 3e-5, a factor of 100 carries it on.
            assert back == pytest.approx(value, rel=1e-5, abs=1e-4)


def test_a_series_is_read_in_the_models_units_and_written_in_its_own() -> None:
    series = series_in("degC", "m s-1")
    inside = units.to_model(series, {"v0": {"units": "K"}, "v1": {"units": "m/s"}})
    assert read_frames(inside, 0, 3)[:, 0] == pytest.approx(288.15)
    assert read_frames(inside, 0, 3)[:, 1] == pytest.approx(15)
    assert inside.attrs["variables"]["v0"]["units"] == "K"
    back = units.as_given(inside)
    assert np.allclose(back.values, series.values, atol=1e-4)
    assert back.attrs["variables"] == series.attrs["variables"]


def test_a_series_without_units_is_in_the_models() -> None:
    series = units.to_model(series_in(""), {"v0": {"units": "K"}})
    assert series.attrs["variables"]["v0"]["units"] == "K"
    assert (series.values == 15).all()


@pytest.mark.parametrize(
    ("here", "there", "way_out"),
    [("Pa", "K", "convert the values"), ("blob", "blobs_2", "ncatted -a units,VARIABLE,o,c,'blobs_2' FILE")],
)
def test_a_label_is_only_to_be_corrected_where_neither_unit_is_known(here: str, there: str, way_out: str) -> None:
    with pytest.raises(UnitsError, match=rf"v\.nc: v0: units '{here}' cannot be .* '{there}'; .*{way_out}"):
        units.to_model(series_in(here), {"v0": {"units": there}})


@pytest.mark.parametrize(
    "text", ["deg C", "DegC", "degrees C", "degreesC", "deg. C", "\ufffdC", "ºC", "° C", "Celcius", "oC", "Deg_C"]
)
def test_celsius_as_people_write_it(text: str) -> None:
    how = units.conversion(text, "K")
    assert how is not None
    assert how.apply(np.float64(7)) == np.float32(280.15)


@pytest.mark.parametrize(
    ("here", "there", "factor"),
    [
        ("m of water equivalent", "mm of water", 1000),
        ("m of water", "kg m-2", 1000),
        ("kg m-2", "m of water equivalent", 1e-3),
    ],
)
def test_depths_of_water_are_weights(here: str, there: str, factor: float) -> None:
    how = units.conversion(here, there)
    assert how is not None
    assert np.isclose(how.factor, factor)


@pytest.mark.parametrize(
    ("name", "attrs", "converted"),
    [("tp", {}, True), ("v0", {"standard_name": "precipitation_amount"}, True),
     ("v0", {}, False), ("v0", {"standard_name": "surface_snow_thickness"}, False)],
)  # fmt: skip
def test_kilograms_a_square_metre_are_millimetres_of_water_alone(name: str, attrs: dict, converted: bool) -> None:
    series = series_in("kg m-2").assign_coords(channel=[name])
    series.attrs["variables"] = {name: {"units": "kg m-2"} | attrs}
    if not converted:
        with pytest.raises(UnitsError):
            units.to_model(series, {name: {"units": "m"}})
        return
    there = units.to_model(series, {name: {"units": "m"}})
    assert np.allclose(there.values, series.values / 1000)
    assert np.allclose(units.as_given(there).values, series.values)


def test_quantities_are_known_by_any_spelling() -> None:
    assert [units.quantity(u) for u in ("Counts", "degrees Celsius", "J kg**-1", "cars", "")] == [
        "count",
        "temperature",
        "geopotential",
        None,
        None,
    ]
