"""Models, files and baselines on the same windows, one batch at a time; memory does not grow with their number."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli.data import grid, kinds, seen, splits, windows
from pdr_cli.data import times as time_axis
from pdr_cli.data.climatology import Climatology
from pdr_cli.data.formats.forecasts import ForecastFile
from pdr_cli.data.series import Series, names, read_frames, size, units
from pdr_cli.data.times import Step
from pdr_cli.data.windows import FrameCache, Windows
from pdr_cli.errors import MissingValuesError, TimeError, UsageError, VariableError
from pdr_cli.inference.model import Model
from pdr_cli.system import hashes
from pdr_cli.system.logs import Progress, log
from pdr_cli.verification import baselines, forecasters, scores, tally
from pdr_cli.verification.analysis import Calibration, Concentration, Sharpness, Spectra, WarpingError, ratio
from pdr_cli.verification.baselines import Request
from pdr_cli.verification.forecasters import Forecaster
from pdr_cli.verification.scores import Sample, Score, Setting
from pdr_cli.verification.tally import Blocks, Tally

BATCH = 16
CACHE_MB = 1024  # of decoded truth, where no model's preset says how much
HISTORY = 4  # observed frames for the baselines, where no model says how many
LOOKED_AT = 64  # frames read for the range of values, where no model knows it
SPLITS = ("test", "val", "train", "all")
ANALYSES = ("spectra", "calibration", "concentration", "warping")


@dataclass(frozen=True)
class Task:
    """What is to be scored on what."""

    models: dict[str, Model]
    files: dict[str, ForecastFile]
    series: list[Series]
    windows: Windows
    step: Step
    split: str
    protocol: str

    @property
    def first(self) -> Model | None:
        """The model that settings are taken from."""
        return next(iter(self.models.values()), None)


@dataclass(frozen=True)
class Options:
    """What the user asked for: see `pdr evaluate --help`."""

    metrics: Sequence[str] = ()
    against: Sequence[str] = ()
    convention: str = "standard"
    analyses: Sequence[str] = ()
    lpips: Path | None = None
    raft: Path | None = None


@dataclass(frozen=True)
class Result:
    """The JSON document of `pdr evaluate -o`, and the headline score of the first forecaster in each window: [n]."""

    document: dict[str, Any]
    by_window: np.ndarray

    def typical(self) -> dict[str, int]:
        """The windows of the best, the median and the worst headline score; none where no window has one."""
        headline = self.document["metrics"][0]
        known = np.flatnonzero(np.isfinite(self.by_window))
        badness = -self.by_window if headline in self.document["higher_is_better"] else np.abs(self.by_window)
        order = known[np.argsort(badness[known], kind="stable")]
        if not len(order):
            return {}
        return {"best": int(order[0]), "median": int(order[len(order) // 2]), "worst": int(order[-1])}


def task(
    models: dict[str, Model],
    files: dict[str, ForecastFile],
    series: list[Series],
    split: str,
    steps: int | None = None,
    protocol: str = "honest",
) -> Task:
    """The windows of one part that all forecasters have the same claim to.

    With several models, a window belongs to a part only if it does for each of them; windows are as long as the
    longest history asks, and leads as many as `steps`, or else as the shortest horizon has. A forecast file adds that
    it must hold a forecast from the window's init time. What a file's model was trained on is not known: without
    models, every window is scored.

    Raises:
        UsageError: models of different variables or steps, or no such split.
        TimeError: no window in this part.
    """
    if split not in SPLITS:
        raise UsageError(f"--split {split}: use {', '.join(SPLITS[:-1])} or {SPLITS[-1]}")
    cards = {name: model.card for name, model in models.items()}
    first = next(iter(cards.values()), None)
    for name, card in cards.items():
        if first and (list(card.variables) != list(first.variables) or not card.step.matches(first.step)):
            raise UsageError(
                f"{name} forecasts other variables or steps than {next(iter(cards))}; evaluate it by itself"
            )
    step = first.step if first else time_axis.find_step(series[0].time.values, str(series[0].attrs["files"][0]))
    for one in series:
        windows.check_step(one.time.values, step, str(one.attrs["files"][0]))
    history = max((c.config.data.in_steps for c in cards.values()), default=HISTORY)
    horizon = steps or min(
        [c.config.data.out_steps for c in cards.values()] + [_horizon(f, step) for f in files.values()]
    )
    cache = FrameCache(series, first.config.data.cache_mb if first else CACHE_MB)
    if protocol == "openstl":
        if first is None or split == "all":
            raise UsageError(
                "--protocol openstl takes its parts, train, val or test, from a model's settings; name one"
            )
        wanted = first.config.data.model_copy(update={"in_steps": history, "out_steps": horizon})
        found = splits.benchmark_windows(series, wanted, split, cache)
    else:
        whole = [(n, 0, int(s.sizes["time"])) for n, s in enumerate(series)]
        found = windows.cut(series, whole, history, horizon, step, cache)
        _some(found, series, f"a window needs {history + horizon} unbroken steps, found {_longest(series)} in all")
        ids = seen.identities(series, hashes.sha256)
        for card in cards.values():
            found = seen.select(found, ids, card.seen, split)
        found = splits.apart(found) if split == "test" and cards else found
        found = _readable(found, models, series)
        _some(found, series, f"no window is {split} data for {', '.join(models)}" + _later(split))
    for name, file in files.items():
        found = _within(found, file)
        _some(found, series, f"{name} holds no forecast for any of its windows; {_inits(file)}")
    return Task(models, files, series, found, step, split if models else "all", protocol)


def evaluate(job: Task, options: Options, progress: Progress) -> Result:
    """Score everything.

    Raises:
        UsageError: scores or baselines that do not exist, or not for these data.
        MissingValuesError: observations that a model would need, or under a convention that knows none.
    """
    began = time.perf_counter()
    run = _Run(job, options)
    for start in range(0, len(job.windows), BATCH):
        run.add(np.arange(start, min(start + BATCH, len(job.windows))))
        progress.update(min(start + BATCH, len(job.windows)) / len(job.windows))
    return run.result(time.perf_counter() - began)


class _Run:
    """One pass over the windows: everybody forecasts them, everything is counted."""

    def __init__(self, job: Task, options: Options) -> None:
        self.job, self.options = job, options
        self.setting = _setting(job, options)
        wanted = list(dict.fromkeys([*options.metrics, "mse"]))  # skill is made of squared errors
        self.scores = scores.build(wanted, self.setting, options.convention)
        self.known = _climatology(job)
        self.entries = _entries(job, options, self.known)
        self.blocks = tally.blocks(job.windows.places, job.windows.in_steps + job.windows.out_steps)
        self.tallies = {name: Tally(self.scores, self.blocks, _common_scale(job)) for name in self.entries}
        self.studies = _Studies(job, options, self.setting, list(self.entries))
        self.to_unit = _to_unit(self.setting) if options.convention == "openstl" else None
        self.published = _own_normalisation(job) if job.protocol == "openstl" else None
        self.missing = _Missing(list(self.entries))
        self.by_window = np.zeros(len(job.windows))
        self.digest = hashlib.sha256()

    def add(self, which: np.ndarray) -> None:
        """Forecast and score the windows numbered `which`."""
        # A model needs every observation; a file or a baseline has said what it says.
        filled = all(m.card.config.data.fill_missing != "none" for m in self.job.models.values())
        observed, truth = self.job.windows.batch(which, missing="all" if filled else "following")
        if self.published is not None:
            observed, truth = self.published(observed), self.published(truth)
        self.digest.update(np.ascontiguousarray(truth).tobytes())
        request = _request(self.job, observed, which, self.published)
        given = {name: entry.forecast(request, self.job.windows, which) for name, entry in self.entries.items()}
        truth, given, masked = self.missing.leave_out(truth, given)
        if masked and self.options.convention == "openstl":
            raise MissingValuesError(
                f"{self.job.series[0].attrs['files'][0]}: values are missing, and the published convention knows none; "
                "use --convention standard"
            )
        self._score(which, truth, given, masked, self._climate(request))
        self.studies.add(truth, given)

    def _score(
        self,
        which: np.ndarray,
        truth: np.ndarray,
        given: Mapping[str, np.ndarray],
        masked: bool,
        climate: np.ndarray | None,
    ) -> None:
        was = truth if self.to_unit is None else self.to_unit(truth)
        for place, (name, frames) in enumerate(given.items()):
            sample = Sample(frames if self.to_unit is None else self.to_unit(frames), was, climate, masked)
            self.tallies[name].add(sample, which)
            if place == 0:
                self.by_window[which] = _by_window(self.scores[self.options.metrics[0]], sample)

    def _climate(self, request: Request) -> np.ndarray | None:
        if "acc" not in self.scores or self.known is None:
            return None
        return np.stack([self.known.at(times) for times in request.following])

    def result(self, seconds: float) -> Result:
        """The document and the windows' scores."""
        document = _document(self.job, self.options, self.setting, self.entries, self.tallies, self.blocks)
        document["missing"] = self.missing.summary()
        document |= self.studies.result(document["lead"][-1])
        spent = {"total": seconds} | {name: entry.seconds for name, entry in self.entries.items()}
        used = self.known is not None and "climatology" in self.entries
        document["card"] = {
            "truth_sha256": self.digest.hexdigest(),
            "ssim": _ssim_text(self.options.convention, self.setting, self.job),
            "climatology": self.known.description if self.known is not None and used else "",
            "seconds": {name: round(value, 3) for name, value in spent.items()},
        }
        return Result(document, self.by_window)


