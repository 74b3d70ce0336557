"""`pdr predict`: open, forecast the last window, write, say so in one line."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pdr_cli import __version__, files, forecast, runs
from pdr_cli.commands import inputs, request
from pdr_cli.data import formats, stored
from pdr_cli.data import times as time_axis
from pdr_cli.data.series import Series, names, units
from pdr_cli.errors import CheckpointError, OutputError, UsageError
from pdr_cli.forecast import Model, Observed
from pdr_cli.logs import log

FAR = 20.0  # scales (standard deviations, or widths of the range) from the offset, where no forecast ends up


def run(
    arguments: Sequence[str],
    output: Path,
    *,
    model: str | None,
    init: str | None,
    steps: int | None,
    rename: Sequence[str],
    preview: Path | None,
    device: str,
    skip_existing: bool = False,
    no_clobber: bool = False,
    wait: float = 0,
    fallback: str | None = None,
) -> None:
    """Forecast; see `pdr predict --help` for the options."""
    began = time.monotonic()
    paths = formats.find_inputs(arguments)
    targets = [output, *([preview] if preview else [])]
    _check(targets, paths, skip_existing, no_clobber, fallback)
    source = runs.find_model(model)

    def begin(trained: Model) -> tuple[Series, Observed]:
        return request.settled(lambda: _observe(trained, paths, rename, init, output), paths, wait)

    with files.locked(output):
        if skip_existing and all(t.exists() for t in targets):
            trained: Model = forecast.Deferred(source, device)
            if request.is_answered(output, request.identity(trained, *begin(trained), steps, output)):
                print(f"{output}  up to date")
                return
        trained = _load(source, device, fallback)
        series, window = begin(trained)
        asked = steps or trained.card.config.data.out_steps
        files.check_space(output, 4 * asked * window.frames[0, 0].size)
        if asked > trained.card.config.data.out_steps:
            trained_for = trained.card.config.data.out_steps
            log.info("%d steps asked, %d trained: the forecast is fed back for the rest", asked, trained_for)
        predicted = trained.dress(trained.run(window.frames, steps).fused, series, window)
        about = provenance(trained, series, window, steps) | contents(predicted, trained)
        about["pdr_request_id"] = request.identity(trained, series, window, steps, output)
        formats.write(predicted, output, about)
        if preview:
            draw(preview, trained, series, predicted, window)
    print(_summary(output, predicted, trained, time.monotonic() - began))


def _check(
    targets: Sequence[Path], paths: Sequence[Path], skip_existing: bool, no_clobber: bool, fallback: str | None
) -> None:
    """Refuse what cannot end well, before any work is done.

    Raises:
        UsageError: options that contradict each other, or a suffix that names no format.
        OutputError: an output cannot be created, or is there and shall stay.
    """
    formats.check_suffix(targets[0])
    if len(targets) > 1 and targets[1].suffix.lower() not in (".png", ".gif"):
        raise UsageError(f"--preview draws a .png or an animated .gif, not {targets[1]}")
    if skip_existing and no_clobber:
        raise UsageError("--skip-existing renews what is not up to date, --no-clobber leaves it; choose one")
    if fallback not in (None, "last-1"):
        raise UsageError(f"--fallback {fallback}: only last-1, the model before the damaged one, can stand in for it")
    for target in targets:
        files.check_output(target, paths)
        if no_clobber and target.exists():
            raise OutputError(
                f"{target} is there, and --no-clobber leaves it; --skip-existing would renew it if need be"
            )


def _load(source: Path, device: str, fallback: str | None) -> Model:
    try:
        return forecast.load(source, device)
    except CheckpointError as error:
        return forecast.load(request.model_before(source, fallback, error), device)


def _observe(
    trained: Model, paths: Sequence[Path], rename: Sequence[str], init: str | None, output: Path
) -> tuple[Series, Observed]:
    """The input, and the window that the forecast begins from."""
    series = only_series(trained.open(paths, inputs.renames(rename, list(trained.card.variables))))
    formats.check_output_format(output, series)
    at = None if init is None else time_axis.parse(init, series.time.values)
    return series, trained.observe(series, at)


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
    observed = series.isel(time=slice(window.start, window.stop)).load()
    how = animation.write if path.suffix.lower() == ".gif" else pictures.forecast
    how(path, observed, predicted, truth_of(predicted, series, window, trained), model=name)


def truth_of(predicted: Series, series: Series, window: Observed, trained: Model) -> Series | None:
    """What happened at the times of a forecast, where the series goes on without a gap; else None."""
    truth = series.isel(time=slice(window.stop, window.stop + predicted.sizes["time"]))
    known = time_axis.same(truth.time.values, predicted.time.values, trained.card.step)
    return truth.load() if known else None


def provenance(trained: Model, series: Series, window: Observed, steps: int | None) -> dict[str, str]:
    """Global attributes of a forecast file: who made it, from what, and what it takes to make it again."""
    card = trained.card
    model_hash = files.sha256(trained.path)
    settings = json.dumps(card.config.model_dump(), sort_keys=True).encode()
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
        "history": f"{now} pdr {__version__}: {command}" + (f"\n{before}" if before else ""),
        "date_created": now,
        "pdr_version": __version__,
        "pdr_checkpoint_sha256": model_hash,
        "pdr_config_sha256": hashlib.sha256(settings).hexdigest(),
        "pdr_input_sha256": request.window_sha256(window),
        "pdr_input_window": f"{time_axis.label(times[window.start])}/{time_axis.label(times[window.stop - 1])}",
        "pdr_device": f"{trained.device.type}/{card.config.train.precision}",
    }


def contents(predicted: Series, trained: Model) -> dict[str, str]:
    """Attributes by which `pdr verify` knows the numbers again: their hash, and between what they have to be."""
    scaling, variables = trained.card.scaling, trained.card.variables
    bounds = {
        name: [offset - FAR * scale, offset + FAR * scale]
        for name, unit, offset, scale in zip(
            names(predicted), units(predicted), scaling.offset, scaling.scale, strict=True
        )
        if unit == str(variables.get(name, {}).get("units", ""))
    }
    frames = predicted.values
    return {
        "pdr_data_sha256": stored.data_sha256(frames[:, i] for i in range(frames.shape[1])),
        "pdr_plausible": json.dumps(bounds),
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
