"""Bounds: the lowest and highest value that a quantity can have, such as 0 for rain and 1 for a cloud fraction.

A bound comes from an option, from the `valid_*` attributes of a file, from the table of this module or from the kind of the
data. The training data alone never give one: a lowest value of 0 does not mean that less is impossible. But they can refute
one: an anomaly of rain has rain's standard name and is negative.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from pdr_cli.data import kinds
from pdr_cli.data.limits import Limits
from pdr_cli.data.series import Series, make_like, names, units
from pdr_cli.data.units import Conversion, as_given, conversion, from_given, quantity
from pdr_cli.errors import ConfigError, DataError, did_you_mean
from pdr_cli.settings import NONE, parse_bound
from pdr_cli.system.logs import log

BOUNDED = "bounded"  # attribute of a forecast: its `Bounds`, in its units
TOLERANCE = 1e-3  # of the sd: training values this far outside are the noise of packing, as -1e-5 mm of rain
End = Literal["low", "high"]

# Standard names of quantities that are never negative; False: without an upper bound, True: a share of at most 1 or 100 %.
# Signed on purpose: evaporation (dew), net radiation, surface temperature, velocities, altitudes, reflectivity in dBZ.
STANDARD_NAMES: dict[str, bool] = {
    # Water that falls, lies and runs off.
    r"(lwe_|thickness_of_|lwe_thickness_of_)?(\w+_)?(precipitation|rainfall|snowfall|graupel_fall)_(amount|flux|rate)": False,
    r"(lwe_thickness_of_)?(surface_)?snow_amount|(surface_)?snow_thickness(_where_sea_ice)?": False,
    r"((sub)?surface_)?runoff_(amount|flux)|canopy_water_amount|(\w+_)?moisture_content(_\w+)?": False,
    r"mass_content_of_water_in_soil(_layer)?|volume_fraction_of_(condensed_)?water_in_soil(_\w+)?": False,
    r"(lwe_thickness_of_)?atmosphere_(mass|mole)_content_of_\w+|atmosphere_cloud_\w+_content": False,
    # Shares of an area.
    r"(\w+_)?area_fraction(_in_atmosphere_layer|_in_air)?": True,
    r"surface_albedo(_\w+)?|sea_ice_albedo|probability_of_\w+": True,
    # Humidity: air can be supersaturated, so 100 % is not a bound.
    r"relative_humidity(_\w+)?": False,
    r"(surface_)?specific_humidity(_\w+)?|humidity_mixing_ratio|cloud_\w+_mixing_ratio": False,
    # Species in air and water.
    r"(mass|mole|volume)_(fraction|mixing_ratio)_of_\w+": False,
    r"(mass|mole|number)_concentration_of_\w+|(\w+_)?optical_thickness(_\w+)?": False,
    r"sea_water_(\w+_)?salinity|sea_surface_salinity": False,
    # Magnitudes, sizes and durations.
    r"(\w+_)?(wind|sea_water|sea_ice)_speed(_\w+)?": False,
    r"sea_surface_(\w+_)?wave_(significant_height|(\w+_)?period(_\w+)?)|sea_surface_(\w+_)?wave_maximum_height": False,
    r"(sea_ice|land_ice|atmosphere_boundary_layer|ocean_mixed_layer)_thickness(_\w+)?": False,
    r"visibility_in_air|leaf_area_index|duration_of_sunshine|atmosphere_convective_available_potential_energy": False,
    # Radiation in one direction; pyranometers below 0 at night refute it.
    r"(surface|toa)_(down|up)welling_\w+_flux(_\w+)?|toa_(incoming|outgoing)_\w+_flux(_\w+)?": False,
}
# Words of a standard name that make a signed quantity of one of these.
SIGNED = {"tendency", "change", "anomaly", "difference", "product", "derivative", "divergence", "net", "shear"}
# Quantities of `units.TABLE` in which the names below are those quantities.
WATER, SHARE, SPEED, LENGTH = ("length", "water", "water a second", "speed"), ("share",), ("speed",), ("length",)
# Names of variables in files without standard names (ECMWF, CMIP, WeatherBench2): quantities, and whether it is a share.
SHORT_NAMES: dict[str, tuple[tuple[str, ...], bool]] = {
    **dict.fromkeys(("tp", "cp", "lsp", "pr", "prc", "prsn", "prcp", "apcp", "prate", "ppt", "swe"), (WATER, False)),
    **dict.fromkeys(("precip", "precipitation", "precipitationcal", "rain", "rainfall", "snowfall"), (WATER, False)),
    **dict.fromkeys(("total_precipitation", "tprate", "mtpr", "tot_prec"), (WATER, False)),
    **dict.fromkeys(("snd", "snow_depth", "swh", "sithick"), (LENGTH, False)),
    **dict.fromkeys(("tcw", "tcwv", "prw", "snw", "mrso"), (("water",), False)),
    **dict.fromkeys(
        ("tcc", "lcc", "mcc", "hcc", "clt", "siconc", "siconca", "sic", "snc", "total_cloud_cover"), (SHARE, True)
    ),
    **dict.fromkeys(("rh", "rhum", "hur", "hurs", "shum", "hus", "huss", "clwc", "ciwc"), (SHARE, False)),
    **dict.fromkeys(("relative_humidity", "specific_humidity"), (SHARE, False)),
    **dict.fromkeys(("sfcwind", "wind_speed", "windspeed", "wspd", "si10", "gust", "fg10"), (SPEED, False)),
}
LOGARITHM = re.compile(r"\b(log\w*|ln|lg|dbz?|decibels?)\b|^lg\(", re.IGNORECASE)


@dataclass(frozen=True)
class Bounds:
    """The lowest and the highest value of each channel, [C] each; None where there is none.

    Args:
        low: of each channel.
        high: of each channel.
    """

    low: tuple[float | None, ...]
    high: tuple[float | None, ...]

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest values, [C, 1, 1] float32; -inf and inf where there is none."""
        low = [-np.inf if v is None else v for v in self.low]
        high = [np.inf if v is None else v for v in self.high]
        return np.asarray(low, np.float32)[:, None, None], np.asarray(high, np.float32)[:, None, None]

    def clip(self, frames: np.ndarray) -> np.ndarray:
        """Frames [..., C, H, W] within the bounds; NaN stays NaN."""
        return np.clip(frames, *self.ends())

    def converted(self, how: Sequence[Conversion | None]) -> Bounds:
        """The bounds in the units of a file, each channel by its conversion to these units; None: the same units."""

        def back(ends: tuple[float | None, ...]) -> tuple[float | None, ...]:
            pairs = zip(ends, how, strict=True)
            return tuple(v if v is None or h is None else float(h.invert(np.asarray(v))) for v, h in pairs)

        return Bounds(back(self.low), back(self.high))

    def words(self) -> list[str]:
        """Each channel's bounds as `data.bounds` has them, "0..1" or "0.."; "none" without."""
        pairs = zip(self.low, self.high, strict=True)
        return [interval(low, high) if (low, high) != (None, None) else NONE for low, high in pairs]


