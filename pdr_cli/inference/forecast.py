"""One forecast: from a series, or as the answer to a request of `pdr predict`."""

from __future__ import annotations

from dataclasses import dataclass

from pdr_cli.data import formats, units
from pdr_cli.data import times as time_axis
from pdr_cli.data.series import Series
from pdr_cli.inference.intake import Intake, Observed
from pdr_cli.inference.model import Layers, Model
from pdr_cli.inference.provenance import checksums, command_line, provenance
from pdr_cli.inference.request import Request
from pdr_cli.runs.modelfile import ModelCard
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
        layers: the forecast and its parts, on the model's grid and in its units.
        frames: the forecast, on the input's grid and in its units.
    """

    model: Model
    intake: Intake
    series: Series
    window: Observed
    layers: Layers
    frames: Series

    def observed(self) -> Series:
        """The frames of the window, in the input's units."""
        return units.as_given(self.series.isel(time=slice(self.window.start, self.window.stop))).load()

    def truth(self) -> Series | None:
        """The observed frames at the forecast's times; None if the input ends or has a gap before its last time."""
        stop, length = self.window.stop, self.frames.sizes["time"]
        truth = self.series.isel(time=slice(stop, stop + length))
        same = time_axis.same(truth.time.values, self.frames.time.values, self.model.card.step)
        return units.as_given(truth).load() if same else None

    def attributes(self, command: str) -> dict[str, str]:
        """Global attributes; `command`: what made the forecast."""
        return provenance(self.model, self.series, self.window, command) | checksums(self.frames, self.intake)


def forecast(
    model: Model, intake: Intake, series: Series, init: int | None = None, steps: int | None = None
) -> Forecast:
    """Forecast the frames after frame `init` (default: the last) of a series.

    Args:
        model: the model.
        intake: of the model.
        series: the input.
        init: number of the last observed frame.
        steps: τ; default: the horizon of the training.

    Raises:
        GridError, VariableError, TimeError, MissingValuesError, RangeError: the series does not fit the model.
    """
    series = intake.adapt_input(series)
    return after(model, intake, series, intake.observe(series, init, advise=True), steps)


def after(model: Model, intake: Intake, series: Series, window: Observed, steps: int | None = None) -> Forecast:
    """`forecast` from a window of an adapted series."""
    layers = model.run(window.frames, steps, intake.context(series, window, steps))
    return Forecast(model, intake, series, window, layers, intake.to_series(layers.fused, series, window))


def lead_steps(card: ModelCard, steps: int | None) -> int:
    """Number of frames to forecast; logs that a forecast beyond the horizon of the training is rolled out."""
    horizon = card.config.data.out_steps
    if steps and steps > horizon:
        log.info("%d steps requested, %d trained: the forecast is fed back for the rest", steps, horizon)
    return steps or horizon


def is_up_to_date(request: Request) -> bool:
    """True if all outputs exist and answer the request."""
    if not all(target.exists() for target in request.targets):
        return False
    intake = Intake(request.header(), request.policy)
    return request.is_answered(_identity(request, intake, *_begin(request, intake)))


def answer(request: Request) -> Forecast:
    """Forecast, and write the forecast to the output of the request.

    Raises:
        PdrError: the input does not fit the model, or the output cannot be written.
    """
    model = request.load(request.device)
    intake = Intake(model, request.policy)
    series, window = _begin(request, intake)
    for note in window.notes:
        log.info("mended  %s", note)
    steps = lead_steps(model.card, request.steps)
    space.check_space(request.output, 4 * steps * window.frames[0, 0].size)
    made = after(model, intake, series, window, steps)
    attributes = made.attributes(command_line()) | {"pdr_request_id": _identity(request, intake, series, window)}
    formats.write(made.frames, request.output, attributes, time_layout=request.time_layout, compress=request.compress)
    return made


def _begin(request: Request, intake: Intake) -> tuple[Series, Observed]:
    """The input and the window that the forecast starts from, once no other process writes the input."""

    def observe() -> tuple[Series, Observed]:
        series = request.open(intake)
        init = None if request.init is None else time_axis.parse(request.init, series.time.values)
        return series, intake.observe(series, init, advise=True)

    return request.when_ready(observe)


def _identity(request: Request, intake: Intake, series: Series, window: Observed) -> str:
    frames = [window.sha256, intake.context(series, window, request.steps).earlier_sha256]
    return request.identity(intake, series, "".join(frames), series.time.values[window.start : window.stop])
