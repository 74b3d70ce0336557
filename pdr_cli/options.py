"""Options that several commands share, with their help made from the registries."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from pdr_cli import choices
from pdr_cli.completion import names_of, presets, runs

Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Log errors only.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Log more detail.")]
LogJson = Annotated[bool, typer.Option("--log-json", help="Write log lines as JSON objects.")]
LOGGING = {"quiet": Quiet, "verbose": Verbose, "log_json": LogJson}
Inputs = Annotated[
    list[str],
    typer.Argument(metavar="INPUT...", help="Files, a folder, a glob or URLs: NetCDF, Zarr, GRIB, HDF5 or video."),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda[:N]; never replaced silently.")]
Precision = Annotated[
    str | None,
    typer.Option(
        help="Arithmetic of the network: fp32, or bf16 (faster, rounds to 8 bits); see operations. Default: fp32."
    ),
]
Preset = Annotated[
    str | None,
    typer.Option("-p", "--preset", help="A name from `pdr presets`, or a TOML file.", autocompletion=presets),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key of the preset, such as train.lr=1e-3.")
]
Kind = Annotated[
    str | None,
    typer.Option(help="Kind of the data: weather, traffic or video. Default: as the preset or the data say."),
]
Backbone = Annotated[
    str | None,
    typer.Option(help=f"Predictor: {choices.PREDICTORS.help()}.", autocompletion=names_of(choices.PREDICTORS)),
]
Forward = Annotated[
    bool, typer.Option("--forward", help="Time forecasts and not training steps; also of pdr-bf16 (--precision bf16).")
]
FreezeBackbone = Annotated[
    bool, typer.Option("--freeze-backbone", help="Do not train the predictor, only adapter and fusion.")
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        help="Run folder, model.safetensors or run name. Default: $PDR_MODEL, else the newest run.",
        autocompletion=runs,
    ),
]
ModelOptions = Annotated[
    list[str] | None,
    typer.Option(
        "-m", "--model", help="Model, as a run folder, file or run name; repeatable: members of one ensemble. Default: "
        "$PDR_MODEL, else the newest run.", autocompletion=runs,
    ),
]  # fmt: skip
Batch = Annotated[
    int | None,
    typer.Option(min=1, help="Windows per pass through the network, at most. Default: 16, or what memory holds."),
]
Steps = Annotated[
    int | None, typer.Option(min=1, help="Lead times; beyond the trained ones the forecast is fed back (rolled out).")
]
Every = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="Forecast every 0.5, 0.25, ... of a step too, of a model continuous in time."),
]
Interval = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE,...",
        help="Prediction intervals that hold these shares of the truths, such as 0.8,0.95; from the model's calibration.",
    ),
]
Adaptive = Annotated[
    bool,
    typer.Option(
        "--adaptive",
        help="Let the intervals of a hindcast follow how those of its earlier inits held; with --every-init.",
    ),
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads of every variant.")]
Results = Annotated[Path | None, typer.Option("-o", "--output", help="Results as JSON.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ResampleFps = Annotated[
    float,
    typer.Option(min=0, max=1000, metavar="N", help="Resample clips to N frames a second, without blending frames."),
]
GrayToRgb = Annotated[bool, typer.Option("--gray-to-rgb", help="Read gray clips as RGB with three equal channels.")]
Rename = Annotated[
    list[str] | None,
    typer.Option("--var", metavar="NAME[=INPUTNAME]", help="Variable, or its other name in the input; repeatable."),
]
Variables = Annotated[
    list[str] | None, typer.Option("--var", help="Variable to read as a channel, or all; repeatable.")
]
RenderKind = Annotated[str, typer.Option(help="render: Gaussians add up; compose: they hide each other.")]
Variants = Annotated[str | None, typer.Option(help="Comma-separated variants. Default: all.")]
FillMissing = Annotated[
    str,
    typer.Option(
        metavar="METHOD",
        help="Missing values in the window: none (refuse), persist (last value), mean (climatology) or interp.",
    ),
]
FillGap = Annotated[str, typer.Option(metavar="METHOD", help="A single missing time step: none (refuse) or interp.")]
Regrid = Annotated[
    str, typer.Option(metavar="METHOD", help="Input on another grid: none (refuse), bilinear or conservative.")
]
MissingValue = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]NUMBER|none",
        help="Number that stands for missing values where the file does not declare it; repeatable. none: no number does.",
    ),
]
Group = Annotated[
    str,
    typer.Option(
        metavar="PATH", help="Group of a NetCDF or Zarr file that holds the fields. Default: the root, or the only one."
    ),
]
Assume = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Convention that arrays or folders leave open: slots=0-23 (first and last slot of a day), values=counts, "
        "axes=channels-last, parts=none; repeatable.",
    ),
]
InitFrom = Annotated[
    Path | None,
    typer.Option(help="Start from trained weights: a run, a model.safetensors, or OpenSTL's .pth or .ckpt."),
]
Ablation = Annotated[
    str | None,
    typer.Option(
        help=f"Train all variants of an ablation and print mean and spread of their scores: "
        f"{choices.ABLATIONS.help()}. --budget is for all of them together.",
        autocompletion=names_of(choices.ABLATIONS),
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be trained, and stop.")]
Profile = Annotated[
    bool, typer.Option("--profile", help="Take 20 steps, print where their time goes, and stop; leaves nothing behind.")
]
State = Annotated[
    str, typer.Option(metavar="last|last-1", help="Saved state that --resume starts from: the last, or the one before.")
]
AllowOutOfRange = Annotated[
    bool, typer.Option("--allow-out-of-range", help="Accept values far outside the range of the training data.")
]
WaitInput = Annotated[
    float, typer.Option(min=0, metavar="SECONDS", help="Wait up to this long for an input that is being written.")
]
Against = Annotated[
    str | None,
    typer.Option(
        help=f"Baselines, comma-separated: {choices.BASELINES.help()}. Default: persistence, climatology, and those that were "
        "fitted with the model."
    ),
]
Events = Annotated[
    str | None,
    typer.Option(
        metavar="'NAME>NUMBER',...",
        help="Events to score forecasts of: CSI, POD, FAR, ETS, FSS, Brier score, in data units.",
    ),
]
By = Annotated[
    str | None, typer.Option(metavar="season,region", help="Scores by season of the init, by latitude, or both.")
]
LpipsWeights = Annotated[
    Path | None, typer.Option(help="Weights of LPIPS v0.1 (AlexNet), .safetensors; adds lpips for video.")
]
RaftWeights = Annotated[
    Path | None, typer.Option(help="Weights of RAFT-small, .safetensors, for the flow of the warping error.")
]
TimeLayout = Annotated[str, typer.Option(help="Time coordinates of .nc and .zarr: cf, or wb2 as in WeatherBench2.")]
Compress = Annotated[
    int, typer.Option(min=0, max=9, help="Compression level for .nc and .zarr, 0 (fast) to 9 (small).")
]
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        help="Run the code of others (module:Name) that a model, run or preset names. See $PDR_TRUST_CODE.",
    ),
]
EveryInit = Annotated[
    bool,
    typer.Option(
        "--every-init",
        help="A hindcast: one forecast from each possible init; .nc or .zarr. Continues one that was cut off.",
    ),
]
SkipExisting = Annotated[
    bool, typer.Option("--skip-existing", help="Do nothing if the output already answers this request.")
]
NoClobber = Annotated[bool, typer.Option("--no-clobber", help="Refuse to replace an existing output.")]
Fallback = Annotated[
    str | None, typer.Option(metavar="last-1", help="Use the previous model if the run's model is damaged.")
]
Names = list[str] | None
COVARIATES: dict[str, Any] = {
    "input": Annotated[
        Names,
        typer.Option(
            metavar="NAME,...", help="Variables that are observed and not forecast; repeatable, as the next four."
        ),
    ],
    "known": Annotated[
        Names,
        typer.Option(
            metavar="NAME,...", help="Variables that the files hold at forecast times too, in predict as well."
        ),
    ],
    "target": Annotated[
        Names,
        typer.Option(
            metavar="NAME,...", help="Variables that are forecast and not observed: predict does not read them."
        ),
    ],
    "static": Annotated[
        Names,
        typer.Option(
            metavar="[FILE:]NAME,...", help="Maps without a time axis, such as a land mask, which the model keeps."
        ),
    ],
    "calendar": Annotated[
        Names,
        typer.Option(
            metavar="NAME,...",
            help="Dates as inputs: hour, weekday, day-of-year, sun (its elevation); auto: what the data cover.",
        ),
    ],
    "holidays": Annotated[
        Path | None, typer.Option(metavar="FILE", help="Holidays as an input: a file with a date a line.")
    ],
}
MEMBERS: dict[str, Any] = {
    "members": Annotated[
        str | None,
        typer.Option(
            metavar="N|mean|mean:N", help="Draw an ensemble of N members (20) from a model that does; mean: their mean."
        ),
    ],
    "seed": Annotated[int | None, typer.Option(min=0, help="Seed of the members. Default: 0.")],
}
FILMING: dict[str, Any] = {
    "camera": Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Film a picture by a model of scenes along this path: orbit:DEGREES, dolly:UNITS, still, or a camera file.",
        ),
    ],
    "view": Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Draw the film of --camera as these cameras see it: another view of one scene."
        ),
    ],
    "depth": Annotated[Path | None, typer.Option(help="Write the depth of the film's frames to this .nc or .zarr.")],
}
PLACES: dict[str, Any] = {
    "size": Annotated[str | None, typer.Option(metavar="HxW", help="Rows and columns of the output, by interpolation.")],
    "scale": Annotated[int | None, typer.Option(min=1, max=64, help="How many times as fine the output is, by interpolation.")],
    "points": Annotated[Path | None, typer.Option(help="Forecast at the points of this CSV file: name, lat, lon or name, y, x.")],
    "interpolate": Annotated[str | None, typer.Option(metavar="METHOD", help="Of these: bilinear, bicubic or conservative.")],
}  # fmt: skip
SHOT: dict[str, Any] = {
    "camera": Annotated[str | None, typer.Option(
        metavar="PATH", help="Path of the camera of a scene's future, as of predict. Default: orbit:20.")],
    "at": Annotated[float | None, typer.Option(min=0, max=1, help="Time of a scene's Gaussians in a .ply. Default: 0.")],
    "seed": Annotated[int | None, typer.Option(min=0, help="Seed of a scene's future. Default: 0.")],
}  # fmt: skip
COMPUTING: dict[str, Any] = {"precision": Precision}
FRAMES: dict[str, Any] = MEMBERS | COMPUTING | FILMING | PLACES
FRAMES |= {"interval": Interval, "adaptive": Adaptive, "every": Every}
READING: dict[str, Any] = {
    "resample_fps": ResampleFps,
    "gray_to_rgb": GrayToRgb,
    "group": Group,
    "missing_value": MissingValue,
    "assume": Assume,
}
MENDING: dict[str, Any] = {
    "fill_missing": FillMissing,
    "fill_gap": FillGap,
    "regrid": Regrid,
    "allow_out_of_range": AllowOutOfRange,
}
TIMING: dict[str, Any] = {"variants": Variants, "device": Device, "threads": Threads}
Init = Annotated[str | None, typer.Option(help="Time of the last observation to use. Default: the last of the input.")]
Command = Callable[..., None]


def logged(command: Command) -> Command:
    """A command with the logging options -q, -v and --log-json, which are applied before it runs."""

    @functools.wraps(command)
    def run(*, quiet: bool = False, verbose: bool = False, log_json: bool = False, **options: Any) -> None:
        from pdr_cli.system import logs

        logs.setup(quiet, verbose, log_json)
        command(**options)

    return _with_options(run, command, LOGGING, False)


def _bundled(options: dict[str, Any], name: str, make: Callable[[dict[str, Any]], Any]) -> Callable[[Command], Command]:
    """A decorator: a command with further options, which it gets as one parameter `name` that `make` makes of their values."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            chosen = {key: given.pop(key) for key in options}
            command(**given, **{name: make(chosen)})

        return _with_options(run, command, options, None, name)

    return decorate


