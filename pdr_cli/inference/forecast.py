"""One forecast: from a series, or as the answer to a request of `pdr predict`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pdr_cli.data import formats, units
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import pointfile
from pdr_cli.data.intervals import without_ends
from pdr_cli.data.series import Series, joined_members, mean_of
from pdr_cli.inference.between import WHOLE, Between
from pdr_cli.inference.finer import CELLS, Finer, Placed
from pdr_cli.inference.finer import forecast as placed
from pdr_cli.inference.header import ModelHeader
from pdr_cli.inference.intake import Intake
from pdr_cli.inference.loaded import Layers, LoadedModel
from pdr_cli.inference.members import DIRECT, Drawing
from pdr_cli.inference.observed import Observed
from pdr_cli.inference.provenance import checksums, command_line, of_covariates, of_models, provenance
from pdr_cli.inference.request import Request, joined_identity
from pdr_cli.system import space
from pdr_cli.system.logs import log


@dataclass(frozen=True)
class Forecast:
    """A forecast, and the input that it continues.

    Args:
        model: the model.
        intake: of the model.
        series: the input, in the model's units.
        window: the observed window of the input.
        layers: the direct forecast and its parts, on the model's grid and in its units.
        frames: the forecast, on the input's grid and in its units; of an ensemble with the dimension `realization`.
        others: forecasts of further models, whose members are among `frames`.
        between: how finely `frames` divide the steps.
        placed: the forecast at other places than the cells of the grid, which is written; None: `frames` are.
    """

    model: LoadedModel
    intake: Intake
    series: Series
    window: Observed
    layers: Layers
    frames: Series
    others: tuple[Forecast, ...] = ()
    between: Between = WHOLE
    placed: Placed | None = None

    @property
    def written(self) -> Series:
        """What the output holds."""
        return self.frames if self.placed is None else self.placed.frames

    @property
    def central(self) -> Series:
        """The forecast without intervals, of an ensemble its mean."""
        return without_ends(mean_of(self.frames))

    def observed(self) -> Series:
        """The frames of the window, in the input's units."""
        return units.as_given(self.series.isel(time=slice(self.window.start, self.window.stop))).load()

    def truth(self) -> Series | None:
        """The observed frames at the forecast's times; None if the input ends or has a gap before its last time,
        or no values there."""
        stop, length = self.window.stop, self.frames.sizes["time"]
        truth = self.series.isel(time=slice(stop, stop + length))
        if not time_axis.same(truth.time.values, self.frames.time.values, self.model.card.step):
            return None
        truth = units.as_given(truth).load()
        return truth if bool(truth.notnull().any()) else None

    def attributes(self, command: str) -> dict[str, str]:
        """Global attributes; `command`: what made the forecast."""
        steps = self.frames.sizes["time"] // self.between.parts
        own = provenance(self.model, self.series, self.window, command)
        own |= of_covariates(self.intake, self.series, self.window, steps) | checksums(self.written, self.intake)
        intervals = self.intake.intervals.attributes(self.model)
        if self.placed is not None:
            own |= {"title": f"{own['title']}, at {self.placed.words}"} | self.placed.attributes()
        return own | intervals | of_models([made.model for made in (self, *self.others)])


Draw = Callable[[Forecast, Path, Mapping[str, str]], None]


def forecast(
    model: LoadedModel,
    intake: Intake,
    series: Series,
    init: int | None = None,
    steps: int | None = None,
    drawing: Drawing = DIRECT,
    between: Between = WHOLE,
    finer: Finer = CELLS,
) -> Forecast:
    """Forecast the frames after frame `init` (default: the last) of a series.

    Args:
        model: the model.
        intake: of the model.
        series: the input.
        init: number of the last observed frame.
        steps: τ; default: the horizon of the training.
        drawing: the members that the model draws; default: none, the direct forecast.
        between: how finely the frames divide the steps; default: whole steps.
        finer: other places, of a direct forecast of whole steps; default: the cells of the grid.

    Raises:
        GridError, VariableError, TimeError, MissingValuesError, RangeError: the series does not fit the model.
    """
    series = intake.adapt_input(series)
    return after(model, intake, series, intake.observe(series, init, advise=True), steps, drawing, between, finer)


