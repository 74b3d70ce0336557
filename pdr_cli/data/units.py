"""Units: the spellings of the common ones, and how one becomes another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pdr_cli.data.series import LazyFrames, Series, make_like, names, read_frames, shape, units
from pdr_cli.errors import DataError
from pdr_cli.system.logs import log

GIVEN = "given_units"  # attribute of a converted Series: {channel: the units it came in}

# Of each quantity, the spellings of each unit, and (factor, offset) to the first unit of the quantity.
TABLE: dict[str, list[tuple[tuple[str, ...], float, float]]] = {
    "temperature": [
        (("K", "kelvin", "degK", "deg_K", "degree_K", "degrees_K", "degrees kelvin"), 1, 0),
        (
            ("degC", "C", "celsius", "deg_C", "degree_C", "degrees_C", "degree_Celsius", "degrees_Celsius", "°C"),
            1,
            273.15,
        ),
        (("degF", "fahrenheit", "degree_F", "degrees_F", "°F"), 5 / 9, 273.15 - 32 * 5 / 9),
    ],
    "pressure": [
        (("Pa", "pascal", "pascals", "N m-2"), 1, 0),
        (("hPa", "mbar", "mb", "millibar", "millibars", "hectopascal", "hectopascals"), 100, 0),
        (("kPa", "kilopascal"), 1000, 0),
    ],
    "speed": [
        (
            ("m s-1", "m/s", "m s**-1", "m s^-1", "m.s-1", "meter/second", "metres per second", "meters per second"),
            1,
            0,
        ),
        (("cm s-1", "cm/s", "cm s**-1"), 0.01, 0),
        (("km h-1", "km/h", "km hr-1", "kmh"), 1 / 3.6, 0),
        (("kt", "kts", "knot", "knots"), 1852 / 3600, 0),
    ],
    "length": [
        (("m", "meter", "metre", "meters", "metres"), 1, 0),
        (("cm", "centimeter", "centimetre"), 0.01, 0),
        (("mm", "millimeter", "millimetre"), 0.001, 0),
        (("km", "kilometer", "kilometre"), 1000, 0),
    ],
    "water": [(("kg m-2", "kg/m2", "kg m**-2", "kg m^-2"), 1, 0)],
    "water a second": [
        (("kg m-2 s-1", "kg/m2/s", "kg m**-2 s**-1", "mm s-1", "mm/s"), 1, 0),
        (("mm h-1", "mm/h", "mm/hr", "mm hr-1"), 1 / 3600, 0),
        (("mm d-1", "mm/d", "mm/day", "mm day-1"), 1 / 86400, 0),
    ],
    "flux of energy": [(("W m-2", "W/m2", "W m**-2", "W/m^2"), 1, 0)],
    "geopotential": [(("m2 s-2", "m**2 s**-2", "m^2 s^-2", "m2/s2", "J kg-1", "J/kg"), 1, 0)],
    "share": [
        (("1", "kg kg-1", "kg/kg", "kg kg**-1", "0-1", "(0 - 1)", "fraction", "dimensionless"), 1, 0),
        (("%", "percent"), 0.01, 0),
        (("g kg-1", "g/kg", "g kg**-1"), 0.001, 0),
    ],
    "count": [(("count", "counts"), 1, 0)],
}


class UnitsError(DataError):
    """Units that are others than the model's and cannot be converted to them."""

    name = "E_UNITS"


@dataclass(frozen=True)
class Conversion:
    """Value in the model's units = factor · value given + offset."""

    factor: float
    offset: float

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Given units to the model's."""
        return np.asarray(values * self.factor + self.offset, dtype=np.float32)

    def invert(self, values: np.ndarray) -> np.ndarray:
        """The model's units to the given ones."""
        return np.asarray((values - self.offset) / self.factor, dtype=np.float32)


def conversion(given: str, wanted: str) -> Conversion | None:
    """How `given` becomes `wanted`; None where both are the same, or one of them is not known.

    Raises:
        UnitsError: they measure different things, or one of two different texts is no unit of the table.
    """
    if not given.strip() or not wanted.strip() or _plain(given) == _plain(wanted):
        return None
    here, there = _find(given), _find(wanted)
    if here is None or there is None or here[0] != there[0]:
        raise UnitsError(f"units {given!r} cannot be converted to the model's {wanted!r}")
    factor, offset = here[1] / there[1], (here[2] - there[2]) / there[1]
    return None if (factor, offset) == (1, 0) else Conversion(factor, offset)