def _some(found: Windows, series: Sequence[Series], why: str) -> None:
    if not len(found):
        raise TimeError(f"{series[0].attrs['files'][0]}: {why}")


def _readable(found: Windows, models: Mapping[str, Model], series: Sequence[Series]) -> Windows:
    """Windows that every model can start from: with land missing where training lacked it, others filled or left out."""
    lands = [m.land_on(series[0]) for m in models.values() if m.card.land is not None]
    if not lands or len(lands) < len(models):
        return found
    found = found.with_never_observed(np.logical_and.reduce(lands))
    if all(m.card.config.data.fill_missing != "none" for m in models.values()):
        return found
    whole = found.observed_whole()
    if len(whole) < len(found):
        log.info("%d of %d windows lack more than land and are left out", len(found) - len(whole), len(found))
    return whole


def _longest(series: Sequence[Series]) -> int:
    return max(int(s.sizes["time"]) for s in series)


def _later(split: str) -> str:
    if split != "test":
        return ""
    return "; everything here was used in training or choosing it. Give later data, or --split all"


def _horizon(file: ForecastFile, step: Step) -> int:
    """Steps that a file's forecasts reach without a gap."""
    known = np.round(np.asarray(file.leads) / step.hours, 3)
    n = 0
    while np.any(np.abs(known - (n + 1)) < time_axis.TOLERANCE):
        n += 1
    if n == 0:
        raise TimeError(
            f"{file.paths[0]}: its lead times are {', '.join(f'{x:g} h' for x in file.leads[:4])}, ..., none of them one "
            f"step ({step}) of the truth"
        )
    return n


