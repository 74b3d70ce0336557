"""Units: one rule for their spelling, and one table of how they convert."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from pdr_cli.data.series import LazyFrames, Series, make_like, names, read_frames, shape, units
from pdr_cli.errors import DataError
from pdr_cli.system.logs import log

GIVEN = "given_units"  # attribute of a converted Series: {channel: units of the file}

# Of each quantity {unit: (factor, offset)}: value in the quantity's first unit = factor · value + offset.
TABLE: dict[str, dict[str, tuple[float, float]]] = {
    "temperature": {"K": (1, 0), "degC": (1, 273.15), "degF": (5 / 9, 273.15 - 32 * 5 / 9)},
    "pressure": {
        "Pa": (1, 0),
        "N m-2": (1, 0),
        "hPa": (100, 0),
        "mbar": (100, 0),
        "kPa": (1000, 0),
        "dbar": (10000, 0),
        "bar": (100000, 0),
    },
    "speed": {"m s-1": (1, 0), "cm s-1": (0.01, 0), "km h-1": (1 / 3.6, 0), "knot": (1852 / 3600, 0)},
    "length": {"m": (1, 0), "cm": (0.01, 0), "mm": (0.001, 0), "km": (1000, 0)},
    # A millimetre of water weighs a kilogram per square metre.
    "water": {"kg m-2": (1, 0), "mm_water": (1, 0), "cm_water": (10, 0), "m_water": (1000, 0)},
    "water a second": {"kg m-2 s-1": (1, 0), "mm s-1": (1, 0), "mm h-1": (1 / 3600, 0), "mm d-1": (1 / 86400, 0)},
    "flux of energy": {"W m-2": (1, 0)},
    "geopotential": {"m2 s-2": (1, 0), "J kg-1": (1, 0)},
    "share": {"1": (1, 0), "%": (0.01, 0), "g kg-1": (0.001, 0)},
    "count": {"count": (1, 0)},
}
# Other words for a symbol; a plural needs no entry. Symbols are in lower case.
WORDS: dict[str, tuple[str, ...]] = {
    "k": ("kelvin", "degk"),
    "degc": ("c", "celsius", "celcius", "oc"),
    "degf": ("fahrenheit",),
    "pa": ("pascal",),
    "hpa": ("hectopascal",),
    "kpa": ("kilopascal",),
    "mbar": ("mb", "millibar"),
    "dbar": ("decibar",),
    "bar": (),
    "m": ("meter", "metre"),
    "cm": ("centimeter", "centimetre"),
    "mm": ("millimeter", "millimetre"),
    "km": ("kilometer", "kilometre"),
    "s": ("sec", "second"),
    "h": ("hr", "hrs", "hour"),
    "d": ("day",),
    "g": ("gram",),
    "kg": ("kilogram",),
    "n": ("newton",),
    "j": ("joule",),
    "w": ("watt",),
    "knot": ("kt", "kts"),
    "1": ("fraction", "dimensionless", "0-1"),
    "%": ("percent",),
    "count": (),
    "degree": ("deg", "°"),
}
SYMBOLS = {word: symbol for symbol, words in WORDS.items() for word in (symbol, *words)}
WHOLE = {"(0 - 1)": "1", "kmh": "km h-1"}  # spellings that follow no rule
TEMPERATURES = "kelvin|k|celsius|c|fahrenheit|f"
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")


Unit = tuple[str, float, float]  # quantity, factor and offset
# In standard names of amounts of water, and names of precipitation, runoff and evaporation.
WATER = ("precipitation", "rainfall", "snowfall", "water", "lwe_", "runoff", "evaporation", "moisture", "dew")
WATER_NAMES = (
    "tp",
    "pr",
    "prc",
    "cp",
    "lsp",
    "rain",
    "precip",
    "precipitation",
    "rainfall",
    "ro",
    "sro",
    "evap",
    "tcwv",
    "swe",
)


class UnitsError(DataError):
    """Units that differ from the model's and cannot be converted to them."""

    name = "E_UNITS"


