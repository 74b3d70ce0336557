"""`pdr predict`: open, forecast the last window, or from each possible init, write, say so in one line."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pdr_cli import __version__, distributed, files, forecast, hindcast, runs
from pdr_cli.commands import inputs
from pdr_cli.data import formats, units, zarr
from pdr_cli.data import times as time_axis
from pdr_cli.data.series import Series, names
from pdr_cli.distributed import Processes
from pdr_cli.errors import UsageError
from pdr_cli.forecast import Model, Observed, Repairs
from pdr_cli.hindcast import Hindcast
from pdr_cli.logs import Progress, Silence, log, progress


def run(
    arguments: Sequence[str],
    output: Path,
    *,
    model: str | None,
    init: str | None,
    every_init: bool,
    steps: int | None,
    rename: Sequence[str],
    time_layout: str,
    compress: int,
    preview: Path | None,
    device: str,
    repairs: Mapping[str, Any],
) -> None:
    """Forecast; see `pdr predict --help` for the options."""
    began = time.monotonic()
    mending = Repairs(**repairs)
    paths = formats.find_inputs(arguments)
    formats.check_suffix(output)
    formats.check_time_layout(output, time_layout)
    if preview is not None and preview.suffix.lower() not in (".png", ".gif"):
        raise UsageError(f"--preview draws a .png or an animated .gif, not {preview}")
    formats.check_output(output, paths)
    if preview is not None:
        files.check_output(preview, paths)
    _check_shared_out(output, every_init, init, preview)
    if every_init:
        _hindcast(paths, output, model, steps, rename, time_layout, compress, device, mending)
        return
    trained = forecast.load(runs.find_model(model), device, mending)
    series = only_series(trained.open(paths, inputs.renames(rename, list(trained.card.variables))))
    formats.check_output_format(output, series)
    at = None if init is None else time_axis.parse(init, series.time.values)
    if steps and steps > trained.card.config.data.out_steps:
        trained_for = trained.card.config.data.out_steps
        log.info("%d steps asked, %d trained: the forecast is fed back for the rest", steps, trained_for)
    window = trained.observe(series, at)
    predicted = trained.dress(trained.run(window.frames, steps).fused, series, window)
    made_of = provenance(trained, series, window, steps)
    formats.write(predicted, output, made_of, time_layout=time_layout, compress=compress)
    if preview:
        draw(preview, trained, series, predicted, window)
    print(_summary(output, predicted, trained, time.monotonic() - began))


def _check_shared_out(output: Path, every_init: bool, init: str | None, preview: Path | None) -> None:
    """Refuse options that contradict --every-init, and several processes for what they cannot share.

    Raises:
        UsageError: either of these.
    """
    alone = not distributed.started_by_torchrun()
    if not every_init:
        if not alone:
            raise UsageError("torchrun shares out the forecasts of --every-init; without it run pdr predict alone")
        return
    for name, value in (("--init", init), ("--preview", preview)):
        if value is not None:
            raise UsageError(
                f"{name} is for one forecast, --every-init makes one from each init; leave out one of the two"
            )
    suffix = output.suffix.lower()
    if suffix not in formats.FIELD_SUFFIXES:
        raise UsageError(f"--every-init writes {', '.join(formats.FIELD_SUFFIXES)}, not {suffix}")
    if not alone and suffix != zarr.SUFFIX:
        raise UsageError(f"several processes cannot write one {suffix} file at once; name the output .zarr")


def _hindcast(
    paths: Sequence[Path],
    output: Path,
    model: str | None,
    steps: int | None,
    rename: Sequence[str],
    time_layout: str,
    compress: int,
    device: str,
    mending: Repairs,
) -> None:
    """One forecast from each possible init, shared out over the processes that torchrun started."""
    began = time.monotonic()
    with distributed.processes() as processes, _bar(processes) as bar:
        with processes.together():
            trained = forecast.load(runs.find_model(model), distributed.own_device(device), mending)
            series = only_series(trained.open(paths, inputs.renames(rename, list(trained.card.variables))))
            job = hindcast.plan(trained, series, steps)
            made_of = provenance(trained, series, trained.observe(series, int(job.inits[0])), job.steps)
        made_of |= _of_many(job, made_of, time_layout)
        log.info("%d forecasts of %d steps", len(job.inits), job.steps)
        hindcast.write(
            job, output, made_of, time_layout=time_layout, compress=compress, processes=processes, progress=bar
        )
        if processes.first:
            ends = f"init {time_axis.label(job.times[0])} to {time_axis.label(job.times[-1])}"
            what = f"{len(job.inits)} forecasts of {job.steps} steps"
            print(f"{output}  {ends}  {what}  model {_name(trained.path)}  {time.monotonic() - began:.1f} s")


def _bar(processes: Processes) -> contextlib.AbstractContextManager[Progress]:
    """Progress of the first process, which stands for the others'."""
    return progress("hindcast") if processes.first else contextlib.nullcontext(Silence())