def _within(found: Windows, file: ForecastFile) -> Windows:
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


def _setting(job: Task, options: Options) -> Setting:
    first, series = job.first, job.series[0]
    video = kinds.of(series).pictures
    return Setting(
        data_range=_range(job),
        area=grid.areas(series),
        unit=_unit(job) if options.convention == "openstl" or video else None,
        units=_units(job, options),
        lpips=options.lpips,
        climate=first is not None,
        video=video,
    )


def _range(job: Task) -> np.ndarray:
    """What SSIM and PSNR take for the full range, in data units: [C]."""
    series, first = job.series[0], job.first
    if kinds.of(series).pictures:
        return np.full(series.sizes["channel"], 255.0)
    if first is not None:
        return np.asarray(first.card.scaling.data_range) * np.asarray(first.card.scaling.scale)
    chosen = np.unique(np.linspace(0, series.sizes["time"] - 1, LOOKED_AT).round().astype(int))
    frames = np.concatenate([read_frames(series, int(i), int(i) + 1) for i in chosen])
    low, high = np.nanquantile(frames, [0.001, 0.999], axis=(0, 2, 3))
    return np.maximum(high - low, 1e-12)


def _unit(job: Task) -> tuple[np.ndarray, np.ndarray] | None:
    """Offset and scale that bring the data to [0, 1], as the published tables have them; None for fields."""
    series, first = job.series[0], job.first
    channels = int(series.sizes["channel"])
    if "value_range" in series.attrs:
        low, high = series.attrs["value_range"]
        return np.full(channels, low), np.full(channels, high - low)
    if kinds.of(series) is kinds.WEATHER:
        return None
    if first is None or first.card.config.data.scaling not in ("minmax", "auto"):
        raise UsageError(
            "--convention openstl scores traffic on the scale of [0, 1] that its model was trained on; "
            "name a model whose data.scaling is minmax"
        )
    return np.asarray(first.card.scaling.offset), np.asarray(first.card.scaling.scale)


