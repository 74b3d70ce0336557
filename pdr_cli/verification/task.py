"""The task of an evaluation: the windows that every forecaster may fairly be scored on, and their frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from pdr_cli.data import kinds, seen, splits, windows
from pdr_cli.data import times as time_axis
from pdr_cli.data.climatology import Climatology
from pdr_cli.data.formats.forecasts import ForecastFile
from pdr_cli.data.series import Series, read_frames
from pdr_cli.data.times import Step
from pdr_cli.data.windows import FrameCache, Windows
from pdr_cli.errors import TimeError, UsageError
from pdr_cli.inference.loaded import LoadedModel
from pdr_cli.inference.members import COUNT, DIRECT, Drawing
from pdr_cli.runs.modelfile import ModelCard
from pdr_cli.system import hashes
from pdr_cli.system.logs import log
from pdr_cli.verification import forecasters
from pdr_cli.verification.baselines import Baseline, Request

CACHE_MB = 1024  # of decoded truth, where no model's preset says how much
HISTORY = 4  # observed frames for the baselines, where no model says how many
SPLITS = ("test", "val", "train", "all")
PROTOCOLS = ("honest", "openstl")


@dataclass(frozen=True)
class Task:
    """What is scored on what.

    Args:
        models: by name; settings are taken from the first.
        files: forecasts that others have written, by name.
        series: the truth.
        windows: those scored.
        step: of the truth.
        split: the part that the windows belong to; "all" without models.
        protocol: how the windows were chosen.
        drawing: the members of models that draw.
        groups: names of the models that are one ensemble, by its name; they are not scored by themselves.
    """

    models: Mapping[str, LoadedModel]
    files: Mapping[str, ForecastFile]
    series: Sequence[Series]
    windows: Windows
    step: Step
    split: str
    protocol: str
    drawing: Drawing = DIRECT
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def first(self) -> LoadedModel | None:
        """The model that settings are taken from."""
        return next(iter(self.models.values()), None)

    @property
    def truth(self) -> Series:
        """The first series, whose channels, units and grid all have."""
        return self.series[0]

    @cached_property
    def climatology(self) -> Climatology | None:
        """The climatology of the first model's training data, on the truth's grid."""
        if self.first is None:
            return None
        return self.first.climatology.reoriented(forecasters.orientation(self.first, self.truth).invert)

    @cached_property
    def fitted(self) -> dict[str, Baseline]:
        """The baselines that the first model's training has fitted, by name; of a calibrated model `dressed` too."""
        if self.first is None:
            return {}
        found = forecasters.fitted_baselines(self.first, self.series)
        if self.first.calibration is not None:
            drawing = replace(self.drawing, count=self.dressed_members)
            found["dressed"] = forecasters.dressed(self.first, self.series, drawing)
        return found

    @property
    def dressed_members(self) -> int:
        """Members of the baseline `dressed`: as many as a model is asked for."""
        return self.drawing.count or COUNT

    @cached_property
    def draws(self) -> bool:
        """True if a model or a file gives members."""
        drawn = self.drawing.count and not self.drawing.mean and any(m.stochastic for m in self.models.values())
        return bool(drawn or self.groups) or any(file.members > 1 for file in self.files.values())

    @cached_property
    def _fills(self) -> bool:
        """Whether every model fills missing observations."""
        return all(card.config.data.fill_missing != "none" for card in _cards(self.models).values())

    @cached_property
    def _rescaling(self) -> Rescaling | None:
        """OpenSTL standardises each part of a field by itself and brings it back by the training's mean and sd."""
        if self.protocol != "openstl" or self.first is None or kinds.of(self.truth) is not kinds.WEATHER:
            return None
        if self.first.card.config.data.scaling not in ("standard", "auto"):
            return None
        scaling = self.first.card.scaling
        return Rescaling(*moments(self.windows), np.asarray(scaling.offset), np.asarray(scaling.scale))

    def batch(self, which: np.ndarray) -> tuple[Request, np.ndarray]:
        """What forecasters are given of the windows numbered `which`, and the truth [B, τ, C, H, W].

        Raises:
            MissingValuesError: observations are missing that a model does not fill.
        """
        # A model needs every observation; files and baselines mark what they lack.
        observed, truth = self.windows.batch(which, missing="all" if self._fills else "following")
        times, T = [self.windows.times(int(i)) for i in which], self.windows.in_steps

        def back(n: int) -> np.ndarray:
            return self._rescaled(self.windows.before(which, n))

        request = Request(
            self._rescaled(observed),
            [t[T:] for t in times],
            self.step,
            back,
            self.climatology,
            [t[:T] for t in times],
            [int(number) for number in self.windows.places[which, 0]],
            self.fitted,
            next(iter(self.models), ""),
        )
        return request, self._rescaled(truth)

    def _rescaled(self, frames: np.ndarray) -> np.ndarray:
        return frames if self._rescaling is None else self._rescaling(frames)