def _of_many(job: Hindcast, of_one: dict[str, str], time_layout: str) -> dict[str, str]:
    """What the provenance of many forecasts says otherwise than that of the first of them."""
    read = [files.sha256(Path(f)) for f in job.series.attrs["files"]]
    input_hash = hashlib.sha256("".join(read).encode()).hexdigest()
    options = {"steps": job.steps, "model": of_one["pdr_checkpoint_sha256"], "files": input_hash, "layout": time_layout}
    times = job.series.time.values
    return {
        "title": f"Forecasts of {', '.join(names(job.series))} by pdr from {len(job.inits)} init times",
        "pdr_input_sha256": input_hash,
        "pdr_input_window": f"{time_axis.label(times[0])}/{time_axis.label(times[job.inits[-1]])}",
        "pdr_request_id": hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest(),
    }


def only_series(opened: list[Series]) -> Series:
    """The one series of an input; the last of one file that holds several.

    Raises:
        UsageError: several clips.
    """
    clips = {tuple(s.attrs["files"]) for s in opened}
    if len(clips) > 1:
        raise UsageError(f"one clip is forecast at a time, but the input holds {len(clips)}; name one of them")
    return opened[-1]


def draw(path: Path, trained: Model, series: Series, predicted: Series, window: Observed) -> None:
    """Draw a forecast after what was observed, and beside what happened where the input goes on: PNG, or animated GIF."""
    from pdr_cli.export import animation, pictures

    name = trained.path.parent.name if trained.path.name == "model.safetensors" else trained.path.stem
    observed = units.as_given(series.isel(time=slice(window.start, window.stop))).load()
    how = animation.write if path.suffix.lower() == ".gif" else pictures.forecast
    how(path, observed, predicted, truth_of(predicted, series, window, trained), model=name)


def truth_of(predicted: Series, series: Series, window: Observed, trained: Model) -> Series | None:
    """What happened at the times of a forecast, where the series goes on without a gap; else None."""
    truth = series.isel(time=slice(window.stop, window.stop + predicted.sizes["time"]))
    known = time_axis.same(truth.time.values, predicted.time.values, trained.card.step)
    return units.as_given(truth).load() if known else None


def provenance(trained: Model, series: Series, window: Observed, steps: int | None) -> dict[str, str]:
    """Global attributes of a forecast file: who made it, from what, and what it takes to make it again."""
    card = trained.card
    model_hash = files.sha256(trained.path)
    input_hash = hashlib.sha256(window.turn.invert(window.frames[0]).tobytes()).hexdigest()
    settings = json.dumps(card.config.model_dump(), sort_keys=True).encode()
    options = {"steps": steps or card.config.data.out_steps, "model": model_hash, "window": input_hash}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    command = "pdr " + shlex.join(sys.argv[1:])
    before = str(series.attrs["file_attrs"].get("history", ""))
    times = series.time.values
    preset = card.config.preset
    return {
        "Conventions": "CF-1.11",
        "title": f"Forecast of {', '.join(names(series))} by pdr",
        "institution": str(series.attrs["file_attrs"].get("institution", "not given")),
        "source": f"pdr {__version__} (preset {preset}, {card.config.model.backbone}, model sha256:{model_hash[:16]})",
        "references": "Learning Video Dynamics with Predictive Differentiable Rendering, arXiv:2606.31050",
        "comment": f"from {', '.join(Path(f).name for f in series.attrs['files'])}",
        "history": "; ".join([f"{now} pdr {__version__}: {command}", *window.notes])
        + (f"\n{before}" if before else ""),
        "date_created": now,
        "pdr_version": __version__,
        "pdr_checkpoint_sha256": model_hash,
        "pdr_config_sha256": hashlib.sha256(settings).hexdigest(),
        "pdr_input_sha256": input_hash,
        "pdr_input_window": f"{time_axis.label(times[window.start])}/{time_axis.label(times[window.stop - 1])}",
        "pdr_request_id": hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest(),
        "pdr_device": f"{trained.device.type}/{card.config.train.precision}",
    }


def _summary(output: Path, predicted: Series, trained: Model, seconds: float) -> str:
    times = predicted.time.values
    init = predicted.coords["forecast_reference_time"].values
    start = init.item() if init.dtype == object else init[()]
    return (
        f"{output}  init {time_axis.label(start)}  valid {time_axis.label(times[0])} to {time_axis.label(times[-1])}  "
        f"model {_name(trained.path)}  {seconds:.1f} s"
    )


def _name(path: Path) -> str:
    return str(path.parent) if path.name == "model.safetensors" else str(path)