def _units(job: Task, options: Options) -> str:
    if options.convention == "openstl" and kinds.of(job.series[0]) is not kinds.WEATHER:
        return "1"
    known = list(dict.fromkeys(units(job.series[0])))
    return known[0] if len(known) == 1 else "sd"


def _common_scale(job: Task) -> np.ndarray:
    """By what errors of channels with different units are divided before they are averaged: their sd in training."""
    channels = int(job.series[0].sizes["channel"])
    if len(set(units(job.series[0]))) == 1:
        return np.ones(channels)
    if job.first is None:
        raise VariableError(
            f"{', '.join(names(job.series[0]))} have different units; score them one at a time, with --var NAME"
        )
    return np.asarray(job.first.card.scaling.scale)


def _climatology(job: Task) -> Climatology | None:
    """That of the first model's training data, on the truth's grid."""
    return None if job.first is None else job.first.climatology.reoriented(job.first.check(job.series[0]).invert)


def _entries(job: Task, options: Options, known: Climatology | None) -> dict[str, Forecaster]:
    entries = {name: forecasters.of_model(model, job.series) for name, model in job.models.items()}
    entries |= {name: forecasters.of_file(file, job.series[0]) for name, file in job.files.items()}
    rivals = baselines.build(options.against, known)
    return entries | {name: forecasters.of_baseline(rival) for name, rival in rivals.items()}


def _request(job: Task, observed: np.ndarray, which: np.ndarray, published: _Rescale | None) -> Request:
    def back(n: int) -> np.ndarray:
        frames = job.windows.before(which, n)
        return frames if published is None else published(frames)

    following = [job.windows.times(int(i))[job.windows.in_steps :] for i in which]
    return Request(observed, following, job.step, back)


def _to_unit(setting: Setting) -> Callable[[np.ndarray], np.ndarray] | None:
    """Data units to [0, 1]; nothing for fields."""
    if setting.unit is None:
        return None
    offset, scale = (np.asarray(v, np.float64)[:, None, None] for v in setting.unit)
    return lambda frames: (frames - offset) / scale


@dataclass(frozen=True)
class _Rescale:
    """Frames standardised by one mean and sd and brought back by another: [C, 1, 1] each."""

    mean: np.ndarray
    sd: np.ndarray
    to_mean: np.ndarray
    to_sd: np.ndarray

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        return np.asarray((frames - self.mean) / self.sd * self.to_sd + self.to_mean, dtype=np.float32)


def _own_normalisation(job: Task) -> _Rescale | None:
    """What the published protocol does to WeatherBench: each part standardised by itself, brought back by the training's."""
    if kinds.of(job.series[0]) is not kinds.WEATHER or job.first is None:
        return None
    if job.first.card.config.data.scaling not in ("standard", "auto"):
        return None
    scaling = job.first.card.scaling
    mean, sd = _moments(job.windows)
    to = (np.asarray(v)[:, None, None] for v in (scaling.offset, scaling.scale))
    return _Rescale(mean[:, None, None], sd[:, None, None], *to)