def build(
    models: Mapping[str, LoadedModel],
    files: Mapping[str, ForecastFile],
    series: Sequence[Series],
    split: str = "test",
    steps: int | None = None,
    protocol: str = "honest",
    drawing: Drawing = DIRECT,
) -> Task:
    """The task of scoring models and files on a part of the truth.

    With several models, a window belongs to a part only if it does for each of them. Windows are as long as the longest
    history needs; leads are as many as `steps`, or else as the shortest horizon has. A forecast file must hold a forecast
    from the window's init time. Without models every window is scored, because what a file's model was trained on is
    unknown.

    Args:
        models: by name.
        files: forecasts that others have written, by name.
        series: the truth, in the models' units.
        split: "test", "val", "train" or "all".
        steps: lead times.
        protocol: "honest", or "openstl" for the published windows.
        drawing: the members of models that draw.

    Raises:
        UsageError: models of different variables or steps, an unknown split or protocol.
        TimeError: no window in this part.
    """
    check(split, protocol)
    cards = _cards(models)
    step = _common_step(cards, series)
    history = max((card.config.data.in_steps for card in cards.values()), default=HISTORY)
    horizon = steps or _shortest_horizon(cards, files, step)
    if protocol == "openstl":
        found = _published(cards, series, split, history, horizon)
    else:
        found = windows.cut(series, _whole(series), history, horizon, step, _cache(cards, series))
        _refuse_none(
            found, series, f"{_longest(series)} steps in all", f"{history + horizon} unbroken steps, one window"
        )
        found = _of_part(found, models, series, split)
    for model in models.values():
        found = forecasters.with_values(model, found)
    for name, file in files.items():
        found = _started_by(found, file)
        _refuse_none(found, series, f"{name} holds no forecast for any window of the truth; {_inits(file)}")
    return Task(models, files, series, found, step, split if models else "all", protocol, drawing)


def check(split: str, protocol: str) -> None:
    """Refuse unknown names.

    Raises:
        UsageError: an unknown split or protocol.
    """
    if split not in SPLITS:
        raise UsageError(f"--split {split} is not known", f"{', '.join(SPLITS[:-1])} or {SPLITS[-1]}")
    if protocol not in PROTOCOLS:
        raise UsageError(f"--protocol {protocol} is not known", " or ".join(PROTOCOLS))


@dataclass(frozen=True)
class Rescaling:
    """Frames standardised by one mean and sd and brought back by another: [C] each."""

    mean: np.ndarray
    sd: np.ndarray
    to_mean: np.ndarray
    to_sd: np.ndarray

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        mean, sd, to_mean, to_sd = (x[:, None, None] for x in (self.mean, self.sd, self.to_mean, self.to_sd))
        return np.asarray((frames - mean) / sd * to_sd + to_mean, dtype=np.float32)


