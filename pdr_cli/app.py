"""The typer app: options, help text, error → exit code. No work happens here and nothing heavy is imported."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from pdr_cli import __version__
from pdr_cli.errors import MemoryShortageError, PdrError, UsageError

app = typer.Typer(
    name="pdr",
    help="Forecast weather fields, traffic grids and video: train a model on your file, predict what follows, score it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Log errors only.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Log more.")]
LogJson = Annotated[bool, typer.Option("--log-json", help="Log lines as JSON objects.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda[:N]; never replaced silently.")]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "-m", "--model", help="Run folder, model.safetensors or run name. Default: $PDR_MODEL, else the newest run."
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(min=1, help="Windows that the network sees at once, at most; default: 16, or what memory holds."),
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads of every variant.")]
Results = Annotated[Path | None, typer.Option("-o", "--output", help="Results as JSON.")]
NoTable = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ResampleFps = Annotated[
    float,
    typer.Option(
        min=0, max=1000, metavar="N", help="Bring clips to N frames a second, each the one shown at that time."
    ),
]
GrayToRgb = Annotated[bool, typer.Option("--gray-to-rgb", help="Read gray clips as red, green and blue alike.")]
Rename = Annotated[
    list[str] | None,
    typer.Option("--var", metavar="NAME[=INPUTNAME]", help="Variable, or another name for it in the input."),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pdr {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    pass


@app.command(rich_help_panel="Forecasting")
def train(
    preset: Annotated[
        str | None, typer.Option("-p", "--preset", help="A name from `pdr presets`, or a TOML file.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="Files, folders or globs; default: the preset's, in $PDR_DATA.")
    ] = None,
    var: Annotated[list[str] | None, typer.Option("--var", help="Variable to read as a channel; repeatable.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Run folder; default: runs/PRESET-TIME.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any key of the preset, such as train.lr=1e-3."),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Predictor: simvp, simvp2, tau, convnext, hornet, moganet, vit, swin, uniformer, poolformer, van, "
            "mlpmixer, convmixer, predformer, wast; frame by frame convlstm, predrnn, predrnnpp, predrnnv2, mim, "
            "e3dlstm, phydnet, mau, prednet, dmvfn; or module:Class."
        ),
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help="flatten (PredGS), local, or without Gaussians mlp or conv.")
    ] = None,
    fusion: Annotated[str | None, typer.Option(help="concat, gated, add, gs or none (the predictor alone).")] = None,
    loss: Annotated[str | None, typer.Option(help="l1ssim, l1, ssim, mse or l2reg.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training windows.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")] = None,
    budget: Annotated[str | None, typer.Option(help="Time for training, such as 3m or 1h30m.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of weights and order of windows.")] = None,
    device: Device = "auto",
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16.")] = None,
    resample_fps: ResampleFps = 0,
    gray_to_rgb: GrayToRgb = False,
    init_from: Annotated[
        Path | None,
        typer.Option(help="Start from trained weights: a run, a model.safetensors, or OpenSTL's .pth or .ckpt."),
    ] = None,
    freeze_backbone: Annotated[
        bool, typer.Option("--freeze-backbone", help="Leave the predictor as it is; train what is attached to it.")
    ] = False,
    ablation: Annotated[
        str | None,
        typer.Option(
            help="Train a grid instead, and print mean and spread of its scores: loss, init, fusion, lambda, gaussians, "
            "kernel, downsample, adapter, backbones or choices. --budget is for all of it."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant of an --ablation.")] = 3,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in -o from its last saved state.")] = False,
    state: Annotated[
        str,
        typer.Option(
            metavar="last|last-1", help="Saved state that --resume goes on from: the last, or the one before."
        ),
    ] = "last",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be trained, and stop.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_json: LogJson = False,
) -> None:
    """Train a model on your data; leaves a run folder that `predict` and `evaluate` find by themselves.

    Examples:

        pdr train --preset weather-small --data air.nc --var air

        pdr train --preset taxibj --data bikenyc.h5 --budget 30m -o runs/bikes
    """
    _logs(quiet, verbose, log_json)
    from pdr_cli.commands import train as command

    command.run(
        preset=preset,
        data=data or [],
        variables=var or [],
        out=out,
        settings=settings or [],
        flags={
            "model.backbone": backbone,
            "model.adapter": adapter,
            "model.fusion": fusion,
            "train.loss": loss,
            "train.epochs": epochs,
            "train.steps": steps,
            "train.budget": budget,
            "train.seed": seed,
            "train.precision": precision,
            "data.resample_fps": resample_fps or None,
            "data.gray_to_rgb": "true" if gray_to_rgb else None,
        },
        init_from=init_from,
        freeze_backbone=freeze_backbone,
        ablation=ablation,
        seeds=seeds,
        device=device,
        resume=resume,
        state=state,
        dry_run=dry_run,
    )


@app.command(rich_help_panel="Forecasting")
def predict(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Files, a folder or a glob: NetCDF, Zarr, HDF5 or video.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Forecast file: .nc, .zarr, .h5, .mp4, .gif or .npz.")],
    model: ModelOption = None,
    init: Annotated[str | None, typer.Option(help="Forecast from this time of the input; default: its last.")] = None,
    every_init: Annotated[
        bool, typer.Option("--every-init", help="A hindcast: one forecast from each possible init; .nc or .zarr.")
    ] = False,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Frames to forecast; more than trained are rolled out.")
    ] = None,
    batch: Batch = None,
    var: Rename = None,
    fill_missing: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help="Missing values of the window: none (refuse), persist (last known), mean (climatology) or interp.",
        ),
    ] = "none",
    fill_gap: Annotated[
        str, typer.Option(metavar="METHOD", help="A single missing time step: none (refuse) or interp.")
    ] = "none",
    regrid: Annotated[
        str,
        typer.Option(metavar="METHOD", help="Another grid than the model's: none (refuse), bilinear or conservative."),
    ] = "none",
    allow_out_of_range: Annotated[
        bool, typer.Option("--allow-out-of-range", help="Take values far outside of what the model was trained on.")
    ] = False,
    resample_fps: ResampleFps = 0,
    gray_to_rgb: GrayToRgb = False,
    time_layout: Annotated[
        str, typer.Option(help="Names of the times in .nc and .zarr: cf, or wb2 as WeatherBench2 has them.")
    ] = "cf",
    compress: Annotated[int, typer.Option(min=0, max=9, help="Of .nc and .zarr: 0 (fast) to 9 (small).")] = 4,
    preview: Annotated[Path | None, typer.Option(help="Draw the forecast to this PNG or GIF.")] = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Do nothing if the output is the answer to this request already.")
    ] = False,
    no_clobber: Annotated[bool, typer.Option("--no-clobber", help="Refuse an output that is there already.")] = False,
    wait_input: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Wait so long for an input that is still being written.")
    ] = 0,
    fallback: Annotated[
        str | None, typer.Option(metavar="last-1", help="Take the model before, if that of the run is damaged.")
    ] = None,
    device: Device = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_json: LogJson = False,
) -> None:
    """Forecast what follows the last window of a file.

    Examples:

        pdr predict air.nc -o forecast.nc

        pdr predict clip.mp4 -o future.mp4 -m runs/clips --steps 20

        torchrun --nproc-per-node 4 -m pdr_cli predict air.zarr --every-init -o hindcast.zarr
    """
    _logs(quiet, verbose, log_json)
    from pdr_cli.commands import predict as command
    from pdr_cli.inference.intake import InputPolicy

    command.run(
        command.Request(
            inputs,
            output,
            model=model,
            init=init,
            every_init=every_init,
            steps=steps,
            batch=batch,
            rename=var or [],
            policy=InputPolicy(fill_missing, fill_gap, regrid, allow_out_of_range, resample_fps, gray_to_rgb),
            time_layout=time_layout,
            compress=compress,
            preview=preview,
            skip_existing=skip_existing,
            no_clobber=no_clobber,
            wait=wait_input,
            fallback=fallback,
            device=device,
        )
    )


@app.command(rich_help_panel="Forecasting")
def evaluate(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Files, a folder or a glob with what happened.")
    ],
    models: Annotated[
        list[str] | None,
        typer.Option("-m", "--model", help="Model or forecast file to score; repeatable. Default as for predict."),
    ] = None,
    split: Annotated[str, typer.Option(help="test (nothing the model has seen), val, train or all.")] = "test",
    against: Annotated[
        str | None,
        typer.Option(
            help="Baselines, comma-separated: persistence, climatology, yesterday, last-week, trend, flow. "
            "Default: persistence,climatology."
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated, the first is the headline: mse, mae, rmse, bias, acc, ssim, psnr, lpips; rmse_lat and its "
            "like weigh by area; spectra, calibration, concentration, warping are analyses."
        ),
    ] = None,
    convention: Annotated[
        str, typer.Option(help="standard (means per value, data units), or openstl as in published tables.")
    ] = "standard",
    protocol: Annotated[
        str, typer.Option(help="honest (what no model has seen), or openstl: the published windows and scaling.")
    ] = "honest",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Lead times to score; more than trained are rolled out.")
    ] = None,
    batch: Batch = None,
    var: Rename = None,
    resample_fps: ResampleFps = 0,
    gray_to_rgb: GrayToRgb = False,
    lpips_weights: Annotated[
        Path | None, typer.Option(help="Weights of LPIPS v0.1 (AlexNet), .safetensors; adds lpips for video.")
    ] = None,
    raft_weights: Annotated[
        Path | None, typer.Option(help="Weights of RAFT-small, .safetensors, for the warping error's flow.")
    ] = None,
    efficiency: Annotated[
        bool, typer.Option("--efficiency", help="Parameters, operations, frames a second and memory of each model.")
    ] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Scores as .json or .csv.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw error against lead time to this PNG.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with everything to this .html.")] = None,
    as_json: NoTable = False,
    device: Device = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_json: LogJson = False,
) -> None:
    """Score a model beside persistence and climatology, per lead time, on data it has not seen.

    Examples:

        pdr evaluate air.nc -o scores.json --report report.html

        pdr evaluate air.nc -m runs/air -m other_forecast.nc --against persistence,climatology,yesterday
    """
    _logs(quiet, verbose, log_json)
    from pdr_cli.commands import evaluate as command

    command.run(
        inputs,
        command.Request(
            models=models or [],
            split=split,
            against=None if against is None else [a for a in against.split(",") if a],
            metrics=[m for m in (metrics or "").split(",") if m],
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
            resample_fps=resample_fps,
            gray_to_rgb=gray_to_rgb,
        ),
    )


@app.command("bench-render", rich_help_panel="Tools")
def bench_render(
    res: Annotated[list[int] | None, typer.Option(min=8, help="Frame side in pixels; repeatable.")] = None,
    gaussians: Annotated[int | None, typer.Option(min=1, help="Gaussians per frame; default as the paper.")] = None,
    kernel_size: Annotated[int | None, typer.Option(min=3, help="Lattice size K, odd; default as the paper.")] = None,
    channels: Annotated[list[int] | None, typer.Option(min=1, help="Channels; repeatable, default 1.")] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Frames per call; repeatable, default 1.")] = None,
    backward: Annotated[bool, typer.Option("--backward", help="Time forward + backward too.")] = False,
    variants: Annotated[str | None, typer.Option(help="Comma-separated; default: all there are.")] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="The paper's four settings, with its A800 numbers beside.")
    ] = False,
    device: Device = "auto",
    threads: Threads = None,
    repeats: Annotated[int, typer.Option(min=5, help="Runs of each variant, at most.")] = 100,
    output: Results = None,
    as_json: NoTable = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_json: LogJson = False,
) -> None:
    """Time the renderer against the paper's own, each checked for correctness first.

    Example:

        pdr bench-render --res 256 --backward

        pdr bench-render --res 128 --channels 1 3 8 --batch 1 16
    """
    _logs(quiet, verbose, log_json)
    from pdr_cli.bench import render as command

    code = command.run(
        res=res or None,
        gaussians=gaussians,
        kernel_size=kernel_size,
        channels=channels or None,
        batch=batch or None,
        backward=backward,
        variants=[v for v in variants.split(",") if v] if variants else None,
        paper=paper,
        device=device,
        threads=threads,
        repeats=repeats,
        output=output,
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command("bench-train", rich_help_panel="Tools")
def bench_train(
    preset: Annotated[
        str, typer.Option("-p", "--preset", help="A name from `pdr presets`, or a TOML file.")
    ] = "taxibj",
    backbone: Annotated[str | None, typer.Option(help="Predictor; default: the preset's.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Windows per step; default: the preset's.")] = None,
    size: Annotated[list[int] | None, typer.Option(min=1, help="H W of a frame; default: as published.")] = None,
    channels: Annotated[int | None, typer.Option(min=1, help="Channels of a frame; default: as published.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any key of the preset, such as model.n_t=4."),
    ] = None,
    variants: Annotated[
        str | None, typer.Option(help="Comma-separated: plain, plain+predgs, pdr; default: all.")
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    repeats: Annotated[int, typer.Option(min=2, help="Steps of each variant.")] = 10,
    output: Results = None,
    as_json: NoTable = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_json: LogJson = False,
) -> None:
    """Time a training step against one in plain PyTorch, each checked for correctness first.

    plain is the predictor alone as torch lays it out, plain+predgs the whole model so, pdr what `pdr train` does.

    Example:

        pdr bench-train --preset taxibj --threads 2

        pdr bench-train --preset weather-small --size 32 64 --channels 1
    """
    _logs(quiet, verbose, log_json)
    from pdr_cli.bench import step as command

    if size is not None and len(size) not in (0, 2):
        raise UsageError(f"--size {' '.join(map(str, size))}: expected two numbers, H W")
    code = command.run(
        preset=preset,
        backbone=backbone,
        batch=batch,
        size=(size[0], size[1]) if size else None,
        channels=channels,
        settings=settings or [],
        variants=[v for v in variants.split(",") if v] if variants else None,
        device=device,
        threads=threads,
        repeats=repeats,
        output=output,
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command(rich_help_panel="Tools")
def export(
    output: Annotated[
        Path, typer.Option("-o", "--output", help=".onnx, .pt2, .safetensors; .nc or .png with --input.")
    ],
    model: ModelOption = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="Data to run the model on, for .nc and .png.")
    ] = None,
    init: Annotated[str | None, typer.Option(help="Time of the last observation, for .nc and .png.")] = None,
    var: Rename = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Run the artefact and compare it with the model.")
    ] = True,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_json: LogJson = False,
) -> None:
    """Write a model as ONNX or torch.export, its Gaussians as NetCDF, or a picture of what it does.

    Example:

        pdr export -m runs/a -o model.onnx
    """
    _logs(quiet, verbose, log_json)
    from pdr_cli.commands import export as command

    command.run(output, model=model, inputs=inputs or [], init=init, rename=var or [], verify=verify)


@app.command(rich_help_panel="Tools")
def inspect(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A data file, forecast, folder of clips, or model.")],
    preset: Annotated[str | None, typer.Option("--for", help="Say whether this preset or model can use it.")] = None,
    var: Annotated[list[str] | None, typer.Option("--var", help="Variable to look at; repeatable.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_json: LogJson = False,
) -> None:
    """Say what a file holds and what can be done with it."""
    _logs(quiet, verbose, log_json)
    from pdr_cli.commands import inspect as command

    command.run(path, preset=preset, variables=var or [], as_json=as_json)


@app.command(rich_help_panel="Tools")
def presets(
    name: Annotated[str | None, typer.Argument(help="Print this one as TOML, to copy and change.")] = None,
) -> None:
    """List the presets, or print one."""
    _logs(False, False, False)
    from pdr_cli.commands import presets as command

    command.run(name)


@app.command(rich_help_panel="Tools")
def sample(
    kind: Annotated[str, typer.Argument(help="weather, traffic or video.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write: .nc, .h5 or .mp4.")],
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another sample.")] = 0,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_json: LogJson = False,
) -> None:
    """Write a synthetic file in the real format, to try everything offline."""
    _logs(quiet, verbose, log_json)
    from pdr_cli.commands import sample as command

    command.run(kind, output, seed)


@app.command(rich_help_panel="Tools")
def verify(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A forecast, a model.safetensors, or a run folder.")],
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_json: LogJson = False,
) -> None:
    """Check that a forecast or a model is complete, finite, in range, and as it was written."""
    _logs(quiet, verbose, log_json)
    from pdr_cli.commands import verify as command

    command.run(path, as_json)


@app.command(rich_help_panel="Tools")
def doctor(
    as_json: AsJson = False,
) -> None:
    """Show versions, devices and which renderer is active."""
    _logs(False, False, False)
    from pdr_cli.commands import doctor as command

    command.run(as_json)


def _logs(quiet: bool, verbose: bool, as_json: bool) -> None:
    from pdr_cli.system import logs

    logs.setup(quiet, verbose, as_json)


# Options that take several values after one name, as a shell leaves them when it expands --data clips/*.mp4.
SEVERAL = {
    "train": ("--data", "--var", "--set"),
    "bench-render": ("--res", "--channels", "--batch"),
    "bench-train": ("--size", "--set"),
    "export": ("--input",),
}


def spread(arguments: list[str]) -> list[str]:
    """Repeat an option's name before each of its values: `--data a b` becomes `--data a --data b`."""
    options = SEVERAL.get(arguments[0], ()) if arguments else ()
    out: list[str] = []
    current = ""
    for argument in arguments:
        if argument.startswith("-"):
            current = argument if argument in options else ""
        elif current and out[-1] != current:
            out.append(current)
        out.append(argument)
    return out