def _moments(found: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of each channel over the frames that the windows cover: [C], [C]."""
    covered = sorted({(int(s), int(a) + i) for s, a in found.places for i in range(found.in_steps + found.out_steps)})
    count, total, squares = 0, 0.0, 0.0
    for number, frame in covered:
        values = read_frames(found.series[number], frame, frame + 1).astype(np.float64)
        count += values.size // values.shape[1]
        total = total + values.sum(axis=(0, 2, 3))
        squares = squares + (values**2).sum(axis=(0, 2, 3))
    mean = np.asarray(total) / count
    return mean, np.sqrt(np.asarray(squares) / count - mean**2)


def _by_window(score: Score, sample: Sample) -> np.ndarray:
    above, below = (values.sum(axis=(1, 2)) for values in score.per_frame(sample))
    with np.errstate(invalid="ignore", divide="ignore"):
        return score.finish(above / below)


class _Missing:
    """Cells that one of the forecasters, or the truth, does not have: they count for none."""

    def __init__(self, entries: Sequence[str]) -> None:
        self.total = self.left_out = 0
        self.by = dict.fromkeys(["truth", *entries], 0)

    def leave_out(
        self, truth: np.ndarray, given: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, np.ndarray], bool]:
        """Truth and forecasts with NaN in the same cells, and whether there are any."""
        self.total += truth.size
        absent = {name: ~np.isfinite(frames) for name, frames in {"truth": truth, **given}.items()}
        if not any(a.any() for a in absent.values()):
            return truth, dict(given), False
        for name, cells in absent.items():
            self.by[name] += int(cells.sum())
        out = np.logical_or.reduce(list(absent.values()))
        self.left_out += int(out.sum())
        hidden = {n: np.where(out, np.float32(np.nan), f) for n, f in {"truth": truth, **given}.items()}
        return hidden.pop("truth"), hidden, True

    def summary(self) -> dict[str, Any]:
        by = {name: n for name, n in self.by.items() if n}
        if self.left_out:
            log.info("%d of %d values are missing and count in no score", self.left_out, self.total)
        return {"cells": self.left_out, "of": self.total, "share": self.left_out / max(self.total, 1), "by": by}


class _Studies:
    """The analyses that were asked for, fed batch by batch.

    Concentration and warping are defined on values between 0 and 1; the others speak the data's units.
    """

    def __init__(self, job: Task, options: Options, setting: Setting, entries: Sequence[str]) -> None:
        asked, both = options.analyses, ["truth", *entries]
        self.lead = job.windows.out_steps
        offset, scale = setting.unit or _spread_unit(job)
        self.offset, self.scale = (np.asarray(v, np.float64)[:, None, None] for v in (offset, scale))
        self.sd = _common_scale(job)[:, None, None]
        # One axis holds one unit: of channels with different ones, the first is looked at.
        self.channels = slice(None) if len(set(units(job.series[0]))) == 1 else slice(0, 1)
        low, high = offset[self.channels].min(), (offset + scale)[self.channels].max()
        wanted = "calibration" in asked
        self.calibration = {n: Calibration(float(low), float(high)) for n in entries} if wanted else {}
        wanted = "spectra" in asked
        self.spectra = {n: Spectra(size(job.series[0])) for n in both} if wanted else {}
        self.sharpness = {n: Sharpness() for n in entries} if wanted else {}
        self.concentration = {n: Concentration() for n in both} if "concentration" in asked else {}
        self.warping: WarpingError | None = None
        if "warping" in asked:
            self.warping, self.flow = _warping(options)

    def add(self, truth: np.ndarray, given: Mapping[str, np.ndarray]) -> None:
        """Frames [B, τ, C, H, W] in data units; NaN counts in nothing."""
        for name, calibration in self.calibration.items():
            calibration.add(given[name][:, :, self.channels], truth[:, :, self.channels])
        both = {"truth": truth, **given}
        for name, spectra in self.spectra.items():
            spectra.add(both[name][:, -1] / self.sd)
        for name, sharpness in self.sharpness.items():
            sharpness.add(given[name][:, -1] / self.sd, truth[:, -1] / self.sd)
        if not self.concentration and self.warping is None:
            return
        bounded = {n: np.asarray((f - self.offset) / self.scale, np.float32) for n, f in both.items()}
        for name, concentration in self.concentration.items():
            concentration.add(bounded[name])
        if self.warping is not None:
            self.warping.add(bounded.pop("truth"), bounded)

    def result(self, last_lead: float) -> dict[str, Any]:
        """The document's sections."""
        out: dict[str, Any] = {}
        if self.spectra:
            truth = self.spectra["truth"]
            out["spectra"] = {
                "wavelength": truth.result()["wavelength"],
                "wavelength_units": "cells",
                "lead": last_lead,
                "power": {name: study.result()["power"] for name, study in self.spectra.items()},
                "ratio": {name: ratio(study, truth) for name, study in self.spectra.items() if name != "truth"},
                "gradient": {name: study.result()["gradient_ratio"] for name, study in self.sharpness.items()},
            }
        if self.calibration:
            out["calibration"] = {name: study.result() for name, study in self.calibration.items()}
        if self.concentration:
            out["concentration"] = {name: study.result() for name, study in self.concentration.items()}
        if self.warping is not None:
            out["warping"] = {"flow": self.flow, "errors": self.warping.result()}
        return out


def _warping(options: Options) -> tuple[WarpingError, str]:
    if options.raft is not None:
        from pdr_cli.verification.networks.raft import RAFT

        return WarpingError(RAFT.load(options.raft).flow), "RAFT-small"
    from pdr_cli.verification.networks import flow

    return WarpingError(flow.classical), "iterative Lucas-Kanade"


def _spread_unit(job: Task) -> tuple[np.ndarray, np.ndarray]:
    """Low end and span of the data, for analyses that want values between 0 and 1."""
    first = job.first
    span = _range(job)
    if first is None:
        return np.zeros_like(span), span
    scaling = first.card.scaling
    if first.card.config.data.scaling == "minmax" or kinds.of(job.series[0]) is kinds.TRAFFIC:
        return np.asarray(scaling.offset), np.asarray(scaling.scale)
    middle = np.asarray(first.climatology.at(job.series[0].time.values[:1])).mean(axis=(0, 2, 3))
    return middle - span / 2, span


def _ssim_text(convention: str, setting: Setting, job: Task) -> str:
    if convention == "openstl":
        return "uniform 7 x 7, range 2 on values of [0, 1]"
    span = ", ".join(f"{r:.4g}" for r in setting.data_range)
    return f"Gaussian 11 x 11, range {span} {' / '.join(dict.fromkeys(units(job.series[0])))}".strip()


def _document(
    job: Task,
    options: Options,
    setting: Setting,
    entries: Mapping[str, Forecaster],
    tallies: Mapping[str, Tally],
    blocks: Blocks,
) -> dict[str, Any]:
    channels = names(job.series[0])
    lead_units = "months" if job.step.unit == "month" else kinds.of(job.series[0]).lead_unit
    wanted = [*options.metrics]
    known = scores.kinds(options.convention)
    results = {name: one.result(channels) for name, one in tallies.items()}
    dated = not np.issubdtype(job.series[0].time.values.dtype, np.floating)
    span = [job.windows.times(0)[0], job.windows.times(len(job.windows) - 1)[-1]]
    rivals = [name for name, entry in entries.items() if entry.kind == "baseline"]
    return {
        "units": setting.units,
        "variables": channels,
        "convention": options.convention,
        "protocol": job.protocol,
        "split": job.split,
        "n_windows": len(job.windows),
        "period": [time_axis.label(t) for t in span] if dated else f"{len(np.unique(job.windows.places[:, 0]))} clips",
        "lead": [
            (i + 1) * (job.step.hours if lead_units == "hours" else job.step.count)
            for i in range(job.windows.out_steps)
        ],
        "lead_units": lead_units,
        "metrics": wanted,
        "metric_units": {name: known[name].units(setting) for name in dict.fromkeys([*wanted, "mse"])},
        "higher_is_better": [name for name in wanted if known[name].higher],
        "kinds": {name: entry.kind for name, entry in entries.items()},
        "scores": {
            name: {k: v for k, v in row.items() if k.split(":")[0] in {*wanted, "mse"}} for name, row in results.items()
        },
        "skill": {
            name: {rival: tally.skill(tallies[name], tallies[rival]) for rival in rivals}
            for name, entry in entries.items()
            if entry.kind != "baseline"
        },
        "bootstrap": None
        if blocks.draws is None
        else {
            "blocks": blocks.count,
            "windows_per_block": blocks.longest,
            "resamples": tally.RESAMPLES,
            "level": tally.LEVEL,
        },
    }