def _drawing(chosen: dict[str, Any]) -> Any:
    """The `Drawing` of the options `MEMBERS`."""
    from pdr_cli.inference.members import Drawing

    return Drawing.parse(chosen["members"], chosen["seed"] or 0)


def _frames(chosen: dict[str, Any]) -> dict[str, Any]:
    """The `drawing`, `precision`, `intervals`, `between`, `filming` and `finer` of a request, of the options `FRAMES`."""
    from pdr_cli.inference.between import Between
    from pdr_cli.inference.filming import Filming
    from pdr_cli.inference.finer import Finer
    from pdr_cli.inference.intervals import Intervals

    made = {"drawing": _drawing(chosen), "intervals": Intervals.parse(chosen["interval"], bool(chosen["adaptive"]))}
    made |= {"between": Between.parse(chosen["every"]), "finer": Finer.parse(*(chosen[name] for name in PLACES))}
    return made | {"filming": Filming(**{name: chosen[name] for name in FILMING})} | _computing(chosen)


def _shot(chosen: dict[str, Any]) -> Any:
    """The `Shot` of the options `SHOT`."""
    from pdr_cli.commands.export import Shot

    return Shot(**chosen)


def _computing(chosen: dict[str, Any]) -> dict[str, str]:
    """The `precision` of a request, of the options `COMPUTING`."""
    return {"precision": chosen["precision"] or "fp32"}


