"""The typer app: options and their help, made from the registries. No work happens here and nothing heavy is imported."""

from __future__ import annotations  # noqa: I001 - the options of `options` in few lines

from pathlib import Path
from typing import Annotated, Any

import typer

from pdr_cli import __version__, choices
from pdr_cli.errors import UsageError
from pdr_cli.options import (
    Ablation, Against, AsJson, Assume, Backbone, Batch, By, Compress, Device, DryRun, Events, EveryInit, Fallback,
    FreezeBackbone, Group, Init, InitFrom, Inputs, Kind, LpipsWeights, MissingValue, ModelOption, ModelOptions,
    NoClobber, Preset, RaftWeights, RenderKind, Rename, Results, Settings, SkipExisting, State, Steps, TimeLayout, TrustCode,
    Variables, WaitInput, as_settings, listed, logged, with_covariates, with_frames, with_members, with_policy, with_reading,
    with_timing,
)  # fmt: skip
from pdr_cli.trust import Trust

app = typer.Typer(
    name="pdr",
    help="Forecast weather fields, traffic grids and video: train a model on your file, predict what follows, score it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
FORECASTING, TOOLS = "Forecasting", "Tools"


def _version(print_it: bool) -> None:
    if print_it:
        typer.echo(f"pdr {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    pass


@app.command(rich_help_panel=FORECASTING)
@logged
@with_reading
@with_covariates
def train(
    preset: Preset = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Files, folders, globs or URLs. Default: those of the preset, in $PDR_DATA."),
    ] = None,
    var: Variables = None,
    kind: Kind = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Run folder. Default: runs/PRESET-TIME.")] = None,
    settings: Settings = None,
    backbone: Backbone = None,
    anchor: Annotated[str | None, typer.Option(help=f"Forecast to start from: {choices.ANCHORS.help()}.")] = None,
    adapter: Annotated[str | None, typer.Option(help=f"Adapter: {choices.ADAPTERS.help()}.")] = None,
    fusion: Annotated[str | None, typer.Option(help=f"Fusion: {choices.FUSIONS.help()}.")] = None,
    loss: Annotated[str | None, typer.Option(help=f"Loss: {choices.LOSSES.help()}.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training windows.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")] = None,
    budget: Annotated[str | None, typer.Option(help="Time for training, such as 3m or 1h30m.")] = None,
    save_every: Annotated[int | None, typer.Option(min=1, help="Steps between saved states.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of weights and order of windows.")] = None,
    device: Device = "auto",
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16.")] = None,
    init_from: InitFrom = None,
    freeze_backbone: FreezeBackbone = False,
    ablation: Ablation = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant of an --ablation.")] = 3,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in -o from its last saved state.")] = False,
    state: State = "last",
    dry_run: DryRun = False,
    trust_code: TrustCode = False,
    *,
    reading: dict[str, Any],
    covariates: dict[str, str | None],
) -> None:
    """Train a model on your data; leaves a run folder that `predict` and `evaluate` find by themselves.

    Examples:

        pdr train --preset weather-small --data air.nc --var air

        pdr train --preset taxibj --data bikenyc.h5 --budget 30m -o runs/bikes

        torchrun --nproc-per-node 4 -m pdr_cli train --preset kth --data kth -o runs/kth
    """
    from pdr_cli.commands import train as command

    arguments = command.Arguments(
        preset=preset,
        data=data or [],
        variables=var or [],
        out=out,
        settings=settings or [],
        flags={
            "data.kind": kind,
            "model.backbone": backbone,
            "model.anchor": anchor,
            "model.adapter": adapter,
            "model.fusion": fusion,
            "train.loss": loss,
            "train.epochs": epochs,
            "train.steps": steps,
            "train.budget": budget,
            "train.save_every": save_every,
            "train.seed": seed,
            "train.precision": precision,
            **as_settings(reading),
            **covariates,
        },
        init_from=init_from,
        freeze_backbone=freeze_backbone,
        ablation=ablation,
        seeds=seeds,
        device=device,
        resume=resume,
        state=state,
        dry_run=dry_run,
        trust_code=trust_code,
    )
    command.run(arguments)


