"""The preset schema: every number of an experiment, checked, with TOML in and out.

A preset is a TOML file with three tables, [data], [model] and [train]. `extends = "name"` at its top takes the values of
another preset for the keys it leaves out. The code has no other defaults: a key that no preset in the chain sets is an
error.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pdr_cli.errors import ConfigError, did_you_mean

Kind = Literal["weather", "traffic", "video", "any"]
AUTO, NONE = "auto", "none"  # entries of data.bounds that name no variable

# Defaults for keys added later, so that older models and presets keep their meaning.
ADDED_LATER: dict[str, dict[str, Any]] = {
    "data": {
        "train_period": "",
        "val_period": "",
        "test_period": "",
        "protocol": "honest",
        "fill_missing": "none",
        "resample_fps": 0.0,
        "gray_to_rgb": False,
        "group": "",
        "missing_value": [],
        "assume": [],
        "bounds": [NONE],
    },
    "train": {"latitude_weights": False, "ema": 0.0, "rollout": 1, "cpu_budget": "", "val_every": 0, "patience": 0},
    "model": {
        "periodic": "none",
        "fusion_init": "residual",
        "adapter": "flatten",
        "adapter_input": "auto",
        "mlp_depth": 1,
        "init": "grid",
        "coords": "absolute",
        "cell_stride": 2,
        "per_cell": 1,
        "conv_width": 32,
        "conv_depth": 4,
    },
}


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class DataConfig(_Table):
    """Input data, scaling and split."""

    kind: Kind = Field(description="kind of the data; any: found from the data")
    paths: list[str] = Field(description="data files as globs under $PDR_DATA, or absolute as --data gave them")
    layout: str = Field(description="one sentence on what the files contain")
    source: str = Field(description="where they are published")
    variables: list[str] = Field(
        description="variables to read as channels; all: every one on one grid; empty: the only variable of the file"
    )
    in_steps: int = Field(ge=1, description="observed frames, T")
    out_steps: int = Field(ge=1, description="forecast frames, tau")
    size: list[int] = Field(description="[H, W] that video frames are resized to; empty: not resized")
    color: Literal["gray", "rgb"] = Field(description="how video frames are read")
    resample_fps: float = Field(
        ge=0,
        le=1000,
        description="frame rate that clips are resampled to, taking the frame shown at each new time; 0: not resampled, "
        "and a variable frame rate is refused",
    )
    gray_to_rgb: bool = Field(
        description="with color rgb, true: a gray clip is read with equal red, green and blue; false: it is refused"
    )
    group: str = Field(
        description="group of NetCDF and Zarr files that holds the fields; empty: the root, or the only group with fields"
    )
    missing_value: list[str] = Field(
        description="numbers that stand for missing values in NetCDF, Zarr and GRIB files that do not declare them, such as "
        "-999, or sst=-9999 for one variable; none: no number does, whatever it looks like"
    )
    assume: list[str] = Field(
        description="conventions that files leave open: slots=0-23 (first and last slot of a day), values=-1..1, 0..1, counts "
        "or plain, axes=channels-first or channels-last, parts=names or none; empty: by the files, a doubt is logged"
    )
    scaling: Literal["auto", "standard", "minmax", "unit"] = Field(
        description="standard: mean 0, sd 1; minmax: [0, 1] by training extremes; unit: bytes over 255; "
        "auto: by the kind of data"
    )
    bounds: list[str] = Field(
        description="lowest and highest possible values of forecasts. auto: by the file's valid range, the quantity and the "
        "kind; none: no bounds; NAME=LOW..HIGH, with either left out, or NAME=none: of one variable"
    )
    val_fraction: float = Field(gt=0, lt=0.5, description="share of the time axis, or of the clips, for validation")
    test_fraction: float = Field(ge=0, lt=0.5, description="last share of the time axis, or of the clips, for test")
    train_period: str = Field(
        description="dates for training, such as 2010/2015; empty: all that validation and test leave"
    )
    val_period: str = Field(
        description="dates for validation, or 28d for the last 28 days before the test; empty: by val_fraction"
    )
    test_period: str = Field(description="dates for test, or 28d for the last 28 days; empty: by test_fraction")
    protocol: Literal["honest", "openstl"] = Field(
        description="honest: separate validation and test data, a gap of one window between parts; "
        "openstl: as published, validation is the test set"
    )
    fill_missing: Literal["none", "persist", "mean", "interp"] = Field(
        description="missing values in observed frames, except land: none leaves such windows out of training and refuses "
        "to forecast from them; persist, mean and interp fill them"
    )
    stride: int = Field(ge=1, description="time steps between the starts of consecutive training windows")
    cache_mb: int = Field(ge=1, description="memory for decoded frames, MB")
    statistics_mb: int = Field(ge=1, description="largest amount of training data read for scaling and climatology, MB")

    @field_validator("size")
    @classmethod
    def _two_sides(cls, size: list[int]) -> list[int]:
        if len(size) not in (0, 2) or any(s < 8 for s in size):
            raise ValueError("size is [] or [H, W] with sides of at least 8 pixels")
        return size

    @field_validator("missing_value")
    @classmethod
    def _are_numbers(cls, given: list[str]) -> list[str]:
        for text in given:
            if text != "none" and not re.fullmatch(r"(.+=)?[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
                raise ValueError(f"{text!r} is not a number, NAME=NUMBER or none")
        return given

    @field_validator("bounds")
    @classmethod
    def _are_bounds(cls, bounds: list[str]) -> list[str]:
        named = [name for name, _, _ in map(parse_bound, bounds) if name]
        if {AUTO, NONE} <= set(bounds) or len(set(named)) < len(named):
            raise ValueError("auto and none contradict each other, as do two bounds of one variable")
        return bounds

    @field_validator("train_period")
    @classmethod
    def _is_interval(cls, period: str) -> str:
        parse_interval(period)
        return period

    @field_validator("val_period", "test_period")
    @classmethod
    def _is_period(cls, period: str) -> str:
        if parse_days(period) is None:
            parse_interval(period)
        return period


class ModelConfig(_Table):
    """Predictor, adapter and fusion."""

    backbone: str = Field(description="pixel-space predictor")
    hid_s: int = Field(ge=2, description="channels of the spatial encoder and decoder")
    hid_t: int = Field(ge=8, description="channels of the translator")
    n_s: int = Field(ge=2, description="encoder units; every second one halves the grid")
    n_t: int = Field(ge=2, description="translator stages")
    mlp_ratio: float = Field(gt=0, description="width of the translator's MLPs, as a multiple of hid_t")
    drop_path: float = Field(ge=0, lt=1, description="stochastic depth of the last stage")
    anchor: Literal["none", "last"] = Field(
        description="none: the predictor forecasts frames (literal); last: their change since the last observed frame"
    )
    periodic: Literal["auto", "none", "lon"] = Field(
        description="lon: the first column follows the last; auto: lon if longitudes go round the globe; none: zeros"
        " beyond the last column"
    )
    fusion: str = Field(description="how the coarse forecast and the Gaussian layer are fused")
    fusion_init: Literal["residual", "random"] = Field(
        description="initial weights, residual: coarse forecast + 0.1 layer; random: those of PyTorch"
    )
    adapter: str = Field(
        description="network that turns the coarse forecast into a layer: flatten (PredGS), local, or their controls "
        "without Gaussians, mlp and conv"
    )
    adapter_input: Literal["auto", "coarse", "coarse+last"] = Field(
        description="input of the adapter: the coarse forecast, or the last observed frame too; auto: by the adapter"
    )
    gaussians: int = Field(ge=1, description="Gaussians per frame, N, of the flatten adapter")
    kernel_size: int | Literal["auto"] = Field(description="lattice size K, odd; auto: 8 sqrt(HW/N)")
    downsample: float | Literal["auto"] = Field(description="pooling rate before the MLPs; auto: to about 256 cells")
    hidden: int = Field(ge=1, description="hidden width D of the four MLPs")
    mlp_depth: int = Field(ge=1, description="hidden layers of each MLP")
    init: str = Field(description="where the flatten adapter's Gaussians start")
    coords: Literal["absolute", "offset"] = Field(
        description="absolute: a centre can be anywhere in the frame; offset: only near its start"
    )
    cell_stride: int = Field(ge=2, description="side of a cell of the local adapter, pixels, a power of 2")
    per_cell: int = Field(ge=1, description="Gaussians in a cell of the local adapter")
    conv_width: int = Field(ge=1, description="channels of the local adapter")
    conv_depth: int = Field(ge=0, description="convolutions of the local adapter at the resolution of its cells")
    sigma_min: float = Field(ge=0, description="smallest standard deviation, pixels")
    normalize: Literal["peak", "density"] = Field(
        description="each Gaussian's maximum, or its integral, is its amplitude"
    )
    amplitude: Literal["auto", "tanh", "sigmoid", "linear"] = Field(description="range of the amplitudes; auto: tanh")


class TrainConfig(_Table):
    """Loss, optimiser and length of training."""

    loss: str = Field(description="training loss")
    l1_weight: float = Field(ge=0, le=1, description="lambda of Eq. 9: share of L1 against 1 - SSIM")
    coarse_weight: float = Field(
        ge=0, description="weight of the same loss of the coarse forecast, added to that of the fused forecast"
    )
    latitude_weights: bool = Field(description="true: cells are weighted in the loss by their area on the globe")
    lr: float = Field(gt=0, description="peak learning rate")
    weight_decay: float = Field(ge=0, description="AdamW's; not applied to biases and norms")
    schedule: Literal["onecycle", "cosine", "constant"] = Field(description="schedule of the learning rate")
    warmup_epochs: int = Field(ge=0, description="linear warm-up of the cosine and constant schedules, epochs")
    clip_norm: float = Field(ge=0, description="largest gradient norm; 0: no clipping")
    ema: float = Field(
        ge=0,
        lt=1,
        description="decay of the average of the weights that is validated and saved; 0: the weights themselves",
    )
    rollout: int = Field(
        ge=1,
        description="training forecasts rollout x out_steps frames, by feeding back; validation and the model out_steps",
    )
    batch: int = Field(ge=1, description="windows per step")
    epochs: int = Field(ge=1, description="passes over the training windows, at most")
    steps: int = Field(ge=0, description="optimiser steps, at most; 0: those of the epochs")
    budget: str = Field(description="time for training, such as 3m or 1h30m; empty: no limit")
    cpu_budget: str = Field(
        description="CPU time (user and system) for training, such as 5m; each of N busy threads uses it up; empty: no limit"
    )
    precision: Literal["fp32", "bf16"] = Field(description="arithmetic of the network; losses are fp32")
    seed: int = Field(ge=0, description="seed of weights, order of windows and stochastic depth")
    log_every: int = Field(ge=1, description="steps between lines of metrics.jsonl")
    val_windows: int = Field(ge=1, description="windows used for each validation, evenly spaced, at most")
    val_every: int = Field(ge=0, description="optimiser steps between validations; 0: those of an epoch")
    patience: int = Field(ge=0, description="validations without a new best after which training ends; 0: no such end")

    @field_validator("budget", "cpu_budget")
    @classmethod
    def _is_duration(cls, budget: str) -> str:
        parse_duration(budget)
        return budget


class Config(_Table):
    """One resolved experiment."""

    preset: str = Field(description="name of the preset")
    data: DataConfig
    model: ModelConfig
    train: TrainConfig


def parse_duration(text: str) -> float | None:
    """Seconds in a duration such as `90s`, `3m`, `2m30s` or `1h`; None for an empty one."""
    if not text:
        return None
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not a duration; write 90s, 3m, 2m30s or 1h")
    hours, minutes, seconds = (float(g or 0) for g in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def parse_interval(text: str) -> tuple[str, str] | None:
    """First and last of two partial ISO dates such as `2010/2015` or `2016-01/2016-06-15`, both inclusive.

    A single date is an interval by itself; an empty text gives None.
    """
    if not text.strip():
        return None
    first, slash, last = (t.strip() for t in text.partition("/"))
    last = last if slash else first
    date = r"\d{4}(-\d{2}(-\d{2}(T\d{2}(:\d{2})?)?)?)?"
    if not re.fullmatch(date, first) or not re.fullmatch(date, last):
        raise ValueError(f"{text!r} is not a period; write dates such as 2010/2015, 2016 or 2016-03/2016-05-15")
    if last < first[: len(last)]:
        raise ValueError(f"{text!r} is a period that ends before it begins")
    return first, last


def parse_bound(text: str) -> tuple[str, float | None, float | None]:
    """Name, lowest and highest value of an entry of `data.bounds`: `tp=0..`, `siconc=0..100`, `depth=..5`, `tp=none`.

    The name of `auto` and `none`, which are of all variables, is empty.
    """
    name, separator, ends = (part.strip() for part in text.rpartition("="))
    if (not separator and ends in (AUTO, NONE)) or (name and ends == NONE):
        return name, None, None
    number = r"([+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)?"
    match = re.fullmatch(rf"{number}\s*\.\.\s*{number}", ends)
    if not name or match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not a bound; write auto, none, NAME=0.., NAME=..1, NAME=0..1 or NAME=none")
    low, high = (None if end is None else float(end) for end in match.groups())
    if low is not None and high is not None and low >= high:
        raise ValueError(f"{text!r} is a bound whose lowest value is not below its highest")
    return name, low, high


def parse_days(text: str) -> int | None:
    """Days in a length such as `28d`; None for anything else."""
    match = re.fullmatch(r"([1-9]\d*)d", text.strip())
    return int(match[1]) if match else None


def presets_folder() -> Path:
    """Folder of the shipped presets: inside the installed package, or beside it in a source checkout."""
    return shipped_folder("presets")


def shipped_folder(name: str) -> Path:
    """A top-level folder of the project (`presets`, `ext`), in a wheel or in a source checkout."""
    package = Path(__file__).parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def preset_names() -> list[str]:
    """Names of the shipped presets."""
    return sorted(p.stem for p in presets_folder().glob("*.toml"))


def preset_path(preset: str) -> Path:
    """The TOML file of a preset given by name or by path.

    Raises:
        ConfigError: unknown preset; suggests the nearest names.
    """
    path = Path(preset)
    if path.suffix == ".toml":
        if not path.is_file():
            raise ConfigError(f"no preset file {preset}", way_out="`pdr presets` lists the shipped ones")
        return path
    if preset not in preset_names():
        raise ConfigError(
            f"no preset {preset!r}.{did_you_mean(preset, preset_names())}",
            way_out="`pdr presets` lists them; a path ends in .toml",
        )
    return presets_folder() / f"{preset}.toml"


def load(preset: str, overrides: list[str] | None = None) -> Config:
    """Read a preset by name or path and apply `key=value` overrides.

    The saved configuration of a run is a preset too, and keeps the name of its preset.

    Raises:
        ConfigError: unknown preset, unknown key (with the nearest ones), missing key or bad value.
    """
    path = preset_path(preset)
    values = _read_chain(path, ())
    values.setdefault("preset", path.stem)
    for override in overrides or []:
        _apply(values, override)
    return validate(values, where=str(preset))


def validate(values: dict[str, Any], where: str) -> Config:
    """Check nested `values` against the schema; `where` is their origin."""
    for table, defaults in ADDED_LATER.items():
        if isinstance(values.get(table), dict):
            values = values | {table: defaults | values[table]}
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: " + "; ".join(_explain(e) for e in error.errors())) from None


def dump(config: Config) -> str:
    """The resolved configuration as TOML."""
    import tomli_w

    return tomli_w.dumps(config.model_dump())


def keys() -> list[str]:
    """Every dotted key that `--set` accepts, such as `train.lr`."""
    return [f"{table}.{key}" for table, model in _tables().items() for key in model.model_fields]


def _tables() -> dict[str, type[BaseModel]]:
    return {"data": DataConfig, "model": ModelConfig, "train": TrainConfig}


def _read_chain(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path in seen:
        raise ConfigError(f"{path}: extends itself")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    base = values.pop("extends", None)
    if base is None:
        return values
    merged = _read_chain(preset_path(str(base)), (*seen, path))
    merged.pop("preset", None)
    for table, entries in values.items():
        if isinstance(entries, dict) and isinstance(merged.get(table), dict):
            merged[table] |= entries
        else:
            merged[table] = entries
    return merged


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    key = key.strip()
    if not separator:
        raise ConfigError(f"--set {override}", "key=value", "for example --set train.lr=1e-3")
    full = key if "." in key else next((k for k in keys() if k.endswith(f".{key}")), key)
    if full not in keys():
        raise ConfigError(f"--set {key}: unknown key.{_nearest_key(key)}")
    table, name = full.split(".", 1)
    values.setdefault(table, {})[name] = _parse_value(text.strip(), _tables()[table].model_fields[name].annotation)


def _parse_value(text: str, annotation: Any) -> Any:
    """`text` as a TOML value; bare words are strings, and a lone value for a list is a list of one."""
    if annotation is str or (annotation in (list[str],) and not text.startswith("[")):
        return text if annotation is str else [w for w in text.split(",") if w]
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return float(text) if re.fullmatch(r"[+-]?\d+e[+-]?\d+", text) else text


def _nearest_key(key: str) -> str:
    leaf = key.rsplit(".", 1)[-1]
    leaves = {k.split(".", 1)[1]: k for k in keys()}
    near = did_you_mean(key, keys()) if "." in key else ""
    if near:
        return near
    hint = did_you_mean(leaf, leaves)
    for name, full in leaves.items():
        hint = hint.replace(f"'{name}'", f"'{full}'")
    return hint


def _explain(error: Any) -> str:
    place = ".".join(str(p) for p in error["loc"] if p not in ("int", "float") and not str(p).startswith("literal"))
    if error["type"] == "extra_forbidden":
        return f"unknown key {place}.{_nearest_key(place)}"
    if error["type"] == "missing":
        return f"key {place} is missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"{place} = {error['input']!r}: {message[0].lower()}{message[1:]}"


KINDS: tuple[str, ...] = get_args(Kind)
