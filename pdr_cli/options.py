"""Options that several commands share, with their help made from the registries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
_PREDICTOR = f"Predictor: {choices.PREDICTORS.help()}."
Backbone = Annotated[str | None, typer.Option(help=_PREDICTOR, autocompletion=names_of(choices.PREDICTORS))]
Forward = Annotated[
    bool, typer.Option("--forward", help="Time forecasts and not training steps; also of pdr-bf16 (--precision bf16).")
]
FreezeBackbone = Annotated[
    bool, typer.Option("--freeze-backbone", help="Do not train the predictor, only adapter and fusion.")
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "-m", "--model", help="Run folder, model.safetensors, run name or demo:NAME. Default: $PDR_MODEL, else the newest run.",
        autocompletion=runs,
    ),
]  # fmt: skip
ModelOptions = Annotated[
    list[str] | None,
    typer.Option(
        "-m", "--model", help="Model: run folder, file (.onnx too), run name or demo:NAME; repeatable: members of one ensemble. "
        "Default: $PDR_MODEL, else the newest run.", autocompletion=runs,
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
FineTune = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL", help="Continue from a model on --data of the same kind, with its settings: a run or demo:NAME.",
        autocompletion=runs,
    ),
]  # fmt: skip
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
