"""The commands beside those that forecast: options and their help. No work happens here and nothing heavy is imported."""

from __future__ import annotations  # noqa: I001 - the options of `options` in few lines

from pathlib import Path
from typing import Annotated, Any

import typer

from pdr_cli.bundles import (
    logged, with_shot, with_timing,
)  # fmt: skip
from pdr_cli.errors import UsageError
from pdr_cli.options import (
    AsJson, Assume, Backbone, Forward, Group, Init, MissingValue, ModelOption, Preset, RenderKind, Rename, Results,
    Settings, TrustCode, Variables,
)  # fmt: skip
from pdr_cli.trust import Trust


@logged
@with_timing
def bench_render(
    kind: RenderKind = "render",
    res: Annotated[list[str] | None, typer.Option(help="Frames: 64, or width x height: 768x512; repeatable.")] = None,
    gaussians: Annotated[
        int | None, typer.Option(min=1, help="Per frame. Default: the paper's; 4096 to compose.")
    ] = None,
    kernel_size: Annotated[int | None, typer.Option(min=3, help="Lattice size K, odd. Default: the paper's.")] = None,
    channels: Annotated[list[int] | None, typer.Option(min=1, help="Repeatable. Default: 1; 3 to compose.")] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Frames per call; repeatable. Default: 1.")] = None,
    backward: Annotated[bool, typer.Option("--backward", help="Time forward + backward too.")] = False,
    paper: Annotated[bool, typer.Option("--paper", help="The paper's four settings, and its FPS on an A800.")] = False,
    codecs: Annotated[bool, typer.Option("--codecs", help="Frames as codecs draw them: 512x512 to 1920x1080.")] = False,
    repeats: Annotated[int, typer.Option(min=5, help="Runs of each variant, at most.")] = 100,
    output: Results = None,
    as_json: AsJson = False,
    *,
    timing: dict[str, Any],
) -> None:
    """Time the renderer against the paper's own, or compositing against plain torch, each checked for correctness first.

    Example:

        pdr bench-render --res 128 --channels 1 3 8 --batch 1 16 --backward

        pdr bench-render --kind compose --res 64 --gaussians 4096 --backward
    """
    from pdr_cli.bench.render import Options
    from pdr_cli.commands import bench_render as command

    options = Options(
        kind=kind,
        res=res or (),
        gaussians=gaussians,
        kernel_size=kernel_size,
        channels=channels or (),
        batch=batch or (),
        backward=backward,
        paper=paper,
        codecs=codecs,
        repeats=repeats,
        **timing,
    )
    raise typer.Exit(command.run(options, output, as_json))


@logged
@with_timing
def bench_train(
    preset: Preset = "taxibj",
    backbone: Backbone = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Windows per step. Default: the preset's.")] = None,
    size: Annotated[list[int] | None, typer.Option(min=1, help="H W of a frame. Default: as published.")] = None,
    channels: Annotated[int | None, typer.Option(min=1, help="Channels of a frame. Default: as published.")] = None,
    settings: Settings = None,
    repeats: Annotated[int, typer.Option(min=2, help="Steps of each variant.")] = 10,
    forward: Forward = False,
    output: Results = None,
    as_json: AsJson = False,
    trust_code: TrustCode = False,
    *,
    timing: dict[str, Any],
) -> None:
    """Time a training step, or a forecast, against one in plain PyTorch, each checked for correctness first.

    Variants: plain is the predictor alone in plain PyTorch, plain+malloc keeps freed memory too, plain+predgs is the whole
    model in plain PyTorch, pdr what `pdr train` does, pdr+bf16 that with --precision bf16. On request, pdr+compile is pdr with
    torch.compile.

    Example:

        pdr bench-train --preset taxibj --threads 2

        pdr bench-train --preset weather-small --size 32 64 --channels 1
    """
    from pdr_cli.bench.step_setting import Options
    from pdr_cli.commands import bench_train as command

    if size is not None and len(size) not in (0, 2):
        raise UsageError(f"--size {' '.join(map(str, size))}", "two numbers, H W")
    options = Options(
        preset=preset or "taxibj",
        backbone=backbone,
        batch=batch,
        size=(size[0], size[1]) if size else None,
        channels=channels,
        settings=settings or (),
        repeats=repeats,
        forward=forward,
        trust_code=trust_code,
        **timing,
    )
    raise typer.Exit(command.run(options, output, as_json))


@logged
@with_shot
def export(
    output: Annotated[
        Path, typer.Option("-o", "--output", help=".onnx, .pt2, .safetensors; .nc, .png or .ply with --input.")
    ],
    model: ModelOption = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="Data to run the model on, for .nc, .png, .ply and --precision.")
    ] = None,
    init: Init = None,
    var: Rename = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Run the exported model and compare it with the original.")
    ] = True,
    precision: Annotated[
        str, typer.Option(help="Weights of an .onnx: fp32, or fp16 or int8, whose loss of skill on --input is printed.")
    ] = "fp32",
    trust_code: TrustCode = False,
    *,
    shot: Any,
) -> None:
    """Write a model as ONNX or torch.export, its Gaussians as NetCDF or PLY, or a picture of its layers.

    Example:

        pdr export -m runs/a -o model.onnx
    """
    from pdr_cli.commands import export as command

    writing = command.Writing(verify, precision)
    given = {"init": init, "rename": var or [], "writing": writing, "trust": Trust(trust_code), "shot": shot}
    command.run(output, model=model, inputs=inputs or [], **given)


@logged
def inspect(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="A data file or its URL, a forecast, folder of clips, or model.")
    ],
    preset: Annotated[str | None, typer.Option("--for", help="Check whether this preset or model can use it.")] = None,
    var: Variables = None,
    group: Group = "",
    missing_value: MissingValue = None,
    assume: Assume = None,
    as_json: AsJson = False,
) -> None:
    """Show what a file holds and whether a preset or a model can use it."""
    from pdr_cli.commands import inspect as command
    from pdr_cli.data.arrays import Conventions
    from pdr_cli.data.formats import ReadOptions

    given = Conventions.parse(assume or ())
    reading = ReadOptions(var or [], group=group, missing_values=missing_value or (), assume=given)
    command.run(path, preset=preset, reading=reading, as_json=as_json)


@logged
def models(as_json: AsJson = False) -> None:
    """List the models that -m can name: the runs under ./runs, and those that come with pdr."""
    from pdr_cli.commands import models as command

    command.run(as_json)


@logged
def presets(
    name: Annotated[str | None, typer.Argument(help="Print this one as TOML, to copy and change.")] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema that editors check and complete a preset with.")
    ] = False,
) -> None:
    """List the presets, or print one."""
    from pdr_cli.commands import presets as command

    command.run(name, schema)


@logged
def sample(
    kind: Annotated[str, typer.Argument(help="weather, traffic, video or scenes.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write: .nc, .h5 or .mp4.")],
    seed: Annotated[int, typer.Option(min=0, help="Each seed gives another sample.")] = 0,
) -> None:
    """Write a synthetic file in the real format, to try everything offline."""
    from pdr_cli.commands import sample as command

    command.run(kind, output, seed)


@logged
def verify(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A forecast, a model.safetensors, a run folder, or a file of scenes or Gaussians."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Check that a forecast or a model is complete, finite, in range, and as it was written."""
    from pdr_cli.commands import verify as command

    command.run(path, as_json)


@logged
def doctor(as_json: AsJson = False) -> None:
    """Show versions, devices and which renderer is active."""
    from pdr_cli.commands import doctor as command

    command.run(as_json)


ALL = (bench_render, bench_train, export, inspect, models, presets, sample, verify, doctor)
