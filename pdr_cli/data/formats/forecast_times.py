"""When each frame of a forecast file began and what time it is valid for, however its producer says so.

Axes are found by CF attributes, then by name:

* init and valid time of their own: pdr, anemoi-inference, bris;
* `time` is the init and a lead dimension follows: WeatherBench2, earth2studio, ECMWF's cfgrib;
* valid time and lead, from which the init follows: CREDIT, GraphCast;
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
from pdr_cli.data.formats import time_roles
from pdr_cli.data.formats.time_roles import INIT_NAMES, LEAD_NAMES, VALID_NAMES, is_lead, lead_seconds
from pdr_cli.data.times import Step
from pdr_cli.errors import TimeError

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


def times_of(dataset: xr.Dataset, path: Path, spacing: float | None = None) -> Times:
    """Find init, lead and valid time; frames at the init time itself are left out.

    Args:
        dataset: of one file.
        path: for messages.
        spacing: of the data to compare with, seconds; it tells the unit of leads that have none. None: not known.

    Raises:
        TimeError: no init time, or leads whose unit cannot be told.
    """
    init = _find(dataset, "forecast_reference_time", INIT_NAMES, ())
    lead = _lead(dataset, spacing)
    if init is None and lead is not None and lead.ndim == 1 and _has_axis_of_its_own(dataset, lead):
        init = dataset["time"]
    taken = [str(v.name) for v in (init, lead) if v is not None]
    valid = _valid(dataset, taken, [str(d) for v in (init, lead) if v is not None for d in v.dims])
    if init is None and valid is not None and str(dataset.attrs.get("source", "")).lower().startswith("pysteps"):
        init = _start_of_units(valid)
    if init is None and lead is not None and valid is not None:
        return _from_valid_and_lead(valid, lead)
    if init is None or not _is_time(init) or init.ndim > 1 or (lead is None and valid is None):
        raise _no_init(dataset, path, init)
    return _from_init(init, lead, valid)


def _lead(dataset: xr.Dataset, spacing: float | None) -> xr.DataArray | None:
    """The lead times, with units; `time` itself where it is a duration, as GraphCast has it.

    Raises:
        TimeError: neither units nor name nor the spacing of the data to compare with tell the unit.
    """
    lead = _find(dataset, "forecast_period", LEAD_NAMES, ())
    if lead is None and "time" in dataset.variables and is_lead("time", dataset["time"].variable):
        return dataset["time"]
    if lead is None or time_roles.seconds_in(lead.variable) is not None or time_roles.unit_of(lead.variable):
        return lead
    if lead.name == "step":
        return None  # a counter of another kind
    unit = next((unit for unit in ("hour", "minute", "second", "day") if unit[:4] in str(lead.name).lower()), None)
    unit = "hour" if lead.name == "fhour" else unit or _only_fitting(lead.values, spacing)
    return lead if unit is None else lead.assign_attrs(units=f"{unit}s")


def _only_fitting(leads: np.ndarray, spacing: float | None) -> str | None:
    """The only unit in which neighbouring leads are as far apart as frames of the data to compare with; None: no such unit."""
    ticks = np.unique(np.append(np.asarray(leads, float).ravel(), 0.0))
    if spacing is None or len(ticks) < 2:
        return None
    factors = {"day": time_axis.DAY, "hour": 3600.0, "minute": 60.0, "second": 1.0}
    apart = float(np.diff(ticks).min())
    fitting = [unit for unit, factor in factors.items() if np.isclose(apart * factor, spacing, rtol=1e-3)]
    return fitting[0] if len(fitting) == 1 else None


def _valid(dataset: xr.Dataset, taken: Sequence[str], dims: Sequence[str]) -> xr.DataArray | None:
    """The valid times, without dimensions of length 1 that neither inits nor leads have."""
    valid = _find(dataset, "time", VALID_NAMES, taken)
    if valid is None or not _is_time(valid):
        return None
    single = [d for d in valid.dims if valid.ndim > 1 and d not in dims and valid.sizes[d] == 1]
    valid = valid.isel(dict.fromkeys(single, 0))
    return valid if valid.ndim <= 2 else None


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
        ticks = began[:, None] + _spread(_ahead(lead), lead.dims, (init_dim, lead_dim), (n, L))
    row, column = np.nonzero(ticks - began[:, None] > INSTANT)
    layout = f"init {init.name}, " + (f"valid {valid.name}" if valid is not None else f"lead {cast(Any, lead).name}")
    place = np.stack([row, column], axis=1)
    return Times(layout, init_dim, lead_dim, np.atleast_1d(init.values)[row], began[row], ticks[row, column], place)


def _from_valid_and_lead(valid: xr.DataArray, lead: xr.DataArray) -> Times:
    """Init = valid - lead, along one dimension or none."""
    dim = str(valid.dims[0]) if valid.ndim else None
    times = np.atleast_1d(valid.values)
    leads = np.broadcast_to(_ahead(lead), times.shape)
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
    return time_roles.is_time(variable) or (variable.dtype.kind == "f" and variable.attrs.get("units") == "s")


def _ahead(lead: xr.DataArray) -> np.ndarray:
    return lead_seconds(lead.variable, str(lead.name))


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
