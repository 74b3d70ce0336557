"""`pdr export`: a model for another runtime, its Gaussians as numbers, or a picture of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pdr_cli.data import formats
from pdr_cli.data import times as time_axis
from pdr_cli.data.series import Series
from pdr_cli.errors import UsageError
from pdr_cli.inference import forecast
from pdr_cli.inference import intake as intakes
from pdr_cli.inference import model as models
from pdr_cli.inference.intake import Intake
from pdr_cli.inference.model import Model
from pdr_cli.inference.provenance import command_line, provenance
from pdr_cli.runs import folder as runs
from pdr_cli.system import atomic
from pdr_cli.trust import Trust

NEEDS_INPUT = (".nc", ".png")
OUTPUTS = (".onnx", ".pt2", ".safetensors", *NEEDS_INPUT)


def run(
    output: Path,
    *,
    model: str | None,
    inputs: Sequence[str],
    init: str | None,
    rename: Sequence[str],
    verify: bool,
    trust: Trust,
) -> None:
    """Export; see `pdr export --help` for the options."""
    suffix = output.suffix.lower()
    if suffix not in OUTPUTS:
        raise UsageError(f"output {output} has a suffix that names no export", f"one of {', '.join(OUTPUTS)}")
    if suffix in NEEDS_INPUT and not inputs:
        raise UsageError(f"{suffix} shows a forecast", way_out="name the data with --input FILE")
    paths = formats.find_inputs(inputs) if inputs else []
    source = runs.find_model(model)
    atomic.check_output(output, [source, *paths])
    loaded = models.load(source, "cpu", trust=trust)
    if suffix in NEEDS_INPUT:
        intake = Intake(loaded)
        series = intakes.only_series(intake.open(paths, intakes.renames(rename, loaded.card)))
        at = None if init is None else time_axis.parse(init, series.time.values)
        described = (_gaussians if suffix == ".nc" else _picture)(intake, loaded, series, at, output)
    else:
        described = _artefact(loaded, output, verify)
    print(f"{output}  {described}")


def _artefact(model: Model, output: Path, verify: bool) -> str:
    from pdr_cli.export import artefact

    if output.suffix.lower() == ".safetensors":
        return f"weights only, {artefact.write_weights(model, output):,} numbers"
    return (artefact.write_onnx if output.suffix.lower() == ".onnx" else artefact.write_pt2)(model, output, verify)


def _gaussians(intake: Intake, model: Model, series: Series, init: int | None, output: Path) -> str:
    from pdr_cli.export import gaussians

    window = intake.observe(series, init)
    attributes = provenance(model, series, window, command_line())
    return f"{gaussians.write(model, series, window, output, attributes)} Gaussians a frame"


def _picture(intake: Intake, model: Model, series: Series, init: int | None, output: Path) -> str:
    """Draw panels of the last lead time, with the Gaussians as ellipses."""
    from pdr_cli.drawing import pictures
    from pdr_cli.export import gaussians

    window = intake.observe(series, init)
    drawn = gaussians.of_forecast(model, series, window).isel(time=-1)
    made = forecast.after(model, intake, series, window)
    both = (made.layers.coarse, made.layers.layer)
    coarse, layer = (window.orientation.invert(frames[0]) for frames in both if frames is not None)
    pictures.layers(
        output,
        observed=made.observed(),
        fused=made.frames,
        coarse=coarse,
        painted=layer,
        gaussians={str(n): values.values for n, values in drawn.data_vars.items()},
        truth=made.truth(),
    )
    return "input, coarse forecast, Gaussians and fused forecast"
