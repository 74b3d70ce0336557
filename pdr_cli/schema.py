"""The schema of a configuration: tables of checked values, with what each key means."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from pdr_cli.errors import did_you_mean
from pdr_cli.optional_tables import LatentConfig, SceneConfig, Table
from pdr_cli.settings import (
    AUTO,
    NONE,
    TARGET,
    parse_bound,
    parse_days,
    parse_duration,
    parse_interval,
    parse_role,
    three_shares,
    two_sides,
)

Kind = Literal["weather", "traffic", "video", "scene", "any"]
Sides = Annotated[list[int], AfterValidator(two_sides)]
CALENDAR = ("hour", "weekday", "day-of-year", "holidays", "sun")


class DataConfig(Table):
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
    size: Sides = Field(description="[H, W] that video frames are resized to; empty: not resized")
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
    train_period: str = Field(description="dates for training, such as 2010/2015; empty: all that the others leave")
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
    back: list[str] = Field(
        description="earlier cycles whose frames of the same time the anchor and the baseline ridge read, such as 1d and 1w; "
        "auto: a day and a week for data with a weekly cycle, as far as the training data have them"
    )
    calendar: list[str] = Field(
        description="what the network is given of the date: hour, weekday, day-of-year, holidays, and sun (the elevation, on a "
        "grid with latitudes and longitudes); auto: hours, weekdays and seasons as far as the training data cover them"
    )
    holidays: str = Field(description="file of holidays, a date such as 2014-12-25 a line; empty: none")
    static: list[str] = Field(
        description="maps without a time axis that the network is given, by name in the data files, or FILE:NAME"
    )
    roles: list[str] = Field(
        description="u10=input is observed and not forecast; tcc=known is given at forecast times too; t2m=target is forecast "
        "and not observed"
    )
    lagged: list[str] = Field(
        description="earlier cycles whose frames of the same time the network is given, such as 1d and 1w"
    )
    stride: int = Field(ge=1, description="time steps between the starts of consecutive training windows")
    read_ahead: bool = Field(
        description="true: the frames of the next step are read and decoded while a step computes; the cache then holds two "
        "batches, whatever cache_mb"
    )
    cache_mb: int = Field(ge=1, description="memory for decoded frames, MB")
    statistics_mb: int = Field(ge=1, description="largest amount of training data read for scaling and climatology, MB")

    @property
    def targets(self) -> list[str]:
        """The variables that are forecast and not observed."""
        return [name for name, role in map(parse_role, self.roles) if role == TARGET]

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

    @field_validator("back")
    @classmethod
    def _are_cycles(cls, given: list[str]) -> list[str]:
        if given != [AUTO] and not all(re.fullmatch(r"[1-9]\d*[dw]", text) for text in given):
            raise ValueError("write days and weeks, such as 1d and 1w, or auto alone")
        return given

    @field_validator("lagged")
    @classmethod
    def _are_lags(cls, given: list[str]) -> list[str]:
        if not all(re.fullmatch(r"[1-9]\d*[dw]", text) for text in given) or len(set(given)) < len(given):
            raise ValueError("write days and weeks, each once, such as 1d and 1w")
        return given

    @field_validator("calendar")
    @classmethod
    def _is_calendar(cls, given: list[str]) -> list[str]:
        for text in given:
            if text not in CALENDAR and given != [AUTO]:
                near = did_you_mean(text, (*CALENDAR, AUTO))
                raise ValueError(f"{text!r} is none of {', '.join(CALENDAR)}, nor auto alone.{near}")
        return given

    @field_validator("roles")
    @classmethod
    def _are_roles(cls, given: list[str]) -> list[str]:
        named = [name for name, _ in map(parse_role, given)]
        twice = next((name for name in named if named.count(name) > 1), "")
        if twice:
            raise ValueError(f"{twice} has two roles")
        return given

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


class ModelConfig(Table):
    """Predictor, adapter and fusion."""

    backbone: str = Field(description="pixel-space predictor")
    tile: Sides = Field(
        description="[rows, columns] of the tiles that forecasts of a large grid are made of, one after another, by a "
        "convolutional network; empty: the whole grid at once"
    )
    tile_overlap: int = Field(
        ge=0, description="cells that a tile reads beyond its sides, where neighbours are blended"
    )
    hid_s: int = Field(ge=2, description="channels of the spatial encoder and decoder")
    hid_t: int = Field(ge=8, description="channels of the translator")
    n_s: int = Field(ge=2, description="encoder units; every second one halves the grid")
    n_t: int = Field(ge=2, description="translator stages")
    mlp_ratio: float = Field(gt=0, description="width of the translator's MLPs, as a multiple of hid_t")
    drop_path: float = Field(ge=0, lt=1, description="stochastic depth of the last stage")
    dropout: float = Field(ge=0, lt=1, description="share of channels set to 0 in training; used by unet only")
    noise: int = Field(
        ge=0,
        description="numbers of noise in a window, which enter by the predictor's norms, so that it draws members of an "
        "ensemble; 0: no noise",
    )
    anchor: str = Field(
        description="simple forecast that the predictor forecasts the change from; none: it forecasts frames (literal)"
    )
    inputs: Literal["frames", "anomalies"] = Field(
        description="what the predictor runs on: frames, or their departures from the climatology in units of each cell's "
        "standard deviation"
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
    deform_start: Literal["still", "flow"] = Field(
        description="what the ways of the Gaussians of deform are corrections of: still, or the optical flow of the last two "
        "observed frames, which slows down"
    )
    deform_basis: Literal["poly3", "dct4", "free"] = Field(
        description="curves in time along which the Gaussians of deform and of scenes move: cubic, cosines, or a number per "
        "lead time"
    )
    deform_opacity: bool = Field(
        description="true: the opacities of deform have such curves too, so that they may fade"
    )
    prune_opacity: float = Field(
        ge=0, lt=1, description="Gaussians of deform and of scenes with less opacity are not drawn"
    )
    sigma_min: float = Field(ge=0, description="smallest standard deviation, pixels")
    normalize: Literal["peak", "density"] = Field(
        description="each Gaussian's maximum, or its integral, is its amplitude"
    )
    amplitude: Literal["auto", "tanh", "sigmoid", "linear"] = Field(description="range of the amplitudes; auto: tanh")

    @field_validator("anchor")
    @classmethod
    def _has_its_name(cls, anchor: str) -> str:
        """Persistence was called "last" before there were other anchors."""
        return "persistence" if anchor == "last" else anchor


class TrainConfig(Table):
    """Loss, optimiser and length of training."""

    loss: str = Field(description="training loss")
    members: int = Field(
        ge=1,
        le=8,
        description="members of an ensemble that are drawn for each window of a step and scored together; needs loss crps "
        "and a network that draws; 1: one forecast",
    )
    l1_weight: float = Field(ge=0, le=1, description="lambda of Eq. 9: share of L1 against 1 - SSIM")
    coarse_weight: float = Field(
        ge=0, description="weight of the same loss of the coarse forecast, added to that of the fused forecast"
    )
    lpips_weight: float = Field(
        ge=0,
        description="weight of the mean LPIPS of the forecast frames of video, added to the loss; needs lpips_weights",
    )
    lpips_weights: str = Field(description="file of the weights of LPIPS v0.1 (AlexNet), .safetensors; empty: none")
    latitude_weights: bool = Field(description="true: cells are weighted in the loss by their area on the globe")
    lr: float = Field(gt=0, description="peak learning rate")
    weight_decay: float = Field(ge=0, description="AdamW's; not applied to biases and norms")
    schedule: Literal["onecycle", "cosine", "constant"] = Field(description="schedule of the learning rate")
    warmup_epochs: int = Field(ge=0, description="linear warm-up of the cosine and constant schedules, epochs")
    clip_norm: float = Field(ge=0, description="largest gradient norm; 0: no clipping")
    ema: float = Field(
        ge=0,
        lt=1,
        description="decay of the average of the weights that is validated and saved, at step n at most (1 + n) / (10 + n); "
        "0: no average",
    )
    rollout: int = Field(
        ge=1,
        description="horizons that training forecasts by feeding back, with the loss over all of their frames; validation "
        "and the model keep out_steps",
    )
    batch: int = Field(ge=1, description="windows per step, of all ranks together")
    epochs: int = Field(ge=1, description="passes over the training windows, at most")
    steps: int = Field(ge=0, description="optimiser steps, at most; 0: those of the epochs")
    budget: str = Field(description="time for training, such as 3m or 1h30m; empty: no limit")
    cpu_budget: str = Field(
        description="CPU time for training, user and system, such as 5m; other programs do not use it up, but each of N busy "
        "threads does, and each rank; empty: no limit"
    )
    precision: Literal["fp32", "bf16", "auto"] = Field(
        description="arithmetic of the network; losses are fp32; auto: bf16 where processor or GPU have instructions for it"
    )
    crop: Sides = Field(
        description="[rows, columns] of a random part of the grid that each step of a convolutional network is trained on; "
        "empty: the whole grid"
    )
    recompute: bool = Field(
        description="true: a step keeps only the inputs of the stages of predictor and adapter and runs them again in its "
        "backward pass, which takes less memory and about a third more time; the gradients are the same"
    )
    seed: int = Field(ge=0, description="seed of weights, order of windows and stochastic depth")
    log_every: int = Field(ge=1, description="steps between lines of metrics.jsonl")
    loggers: list[str] = Field(
        description="what records these lines elsewhere too: tensorboard, those of packages, or module:Name"
    )
    card_windows: int = Field(
        ge=0,
        description="windows of the test data, evenly spaced, that the model is scored on at the end for the card of the run, at "
        "most; 0: it is not scored",
    )
    val_windows: int = Field(ge=1, description="windows used for each validation, evenly spaced, at most")
    save_every: int = Field(
        ge=0,
        description="optimiser steps between saved states, beside those after each epoch and every ten minutes; 0: only those",
    )
    val_every: int = Field(ge=0, description="optimiser steps between validations; 0: those of an epoch")
    patience: int = Field(
        ge=0, description="validations without a lower loss after which training ends; 0: no early end"
    )
    fallback: bool = Field(
        description="true: where the anchor's validation loss is lower than the best model's by more than 1 %, the anchor "
        "alone is saved as the model"
    )
    out_of_fold: bool = Field(
        description="true: a network is trained on ridge anchors that were fitted without a window's own block of time"
    )
    motion_weight: float = Field(
        ge=0,
        description="weight of the difference between the ways of the Gaussians of deform and the optical flow to the true "
        "frames, in shares of the frame's shorter side; of those of scenes and the true ways, a tenth of it a scene unit",
    )
    opacity_weight: float = Field(
        ge=0, description="weight of the mean opacity of the Gaussians of deform and of scenes"
    )
    stages: list[float] = Field(
        description="shares of the training of three stages of deform, or of the Reconstructor of scenes, which sum to 1: "
        "Gaussians that stand still, on frames "
        "of half the size; that stand still; that move; empty: they move from the start"
    )
    baselines: bool = Field(
        description="true: the simple forecasts that pdr evaluate compares with are fitted to the training data, anomaly and "
        "ridge, or of video damped-flow, and kept in the model"
    )

    @model_validator(mode="after")
    def _has_weights_of_lpips(self) -> TrainConfig:
        if bool(self.lpips_weight) != bool(self.lpips_weights):
            file = f"is {self.lpips_weights}" if self.lpips_weights else "names no file"
            way_out = "take both, such as lpips_weight=0.1 and lpips_weights=lpips.safetensors, or neither"
            raise ValueError(f"lpips_weight is {self.lpips_weight:g}, and lpips_weights {file}; {way_out}")
        return self

    @field_validator("stages")
    @classmethod
    def _are_shares(cls, shares: list[float]) -> list[float]:
        return three_shares("stages", shares, "[0.4, 0.4, 0.2]")

    @field_validator("budget", "cpu_budget")
    @classmethod
    def _is_duration(cls, budget: str) -> str:
        parse_duration(budget)
        return budget


class Config(Table):
    """One resolved experiment."""

    preset: str = Field(description="name of the preset")
    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    latent: LatentConfig | None = Field(None, description="absent unless the predictor is pvvae")
    scene: SceneConfig | None = Field(None, description="absent unless data.kind is scene")
    guide: Config | None = Field(None, description="of the run that latent.guess names")

    @model_validator(mode="after")
    def _scores_members(self) -> Config:
        """Members that no loss compares would all become one forecast."""
        members, loss = self.train.members, self.train.loss
        if members > 1 and loss != "crps":
            raise ValueError(f"train.members is {members}, and loss {loss} scores single forecasts; take --loss crps")
        if members > 1 and self.latent is not None and self.latent.generator != NONE:
            raise ValueError(
                f"train.members is {members}, and latent.generator draws its own members; take train.members=1"
            )
        if self.model.noise and members == 1:
            raise ValueError(f"model.noise is {self.model.noise}, and train.members is 1; take train.members=2 or more")
        return self

    @model_validator(mode="after")
    def _makes_scenes_from_latents(self) -> Config:
        """Scenes read latents, which no decoder restores, and have no direct forecast."""
        if self.scene is not None and self.train.lpips_weight:
            raise ValueError(
                "train.lpips_weight is of forecasts; the loss of scenes takes its weights from scene.lpips"
            )
        if self.scene is None or self.latent is None:
            return self
        for key, off in (("inflate", NONE), ("stages", [])):
            if (value := getattr(self.latent, key)) != off:
                raise ValueError(f"latent.{key} is {value}, and scenes are made from latents themselves; take {off}")
        return self