@dataclass(frozen=True)
class Conversion:
    """Value in the model's units = factor · value in the file's units + offset."""

    factor: float
    offset: float

    def apply(self, values: np.ndarray) -> np.ndarray:
        """The file's units to the model's."""
        return np.asarray(values * self.factor + self.offset, dtype=np.float32)

    def invert(self, values: np.ndarray) -> np.ndarray:
        """The model's units to the file's."""
        return np.asarray((values - self.offset) / self.factor, dtype=np.float32)


def quantities(variables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names with their units, such as "t2m [K]", of the attributes of variables by name."""
    return [f"{name} [{attrs.get('units', '1')}]" for name, attrs in variables.items()]


def conversion(units: str, model_units: str, *, water: bool = False) -> Conversion | None:
    """How values in `units` become values in `model_units`; None if both are the same, or one of them is empty.

    Args:
        units: of the values.
        model_units: wanted.
        water: whether the values are amounts of water, of which a depth of 1 mm weighs 1 kg m-2.

    Raises:
        UnitsError: they measure different quantities, or differ and one of them is not in the table.
    """
    if not units.strip() or not model_units.strip() or spelling(units) == spelling(model_units):
        return None
    here, there = _find(units), _find(model_units)
    if here is not None and there is not None and here[0] != there[0]:
        here, there = _as_water(here, there, water), _as_water(there, here, water)
    if here is None or there is None or here[0] != there[0]:
        raise UnitsError(f"units {units!r} cannot be converted to {model_units!r}")
    factor, offset = here[1] / there[1], (here[2] - there[2]) / there[1]
    return None if (factor, offset) == (1, 0) else Conversion(factor, offset)


def _as_water(unit: Unit, other: Unit, water: bool) -> Unit:
    """A depth of water as its weight, if the other unit is a weight and the depth is one of water."""
    depths = {"length": "water", "speed": "water a second"}
    quantity, factor, offset = unit
    if water and depths.get(quantity) == other[0]:
        return other[0], 1000 * factor, offset
    return unit


def is_water(name: str, *attrs: Mapping[str, Any]) -> bool:
    """True for amounts and rates of water, by the standard name, or else by a name that models and archives use."""
    marked = " ".join(str(a.get("standard_name", "")) for a in attrs)
    if marked.strip():
        return any(word in marked for word in WATER)
    return name.partition("@")[0].lower() in WATER_NAMES


def check(series: Series, variables: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a series that is not in the units of a model's `variables`.

    Raises:
        UnitsError: names both units.
    """
    for name, here, attrs in zip(names(series), units(series), variables.values(), strict=True):
        if _between(series, name, here, attrs) is not None:
            raise UnitsError(
                f"{series.attrs['files'][0]}: {name} is in {here!r}",
                f"the model's {attrs['units']!r}",
                "convert it first",
            )


def named_by(parts: Sequence[Series]) -> Series:
    """The first of several parts of a series; a channel that has no units in it has those of the others."""
    first = parts[0]
    found: dict[str, str] = {}
    for part in parts[1:]:
        here = dict(zip(names(part), units(part), strict=True))
        found = {name: unit for name, unit in here.items() if unit.strip()} | found
    unnamed = [n for n, unit in zip(names(first), units(first), strict=True) if not unit.strip() and n in found]
    for name in unnamed:
        file = first.attrs["files"][0]
        log.warning("units   %s: %s has no units; taken to be %s as in the other files", file, name, found[name])
    return first.assign_attrs(variables=_labelled(first, {n: found[n] for n in unnamed})) if unnamed else first


def to_common(series: Series, first: Series) -> Series:
    """A series in the units of another one with the same channels, converted as it is read.

    Channels without units are assumed to be in the other's units, which is said.

    Raises:
        UnitsError: units that cannot be converted; names both files.
    """
    here, there = (dict(zip(names(s), units(s), strict=True)) for s in (series, first))
    mine, theirs = (str(s.attrs["files"][0]) for s in (series, first))
    how: dict[str, Conversion] = {}
    for name, unit in here.items():
        try:
            found = _between(series, name, unit, first.attrs["variables"][name])
        except UnitsError:
            raise UnitsError(
                f"{mine}: {name} is in {unit!r}, which cannot be converted to {there[name]!r} of {theirs}",
                way_out="convert one of the files first, or leave it out",
            ) from None
        if there[name].strip() and not unit.strip():
            log.warning("units   %s: %s has no units; taken to be %s as in %s", mine, name, there[name], theirs)
        if found is not None:
            log.info("units   %s: %s from %s to %s of %s", mine, name, unit, there[name], theirs)
            how[name] = found
    return _convert(series, {n: c.apply for n, c in how.items()}, {n: there[n] for n in how}) if how else series


def to_model(series: Series, variables: Mapping[str, Mapping[str, Any]]) -> Series:
    """A series in the units of a model's `variables` (in the order of its channels), converted as it is read.

    Variables without units are assumed to be in the model's units; the forecast is labelled with them.

    Raises:
        UnitsError: units that differ from the model's and cannot be converted.
    """
    here = dict(zip(names(series), units(series), strict=True))
    there = {name: str(attrs.get("units", "")) for name, attrs in zip(here, variables.values(), strict=True)}
    wanted = dict(zip(here, variables.values(), strict=True))
    found = {name: _to_model(series, name, here[name], wanted[name]) for name in here}
    different = {name: how for name, how in found.items() if how is not None}
    unlabelled = {name: unit for name, unit in there.items() if unit and not here[name]}
    if unlabelled:
        series = series.assign_attrs(variables=_labelled(series, unlabelled))
    if not different:
        return series
    out = _convert(series, {n: c.apply for n, c in different.items()}, {n: there[n] for n in different})
    return out.assign_attrs({GIVEN: {n: here[n] for n in different}})


def _between(series: Series, name: str, here: str, attrs: Mapping[str, Any]) -> Conversion | None:
    """How a channel in the units `here` comes to the units in `attrs`."""
    own = series.attrs["variables"].get(name, {})
    return conversion(here, str(attrs.get("units", "")), water=is_water(name, own, attrs))


def _to_model(series: Series, name: str, here: str, attrs: Mapping[str, Any]) -> Conversion | None:
    there = str(attrs.get("units", ""))
    try:
        how = _between(series, name, here, attrs)
    except UnitsError:
        found = f"{series.attrs['files'][0]}: {name}: units {here!r} cannot be converted to the model's {there!r}"
        # Only a unit that nothing is known of may be another word for the model's.
        unknown = quantity(here) is None and quantity(there) is None
        corrected = f"if they are the same, correct the attribute: ncatted -a units,VARIABLE,o,c,'{there}' FILE"
        raise UnitsError(found, way_out=corrected if unknown else "convert the values first") from None
    if how is not None:
        log.info("units   %s from %s to the model's %s, and the forecast back", name, here, there)
    return how


def as_given(series: Series) -> Series:
    """A series that `to_model` converted, or a forecast from one, in the units of the input file."""
    if GIVEN not in series.attrs:
        return series
    original, how = series.attrs[GIVEN], from_given(series)
    out = _convert(series, {n: c.invert for n, c in how.items() if c is not None}, original)
    del out.attrs[GIVEN]
    return out


def from_given(series: Series) -> dict[str, Conversion | None]:
    """How each channel that `to_model` converted came from the units of the input file to those of the series."""
    now = dict(zip(names(series), units(series), strict=True))
    return {n: _between(series, n, unit, {"units": now[n]}) for n, unit in series.attrs.get(GIVEN, {}).items()}


def _convert(
    series: Series, how: Mapping[str, Callable[[np.ndarray], np.ndarray]], new_units: Mapping[str, str]
) -> Series:
    channels = {names(series).index(n): convert for n, convert in how.items()}

    def frames(start: int, stop: int) -> np.ndarray:
        return converted(read_frames(series, start, stop), channels)

    lazy = LazyFrames(shape(series), np.float32, frames)
    return make_like(series, lazy, variables=_labelled(series, new_units))


def converted(frames: np.ndarray, channels: Mapping[int, Callable[[np.ndarray], np.ndarray]]) -> np.ndarray:
    """Frames [..., C, H, W] of which some channels, by number, are converted in float64."""
    values = frames.copy() if channels else frames
    for channel, convert in channels.items():
        values[..., channel, :, :] = convert(values[..., channel, :, :].astype(np.float64))
    return values


def _labelled(series: Series, new_units: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Attributes of the variables, with new units for some."""
    old = series.attrs["variables"]
    return {n: dict(a) | ({"units": new_units[n]} if n in new_units else {}) for n, a in old.items()}


def quantity(text: str) -> str | None:
    """The quantity that a unit measures, such as "temperature"; None for a unit that is not in the table."""
    found = _find(text)
    return None if found is None else found[0]


def _find(text: str) -> Unit | None:
    """Quantity, factor and offset of a unit."""
    return _by_spelling().get(spelling(text)) if text.strip() else None


@cache
def _by_spelling() -> dict[frozenset[tuple[str, int]], Unit]:
    return {spelling(unit): (quantity, *how) for quantity, rows in TABLE.items() for unit, how in rows.items()}


@cache
def spelling(text: str) -> frozenset[tuple[str, int]]:
    """A unit as its symbols with their powers, equal for all spellings of one unit.

    `m s-1`, `m s**-1`, `m s^-1`, `m.s-1`, `m*s-1`, `m/s`, `M/S` and `meters per second` are {m: 1, s: -1}. A slash or "per"
    divides by the next factor, or by all factors in the parentheses that follow.
    """
    powers: Counter[str] = Counter()
    for sign, factor in _factors(WHOLE.get(text.strip().lower(), text)):
        raised = re.fullmatch(r"((?!\d).*?[^\d+-])([+-]?\d+)", factor)
        symbol, power = raised.groups() if raised else (factor, "1")
        powers[_symbol(symbol)] += sign * int(power)
    return frozenset((symbol, power) for symbol, power in powers.items() if power and symbol != "1")


def _factors(text: str) -> Iterator[tuple[int, str]]:
    """The factors of a unit in order, each with +1, or -1 for one that it is divided by."""
    text = re.sub(r"([℃℉])", lambda match: {"℃": "°C", "℉": "°F"}[match[1]], text)
    text = re.sub(r"[\ufffdº˚]", "°", text)  # what is left of a degree sign, or stands for one
    text = re.sub(r"\b(deg(?:ree)?s?)\.\s*", r"\1 ", text, flags=re.IGNORECASE)
    text = re.sub(r"\b([cm]?m)\s+(?:of\s+)?water(?:\s+equivalent)?\b", r"\1_water", text, flags=re.IGNORECASE)
    text = re.sub(r"\bper\b", "/", text.translate(SUPERSCRIPTS), flags=re.IGNORECASE)
    text = re.sub(r"\s*(?:\*\*|\^)\s*\(?([+-]?\d+)\)?", r"\1", text)
    text = re.sub(rf"(?<!\w)(deg(?:ree)?s?|°)\s+(?=(?:{TEMPERATURES})\b)", r"\1_", text, flags=re.IGNORECASE)
    text = re.sub(r"/\s*\(([^()]*)\)", lambda match: "/" + "/".join(_product(match[1])), text)
    for number, product in enumerate(text.split("/")):
        for place, factor in enumerate(_product(product)):
            yield (-1 if number and not place else 1), factor


def _product(text: str) -> list[str]:
    """The factors of a product: between spaces, asterisks, or dots that are not decimal points."""
    return [factor for factor in re.split(r"[\s*·⋅]+|(?<!\d)\.|\.(?!\d)", text) if factor]


def _symbol(text: str) -> str:
    """One symbol for all words of it, in lower case but for the prefix mega: `Mb` is not a millibar."""
    if re.fullmatch(r"M[A-Za-z]{1,3}", text) and not text.isupper():
        return text
    plain = text.lower()
    degrees = re.fullmatch(rf"(?:deg(?:ree)?s?|°)_?({TEMPERATURES})", plain)
    if degrees:
        return {"k": "k", "c": "degc", "f": "degf"}[degrees[1][0]]
    singular = plain[:-1] if len(plain) > 3 and plain.endswith("s") else plain
    return SYMBOLS.get(plain) or SYMBOLS.get(singular) or plain
