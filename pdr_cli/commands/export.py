"""`pdr export`: a model for another runtime, its Gaussians as numbers, or a picture of what it does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pdr_cli.commands import inputs as arguments
from pdr_cli.commands.predict import truth_of
from pdr_cli.data import formats, units
from pdr_cli.data import times as time_axis
from pdr_cli.data.series import Series
from pdr_cli.errors import UsageError
from pdr_cli.inference import model as inference
from pdr_cli.inference.model import Model, Observed
from pdr_cli.inference.provenance import provenance
from pdr_cli.inference.request import only_series
from pdr_cli.runs import folder as runs
from pdr_cli.system import atomic

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
) -> None:
    """Export; see `pdr export --help` for the options."""
    suffix = output.suffix.lower()
    if suffix not in OUTPUTS:
        raise UsageError(f"output {output}: use one of {', '.join(OUTPUTS)}")
    if suffix in NEEDS_INPUT and not inputs:
        raise UsageError(f"{suffix} shows a forecast: name the data with --input FILE")
    paths = formats.find_inputs(inputs) if inputs else []
    source = runs.find_model(model)
    atomic.check_output(output, [source, *paths])
    trained = inference.load(source, "cpu")
    if suffix in NEEDS_INPUT:
        series = only_series(trained.open(paths, arguments.renames(rename, list(trained.card.variables))))
        at = None if init is None else time_axis.parse(init, series.time.values)
        print(f"{output}  {_show(trained, series, at, output)}")
        return
    print(f"{output}  {_artefact(trained, output, verify)}")


def _artefact(trained: Model, output: Path, verify: bool) -> str:
    from pdr_cli.export import artefact

    if output.suffix == ".onnx":
        return artefact.write_onnx(trained, output, verify)
    if output.suffix == ".pt2":
        return artefact.write_pt2(trained, output, verify)
    from safetensors.torch import save

    weights = {k: v.contiguous() for k, v in trained.network.state_dict().items()}
    atomic.write_bytes(output, save(weights))
    return f"weights only, {sum(w.numel() for w in weights.values()):,} numbers"


def _show(trained: Model, series: Series, init: int | None, output: Path) -> str:
    window = trained.observe(series, init)
    if output.suffix == ".nc":
        from pdr_cli.export import gaussians

        count = gaussians.write(trained, series, window, output, provenance(trained, series, window))
        return f"{count} Gaussians a frame"
    _draw_layers(trained, series, window, output)
    return "input, coarse forecast, Gaussians and fused forecast"


def _draw_layers(trained: Model, series: Series, window: Observed, output: Path) -> None:
    """Panels of the last lead time, with the Gaussians as ellipses."""
    from pdr_cli.drawing import pictures
    from pdr_cli.export import gaussians

    drawn = gaussians.of_forecast(trained, series, window).isel(time=-1)
    layers = trained.run(window.frames)
    assert layers.gaussians is not None  # of_forecast has refused a model without
    fused = trained.dress(layers.fused, series, window)
    pictures.layers(
        output,
        observed=units.as_given(series.isel(time=slice(window.start, window.stop))).load(),
        fused=fused,
        coarse=window.turn.invert(layers.coarse[0]),
        painted=window.turn.invert(layers.gaussians[0]),
        gaussians={str(n): values.values for n, values in drawn.data_vars.items()},
        truth=truth_of(fused, series, window, trained),
    )
