"""Intake: inputs as a model needs them, and forecasts back on the input's grid and in its units."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pdr_cli.data import bounds, formats, further, kinds, limits, missing, places, regrid, units, windows
from pdr_cli.data import series as fields
from pdr_cli.data import times as time_axis
from pdr_cli.data.arrays import Conventions
from pdr_cli.data.context import Context, ContextSource, Moments
from pdr_cli.data.covariates import INPUT, KNOWN, CovariateSource, has_values
from pdr_cli.data.encoding import Encoding
from pdr_cli.data.formats.datasets import from_datasets
from pdr_cli.data.further import Further
from pdr_cli.data.grid import Orientation
from pdr_cli.data.intervals import with_ends
from pdr_cli.data.series import Series
from pdr_cli.data.targets import with_blank
from pdr_cli.errors import GridError, MissingValuesError, UsageError, VariableError
from pdr_cli.inference.header import ModelHeader
from pdr_cli.inference.intervals import NONE, Intervals
from pdr_cli.inference.observed import Mending, Observed
from pdr_cli.inference.policy import InputPolicy
from pdr_cli.runs.modelfile import ModelCard
from pdr_cli.system.logs import log

Variables = Mapping[str, dict[str, Any]]  # attributes by name
OpenVariables = Callable[[Sequence[str]], list[Series]]  # opens the input with these variables as channels


@dataclass(frozen=True)
class Intake:
    """Opens inputs for a model, checks and mends them, and brings forecasts back to the input's terms.

    Args:
        model: the model; its header is enough.
        policy: which defects of an input are mended.
        intervals: of the forecasts.
    """

    model: ModelHeader
    policy: InputPolicy = field(default_factory=InputPolicy)
    intervals: Intervals = NONE

    @property
    def card(self) -> ModelCard:
        """Header of the model."""
        return self.model.card

    @cached_property
    def encoding(self) -> Encoding:
        """Encoding of the model, with the policy's filling."""
        return self.model.encoding(self.policy.fill_missing)

    @property
    def _missing_values(self) -> tuple[str, ...]:
        """See `ReadOptions`: those of the policy, and those of training."""
        return (*self.policy.missing_values, *self.card.config.data.missing_value)

    @property
    def _assume(self) -> Conventions:
        """The conventions of the policy, and those of the training's option; its slots yield to what a file states."""
        kept = (text for text in self.card.config.data.assume if not text.startswith("slots="))
        return Conventions.parse((*kept, *self.policy.assume))

    def open(
        self,
        paths: Sequence[Path],
        rename: Mapping[str, str] | None = None,
        read: Variables | None = None,
        truth: bool = False,
    ) -> list[Series]:
        """Open input files with the model's variables, units, frame size and colour.

        Args:
            paths: files from `formats.find_inputs`.
            rename: {variable of the model: name in the files}.
            read: attributes of the further variables by name; default: those that the model reads.
            truth: read the model's targets too; default: their frames are NaN, whatever the files hold.

        Raises:
            UnitsError: the units cannot be converted to the model's.
            GridError: another grid, which the policy does not interpolate.
        """
        data, kind = self.card.config.data, self.model.kind
        options = formats.ReadOptions(
            variables=[] if kind.pictures else list(self.card.variables),
            rename=dict(rename or {}),
            size=self.card.size if data.size else (),
            color="rgb" if kind.pictures and len(self.card.variables) == 3 else "gray",
            resample_fps=self.policy.resample_fps or data.resample_fps,
            gray_to_rgb=self.policy.gray_to_rgb or data.gray_to_rgb,
            group=self.policy.group or data.group,
            missing_values=self._missing_values,
            assume=self._assume,
            learned=self.card.learned,
        )

        def of_variables(chosen: Sequence[str]) -> list[Series]:
            return formats.open_series(paths, dataclasses.replace(options, variables=chosen))

        opened = [
            self.adapt_input(kinds.with_kind(self._with_slots(series), kind.name))
            for series in self._channels(of_variables, options.variables, truth)
        ]
        return [self._with_further(series, of_variables, read) for series in opened]

    def _channels(self, open_variables: OpenVariables, variables: Sequence[str], truth: bool) -> list[Series]:
        """The series of the model's channels; the frames of targets are NaN unless `truth`.

        Without another channel, times and grid are those of the variables that the model reads.
        """
        targets = [] if truth else self.card.config.data.targets
        if not targets:
            return open_variables(variables)
        observed = [name for name in self.card.variables if name not in targets]
        opened = open_variables(observed or list(self.card.read))
        return [with_blank(series, self.card.variables) for series in opened]

    def _with_further(self, series: Series, open_variables: OpenVariables, read: Variables | None) -> Series:
        """A series with the further variables that the model reads, or `read` in their place, in these units.

        Raises:
            VariableError: the series is not of a file with variables by name.
        """
        read = self.card.read if read is None else read
        if not read:
            return series
        if not series.attrs.get("may_lack"):
            raise VariableError(f"{series.attrs['files'][0]} has no variables by name", f"{', '.join(read)} among them")
        others = self._on_grid(units.to_model(open_variables(list(read))[0], read))
        return further.given_to(series, further.beside(series, others, self.card.step))

    def _with_slots(self, series: Series) -> Series:
        """A series whose forecast is dated as the model's training was, unless its own files count slots."""
        slots = self.card.conventions.get("slots", "")
        own = "conventions" in series.attrs or not slots
        return series if own else series.assign_attrs(conventions={"slots": slots})

    def from_dataset(
        self,
        dataset: xr.Dataset,
        rename: Mapping[str, str] | None = None,
        read: Variables | None = None,
        truth: bool = False,
    ) -> Series:
        """Take the model's variables from an open dataset; arguments and errors as for `open`."""

        def of_variables(chosen: Sequence[str]) -> list[Series]:
            return [from_datasets([(dataset, Path("dataset"))], chosen, rename, self._missing_values)]

        (series,) = self._channels(of_variables, list(self.card.variables), truth)
        series = self.adapt_input(kinds.with_kind(series, self.model.kind.name))
        return self._with_further(series, of_variables, read)

    def adapt_input(self, series: Series) -> Series:
        """A series in the model's units, and on its grid if the policy says how; converted as it is read."""
        if series.sizes["channel"] != len(self.card.variables):
            return series  # `orientation` refuses it
        return self._on_grid(units.to_model(series, self.card.variables))

    def _on_grid(self, series: Series) -> Series:
        """A series on the model's grid, if the policy says how it is interpolated."""
        if self.policy.regrid == "none" or self._has_the_models_grid(series):
            return series
        if self.card.y is None or self.card.x is None:
            return series
        log.info(
            "regrid  %s, %d x %d to the model's %d x %d; the forecast is on that grid",
            self.policy.regrid, *fields.size(series), *self.card.size,
        )  # fmt: skip
        y, x = ((s.name, np.asarray(s.values), s.attrs) for s in (self.card.y, self.card.x))
        return regrid.to_grid(series, y, x, self.policy.regrid).assign_attrs(regridded=self.policy.regrid)

    def _has_the_models_grid(self, series: Series) -> bool:
        try:
            places.match(places.of(series), self.card.grid)
        except GridError:
            return False
        return True

    def orientation(self, series: Series) -> Orientation:
        """The orientation from a series' grid to the model's.

        Raises:
            VariableError: other channels than the model's.
            UnitsError: other units, which `adapt_input` converts.
            GridError: another grid, which `adapt_input` interpolates if the policy says how.
        """
        file, card = series.attrs["files"][0], self.card
        if series.sizes["channel"] != len(card.variables):
            raise VariableError(
                f"{file} has {series.sizes['channel']} channels ({', '.join(fields.names(series))})",
                f"the model's {len(card.variables)} ({', '.join(card.variables)})",
                "choose them with --var",
            )
        units.check(series, card.variables)
        try:
            return places.match(places.of(series), card.grid)
        except GridError as error:
            raise GridError(
                f"{file} is on another grid than the model: {error.found}",
                error.expected,
                "regrid the input to the model's grid (pdr predict --regrid bilinear), or train on this one",
            ) from error

    def may_lack(self, series: Series) -> np.ndarray:
        """Cells that may be missing in an observed window, on the grid of a series: [C, H, W]."""
        cells = self.model.may_lack
        cells = np.zeros((len(self.card.variables), *self.card.size), bool) if cells is None else cells
        return self.orientation(series).invert(cells)

    def observe(self, series: Series, init: int | None = None, *, advise: bool = False) -> Observed:
        """Read, check and fill the window that ends with frame `init` (default: the last) of a series.

        `advise`: log what is unlikely but may be right.

        Missing, infinite and absurd values are refused, unless the policy or the model's training fills them. Cells that
        training never observed, and targets, are always filled, whatever the input holds there.

        Raises:
            GridError, VariableError, TimeError, MissingValuesError, RangeError: the window does not fit the model.
        """
        orientation = self.orientation(series)
        init = self.default_init(series) if init is None else init
        in_steps, fill_gap = self.card.config.data.in_steps, self.policy.fill_gap != "none"
        start, stop = windows.last_window(series, in_steps, self.card.step, init, fill_gap=fill_gap)
        frames, times = fields.read_frames(series, start, stop), series.time.values[start:stop]
        return self.mending.observed(frames, times, series, start, orientation, advise=advise)

    @cached_property
    def mending(self) -> Mending:
        """Checks and fills the frames of windows by the policy."""
        return Mending(self.model, self.encoding, self._in_range)

    def context(self, series: Series, window: Observed, steps: int | None = None) -> Context:
        """What the network is given beside a window of a series, for a forecast of `steps` frames."""
        return self.context_of_all(series, [window], series.time.values, steps)

    def context_of_all(
        self, series: Series, each: Sequence[Observed], times: np.ndarray, steps: int | None = None
    ) -> Context:
        """`context` for several windows of a series, whose frames are at `times`."""
        step, steps = self.card.step, steps or self.card.config.data.out_steps
        following = [time_axis.following(times[window.stop - 1], step, steps) for window in each]

        def back(n: int) -> np.ndarray:
            before = (fields.frame_at(series, window.stop - 1, n, step) for window in each)
            turned = zip(each, before, strict=True)
            return np.stack([window.orientation.apply(missing.without_absurd(frame)) for window, frame in turned])

        opened = self.further_of(series)
        given = [] if opened is None else [partial(_turned, opened, window.orientation) for window in each]
        try:
            return self.contexts.of(Moments([window.times for window in each], following, back, given))
        except (MissingValuesError, limits.RangeError) as error:
            raise error.at(series.attrs["files"][0]) from error

    @cached_property
    def contexts(self) -> ContextSource:
        """What makes the context that the network reads, with the policy's filling and range."""
        return self.model.contexts_filled(self.policy.fill_missing, self._in_range)

    @property
    def _in_range(self) -> bool:
        """Whether values far outside of the range of training are refused."""
        return self.model.kind.learned_range and not self.policy.allow_out_of_range

    def further_of(self, series: Series) -> Further | None:
        """The further variables of a series that the model reads; None if it reads none."""
        opened = further.of(series) if self.card.read else None
        return None if opened is None else opened.only(self.card.read)

    def default_init(self, series: Series) -> int | None:
        """The last frame with values, of a model with variables that are known ahead; None: the last frame.

        Files give such variables at times at which there are no observations yet. Of a model that observes nothing else, the
        last frame that as many frames follow as it forecasts.
        """
        if self.card.covariates is None or not self.card.covariates.names(KNOWN):
            return None
        last, hidden = int(series.sizes["time"]) - 1, self.card.hidden
        if hidden is None or not hidden.all():
            return self._last_with_values(last, lambda t: fields.read_frames(series, t, t + 1))
        inputs, opened = self.card.covariates.names(INPUT), self.further_of(series)
        if not inputs or opened is None:
            return last - self.card.config.data.out_steps if last >= self.card.config.data.out_steps else None
        read = opened.only({name: self.card.read[name] for name in inputs})
        return self._last_with_values(last, lambda t: read.at(series.time.values[t : t + 1]))

    @staticmethod
    def _last_with_values(last: int, read: Callable[[int], np.ndarray]) -> int | None:
        """The last frame, from `last` back, that `read` finds a value in; None: no frame but the first."""
        return next((t for t in range(last, 0, -1) if np.isfinite(read(t)).any()), None)

    def startable(self, series: Series, inits: np.ndarray, steps: int) -> np.ndarray:
        """The inits, [n], from which the model can forecast `steps` frames; the log counts those without further values."""
        opened, source = self.further_of(series), self.contexts.covariates
        if opened is None or not isinstance(source, CovariateSource):
            return inits
        last = self.default_init(series)
        inits = inits if last is None else inits[inits <= last]
        times, turn = series.time.values[inits], self.orientation(series).apply
        keep = has_values(source, opened, times, self.card.config.data.in_steps, steps, turn)
        if not keep.all():
            log.info(
                "%d of %d inits lack values of %s and are left out", (~keep).sum(), len(keep), ", ".join(self.card.read)
            )
        return np.asarray(inits[keep])

    def to_series(
        self, frames: np.ndarray, series: Series, window: Observed, asked: np.ndarray | None = None
    ) -> Series:
        """The forecast after a window of a series, as a Series.

        Args:
            frames: [1, τ, C, H, W] on the model's grid, in its units.
            series: the input, for coordinates, units and attributes.
            window: of the series.
            asked: shares that the intervals ask the model's errors for, [L, τ]; default: those that they are to hold.

        Returns:
            The frames within the model's bounds, with their valid times, `forecast_reference_time` and `forecast_period`,
            and with the ends of intervals, see `data/intervals.py`; NaN in cells that the window never observes.
        """
        if not self.intervals.shares:
            return self._to_series(frames[0], 1, series, window)
        ends = self.intervals.ends(self.model, frames[0], asked)
        stack = np.concatenate([frames, ends.reshape(-1, *frames.shape[1:])])
        every = self._to_series(stack.reshape(-1, *frames.shape[2:]), len(stack), series, window)
        made, values = every.isel(time=slice(frames.shape[1])), every.values[frames.shape[1] :]
        return with_ends(made, self.intervals.labelled(self.model, values.reshape(*ends.shape[:2], *made.shape)))

    def to_members(self, frames: np.ndarray, series: Series, window: Observed) -> Series:
        """An ensemble after a window of a series; frames: [M, τ, C, H, W]; otherwise as `to_series`.

        Returns:
            The members, with the dimension `realization` before the others.
        """
        every = self._to_series(frames.reshape(-1, *frames.shape[2:]), len(frames), series, window)
        values = every.values.reshape(*frames.shape[:2], *every.shape[1:])
        return fields.with_members(every.isel(time=slice(frames.shape[1])), values)

    def _to_series(self, frames: np.ndarray, members: int, series: Series, window: Observed) -> Series:
        """Frames [members·τ, C, H, W] in the input's units, with the times of each member's."""
        frames = window.orientation.invert(np.where(window.never_observed, np.float32(np.nan), frames))
        return self.dated(frames, series, window, members)

    def dated(
        self,
        frames: np.ndarray,
        series: Series,
        window: Observed,
        members: int = 1,
        sides: Mapping[str, Any] | None = None,
    ) -> Series:
        """Frames [members·τ, C, H, W] on the input's grid, or on another one with the coordinates `sides`, as a forecast."""
        init = series.time.values[window.stop - 1]
        valid = np.tile(time_axis.following(init, self.card.step, len(frames) // members), members)
        lead = (time_axis.seconds(valid) - time_axis.seconds(np.array([init]))[0]) / 3600
        forecast = fields.make_like(series, frames, times=valid, sides=sides).assign_coords(
            forecast_reference_time=((), init, {}), forecast_period=("time", lead, {"units": "hours"})
        )
        return bounds.hold(forecast, self.card.bounds)


def _turned(opened: Further, orientation: Orientation, times: np.ndarray) -> np.ndarray:
    """Frames of the further variables at `times` on the model's grid."""
    return orientation.apply(opened.at(times))


def renames(arguments: Sequence[str], card: ModelCard) -> dict[str, str]:
    """{variable of the model: name in the input} from `NAME=INPUTNAME`, or from `INPUTNAME` if the model has one channel.

    Raises:
        UsageError: the model does not have the variable.
    """
    chosen, channels, every = {}, list(card.variables), [*card.variables, *card.read]
    for argument in arguments:
        name, separator, source = argument.partition("=")
        if not separator:
            alone = len(channels) == 1 and argument not in card.read
            name, source = (channels[0], argument) if alone else (argument, argument)
        if name not in every:
            raise UsageError(f"--var {argument}: the model has no variable {name!r}; it has {', '.join(every)}")
        chosen[name] = source
    return chosen


def only_series(opened: Sequence[Series]) -> Series:
    """The series of an input; the last of a file that holds several.

    Raises:
        UsageError: several clips.
    """
    clips = {tuple(s.attrs["files"]) for s in opened}
    if len(clips) > 1:
        raise UsageError(f"the input holds {len(clips)} clips", "one clip", "name one of them")
    return opened[-1]