def check(series: Series, variables: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a series that is not in the units of a model's `variables`.

    Raises:
        UnitsError: names both.
    """
    for name, given, attrs in zip(names(series), units(series), variables.values(), strict=True):
        if conversion(given, str(attrs.get("units", ""))) is not None:
            raise UnitsError(
                f"{series.attrs['files'][0]}: {name} is in {given!r}, the model was trained on {attrs['units']!r}; "
                "convert it first"
            )


def to_model(series: Series, variables: Mapping[str, Mapping[str, Any]]) -> Series:
    """A series in the units of a model's `variables` (in the order of its channels), converted as it is read.

    Where it says no units, those of the model are meant, and its forecast says so.

    Raises:
        UnitsError: units that are others and cannot be converted.
    """
    wanted = [str(attrs.get("units", "")) for attrs in variables.values()]
    found: dict[str, Conversion] = {}
    for name, given, want in zip(names(series), units(series), wanted, strict=True):
        try:
            how = conversion(given, want)
        except UnitsError as error:
            raise UnitsError(
                f"{series.attrs['files'][0]}: {name}: {error}; if they are the same, correct the attribute: "
                f"ncatted -a units,{name},o,c,'{want}' FILE"
            ) from None
        if how is not None:
            found[name] = how
            log.info("units   %s from %s to the model's %s, and the forecast back", name, given, want)
    silent = {n: w for n, g, w in zip(names(series), units(series), wanted, strict=True) if w and not g}
    if silent:
        said = {
            n: dict(a) | ({"units": silent[n]} if n in silent else {}) for n, a in series.attrs["variables"].items()
        }
        series = series.assign_attrs(variables=said)
    if not found:
        return series
    new = dict(zip(names(series), wanted, strict=True))
    out = _convert(series, {n: c.apply for n, c in found.items()}, {n: new[n] for n in found})
    given_units = {n: units(series)[names(series).index(n)] for n in found}
    return out.assign_attrs({GIVEN: given_units})


def as_given(series: Series) -> Series:
    """A series that `to_model` converted, or a forecast from one, in the units that the input came in."""
    if GIVEN not in series.attrs:
        return series
    given = series.attrs[GIVEN]
    now = dict(zip(names(series), units(series), strict=True))
    how = {n: conversion(given[n], now[n]) for n in given}
    out = _convert(series, {n: c.invert for n, c in how.items() if c is not None}, given)
    del out.attrs[GIVEN]
    return out


def _convert(series: Series, how: Mapping[str, Any], new_units: Mapping[str, str]) -> Series:
    places = {names(series).index(n): convert for n, convert in how.items()}

    def frames(start: int, stop: int) -> np.ndarray:
        values = read_frames(series, start, stop).copy()
        for place, convert in places.items():
            values[:, place] = convert(values[:, place].astype(np.float64))
        return values

    attrs = {
        n: dict(a) | ({"units": new_units[n]} if n in new_units else {}) for n, a in series.attrs["variables"].items()
    }
    return make_like(series, LazyFrames(shape(series), np.float32, frames), variables=attrs)


def quantity(text: str) -> str | None:
    """What a unit measures, such as "temperature"; None for a unit that the table does not have."""
    found = _find(text)
    return None if found is None else found[0]


def _find(text: str) -> tuple[str, float, float] | None:
    """Quantity, factor and offset of a unit."""
    for quantity, rows in TABLE.items():
        for spellings, factor, offset in rows:
            if _plain(text) in {_plain(s) for s in spellings}:
                return quantity, factor, offset
    return None


def _plain(text: str) -> str:
    """Spaces, dots and carets that change nothing left out; case matters (mb, Mb), but not in the first letters of words."""
    text = " ".join(text.strip().replace("**", "").replace("^", "").split())
    return text if len(text) <= 4 else text.lower()