def _scoring(chosen: dict[str, Any]) -> dict[str, Any]:
    """How an evaluation reads inputs and computes."""
    return _reading(chosen) | _computing(chosen)


def _policy(chosen: dict[str, Any]) -> Any:
    """The `InputPolicy` of the options `MENDING` and `READING`."""
    from pdr_cli.inference.policy import InputPolicy

    mended = {name: chosen[name] for name in MENDING if chosen[name] is not None}
    return InputPolicy(**mended, **_reading(chosen))


def _reading(chosen: dict[str, Any]) -> dict[str, Any]:
    """How inputs are read, with the defaults of the options that are not given."""
    return {
        "resample_fps": chosen["resample_fps"] or 0,
        "gray_to_rgb": bool(chosen["gray_to_rgb"]),
        "group": chosen["group"] or "",
        "missing_values": tuple(chosen["missing_value"] or ()),
        "assume": tuple(chosen["assume"] or ()),
    }


def as_settings(reading: dict[str, Any]) -> dict[str, Any]:
    """The keys of the preset that the options `READING` set; None: the preset's value."""
    return {
        "data.resample_fps": reading["resample_fps"] or None,
        "data.gray_to_rgb": "true" if reading["gray_to_rgb"] else None,
        "data.group": reading["group"] or None,
        "data.missing_value": ",".join(reading["missing_values"]) or None,
        "data.assume": ",".join(reading["assume"]) or None,
    }