def main() -> NoReturn:
    """Run the app; every failure becomes one line on stderr, its stable name and its exit code."""
    # OpenMP threads that spin while they wait take the cores from other jobs. Two trainings at once on two cores: 0.6 s
    # a step with libgomp's default, 0.5 s with this; a training alone takes the same 0.14 s with either.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    _logs(False, False, "--log-json" in sys.argv)
    try:
        with _signals():
            code = app(spread(sys.argv[1:]), standalone_mode=False)
            _flush()
    except PdrError as error:
        _exit(error.code, error.name, str(error))
    except _Stopped as stopped:
        _exit(128 + stopped.number, "E_INTERRUPTED", f"{signal.Signals(stopped.number).name}: stopped")
    except (KeyboardInterrupt, typer.Abort):
        _exit(130, "E_INTERRUPTED", "interrupted")
    except BrokenPipeError:
        _discard_stdout()
        code = 0
    except OSError as error:
        _discard_stdout()
        _exit(74, "E_IO", str(error))
    except Exception as error:
        _exit_of_usage(error)
        _exit_of_shortage(error)
        import traceback

        trace = traceback.format_exc()
        _exit(1, "E_BUG", f"this is a bug, please report it: {type(error).__name__}: {error}", trace)
    if code == 130:
        _exit(130, "E_INTERRUPTED", "interrupted")
    sys.exit(code if isinstance(code, int) else 0)


