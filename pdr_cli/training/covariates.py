"""The covariates of a run: further variables and maps opened beside the data, and fitted to the training frames."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from pdr_cli.data import climatology, context, further, kinds, places, statistics
from pdr_cli.data import times as time_axis
from pdr_cli.data.almanac import HOLIDAYS, SUN
from pdr_cli.data.covariates import Covariates, Variable
from pdr_cli.data.formats.selection import ALL
from pdr_cli.data.missing import CellMask
from pdr_cli.data.places import PackedField
from pdr_cli.data.series import Series, names
from pdr_cli.data.statistics import Part
from pdr_cli.data.times import DAY, WEEK, YEAR, Step
from pdr_cli.errors import ConfigError, DataError, InputNotFoundError, VariableError
from pdr_cli.schema import DataConfig
from pdr_cli.settings import AUTO, TARGET, parse_role
from pdr_cli.system.logs import log

MAPS = "static"  # attribute of a series: {name: map [H, W]}, see `opened`
ENOUGH_WEEKS, ENOUGH_YEARS = 3, 2  # of training, for weekdays and seasons
SEED = 0  # of the choice of blocks that are measured, where not all fit into data.statistics_mb
OpenVariables = Callable[[Sequence[str]], list[Series]]
OpenMaps = Callable[[Series], dict[str, np.ndarray]]


def further_roles(data: DataConfig) -> dict[str, str]:
    """The role of each variable that is read and not forecast, by name."""
    return {name: role for name, role in map(parse_role, data.roles) if role != TARGET}


def channels(data: DataConfig) -> list[str]:
    """The variables to open as channels: those named and the targets, or of files with further variables all.

    Of all, one is left that has no other role.
    """
    named = list(data.variables)
    more = [] if ALL in named else [name for name in data.targets if name not in named]
    return named + more or ([ALL] if data.roles else [])


def opened(data: DataConfig, variables: OpenVariables, maps: OpenMaps) -> list[Series]:
    """The series of a configuration, with further variables and maps as attributes.

    Args:
        data: of the configuration.
        variables: opens the data with some variables as channels.
        maps: opens static maps on the grid of a series.

    Raises:
        DataError: data that have no variables by name.
        VariableError: further variables of which none is left to forecast, or several where none was named.
    """
    chosen, series = list(further_roles(data)), variables(channels(data))
    if not data.roles and not data.static:
        return series
    one = series[0]
    if len(series) > 1 or not one.attrs.get("may_lack"):
        raise DataError(
            f"{one.attrs['files'][0]} has no variables by name, which --input, --known, --target and --static take",
            "NetCDF, Zarr or GRIB",
            "leave the options out",
        )
    if chosen:
        (others,) = variables(chosen)
        one = _without(one, chosen, data)
        step = time_axis.find_step(one.time.values, str(one.attrs["files"][0]))
        one = further.given_to(one, further.beside(one, others, step))
    return [one.assign_attrs({MAPS: maps(one)}) if data.static else one]


def _without(series: Series, chosen: Sequence[str], data: DataConfig) -> Series:
    """A series of all variables without those that are read alone.

    Raises:
        VariableError: no channel is left, or several where one was to be found.
    """
    kept = [name for name in names(series) if name not in chosen]
    if not kept or (len(kept) > 1 and channels(data) == [ALL] and not data.variables):
        found = f"beside {', '.join(chosen)} it has {', '.join(kept) or 'no variable to forecast'}"
        raise VariableError(f"{series.attrs['files'][0]}: {found}", way_out="name those to forecast with --var")
    if len(kept) == series.sizes["channel"]:
        return series
    about = {
        key: {n: v for n, v in series.attrs[key].items() if n in kept} for key in ("variables", "scalars", "labels")
    }
    return series.sel(channel=kept).assign_attrs(about)


def describe(series: Series, data: DataConfig, step: Step, training: Sequence[Part]) -> Covariates | None:
    """The covariates that a configuration names, before further variables are measured; None if there are none.

    Args:
        series: with the attributes of `opened`.
        data: of the configuration.
        step: of the series.
        training: periods of the series.

    Raises:
        ConfigError: covariates that these data cannot have.
    """
    days = read_holidays(data.holidays)
    calendar = _calendar(series, data.calendar, step, training)
    if HOLIDAYS in calendar and not days:
        raise ConfigError("data.calendar has holidays, and data.holidays names no file", way_out="use --holidays FILE")
    if days and HOLIDAYS not in calendar:
        calendar = (*calendar, HOLIDAYS)
    _check_calendar(series, calendar)
    others = further.of(series)
    attrs = {} if others is None else others.series.attrs["variables"]
    variables = {name: Variable(role, attrs[name]) for name, role in further_roles(data).items() if name in attrs}
    lagged = context.cycles_of(data.lagged, step, weekly=False, frames=0, key="data.lagged")
    found = Covariates(calendar, days, _standardised(series.attrs.get(MAPS, {})), variables, lagged)
    return found if found.count(1) else None


def read_holidays(path: str) -> tuple[str, ...]:
    """The ISO dates of a file, sorted; text after a date or after # is left out.

    Raises:
        InputNotFoundError: no such file.
        DataError: a line without a date.
    """
    if not path:
        return ()
    if not os.path.isfile(path):
        raise InputNotFoundError(
            f"--holidays {path}: no such file", "a text file with a date a line, such as 2014-12-25"
        )
    found = set()
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = re.match(r"(\d{4}-\d{2}-\d{2})(?!\d)", text)
        if match is None:
            raise DataError(f"{path}: line {number} is {text[:40]!r}", "a date such as 2014-12-25")
        found.add(match[1])
    if not found:
        raise DataError(f"{path} has no dates", "a date a line, such as 2014-12-25")
    return tuple(sorted(found))


def _calendar(series: Series, option: Sequence[str], step: Step, training: Sequence[Part]) -> tuple[str, ...]:
    """The entries of `data.calendar`; of "auto" those that kind and step have and the training data cover."""
    if list(option) != [AUTO]:
        return tuple(option)
    if not _has_dates(series):
        return ()
    times = np.concatenate([series.time.values[start:stop] for number, start, stop in training if number == 0])
    covered = climatology.covered(times, step)
    found = ["hour"] if step.unit == "s" and step.count < DAY else []
    globe = places.latitudes_and_longitudes(places.of(series)) is not None
    found += [SUN] if found and globe and not kinds.of(series).weekly else []
    weekly = kinds.of(series).weekly and step.unit == "s" and step.count < WEEK
    found += ["weekday"] if weekly and covered >= climatology.SHARE * ENOUGH_WEEKS * WEEK else []
    return tuple(found + (["day-of-year"] if covered >= climatology.SHARE * ENOUGH_YEARS * YEAR else []))


def _has_dates(series: Series) -> bool:
    return time_axis.calendar(series.time.values) != ""


def _check_calendar(series: Series, calendar: Sequence[str]) -> None:
    where = series.attrs["files"][0]
    if calendar and not _has_dates(series):
        raise ConfigError(f"{where} has no dates for {', '.join(calendar)}", way_out="leave out data.calendar")
    if SUN in calendar and places.latitudes_and_longitudes(places.of(series)) is None:
        raise ConfigError(
            f"data.calendar has sun, and {where} has no latitudes and longitudes",
            way_out="leave sun out of data.calendar",
        )


def _standardised(maps: Mapping[str, np.ndarray]) -> dict[str, PackedField]:
    """Maps with mean 0 and standard deviation 1; cells without a value get 0."""
    found = {}
    for name, values in maps.items():
        scaled = (values - np.nanmean(values)) / np.nanstd(values)
        if (absent := ~np.isfinite(scaled)).any():
            log.info("static  %s has no value in %d of %d cells, which get its mean", name, absent.sum(), absent.size)
        found[name] = PackedField.of(np.where(absent, 0, scaled))
    return found


def fitted(covariates: Covariates, series: Series, data: DataConfig, training: Sequence[Part]) -> Covariates:
    """The covariates with mean, standard deviation and range of each further variable in training, and its cells.

    Raises:
        MissingValuesError: a variable without values in the training period.
        DataError: a variable that is constant.
    """
    others = further.of(series)
    if others is None or not covariates.variables:
        return covariates
    beside = others.beside(series)
    survey = statistics.survey([beside], training, [], data.statistics_mb, SEED)
    cells = np.zeros(beside.shape[1:], bool) if survey is None else survey.never_observed
    parts = [(beside, start, stop) for _, start, stop in training]
    found = statistics.measure(parts, data.statistics_mb, SEED, cells)
    variables = {}
    for number, (name, variable) in enumerate(covariates.variables.items()):
        if found.maximum[number] <= found.minimum[number]:
            raise DataError(f"{others.file}: {name} is the same in the whole training period", way_out="leave it out")
        mask = CellMask.of(cells[number : number + 1]) if cells[number].any() else None
        mean, sd, low, high = (float(v[number]) for v in (found.mean, found.sd, found.minimum, found.maximum))
        variables[name] = dataclasses.replace(
            variable, mean=mean, sd=sd, never_observed=mask, minimum=low, maximum=high
        )
    return dataclasses.replace(covariates, variables=variables)