def moments(found: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of each channel over the frames that windows cover: [C], [C]."""
    covered = sorted({(int(s), int(a) + i) for s, a in found.places for i in range(found.in_steps + found.out_steps)})
    count, total, squares = 0, 0.0, 0.0
    for number, frame in covered:
        values = read_frames(found.series[number], frame, frame + 1).astype(np.float64)
        count += values.size // values.shape[1]
        total = total + values.sum(axis=(0, 2, 3))
        squares = squares + (values**2).sum(axis=(0, 2, 3))
    mean = np.asarray(total) / count
    return mean, np.sqrt(np.asarray(squares) / count - mean**2)


def _cards(models: Mapping[str, LoadedModel]) -> dict[str, ModelCard]:
    return {name: model.card for name, model in models.items()}


def _common_step(cards: Mapping[str, ModelCard], series: Sequence[Series]) -> Step:
    """The step of every model and of the truth."""
    first = next(iter(cards.values()), None)
    for name, card in cards.items():
        if first and (list(card.variables) != list(first.variables) or not card.step.matches(first.step)):
            raise UsageError(
                f"{name} forecasts other variables or steps than {next(iter(cards))}", "", "evaluate it by itself"
            )
    step = first.step if first else time_axis.find_step(series[0].time.values, _file(series[0]))
    for one in series:
        windows.check_step(one.time.values, step, _file(one))
    return step


def _shortest_horizon(cards: Mapping[str, ModelCard], files: Mapping[str, ForecastFile], step: Step) -> int:
    horizons = [card.config.data.out_steps for card in cards.values()]
    return min(horizons + [_horizon(file, step) for file in files.values()])


def _horizon(file: ForecastFile, step: Step) -> int:
    """Steps that a file's forecasts reach without a gap."""
    leads = np.round(np.asarray(file.leads) / step.hours, 3)
    n = 0
    while np.any(np.abs(leads - (n + 1)) < time_axis.TOLERANCE):
        n += 1
    if n == 0:
        found = ", ".join(f"{x:g} h" for x in file.leads[:4])
        raise TimeError(f"{file.paths[0]}: lead times are {found}, ...", f"one of one step of the truth ({step})")
    return n


def _cache(cards: Mapping[str, ModelCard], series: Sequence[Series]) -> FrameCache:
    """The truth's frames; as many are kept as the first model's preset says."""
    return FrameCache(series, next((card.config.data.cache_mb for card in cards.values()), CACHE_MB))


def _published(
    cards: Mapping[str, ModelCard], series: Sequence[Series], split: str, history: int, horizon: int
) -> Windows:
    """The windows of a part as published."""
    first = next(iter(cards.values()), None)
    if first is None or split == "all":
        raise UsageError(
            "--protocol openstl takes its parts from a model's settings",
            "--split test, val or train, and a model with -m",
        )
    data = first.config.data.model_copy(update={"in_steps": history, "out_steps": horizon})
    return splits.benchmark_windows(series, data, split, _cache(cards, series))


def _of_part(found: Windows, models: Mapping[str, LoadedModel], series: Sequence[Series], split: str) -> Windows:
    """Windows that belong to a part for every model, and that every model can start from."""
    cards, ids = _cards(models), seen.identities(series, hashes.sha256)
    for card in cards.values():
        found = seen.select(found, ids, card.seen, split)
    found = splits.apart(found) if split == "test" and cards else found
    found = _readable(found, models, series)
    later = "all data were used in training, or to choose the model: give later data, or --split all"
    _refuse_none(
        found, series, f"no window is {split} data for {', '.join(models)}", "", later if split == "test" else ""
    )
    return found


def _readable(found: Windows, models: Mapping[str, LoadedModel], series: Sequence[Series]) -> Windows:
    """Windows that every model can start from: others than land is missing in none, unless every model fills it."""
    land = forecasters.may_lack(models.values(), series[0])
    if land is None:
        return found
    found = found.with_never_observed(land)
    if all(card.config.data.fill_missing != "none" for card in _cards(models).values()):
        return found
    whole = found.observed_whole()
    if len(whole) < len(found):
        log.info("%d of %d windows lack more than land and are left out", len(found) - len(whole), len(found))
    return whole


def _started_by(found: Windows, file: ForecastFile) -> Windows:
    """Windows whose init time a forecast file has."""
    inits = np.round(time_axis.seconds(file.inits), 3)
    starts = np.array(
        [time_axis.seconds(found.times(i)[found.in_steps - 1 : found.in_steps])[0] for i in range(len(found))]
    )
    return found.only(np.isin(np.round(starts, 3), inits))


def _inits(file: ForecastFile) -> str:
    first, last = time_axis.label(file.inits[0]), time_axis.label(file.inits[-1])
    if len(file.inits) == 1:
        return f"its forecast starts at {first}"
    return f"its {len(file.inits)} forecasts start from {first} to {last}"


def _refuse_none(found: Windows, series: Sequence[Series], why: str, expected: str = "", way_out: str = "") -> None:
    if not len(found):
        raise TimeError(f"{_file(series[0])}: {why}", expected, way_out)


def _whole(series: Sequence[Series]) -> list[tuple[int, int, int]]:
    return [(n, 0, int(s.sizes["time"])) for n, s in enumerate(series)]


def _longest(series: Sequence[Series]) -> int:
    return max(int(s.sizes["time"]) for s in series)


def _file(series: Series) -> str:
    return str(series.attrs["files"][0])