@app.command(rich_help_panel=FORECASTING)
@logged
@with_policy
@with_frames
def predict(
    inputs: Inputs,
    output: Annotated[Path, typer.Option("-o", "--output", help="Forecast file: .nc, .zarr, .h5, .mp4, .gif or .npz.")],
    models: ModelOptions = None,
    init: Init = None,
    every_init: EveryInit = False,
    steps: Steps = None,
    batch: Batch = None,
    var: Rename = None,
    time_layout: TimeLayout = "cf",
    compress: Compress = 4,
    preview: Annotated[Path | None, typer.Option(help="Draw the forecast to this PNG or GIF.")] = None,
    skip_existing: SkipExisting = False,
    no_clobber: NoClobber = False,
    wait_input: WaitInput = 0,
    fallback: Fallback = None,
    device: Device = "auto",
    trust_code: TrustCode = False,
    *,
    policy: Any,
    frames: Any,
) -> None:
    """Forecast what follows the last window of a file.

    Examples:

        pdr predict air.nc -o forecast.nc

        pdr predict air.nc -o ensemble.nc -m runs/a -m runs/b --members 20

        torchrun --nproc-per-node 4 -m pdr_cli predict air.zarr --every-init -o hindcast.zarr
    """
    from pdr_cli.commands import predict as command

    command.run(
        command.Request(
            inputs,
            output,
            models=models or (),
            **frames,
            init=init,
            every_init=every_init,
            steps=steps,
            batch=batch,
            rename=var or [],
            policy=policy,
            time_layout=time_layout,
            compress=compress,
            preview=preview,
            skip_existing=skip_existing,
            no_clobber=no_clobber,
            wait=wait_input,
            fallback=fallback,
            device=device,
            trust=Trust(trust_code),
        )
    )


@app.command(rich_help_panel=FORECASTING)
@logged
@with_reading
@with_members
def evaluate(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Files, a folder, a glob or URLs with the observations.")
    ],
    models: Annotated[
        list[str] | None,
        typer.Option("-m", "--model", help="Model, forecast file, or a+b+c (models as one ensemble); repeatable."),
    ] = None,
    split: Annotated[str, typer.Option(help="test (nothing the model has seen), val, train or all.")] = "test",
    against: Against = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help=f"Comma-separated, the first is the headline: {choices.SCORES.help()}; *_lat weigh by area. "
            "Analyses: spectra, calibration, concentration, warping, ranks, intervals, ways, clip_distance."
        ),
    ] = None,
    events: Events = None,
    by: By = None,
    convention: Annotated[
        str, typer.Option(help="standard (means per value, data units), or openstl as in published tables.")
    ] = "standard",
    protocol: Annotated[
        str, typer.Option(help="honest (what no model has seen), or openstl: the published windows and scaling.")
    ] = "honest",
    steps: Steps = None,
    batch: Batch = None,
    var: Rename = None,
    kind: Kind = None,
    lpips_weights: LpipsWeights = None,
    raft_weights: RaftWeights = None,
    efficiency: Annotated[
        bool, typer.Option("--efficiency", help="Parameters, operations, frames a second and memory of each model.")
    ] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Scores as .json or .csv.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw error against lead time to this PNG.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with all results to this .html.")] = None,
    as_json: AsJson = False,
    device: Device = "auto",
    trust_code: TrustCode = False,
    *,
    reading: dict[str, Any],
    drawing: Any,
) -> None:
    """Score a model beside persistence and climatology, per lead time, on data it has not seen.

    Examples:

        pdr evaluate air.nc -o scores.json --report report.html

        pdr evaluate air.nc -m runs/air -m other_forecast.nc --against persistence,climatology,yesterday
    """
    from pdr_cli.commands import evaluate as command

    command.run(
        inputs,
        command.Request(
            models=models or [],
            split=split,
            against=None if against is None else listed(against),
            metrics=listed(metrics),
            events=listed(events),
            by=listed(by),
            convention=convention,
            protocol=protocol,
            steps=steps,
            batch=batch,
            rename=var or [],
            lpips=lpips_weights,
            raft=raft_weights,
            efficiency=efficiency,
            output=output,
            plot=plot,
            report=report,
            as_json=as_json,
            device=device,
            kind=kind,
            trust=Trust(trust_code),
            drawing=drawing,
            **reading,
        ),
    )


