"""`pdr predict`: open, forecast the last window, or from each possible init, write, say so in one line."""

from __future__ import annotations

import time
from pathlib import Path

from pdr_cli.commands import hindcast
from pdr_cli.data import formats, units
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import zarr
from pdr_cli.data.series import Series
from pdr_cli.errors import OutputError, UsageError
from pdr_cli.inference import model as inference
from pdr_cli.inference import request
from pdr_cli.inference.model import Model, Observed
from pdr_cli.inference.provenance import contents, model_name, provenance
from pdr_cli.inference.request import Request
from pdr_cli.system import atomic, locks, space
from pdr_cli.system import processes as distributed
from pdr_cli.system.logs import log


def run(asked: Request) -> None:
    """Forecast; see `pdr predict --help` for the options."""
    began = time.monotonic()
    _check(asked)
    if asked.every_init:
        hindcast.run(asked)
        return
    with locks.locked(asked.output):
        if asked.skip_existing and all(t.exists() for t in asked.targets):
            known = asked.load(inference.Deferred, asked.device)
            if request.is_answered(asked.output, _identity(asked, known, *_begin(asked, known))):
                print(f"{asked.output}  up to date")
                return
        trained = asked.load(inference.load, asked.device)
        predicted = _forecast(asked, trained)
    print(_summary(asked.output, predicted, trained, time.monotonic() - began))


def _check(asked: Request) -> None:
    """Refuse what cannot end well, before any work is done.

    Raises:
        InputNotFoundError: no input.
        UsageError: options that contradict each other, or a suffix that names no format.
        OutputError: an output cannot be created, or is there and shall stay.
    """
    paths = asked.paths
    formats.of_output(asked.output)
    formats.check_time_layout(asked.output, asked.time_layout)
    if asked.preview is not None and asked.preview.suffix.lower() not in (".png", ".gif"):
        raise UsageError(f"--preview draws a .png or an animated .gif, not {asked.preview}")
    if asked.skip_existing and asked.no_clobber:
        raise UsageError("--skip-existing renews what is not up to date, --no-clobber leaves it; choose one")
    if asked.fallback not in (None, "last-1"):
        raise UsageError(f"--fallback {asked.fallback}: only last-1, the model before the damaged one, can stand in")
    _check_every_init(asked)
    formats.check_output(asked.output, paths)
    if asked.preview is not None:
        atomic.check_output(asked.preview, paths)
    for target in asked.targets:
        if asked.no_clobber and target.exists():
            raise OutputError(
                f"{target} is there, and --no-clobber leaves it; --skip-existing would renew it if need be"
            )


def _check_every_init(asked: Request) -> None:
    """Refuse options that contradict --every-init, and several processes for what they cannot share.

    Raises:
        UsageError: either of these.
    """
    alone = not distributed.started_by_torchrun()
    if not asked.every_init:
        if not alone:
            raise UsageError("torchrun shares out the forecasts of --every-init; without it run pdr predict alone")
        if asked.batch is not None:
            raise UsageError("--batch is for the windows of --every-init; without it there is one")
        return
    gap = None if asked.repairs.fill_gap == "none" else asked.repairs.fill_gap
    for name, value in (("--init", asked.init), ("--preview", asked.preview), ("--fill-gap", gap)):
        if value is not None:
            raise UsageError(
                f"{name} is for one forecast, --every-init makes one from each init; leave out one of the two"
            )
    suffix = asked.output.suffix.lower()
    if not formats.of_output(asked.output).gridded:
        raise UsageError(f"--every-init writes {', '.join(formats.outputs(gridded=True))}, not {suffix}")
    if not alone and suffix != zarr.SUFFIX:
        raise UsageError(f"several processes cannot write one {suffix} file at once; name the output .zarr")


def _begin(asked: Request, trained: Model) -> tuple[Series, Observed]:
    """The input, once nobody is writing it any more, and the window that the forecast begins from."""

    def observe() -> tuple[Series, Observed]:
        series = asked.open(trained)
        init = None if asked.init is None else time_axis.parse(asked.init, series.time.values)
        return series, trained.observe(series, init)

    return request.settled(observe, asked.paths, asked.wait)


def _identity(asked: Request, trained: Model, series: Series, window: Observed) -> str:
    times = series.time.values[window.start : window.stop]
    return asked.identity(trained, series, request.window_sha256(window), times)


def _forecast(asked: Request, trained: Model) -> Series:
    """Compute, write and draw."""
    series, window = _begin(asked, trained)
    for note in window.notes:
        log.info("mended  %s", note)
    steps = asked.lead_steps(trained)
    space.check_space(asked.output, 4 * steps * window.frames[0, 0].size)
    predicted = trained.dress(trained.run(window.frames, steps).fused, series, window)
    about = provenance(trained, series, window) | contents(predicted, trained)
    about["pdr_request_id"] = _identity(asked, trained, series, window)
    formats.write(predicted, asked.output, about, time_layout=asked.time_layout, compress=asked.compress)
    if asked.preview:
        draw(asked.preview, trained, series, predicted, window)
    return predicted


def draw(path: Path, trained: Model, series: Series, predicted: Series, window: Observed) -> None:
    """Draw a forecast after what was observed, and beside what happened where the input goes on: PNG, or animated GIF."""
    from pdr_cli.drawing import animation, pictures

    name = trained.path.parent.name if trained.path.name == "model.safetensors" else trained.path.stem
    observed = units.as_given(series.isel(time=slice(window.start, window.stop))).load()
    how = animation.write if path.suffix.lower() == ".gif" else pictures.forecast
    how(path, observed, predicted, truth_of(predicted, series, window, trained), model=name)


def truth_of(predicted: Series, series: Series, window: Observed, trained: Model) -> Series | None:
    """What happened at the times of a forecast, where the series goes on without a gap; else None."""
    truth = series.isel(time=slice(window.stop, window.stop + predicted.sizes["time"]))
    known = time_axis.same(truth.time.values, predicted.time.values, trained.card.step)
    return units.as_given(truth).load() if known else None


def _summary(output: Path, predicted: Series, trained: Model, seconds: float) -> str:
    times = predicted.time.values
    init = predicted.coords["forecast_reference_time"].values
    start = init.item() if init.dtype == object else init[()]
    return (
        f"{output}  init {time_axis.label(start)}  valid {time_axis.label(times[0])} to {time_axis.label(times[-1])}  "
        f"model {model_name(trained.path)}  {seconds:.1f} s"
    )
