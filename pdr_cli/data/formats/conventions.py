"""Datasets decoded by the CF conventions, as far as they follow them: a time that is not decoded hides no other variable."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import xarray as xr

SINCE = re.compile(r"\s*(\w+)\s+since\s+(.*)", re.IGNORECASE | re.DOTALL)
ZONE = re.compile(r"\d\s*([A-Za-z]{1,5})$")  # a name after the time of a date
UTC = ("utc", "gmt", "ut", "z")
DAY_OR_MONTH_FIRST = re.compile(r"\d{1,2}[-/. ]\d{1,2}[-/. ]\d{4}")
MISSING = ("missing_value", "_FillValue")


def decoded(stored: xr.Dataset) -> xr.Dataset:
    """A dataset with decoded numbers and dates; times in units or calendars that CF does not define stay numbers."""
    stored = stored.copy()
    for variable in stored.variables.values():
        variable.attrs = _plain(variable)
    unclear = {n: v for n, v in stored.variables.items() if _is_unclear(str(v.attrs.get("units", "")))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = xr.decode_cf(stored, decode_timedelta=False)
        except (ValueError, OverflowError):
            made = xr.decode_cf(stored, decode_times=False)
            made = made.assign({n: v for n in made.variables if (v := _dates(str(n), made.variables[n])) is not None})
        return made.assign(unclear) if unclear else made


def _plain(variable: xr.Variable) -> dict[Any, Any]:
    """Attributes of a variable in the form that xarray knows: units of time in lower case, missing values of its type."""
    attrs = dict(variable.attrs)
    if found := SINCE.fullmatch(str(attrs.get("units", ""))):
        attrs["units"] = f"{found[1].lower()} since {found[2].strip()}"
    if isinstance(attrs.get("calendar"), str):
        attrs["calendar"] = attrs["calendar"].strip()
    unsigned = variable.dtype.kind == "i" and str(attrs.get("_Unsigned", "")).lower() == "true"
    for name in set(MISSING) & set(attrs):
        number = _number(attrs[name], variable.dtype)
        if number is not None:
            attrs[name] = number
        if unsigned and name == "missing_value" and "_FillValue" not in attrs:
            attrs["_FillValue"] = np.asarray(attrs.pop(name)).ravel().astype(variable.dtype)[0]
    return attrs


def _number(given: Any, kind: np.dtype) -> Any:
    """A missing value in the type of the values, of which it may be a more exact one or the digits; None: as it is given."""
    try:
        value = np.asarray(given, float) if isinstance(given, str) else np.asarray(given)
    except ValueError:
        return None
    if value.dtype.kind not in "fiu" or kind.kind not in "fiu" or (value.dtype == kind and not isinstance(given, str)):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numbers that the type does not hold
        cast = value.astype(kind)
    same = np.isclose(cast.astype(float), value.astype(float), rtol=1e-6) if kind.kind == "f" else cast == value
    return cast[()] if np.all(same) else None


def _is_unclear(units: str) -> bool:
    """True for units whose date could be another one: in a time zone that has only a name, or with the year at its end."""
    found = SINCE.fullmatch(units)
    if not found:
        return False
    zone = ZONE.search(found[2])
    return bool(DAY_OR_MONTH_FIRST.match(found[2])) or (zone is not None and zone[1].lower() not in UTC)


def _dates(name: str, variable: xr.Variable) -> xr.Variable | None:
    """A variable with dates in place of numbers; None where it counts no time, or cannot be decoded."""
    if not SINCE.fullmatch(str(variable.attrs.get("units", ""))):
        return None
    try:
        return xr.conventions.decode_cf_variable(name, variable, decode_timedelta=False)
    except (ValueError, OverflowError):
        return None