@app.command(rich_help_panel=FORECASTING)
@logged
@with_reading
def calibrate(
    model: Annotated[str, typer.Argument(metavar="RUN", help="Run folder, model.safetensors or run name.")],
    inputs: Annotated[
        list[str], typer.Argument(metavar="DATA...", help="Files with the observations, as of evaluate.")
    ],
    split: Annotated[str, typer.Option(help="test (nothing the model has seen), val or all.")] = "test",
    steps: Steps = None,
    batch: Batch = None,
    var: Rename = None,
    device: Device = "auto",
    trust_code: TrustCode = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Renew the errors of a model, from which predict --interval makes its intervals, and keep them in its file.

    Example:

        pdr calibrate runs/air newer.nc
    """
    from pdr_cli.commands import calibrate as command

    reading |= {"rename": var or [], "batch": batch, "device": device, "trust": Trust(trust_code)}
    command.run(model, inputs, command.Choice(split, steps), reading)


@app.command("bench-render", rich_help_panel=TOOLS)
@logged
@with_timing
def bench_render(
    kind: RenderKind = "render",
    res: Annotated[list[int] | None, typer.Option(min=8, help="Frame side in pixels; repeatable.")] = None,
    gaussians: Annotated[
        int | None, typer.Option(min=1, help="Per frame. Default: the paper's; 4096 to compose.")
    ] = None,
    kernel_size: Annotated[int | None, typer.Option(min=3, help="Lattice size K, odd. Default: the paper's.")] = None,
    channels: Annotated[list[int] | None, typer.Option(min=1, help="Repeatable. Default: 1; 3 to compose.")] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Frames per call; repeatable. Default: 1.")] = None,
    backward: Annotated[bool, typer.Option("--backward", help="Time forward + backward too.")] = False,
    paper: Annotated[bool, typer.Option("--paper", help="The paper's four settings, and its FPS on an A800.")] = False,
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
        repeats=repeats,
        **timing,
    )
    raise typer.Exit(command.run(options, output, as_json))


@app.command("bench-train", rich_help_panel=TOOLS)
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
    output: Results = None,
    as_json: AsJson = False,
    trust_code: TrustCode = False,
    *,
    timing: dict[str, Any],
) -> None:
    """Time a training step against one in plain PyTorch, each checked for correctness first.

    Variants: plain is the predictor alone in plain PyTorch, plain+predgs the whole model so, pdr what `pdr train` does.

    Example:

        pdr bench-train --preset taxibj --threads 2

        pdr bench-train --preset weather-small --size 32 64 --channels 1
    """
    from pdr_cli.bench.step import Options
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
        trust_code=trust_code,
        **timing,
    )
    raise typer.Exit(command.run(options, output, as_json))


@app.command(rich_help_panel=TOOLS)
@logged
def export(
    output: Annotated[
        Path, typer.Option("-o", "--output", help=".onnx, .pt2, .safetensors; .nc or .png with --input.")
    ],
    model: ModelOption = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="Data to run the model on, for .nc and .png.")
    ] = None,
    init: Init = None,
    var: Rename = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Run the exported model and compare it with the original.")
    ] = True,
    trust_code: TrustCode = False,
) -> None:
    """Write a model as ONNX or torch.export, its Gaussians as NetCDF, or a picture of its layers.

    Example:

        pdr export -m runs/a -o model.onnx
    """
    from pdr_cli.commands import export as command

    trust = Trust(trust_code)
    command.run(output, model=model, inputs=inputs or [], init=init, rename=var or [], verify=verify, trust=trust)


@app.command(rich_help_panel=TOOLS)
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


@app.command(rich_help_panel=TOOLS)
@logged
def presets(
    name: Annotated[str | None, typer.Argument(help="Print this one as TOML, to copy and change.")] = None,
) -> None:
    """List the presets, or print one."""
    from pdr_cli.commands import presets as command

    command.run(name)


@app.command(rich_help_panel=TOOLS)
@logged
def sample(
    kind: Annotated[str, typer.Argument(help="weather, traffic, video or scenes.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write: .nc, .h5 or .mp4.")],
    seed: Annotated[int, typer.Option(min=0, help="Each seed gives another sample.")] = 0,
) -> None:
    """Write a synthetic file in the real format, to try everything offline."""
    from pdr_cli.commands import sample as command

    command.run(kind, output, seed)


@app.command(rich_help_panel=TOOLS)
@logged
def verify(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="A forecast, a model.safetensors, a run folder, or a file of scenes.")
    ],
    as_json: AsJson = False,
) -> None:
    """Check that a forecast or a model is complete, finite, in range, and as it was written."""
    from pdr_cli.commands import verify as command

    command.run(path, as_json)


@app.command(rich_help_panel=TOOLS)
@logged
def doctor(as_json: AsJson = False) -> None:
    """Show versions, devices and which renderer is active."""
    from pdr_cli.commands import doctor as command

    command.run(as_json)