class _Stopped(BaseException):
    """A signal asked to stop. Not an Exception, so that nothing on the way takes it for a failure of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGUSR1 unwind the command, so that it removes its temporary files; a second one acts at once."""

    def stop(number: int, _: object) -> None:
        for each, handler in before.items():
            signal.signal(each, handler)
        raise _Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _flush() -> None:
    """Send what was printed, while a failure to do so can still be told. A closed stdout is None."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _discard_stdout() -> None:
    """Nobody reads stdout any more (`| head`), or it cannot be written: no flush at exit shall fail again."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _exit_of_usage(error: Exception) -> None:
    """Leave with 2 if options were wrong: an exception of click, which typer carries under names of its own."""
    if not hasattr(error, "format_message") or not hasattr(error, "show"):
        return
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if not message:  # `pdr` alone
        error.show()
    elif context is not None and "--log-json" not in sys.argv:
        typer.echo(f"{context.get_usage()}\nTry '{context.command_path} --help' for help.", err=True)
    _exit(2, "E_USAGE", message or "name a command")


def _exit_of_shortage(error: Exception) -> None:
    """Leave as `MemoryShortageError` says if memory ran short where nothing can be halved."""
    from pdr_cli.system import memory

    if memory.is_shortage(error):
        found = str(error).partition("\n")[0] or "out of memory"
        short = MemoryShortageError(f"{found}; close what else uses memory, or take a machine with more of it")
        _exit(short.code, short.name, str(short))


def _exit(code: int, name: str, message: str, trace: str = "") -> NoReturn:
    from pdr_cli.system.logs import log

    if trace:
        log.error("%s", trace.rstrip(), extra={"fields": {"traceback": True}})
    log.error("%s [%s, exit %d]", " ".join(message.split()), name, code, extra={"fields": {"code": code, "name": name}})
    sys.exit(code)