def after(
    model: LoadedModel,
    intake: Intake,
    series: Series,
    window: Observed,
    steps: int | None = None,
    drawing: Drawing = DIRECT,
    between: Between = WHOLE,
    finer: Finer = CELLS,
) -> Forecast:
    """`forecast` from a window of an adapted series, with the members of `drawing`."""
    context = intake.context(series, window, steps)
    if finer.option:
        layers, other = placed(model, intake, series, window, steps, finer)
    else:
        layers, other = model.run(window.frames, steps, context, between.times(model.horizon(steps))), None
    if not drawing.count:
        frames = intake.to_series(layers.fused, series, window)
        frames = between.dated(frames, series.time.values[window.stop - 1], model.card.step)
        return Forecast(model, intake, series, window, layers, frames, between=between, placed=other)
    seeds = drawing.seeds([series.time.values[window.stop - 1]])
    drawn = model.members(window.frames, seeds, steps, context)[:, 0]
    return Forecast(model, intake, series, window, layers, intake.to_members(drawn, series, window))


def lead_steps(model: ModelHeader, steps: int | None) -> int:
    """Number of frames to forecast; logs that a forecast beyond the horizon of the training is rolled out.

    Raises:
        UsageError: see `ModelHeader.horizon`.
    """
    horizon, trained = model.horizon(steps), model.card.config.data.out_steps
    if horizon > trained:
        log.info("%d steps requested, %d trained: the forecast is fed back for the rest", horizon, trained)
    return horizon


def is_up_to_date(request: Request) -> bool:
    """True if all outputs exist and answer the request."""
    if not all(target.exists() for target in request.targets):
        return False
    intakes = [Intake(header, request.policy, request.intervals) for header in request.headers()]
    return request.is_answered(_identity(request, intakes, _begin(request, intakes)))


def answer(request: Request, draw: Draw) -> Forecast:
    """Forecast, and write the forecast to the output of the request; `draw` writes outputs that are drawings.

    Raises:
        PdrError: the input does not fit the model, or the output cannot be written.
    """
    models = request.load(request.device)
    drawings = request.drawing.of_each(models)
    intakes = [Intake(model, request.policy, request.intervals) for model in models]
    begun = _begin(request, intakes)
    for note in begun[0][1].notes:
        log.info("mended  %s", note)
    steps = request.steps or min(model.card.config.data.out_steps for model in models)
    request.between.check(models[0])
    if request.finer.option:
        models[0].needs_network(request.finer.option)
    count = sum(max(1, drawing.count) for drawing in drawings) + 2 * len(request.intervals.shares)
    count *= request.between.parts
    cells = request.cells(begun[0][0])
    space.check_space(request.output, 4 * count * lead_steps(models[0], steps) * len(models[0].card.variables) * cells)
    each = [
        after(model, intake, series, window, steps, drawing, request.between, request.finer)
        for model, intake, (series, window), drawing in zip(models, intakes, begun, drawings, strict=True)
    ]
    made = each[0]
    if len(each) > 1:
        made = replace(made, frames=joined_members([one.frames for one in each]), others=tuple(each[1:]))
    made = replace(made, frames=request.drawing.reduced(made.frames))
    attributes = made.attributes(command_line()) | {"pdr_request_id": _identity(request, intakes, begun)}
    if request.draws(models[0]):
        draw(made, request.output, attributes)
    elif request.finer.points is not None:
        pointfile.write(made.written, request.output, attributes, request.compress)
    else:
        layout, compress = request.time_layout, request.compress
        formats.write(made.written, request.output, attributes, time_layout=layout, compress=compress)
    return made


def _begin(request: Request, intakes: Sequence[Intake]) -> list[tuple[Series, Observed]]:
    """The input and the window that the forecast of each model starts from, once no other process writes the input.

    All start from the init of the first.
    """

    def observe() -> list[tuple[Series, Observed]]:
        begun: list[tuple[Series, Observed]] = []
        for intake in intakes:
            series = request.open(intake)
            init = None if request.init is None else time_axis.parse(request.init, series.time.values)
            init = begun[0][1].stop - 1 if begun else init
            begun.append((series, intake.observe(series, init, advise=True)))
        return begun

    return request.when_ready(observe)


def _identity(request: Request, intakes: Sequence[Intake], begun: Sequence[tuple[Series, Observed]]) -> str:
    """The identity of a request."""
    each = []
    for intake, (series, window) in zip(intakes, begun, strict=True):
        frames = [window.sha256, intake.context(series, window, request.steps).read_sha256]
        times = series.time.values[window.start : window.stop]
        each.append(request.identity(intake, series, "".join(frames), times))
    return joined_identity(each)