class Candidate(NamedTuple):
    """One possible bound of a channel, and where it comes from."""

    end: End
    value: float
    origin: str
    explicit: bool = False


def interval(low: float | None, high: float | None) -> str:
    """An interval as `data.bounds` has it: "0..1", "0.." or "..5"."""
    return "..".join("" if v is None else f"{v:g}" for v in (low, high))


def check_names(option: Sequence[str], series: Series) -> None:
    """Refuse an option `data.bounds` that names variables other than those of the data.

    Raises:
        ConfigError: names the variables.
    """
    channels = names(series)
    for name in explicit(option):
        if name not in channels:
            raise ConfigError(
                f"data.bounds names {name!r}, which the data do not have.{did_you_mean(name, channels)}",
                f"one of {', '.join(channels)}",
            )


def explicit(option: Sequence[str]) -> dict[str, tuple[float | None, float | None]]:
    """{variable: (low, high)} of an option `data.bounds`."""
    return {name: ends for name, *ends in map(parse_bound, option) if name}  # type: ignore[misc]


def resolve(
    option: Sequence[str], series: Series, limits: Limits, count: Callable[[int, float, float], int]
) -> Bounds | None:
    """The bounds of each channel, in its units; None if there are none. Logs each with its origin.

    Args:
        option: `data.bounds`.
        series: for names, units, attributes and kind.
        limits: extremes and sd of the training data, which inferred bounds must agree with.
        count: the number of training values of a channel that lie outside of [low, high].

    Raises:
        DataError: training data beyond an explicit bound; names the number of values.
    """
    found: list[tuple[float | None, float | None]] = []
    for channel, name in enumerate(names(series)):
        slack = TOLERANCE * limits.sd[channel]
        extremes = (limits.minimum[channel] + slack, limits.maximum[channel] - slack)
        candidates = list(_candidates(option, series, channel))
        kept = [c for c in candidates if _agrees(c, extremes)]
        for refuted in (c for c in candidates if c not in kept):
            _refute(refuted, series, channel, (limits.minimum[channel], limits.maximum[channel]), count, slack)
        found.append(_chosen(kept, name, units(series)[channel]))
    if all(pair == (None, None) for pair in found):
        return None
    return Bounds(tuple(low for low, _ in found), tuple(high for _, high in found))