def _with_options(
    run: Callable[..., None], command: Callable[..., None], options: dict[str, Any], default: Any, without: str = ""
) -> Callable[..., None]:
    """`run` with the signature of the command that it wraps and further options, less the parameter `without`."""
    hints = {name: hint for name, hint in get_type_hints(command, include_extras=True).items() if name != without}
    own = [p.replace(annotation=hints[n]) for n, p in inspect.signature(command).parameters.items() if n in hints]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option)
        for name, option in options.items()
    ]
    run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    run.__annotations__ = hints | options
    return run


def _covariates(chosen: dict[str, Any]) -> dict[str, str | None]:
    """The keys of the preset that the options set; None: the preset's value."""
    from pdr_cli.settings import ROLES

    named = {key: listed(",".join(chosen[key] or ())) for key in COVARIATES if key != "holidays"}
    roles = [f"{name}={role}" for role in ROLES for name in named[role]]
    holidays = chosen["holidays"]
    return {
        "data.roles": ",".join(roles) or None,
        "data.static": ",".join(named["static"]) or None,
        "data.calendar": ",".join(named["calendar"]) or None,
        "data.holidays": None if holidays is None else str(holidays),
    }


def _timing(chosen: dict[str, Any]) -> dict[str, Any]:
    """What a benchmark times, and on what."""
    return {**chosen, "variants": listed(chosen["variants"]), "device": chosen["device"] or "auto"}


def listed(text: str | None) -> list[str]:
    """The parts of a comma-separated option."""
    return [part for part in (text or "").split(",") if part]


with_covariates = _bundled(COVARIATES, "covariates", _covariates)  # {key of the preset: value}
with_members = _bundled(MEMBERS, "drawing", _drawing)
with_frames = _bundled(FRAMES, "frames", _frames)  # {name in `inference.request.Request`: value}
with_shot = _bundled(SHOT, "shot", _shot)
with_reading = _bundled(READING, "reading", _reading)  # {name in `InputPolicy`: value}
with_scoring = _bundled(READING | COMPUTING, "reading", _scoring)  # {name in the `Request` of evaluate: value}
with_timing = _bundled(TIMING, "timing", _timing)
with_policy = _bundled(MENDING | READING, "policy", _policy)
