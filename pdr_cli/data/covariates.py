"""Covariates: what a network reads beside the channels that it forecasts, at observed and forecast times.

They are calendar terms, the sun's elevation, static maps, further variables and frames of earlier cycles. `Covariates` is
what a model keeps of them, `CovariateSource` makes the arrays of windows, in network units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pdr_cli.data import almanac, further, places
from pdr_cli.data import times as time_axis
from pdr_cli.data.climatology import Climatology
from pdr_cli.data.context import Moments, for_each, latest_age
from pdr_cli.data.further import Further
from pdr_cli.data.limits import Limits, check_values
from pdr_cli.data.missing import ALLOW, CellMask, Filling
from pdr_cli.data.places import Grid, PackedField
from pdr_cli.data.scaling import Scaling
from pdr_cli.data.series import frames_at_once
from pdr_cli.data.times import Step
from pdr_cli.data.windows import Windows
from pdr_cli.errors import GridError, MissingValuesError
from pdr_cli.system.logs import log

Turn = Callable[[np.ndarray], np.ndarray]
INPUT, KNOWN = "input", "known"
BLOCK = 64  # frames read at once


@dataclass(frozen=True)
class Variable:
    """A further variable.

    Args:
        role: "input" (its last observed frame stands for forecast times) or "known" (it has values at forecast times).
        attrs: of the variable, with its units.
        mean: of the training data; as `sd`, which is 1 before they are measured.
        sd: standard deviation.
        never_observed: cells that were missing in every training frame, [1, H, W]; None if there are none.
        minimum: lowest value of the training data; None in models that were written before it was kept.
        maximum: highest value.
    """

    role: str
    attrs: dict[str, Any]
    mean: float = 0.0
    sd: float = 1.0
    never_observed: CellMask | None = None
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Covariates:
    """The covariates of a network, in the order of their channels.

    Args:
        calendar: names of calendar terms, and "sun".
        holidays: ISO dates; empty without.
        static: standardised maps by name.
        variables: further variables by name.
        lagged: lengths of the earlier cycles whose frames are given, in steps.
    """

    calendar: tuple[str, ...] = ()
    holidays: tuple[str, ...] = ()
    static: dict[str, PackedField] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)
    lagged: tuple[int, ...] = ()

    def count(self, channels: int) -> int:
        """F, beside frames of so many channels."""
        return self.dates + len(self.variables) + len(self.lagged) * channels

    @property
    def dates(self) -> int:
        """D, the calendar terms and maps, which follow from times and places alone."""
        return sum(2 if name in almanac.CYCLES else 1 for name in self.calendar) + len(self.static)

    def labels(self, channels: Sequence[str]) -> list[str]:
        """A name for each of the F channels, beside frames of these channels."""
        dates = [
            label
            for name in self.calendar
            for label in ([f"{name} (sine)", f"{name} (cosine)"] if name in almanac.CYCLES else [name])
        ]
        lagged = [f"{name}, {cycle} steps before" for cycle in self.lagged for name in channels]
        return [*dates, *self.static, *self.variables, *lagged]

    def described(self, channels: Sequence[str], scale: Sequence[float]) -> list[dict[str, Any]]:
        """Each of the F channels for other programs: its name, and how its values become those of the network.

        These are (value - mean) / sd. A static map is standardised as it is kept; of earlier frames the value is the
        departure from the climatology, whose unit is `scale` of its channel.
        """
        variables = {n: {"role": v.role, "mean": v.mean, "sd": v.sd} for n, v in self.variables.items()}
        before = [{"role": "earlier", "mean": 0.0, "sd": float(unit)} for _ in self.lagged for unit in scale]
        labels = self.labels(channels)
        given = dict(zip(labels[len(labels) - len(before) :], before, strict=True)) | variables
        static = {name: {"role": "static", "mean": 0.0, "sd": 1.0} for name in self.static}
        calendar = {"role": "calendar", "mean": 0.0, "sd": 1.0}
        return [{"name": label} | (given | static).get(label, calendar) for label in labels]

    def words(self, step: Step) -> list[str]:
        """Each covariate in words, such as "u10 (input)"."""
        given = [f"{name} ({variable.role})" for name, variable in self.variables.items()]
        before = [f"{Step(step.count * cycle)} before" for cycle in self.lagged]
        return [*self.calendar, *(f"{name} (static)" for name in self.static), *given, *before]

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Covariates:
        """From the values that a card keeps as JSON."""

        def mask(kept: dict[str, Any] | None) -> CellMask | None:
            return None if kept is None else CellMask(tuple(kept["shape"]), kept["packed"])

        calendar, holidays, lagged = (tuple(values[key]) for key in ("calendar", "holidays", "lagged"))
        static = {name: PackedField(tuple(p["shape"]), p["packed"]) for name, p in values["static"].items()}
        variables = {
            name: Variable(**(about | {"never_observed": mask(about["never_observed"])}))
            for name, about in values["variables"].items()
        }
        return cls(calendar, holidays, static, variables, lagged)

    @property
    def limits(self) -> Limits | None:
        """The plausible range of the further variables; None without any, or where it is not kept."""
        ranges = [(v.mean, v.sd, v.minimum, v.maximum) for v in self.variables.values()]
        known = [(mean, sd, low, high) for mean, sd, low, high in ranges if low is not None and high is not None]
        return Limits(*zip(*known, strict=True)) if known and len(known) == len(ranges) else None

    def names(self, role: str) -> list[str]:
        """The further variables of a role."""
        return [name for name, variable in self.variables.items() if variable.role == role]


@dataclass(frozen=True)
class CovariateSource:
    """Makes the covariates of windows, in network units.

    Args:
        covariates: what they are.
        grid: of the model.
        step: of the series.
        scaling: of the channels.
        climatology: of the channels.
        fill_missing: how missing values of further variables are filled, as in `Filling`; "none": they are refused.
        in_range: refuse values of further variables far outside of the range of training.
    """

    covariates: Covariates
    grid: Grid
    step: Step
    scaling: Scaling
    climatology: Climatology
    fill_missing: str = "none"
    in_range: bool = False

    @property
    def reach(self) -> int:
        """Frames before the first observed one that the covariates are made of."""
        return max(self.covariates.lagged, default=0)

    def of(self, moments: Moments) -> np.ndarray:
        """The covariates of windows, [B, T + τ, F, H, W].

        Raises:
            MissingValuesError: a further variable lacks values that the network needs.
            RangeError: values that the network needs are implausible, with `in_range`.
        """
        windows = list(zip(moments.observed, moments.following, strict=True))
        parts = [for_each(self.dates, [np.concatenate(pair) for pair in windows])]
        if self.covariates.variables:
            given = zip(moments.given, windows, strict=True)
            parts.append(np.stack([self._variables(read(np.concatenate(pair)), *pair) for read, pair in given]))
        parts += [self._lagged(moments, cycle) for cycle in self.covariates.lagged]
        return np.concatenate(parts, axis=2, dtype=np.float32)

    def dates(self, times: np.ndarray) -> np.ndarray:
        """Calendar terms and maps, the first of the covariates: [n, D, H, W]."""
        shape, found = (len(times), 1, *self.grid.size), []
        for name in self.covariates.calendar:
            if name == almanac.SUN:
                found.append(np.broadcast_to(self._sun(times)[:, None], shape))
                continue
            terms = almanac.CYCLES[name](times) if name in almanac.CYCLES else self._holidays(times)
            found += [np.broadcast_to(term[:, None, None, None], shape) for term in terms.T]
        found += [np.broadcast_to(packed.values, shape) for packed in self.covariates.static.values()]
        return np.concatenate([np.empty((len(times), 0, *self.grid.size)), *found], axis=1)

    def _holidays(self, times: np.ndarray) -> np.ndarray:
        return almanac.holidays(times, self.covariates.holidays)

    def _sun(self, times: np.ndarray) -> np.ndarray:
        found = places.latitudes_and_longitudes(self.grid)
        if found is None:
            raise GridError("the sun's elevation needs latitudes and longitudes, which the grid does not have")
        return almanac.sine_of_elevation(times, *found)

    def _variables(self, frames: np.ndarray, observed: np.ndarray, following: np.ndarray) -> np.ndarray:
        """Further variables [T + τ, F, H, W] in data units and NaN where missing → filled, in network units."""
        T, variables = len(observed), self.covariates.variables.values()
        repeated = np.array([variable.role == INPUT for variable in variables])
        frames[T:, repeated] = np.nan
        times = np.concatenate([observed, following])
        self._check(frames, times, T)
        self._check_range(frames, times)
        filled = self._filling.apply(frames[None], [times])[0]
        filled[T:, repeated] = filled[T - 1, repeated]
        mean, sd = (np.array([getattr(v, key) for v in variables], np.float32)[:, None, None] for key in ("mean", "sd"))
        return (filled - mean) / sd

    @property
    def _filling(self) -> Filling:
        """Filling as that of the channels, with the mean of training as climatology."""
        mean = np.array([variable.mean for variable in self.covariates.variables.values()])
        flat = np.broadcast_to(mean[None, :, None, None], (1, len(mean), *self.grid.size))
        return Filling(mean, self.never_observed, self.fill_missing, Climatology("mean", flat))

    @property
    def never_observed(self) -> np.ndarray:
        """Cells of further variables that training never observed: [F, H, W]."""
        blank = np.zeros((1, *self.grid.size), bool)
        masks = [v.never_observed for v in self.covariates.variables.values()]
        return np.concatenate([blank if mask is None else mask.cells for mask in masks])

    def lacking(self, frames: np.ndarray) -> np.ndarray:
        """Which variables lack values that are not filled, in each of the frames [n, F, H, W]: [n, F]."""
        absent = ~np.isfinite(frames) & ~self.never_observed
        if self.fill_missing == "none":
            return np.asarray(absent.any(axis=(2, 3)))
        values = np.maximum((~self.never_observed).sum(axis=(1, 2)), 1)
        return np.asarray(absent.sum(axis=(2, 3)) >= values)

    def needed(self, T: int, length: int) -> list[tuple[int, int]]:
        """The frames of a window of `length` in which each variable must have values: known ones at forecast times too.

        Observed frames are filled if there is a way to fill.
        """
        first = 0 if self.fill_missing == "none" else T
        variables = self.covariates.variables.values()
        return [(first, length if variable.role == KNOWN else T) for variable in variables]

    def _check(self, frames: np.ndarray, times: np.ndarray, T: int) -> None:
        """Refuse frames [T + τ, F, H, W] that lack values, by the first time of the first variable."""
        lacking = self.lacking(frames)
        for number, (start, stop) in enumerate(self.needed(T, len(times))):
            at = np.flatnonzero(lacking[start:stop, number])
            if len(at):
                row, name = start + int(at[0]), list(self.covariates.variables)[number]
                count = int((~np.isfinite(frames[row, number]) & ~self.never_observed[number]).sum())
                raise _missing(name, times[row], times[T - 1], count, frames[row, number].size)

    def _check_range(self, frames: np.ndarray, times: np.ndarray) -> None:
        """Refuse frames [T + τ, F, H, W] with implausible values."""
        limits = self.covariates.limits if self.in_range else None
        if limits is not None:
            units_of = {name: str(v.attrs.get("units", "")) for name, v in self.covariates.variables.items()}
            check_values(np.where(self.never_observed, np.float32(np.nan), frames), units_of, times, limits)

    def _lagged(self, moments: Moments, cycle: int) -> np.ndarray:
        """Departures from the climatology in the frames a cycle before, 0 where missing: [B, T + τ, C, H, W]."""
        T, steps = len(moments.observed[0]), len(moments.following[0])
        # A lead beyond the cycle takes the latest observed frame at the same place in it.
        ages = [cycle - lead if lead <= 0 else latest_age(lead, cycle) for lead in range(1 - T, steps + 1)]
        frames = np.stack([moments.back(age) for age in ages], axis=1)
        times = [self._before(observed[-1], ages) for observed in moments.observed]
        normal = for_each(self.climatology.at, times)
        departures = (frames - normal) / np.asarray(self.scaling.scale, np.float32)[:, None, None]
        return np.where(np.isfinite(departures), departures, np.float32(0))

    def _before(self, last: Any, ages: Sequence[int]) -> np.ndarray:
        return np.array([time_axis.shift(last, self.step, -age) for age in ages])


def _missing(name: str, time: Any, init: Any, count: int, size: int) -> MissingValuesError:
    """The error for a further variable that lacks `count` of `size` values at a time."""
    needs = f"which a forecast from {time_axis.label(init)} needs"
    if count < size:
        found = f"{name} lacks {count} of {size} values at {time_axis.label(time)}, {needs}"
        return MissingValuesError(found, way_out=ALLOW)
    way_out = "give files that hold it, or choose an earlier --init or fewer --steps"
    return MissingValuesError(f"{name} has no value at {time_axis.label(time)}, {needs}", way_out=way_out)


def has_values(
    source: CovariateSource, opened: Further, inits: np.ndarray, T: int, steps: int, turn: Turn = np.asarray
) -> np.ndarray:
    """Whether the further variables have the values that a forecast from each init time needs: [n]; reads them all.

    Args:
        source: of the network.
        opened: the further variables.
        inits: times of the last observed frames, [n].
        T: observed frames.
        steps: τ.
        turn: from the grid of the channels to the model's.
    """
    places = opened.places(inits)
    lacking = _lacking(source, opened, turn)
    keep = np.ones(len(inits), bool)
    for number, (start, stop) in enumerate(source.needed(T, T + steps)):
        whole = opened.places(opened.series.time.values)[~lacking[:, number]]
        keep &= np.isin(places[:, None] + np.arange(start, stop) - (T - 1), whole).all(axis=1)
    return keep


def _lacking(source: CovariateSource, opened: Further, turn: Turn) -> np.ndarray:
    """Which further variables lack values in each of their frames: [n, F]."""
    times, at_once = opened.series.time.values, frames_at_once(opened.series, BLOCK)
    blocks = (opened.at(times[i : i + at_once]) for i in range(0, len(times), at_once))
    return np.concatenate([source.lacking(turn(frames)) for frames in blocks])


def with_values(
    windows: Windows, source: CovariateSource, purpose: str, turn: Turn = np.asarray, T: int | None = None
) -> Windows:
    """The windows whose further variables have the values that the network needs.

    Args:
        windows: of one series with these variables.
        source: of the network.
        purpose: of the windows, for the log.
        turn: as for `has_values`.
        T: observed frames that the network reads; default: those of the windows.

    Raises:
        MissingValuesError: no window has.
    """
    opened = further.of(windows.series[0])
    if opened is None or not len(windows):
        return windows
    opened = opened.only({name: variable.attrs for name, variable in source.covariates.variables.items()})
    inits = windows.series[0].time.values[windows.places[:, 1] + windows.in_steps - 1]
    keep = has_values(source, opened, inits, T or windows.in_steps, windows.out_steps, turn)
    named = " or ".join(source.covariates.variables)
    if keep.all():
        return windows
    if not keep.any():
        way_out = "fill them with --set data.fill_missing=persist, mean or interp"
        raise MissingValuesError(f"every window to {purpose} lacks values of {named}", way_out=way_out)
    log.info("%d of %d windows to %s lack values of %s and are left out", (~keep).sum(), len(keep), purpose, named)
    return windows.only(keep)


def warn_of_holidays(covariates: Covariates, last: Any) -> None:
    """Log that a forecast goes beyond the last year of the holidays."""
    until = max(covariates.holidays, default="")[:4]
    year = almanac.dates(np.array([last]))[0][:4]
    if until and year > until:
        log.warning(
            "the holidays that the model was trained with end in %s; the forecast takes %s to have none", until, year
        )
