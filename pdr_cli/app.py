"""The typer app: options and their help, made from the registries. No work happens here and nothing heavy is imported."""

from __future__ import annotations  # noqa: I001 - the options of `options` in few lines

from pathlib import Path
from typing import Annotated, Any

import typer

from pdr_cli import __version__, choices, tools
from pdr_cli.bundles import (
    as_settings, listed, logged, with_covariates, with_frames, with_members, with_policy, with_reading, with_scoring,
)  # fmt: skip
from pdr_cli.completion import names_of
from pdr_cli.options import (
    Ablation, Against, AsJson, Backbone, Batch, By, Compress, Device, DryRun, Events, EveryInit, Fallback, FineTune,
    FreezeBackbone, Init, InitFrom, Inputs, Kind, LpipsWeights, ModelOptions, NoClobber, Preset, Profile, RaftWeights,
    Rename, Settings, SkipExisting, State, Steps, TimeLayout, TrustCode, Variables, WaitInput,
)  # fmt: skip
from pdr_cli.system.imports import uncollected
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
    anchor: Annotated[
        str | None,
        typer.Option(
            help=f"Forecast to start from: {choices.ANCHORS.help()}.", autocompletion=names_of(choices.ANCHORS)
        ),
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help=f"Adapter: {choices.ADAPTERS.help()}.", autocompletion=names_of(choices.ADAPTERS))
    ] = None,
    fusion: Annotated[
        str | None, typer.Option(help=f"Fusion: {choices.FUSIONS.help()}.", autocompletion=names_of(choices.FUSIONS))
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help=f"Loss: {choices.LOSSES.help()}.", autocompletion=names_of(choices.LOSSES))
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training windows.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")] = None,
    budget: Annotated[str | None, typer.Option(help="Time for training, such as 3m or 1h30m.")] = None,
    save_every: Annotated[int | None, typer.Option(min=1, help="Steps between saved states.")] = None,
    logger: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Record the course elsewhere too, repeatable: {choices.LOGGERS.help()}.",
            autocompletion=names_of(choices.LOGGERS),
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of weights and order of windows.")] = None,
    device: Device = "auto",
    precision: Annotated[str | None, typer.Option(help="fp32, bf16, or auto: bf16 where the device has it.")] = None,
    init_from: InitFrom = None,
    fine_tune: FineTune = None,
    freeze_backbone: FreezeBackbone = False,
    ablation: Ablation = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant of an --ablation.")] = 3,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in -o from its last saved state.")] = False,
    state: State = "last",
    dry_run: DryRun = False,
    profile: Profile = False,
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
            "train.loggers": ",".join(logger) if logger else None,
            "train.seed": seed,
            "train.precision": precision,
            **as_settings(reading),
            **covariates,
        },
        init_from=init_from,
        fine_tune=fine_tune,
        freeze_backbone=freeze_backbone,
        ablation=ablation,
        seeds=seeds,
        device=device,
        resume=resume,
        state=state,
        dry_run=dry_run,
        profile=profile,
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
    preview: Annotated[Path | None, typer.Option(help="Draw the forecast to this PNG, GIF or MP4.")] = None,
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
    with uncollected():
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
@with_scoring
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
            "Analyses: spectra, calibration, concentration, warping, ranks, intervals, ways, clip_distance, probe."
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


for tool in tools.ALL:
    app.command(rich_help_panel=TOOLS)(tool)
