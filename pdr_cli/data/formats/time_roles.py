"""What a time variable of a file stands for: the valid time, the init time, or the lead between both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from pdr_cli.data.times import DAY
from pdr_cli.errors import TimeError

INIT_NAMES = ("forecast_reference_time", "reference_time", "init_time", "initial_time", "initialization_time", "init")
LEAD_NAMES = (
    "forecast_period",
    "prediction_timedelta",
    "lead_time",
    "leadtime",
    "lead",
    "step",
    "forecast_hour",
    "fhour",
)
VALID_NAMES = ("valid_time", "datetime", "time")
INITIAL = ("initial time", "reference time", "forecast reference time", "analysis time", "model run")  # of long names
SECONDS = {
    1e-9: ("ns", "nanosecond", "nanoseconds"), 1e-6: ("us", "microsecond", "microseconds"),
    1e-3: ("ms", "millisecond", "milliseconds"), 1.0: ("s", "sec", "second", "seconds"),
    60.0: ("min", "minute", "minutes"), 3600.0: ("h", "hr", "hrs", "hour", "hours"), DAY: ("d", "day", "days"),
}  # fmt: skip


def is_time(variable: xr.Variable | xr.DataArray) -> bool:
    """True for decoded dates of any calendar."""
    if np.issubdtype(variable.dtype, np.datetime64):
        return True
    return variable.dtype == object and variable.size > 0 and hasattr(variable.values.flat[0], "calendar")


def is_init(name: str, attrs: Mapping[str, Any]) -> bool:
    """True if dates of this name and these attributes are those at which forecasts began."""
    standard_name = attrs.get("standard_name", "")
    if standard_name == "forecast_reference_time" or name.lower() in INIT_NAMES:
        return True
    return str(attrs.get("long_name", "")).lower().startswith(INITIAL)


def is_valid_time(name: str, attrs: Mapping[str, Any]) -> bool:
    """True if dates of this name and these attributes are marked as those for which fields hold."""
    if is_init(name, attrs):
        return False
    return attrs.get("standard_name") == "time" or attrs.get("axis") == "T" or name.lower() in VALID_NAMES


def is_lead(name: str, variable: xr.Variable | xr.DataArray) -> bool:
    """True for the time from the init to the valid time: by standard name, or else by name and a unit of time."""
    if variable.attrs.get("standard_name") == "forecast_period":
        return variable.dtype.kind in "fium"
    return (name.lower() in LEAD_NAMES or name.lower() == "time") and seconds_in(variable) is not None


def seconds_in(variable: xr.Variable | xr.DataArray) -> float | None:
    """Seconds in the unit of a duration; None where it has no unit of time."""
    if np.issubdtype(variable.dtype, np.timedelta64):
        return 1e-9
    unit = unit_of(variable)
    return next((factor for factor, spelled in SECONDS.items() if unit in spelled), None)


def unit_of(variable: xr.Variable | xr.DataArray) -> str:
    """The unit of a duration in lower case, "" where it has none."""
    return str(variable.attrs.get("units") or variable.encoding.get("units") or "").strip().lower()


def lead_seconds(lead: xr.Variable | xr.DataArray, name: str = "") -> np.ndarray:
    """Leads in seconds.

    Raises:
        TimeError: no unit, or one of another quantity than time.
    """
    factor = seconds_in(lead)
    if factor is None:
        unit = unit_of(lead)
        has = f"units {unit!r}" if unit else "no units"
        way_out = f"ncatted -a units,{name},o,c,hours FILE, if they are hours"
        raise TimeError(f"lead time {name} has {has}", "hours or seconds", way_out)
    if np.issubdtype(lead.dtype, np.timedelta64):
        return np.asarray(lead.values.astype("timedelta64[ns]").astype(np.float64) * factor)
    return np.asarray(lead.values.astype(np.float64) * factor)
