"""Datasets decoded by the CF conventions, as far as they follow them: a time that is not decoded hides no other variable."""

from __future__ import annotations

import warnings

import xarray as xr

SINCE = " since "


def decoded(stored: xr.Dataset) -> xr.Dataset:
    """A dataset with decoded numbers and dates; times in units or calendars that CF does not define stay numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return xr.decode_cf(stored, decode_timedelta=False)
        except (ValueError, OverflowError):
            made = xr.decode_cf(stored, decode_times=False)
            return made.assign({n: v for n in made.variables if (v := _dates(str(n), made.variables[n])) is not None})


def _dates(name: str, variable: xr.Variable) -> xr.Variable | None:
    """A variable with dates in place of numbers; None where it counts no time, or cannot be decoded."""
    if SINCE not in str(variable.attrs.get("units", "")):
        return None
    try:
        return xr.conventions.decode_cf_variable(name, variable, decode_timedelta=False)
    except (ValueError, OverflowError):
        return None