def _candidates(option: Sequence[str], series: Series, channel: int) -> Iterator[Candidate]:
    """Every possible bound of a channel; where the option names it, those of the option alone."""
    name, unit = names(series)[channel], units(series)[channel]
    chosen = explicit(option)
    if name in chosen:
        yield from _pair(*chosen[name], "data.bounds", explicit=True)
    elif NONE not in option:
        attrs = series.attrs["variables"].get(name, {})
        yield from _pair(attrs.get("valid_min"), attrs.get("valid_max"), "valid range of the file")
        yield from _of_quantity(name, unit, attrs)
        yield from _pair(*kinds.of(series).bounds, f"kind {kinds.of(series).name}")


def _pair(low: float | None, high: float | None, origin: str, explicit: bool = False) -> Iterator[Candidate]:
    ends: tuple[tuple[End, float | None], ...] = (("low", low), ("high", high))
    return (Candidate(end, value, origin, explicit) for end, value in ends if value is not None)


def _of_quantity(name: str, unit: str, attrs: Mapping[str, Any]) -> Iterator[Candidate]:
    """The bounds of a physical quantity, by its standard name, or else by its name and unit."""
    standard = str(attrs.get("standard_name", ""))
    if LOGARITHM.search(unit) or SIGNED & set(standard.split("_")):
        return
    share = next((share for pattern, share in STANDARD_NAMES.items() if re.fullmatch(pattern, standard)), None)
    origin = f"standard name {standard}"
    if share is None:
        what, origin = quantity(unit), f"{name} in {unit}"
        fitting, share = SHORT_NAMES.get(re.sub(r"@.*|_\d+hr$", "", name.lower()), (("count",), False))
        if what not in fitting:
            return
    yield from _pair(0.0, _whole(unit) if share else None, origin)


def _whole(unit: str) -> float | None:
    """1 in a unit of shares, such as 100 %; None for other units."""
    if quantity(unit) != "share":
        return None
    how = conversion("1", unit)
    return 1.0 if how is None else float(how.apply(np.ones(())))


def _agrees(candidate: Candidate, extremes: tuple[float, float]) -> bool:
    """True if the training data, without their noise, lie on the right side of a bound."""
    return candidate.value <= extremes[0] if candidate.end == "low" else candidate.value >= extremes[1]


def _refute(
    candidate: Candidate, series: Series, channel: int, extremes: tuple[float, float],
    count: Callable[[int, float, float], int], slack: float,
) -> None:  # fmt: skip
    """Log that training data refute an inferred bound.

    Raises:
        DataError: an explicit one.
    """
    low, name, unit = candidate.end == "low", names(series)[channel], units(series)[channel]
    extreme = extremes[0] if low else extremes[1]
    reach = f"the training data reach {extreme:g} {unit}".rstrip()
    if not candidate.explicit:
        log.warning("bounds  %s %s is not applied: %s (%s)", name, _words(candidate), reach, candidate.origin)
        return
    ends = (candidate.value - slack, np.inf) if low else (-np.inf, candidate.value + slack)
    raise DataError(
        f"{series.attrs['files'][0]}: {count(channel, *ends)} training values of {name} are not within its bound "
        f"{_words(candidate)}; {reach}",
        way_out=f"correct the values, or choose other bounds: --set data.bounds={name}=LOW..HIGH, or {name}=none",
    )


def _words(candidate: Candidate) -> str:
    return f"{candidate.value:g}.." if candidate.end == "low" else f"..{candidate.value:g}"


def _chosen(candidates: list[Candidate], name: str, unit: str) -> tuple[float | None, float | None]:
    """The tightest of the bounds, which all hold."""
    lows, highs = ([c for c in candidates if c.end == end] for end in ("low", "high"))
    low = max(lows, key=lambda c: c.value, default=None)
    high = min(highs, key=lambda c: c.value, default=None)
    pair = (low and low.value, high and high.value)
    if low or high:
        origins = ", ".join(dict.fromkeys(c.origin for c in (low, high) if c))
        log.info("bounds  %s %s (%s)", name, f"{interval(*pair)} {unit}".rstrip(), origins)
    return pair


def hold(forecast: Series, bounds: Bounds | None) -> Series:
    """A forecast in the units of the input (`units.as_given`), within a model's bounds.

    The conversions round, so that 0 may have become -1e-10. The forecast keeps its bounds in `attrs["bounded"]`.
    """
    found = from_given(forecast)
    how = [found.get(n) for n in names(forecast)]
    out = as_given(forecast)
    if bounds is None:
        return out
    here = bounds.converted(how)
    return make_like(out, here.clip(out.values)).assign_attrs({BOUNDED: here})
