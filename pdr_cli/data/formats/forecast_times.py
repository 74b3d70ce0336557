"""When each frame of a forecast file began and what time it is valid for, however its producer says so.

Axes are found by CF attributes, then by name:

* init and valid time of their own: pdr, anemoi-inference, bris;
* `time` is the init and a lead dimension follows: WeatherBench2, earth2studio, ECMWF's cfgrib;
* valid time and lead, from which the init follows: CREDIT;
* valid time counted from the init: pysteps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import xarray as xr

from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import axes
from pdr_cli.data.times import DAY, Step
from pdr_cli.errors import TimeError

INIT_NAMES = ("forecast_reference_time", "reference_time", "init_time", "initial_time", "initialization_time", "init")
LEAD_NAMES = ("forecast_period", "prediction_timedelta", "lead_time", "leadtime", "step", "forecast_hour", "fhour")
VALID_NAMES = ("valid_time", "time")
SECONDS = {
    1e-9: ("ns", "nanosecond", "nanoseconds"), 1e-6: ("us", "microsecond", "microseconds"),
    1e-3: ("ms", "millisecond", "milliseconds"), 1.0: ("s", "sec", "second", "seconds"),
    60.0: ("min", "minute", "minutes"), 3600.0: ("h", "hr", "hrs", "hour", "hours"), DAY: ("d", "day", "days"),
}  # fmt: skip
INSTANT = 1e-3  # seconds; frames nearer to the init than this are the init's own


@dataclass(frozen=True)
class Times:
    """The two times of every frame of a file, [m], and the place of the frame along its init and lead dimensions.

    Args:
        layout: the variables that hold the times, in words.
        init_dim: dimension along which the init changes; None: one init.
        lead_dim: dimension along which the lead changes; None: one lead.
        inits: init of each frame, of the type of the file's times: [m].
        init: the same in seconds: [m].
        valid: valid time of each frame, in seconds: [m].
        place: of each frame along the two dimensions: [m, 2].
    """

    layout: str
    init_dim: str | None
    lead_dim: str | None
    inits: np.ndarray
    init: np.ndarray
    valid: np.ndarray
    place: np.ndarray

    @property
    def dims(self) -> set[str]:
        """The dimensions along which init and lead change."""
        return {d for d in (self.init_dim, self.lead_dim) if d is not None}


def times_of(dataset: xr.Dataset, path: Path) -> Times:
    """Find init, lead and valid time; frames at the init time itself are left out.

    Raises:
        TimeError: no init time.
    """
    init = _find(dataset, "forecast_reference_time", INIT_NAMES, ())
    lead = _find(dataset, "forecast_period", LEAD_NAMES, ())
    if lead is not None and lead.name == "step" and not _has_units(lead):
        lead = None  # a counter of another kind
    if init is None and lead is not None and lead.ndim == 1 and _has_axis_of_its_own(dataset, lead):
        init = dataset["time"]
    valid = _find(dataset, "time", VALID_NAMES, () if init is None else (str(init.name),))
    if valid is not None and not (_is_time(valid) and valid.ndim <= 2):
        valid = None
    if init is None and valid is not None and str(dataset.attrs.get("source", "")).lower().startswith("pysteps"):
        init = _start_of_units(valid)
    if init is None and lead is not None and valid is not None:
        return _from_valid_and_lead(valid, lead)
    if init is None or not _is_time(init) or init.ndim > 1 or (lead is None and valid is None):
        raise _no_init(dataset, path, init)
    return _from_init(init, lead, valid)


def _from_init(init: xr.DataArray, lead: xr.DataArray | None, valid: xr.DataArray | None) -> Times:
    init_dim = str(init.dims[0]) if init.ndim else None
    ahead = [d for v in (lead, valid) if v is not None for d in v.dims if d != init_dim]
    lead_dim = str(ahead[0]) if ahead else None
    n = init.size
    L = next((v.sizes[lead_dim] for v in (lead, valid) if v is not None and lead_dim in v.dims), 1)
    began = time_axis.seconds(np.atleast_1d(init.values))
    if valid is not None:
        ticks = _spread(
            time_axis.seconds(valid.values.ravel()).reshape(valid.shape), valid.dims, (init_dim, lead_dim), (n, L)
        )
    else:
        lead = cast(xr.DataArray, lead)  # `times_of` has one of the two
        ticks = began[:, None] + _spread(_seconds(lead), lead.dims, (init_dim, lead_dim), (n, L))
    row, column = np.nonzero(ticks - began[:, None] > INSTANT)
    layout = f"init {init.name}, " + (f"valid {valid.name}" if valid is not None else f"lead {cast(Any, lead).name}")
    place = np.stack([row, column], axis=1)
    return Times(layout, init_dim, lead_dim, np.atleast_1d(init.values)[row], began[row], ticks[row, column], place)


def _from_valid_and_lead(valid: xr.DataArray, lead: xr.DataArray) -> Times:
    """Init = valid - lead, along one dimension or none."""
    dim = str(valid.dims[0]) if valid.ndim else None
    times = np.atleast_1d(valid.values)
    leads = np.broadcast_to(_seconds(lead), times.shape)
    ahead = np.flatnonzero(leads > INSTANT)
    inits = np.array([time_axis.shift(times[i], Step(float(leads[i])), -1) for i in ahead])
    place = np.stack([np.zeros_like(ahead), ahead], axis=1)
    ticks = time_axis.seconds(times)[ahead]
    return Times(f"valid {valid.name} less lead {lead.name}", None, dim, inits, ticks - leads[ahead], ticks, place)


def _find(dataset: xr.Dataset, standard_name: str, names: Sequence[str], taken: Sequence[str]) -> xr.DataArray | None:
    """The variable with a CF standard name, or else the first variable with one of these names."""
    import cf_xarray  # noqa: F401 - registers the accessor

    marked = [str(n) for n in dataset.cf.standard_names.get(standard_name, [])]
    found = [n for n in (*marked, *names) if n in dataset.variables and n not in taken]
    return dataset[found[0]] if found else None


def _start_of_units(valid: xr.DataArray) -> xr.DataArray:
    """The date from which a time axis counts; pysteps counts from the start of its nowcast."""
    counted = {k: v for k, v in valid.encoding.items() if k in ("units", "calendar")}
    return xr.DataArray(xr.conventions.decode_cf_variable("start", xr.Variable((), 0, counted)), name="in time's units")


def _has_axis_of_its_own(dataset: xr.Dataset, lead: xr.DataArray) -> bool:
    """Whether leads have another dimension than `time`, so that `time` is the init time."""
    return "time" in dataset.variables and dataset["time"].ndim <= 1 and lead.dims != dataset["time"].dims


def _is_time(variable: xr.DataArray) -> bool:
    """Dates, or the seconds of a clip."""
    return axes.is_time(variable) or (variable.dtype.kind == "f" and variable.attrs.get("units") == "s")


def _has_units(lead: xr.DataArray) -> bool:
    return "units" in {**lead.attrs, **lead.encoding} or np.issubdtype(lead.dtype, np.timedelta64)


def _seconds(lead: xr.DataArray) -> np.ndarray:
    """Leads in seconds; without units they are forecast hours.

    Raises:
        TimeError: units of another quantity than time.
    """
    if np.issubdtype(lead.dtype, np.timedelta64):
        return lead.values / np.timedelta64(1, "ns") * 1e-9
    unit = str(lead.attrs.get("units") or lead.encoding.get("units") or "hours").strip().lower()
    factor = next((f for f, spelled in SECONDS.items() if unit in spelled), None)
    if factor is None:
        raise TimeError(f"lead time {lead.name} has units {unit!r}", "hours or seconds")
    return lead.values.astype(np.float64) * factor


def _spread(
    values: np.ndarray, dims: Sequence[Any], target: tuple[str | None, str | None], shape: tuple[int, int]
) -> np.ndarray:
    """Values along one or both of two dimensions, broadcast to both: [n, L]."""
    if len(dims) == 2 and tuple(dims) != target:
        values = values.T
    elif len(dims) == 1:
        values = values[:, None] if dims[0] == target[0] else values[None, :]
    return np.broadcast_to(values, shape)


def _no_init(dataset: xr.Dataset, path: Path, init: xr.DataArray | None) -> TimeError:
    """The error for a file without a usable init time."""
    if init is not None and not _is_time(init):
        what = f"{path}: its init time {init.name} is not a date"
        return TimeError(what, "units such as 'hours since 1970-01-01'")
    times = [
        f"{n} ({', '.join(map(str, v.dims)) or 'one'})" for n, v in dataset.variables.items() if _is_time(dataset[n])
    ]
    return TimeError(
        f"{path} is not a forecast: it has no init time; its times are {', '.join(times) or 'none'}",
        "forecast_reference_time, or a lead time such as forecast_period, lead_time, prediction_timedelta or step beside "
        "its times",
    )
