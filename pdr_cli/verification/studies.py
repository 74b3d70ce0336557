"""Studies: the analyses beside scores, fed batch by batch; each gives one section of the document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pdr_cli.data.series import names as channels
from pdr_cli.data.series import size
from pdr_cli.errors import UsageError
from pdr_cli.inference.model import Model
from pdr_cli.runs.adaptive import Adaptive
from pdr_cli.runs.calibration import Calibration as Errors
from pdr_cli.system.logs import log
from pdr_cli.verification import analysis, clips, forecasters, sections, setting, strata
from pdr_cli.verification.analysis import Calibration, Concentration, Sharpness, Spectra, WarpingError
from pdr_cli.verification.ensembles import central
from pdr_cli.verification.events import Event, Tallied
from pdr_cli.verification.latents import has_latents
from pdr_cli.verification.probes import Probe
from pdr_cli.verification.ranks import SHARES, Inits, Intervals, Ranks, known
from pdr_cli.verification.setting import Setting
from pdr_cli.verification.task import Task
from pdr_cli.verification.ways import Ways, adapter_of

ANALYSES = (
    "spectra",
    "calibration",
    "concentration",
    "warping",
    "ranks",
    "intervals",
    "ways",
    "clip_distance",
    "probe",
)
TRUTH = "truth"
FEWEST_CLIPS = 8  # in each half


@dataclass(frozen=True)
class Scales:
    """How the analyses scale frames.

    Args:
        channel: [C, 1, 1], divisor of channels of different units.
        offset, span: [C, 1, 1], lowest value and span; (x - offset) / span is between 0 and 1.
        comparable: channels that share a unit.
    """

    channel: np.ndarray
    offset: np.ndarray
    span: np.ndarray
    comparable: slice

    @classmethod
    def of(cls, task: Task, found: Setting) -> Scales:
        """The scales for a task."""
        bounds = setting.bounded_scale(task.truth, task.first, found)
        offset, span = (np.asarray(v, np.float64)[:, None, None] for v in bounds)
        channel = setting.channel_scale(task.truth, task.first)[:, None, None]
        return cls(channel, offset, span, setting.one_unit(task.truth))

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest value of the comparable channels."""
        low, high = self.offset[self.comparable], (self.offset + self.span)[self.comparable]
        return float(low.min()), float(high.max())


@dataclass(frozen=True)
class Frames:
    """One batch: truth and forecasts by name, [B, τ, C, H, W] each in data units; NaN counts in no analysis.

    Args:
        truth: frames.
        forecasts: frames by forecaster, of members their mean.
        members: those of ensembles, [M, B, τ, C, H, W].
        scales: of the analyses.
        which: numbers of the windows, [B].
    """

    truth: np.ndarray
    forecasts: Mapping[str, np.ndarray]
    members: Mapping[str, np.ndarray]
    scales: Scales
    which: np.ndarray

    @cached_property
    def single(self) -> dict[str, np.ndarray]:
        """Truth and forecasts, of ensembles their first member: what is as sharp as a forecast, which a mean is not."""
        firsts = {name: members[0] for name, members in self.members.items()}
        return {TRUTH: self.truth, **self.forecasts, **firsts}

    @cached_property
    def bounded(self) -> dict[str, np.ndarray]:
        """Truth and forecasts on the scale of [0, 1]."""
        offset, span = self.scales.offset, self.scales.span
        return {name: np.asarray((x - offset) / span, np.float32) for name, x in self.single.items()}


class Study(Protocol):
    """One analysis of every forecaster."""

    def add(self, frames: Frames) -> None:
        """Take a batch."""

    def section(self) -> Any:
        """The section of the document."""


class SpectraStudy:
    """Power spectra and mean gradients at the last lead time."""

    def __init__(self, names: Sequence[str], cells: tuple[int, int]) -> None:
        self.spectra = {name: Spectra(cells) for name in (TRUTH, *names)}
        self.sharpness = {name: Sharpness() for name in names}

    def add(self, frames: Frames) -> None:
        """Take a batch."""
        last = {name: x[:, -1] / frames.scales.channel for name, x in frames.single.items()}
        for name, spectra in self.spectra.items():
            spectra.add(last[name])
        for name, sharpness in self.sharpness.items():
            sharpness.add(last[name], last[TRUTH])

    def section(self) -> sections.Spectra:
        """The section of the document, without the lead time."""
        truth = self.spectra[TRUTH]
        return sections.Spectra(
            wavelength=truth.result()["wavelength"],
            power={name: spectra.result()["power"] for name, spectra in self.spectra.items()},
            ratio={name: analysis.ratio(spectra, truth) for name, spectra in self.spectra.items() if name != TRUTH},
            gradient={name: sharpness.result()["gradient_ratio"] for name, sharpness in self.sharpness.items()},
        )


class CalibrationStudy:
    """Mean observation by forecast value, in data units."""

    def __init__(self, names: Sequence[str], ends: tuple[float, float]) -> None:
        self.calibration = {name: Calibration(*ends) for name in names}

    def add(self, frames: Frames) -> None:
        """Take a batch."""
        channels = frames.scales.comparable
        for name, calibration in self.calibration.items():
            calibration.add(frames.forecasts[name][:, :, channels], frames.truth[:, :, channels])

    def section(self) -> dict[str, sections.Calibration]:
        """The section of the document."""
        return {name: sections.Calibration(**found.result()) for name, found in self.calibration.items()}


class ConcentrationStudy:
    """Distribution of values, on the scale of [0, 1]."""

    def __init__(self, names: Sequence[str]) -> None:
        self.concentration = {name: Concentration() for name in (TRUTH, *names)}

    def add(self, frames: Frames) -> None:
        """Take a batch."""
        for name, concentration in self.concentration.items():
            concentration.add(frames.bounded[name])

    def section(self) -> dict[str, sections.Concentration]:
        """The section of the document."""
        return {name: sections.Concentration(**found.result()) for name, found in self.concentration.items()}


class WarpingStudy:
    """Temporal warping error, on the scale of [0, 1]; by RAFT with its weights, or else by a classical flow."""

    def __init__(self, raft: Path | None) -> None:
        if raft is not None:
            from pdr_cli.verification.networks.raft import RAFT

            self.error, self.flow = WarpingError(RAFT.load(raft).flow), "RAFT-small"
            return
        from pdr_cli.models.motion import flow_between

        self.error, self.flow = WarpingError(flow_between), "iterative Lucas-Kanade"

    def add(self, frames: Frames) -> None:
        """Take a batch."""
        forecasts = {name: x for name, x in frames.bounded.items() if name != TRUTH}
        self.error.add(frames.bounded[TRUTH], forecasts)

    def section(self) -> sections.Warping:
        """The section of the document."""
        errors = {name: sections.WarpingErrors(**found) for name, found in self.error.result().items()}
        return sections.Warping(self.flow, errors)


class RanksStudy:
    """Ranks of the truth among the members of each ensemble."""

    def __init__(self) -> None:
        self.ranks: dict[str, Ranks] = {}

    def add(self, frames: Frames) -> None:
        """Take a batch."""
        for name, members in frames.members.items():
            self.ranks.setdefault(name, Ranks()).add(frames.truth, members)

    def section(self) -> dict[str, sections.Ranks]:
        """The section of the document."""
        return {name: ranks.section() for name, ranks in self.ranks.items()}


class IntervalsStudy:
    """What the intervals of calibrated models hold, where these give single forecasts and not members."""

    def __init__(self, task: Task) -> None:
        found = {n: model.calibration for n, model in task.models.items() if known(model, task.windows.out_steps)}
        self.intervals = {n: _intervals(n, calibration, task) for n, calibration in found.items() if calibration}
        if not self.intervals:
            raise UsageError(
                "--metrics intervals: no model has errors that are known at all lead times",
                way_out="pdr calibrate its run with data that it has not seen, and --steps for more lead times",
            )

    def add(self, frames: Frames) -> None:
        """Take a batch."""
        for name, intervals in self.intervals.items():
            if name in frames.forecasts and name not in frames.members:
                intervals.add(frames.truth, frames.forecasts[name], frames.which)

    def section(self) -> dict[str, list[sections.Intervals]]:
        """The section of the document."""
        return {name: intervals.section() for name, intervals in self.intervals.items() if intervals.counted}


def _intervals(name: str, calibration: Errors, task: Task) -> Intervals:
    """The intervals of a calibrated model on the windows of a task."""
    model, leads = task.models[name], task.windows.out_steps
    _warn_of_own_windows(name, calibration, task)
    turn, card = forecasters.orientation(model, task.truth).invert, model.card
    return Intervals(
        lambda share: turn(calibration.ends(share, leads, card.size)),
        lambda: Adaptive([share for share in SHARES if calibration.holds(share)], leads, calibration.largest),
        Inits([task.windows.init_of(i) for i in range(len(task.windows))], strata.several_seasons(task)),
        None if card.bounds is None else card.bounds.ends(),
        setting.channel_scale(task.truth, task.first),
    )


def _warn_of_own_windows(name: str, calibration: Errors, task: Task) -> None:
    """Warn where intervals are scored in the period that their errors are from."""
    period = list(calibration.about.get("period", ()))
    if len(period) == 2 and task.windows.dated:
        first, last = task.windows.period
        if period[0] <= last and first <= period[1]:
            log.warning("the intervals of %s are from errors of %s to %s, and are scored in that period", name, *period)


def _with_network(task: Task) -> list[tuple[str, Model]]:
    """The models of a task, by name, that are no exported programs."""
    return [(name, model) for name, model in task.models.items() if isinstance(model, Model)]


class WaysStudy:
    """Where Gaussians go, against the optical flow to the true frames, of models whose Gaussians move."""

    def __init__(self, task: Task) -> None:
        self.ways = {name: Ways(model, task) for name, model in _with_network(task) if adapter_of(model) is not None}
        if not self.ways:
            way_out = "train one with --preset video-deform, or --adapter deform"
            raise UsageError("--metrics ways: no model has Gaussians that move", way_out=way_out)

    def add(self, frames: Frames) -> None:
        """Nothing: ways are no frames, and are measured at the end."""

    def section(self) -> dict[str, sections.Ways]:
        """The section of the document."""
        return {name: ways.section() for name, ways in self.ways.items()}


class ProbeStudy:
    """What linear regressions read from the latents of models that have some, and what their reconstruction loses."""

    def __init__(self, task: Task) -> None:
        self.probes = {name: Probe(model, task) for name, model in _with_network(task) if has_latents(model)}
        if not self.probes:
            way_out = "train one with --preset weather-latent or video-latent"
            raise UsageError("--metrics probe: no model has latents", way_out=way_out)

    def add(self, frames: Frames) -> None:
        """Nothing: latents are no frames, and are read at the end."""

    def section(self) -> dict[str, sections.Probe]:
        """The section of the document."""
        return {name: probe.section() for name, probe in self.probes.items()}


class ClipStudy:
    """Distances of forecast clips to real ones. Every second window is real, the others are forecast.

    A forecast that repeats one frame has no motion, and is far from real clips however small its errors are.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.seen = 0
        self.real: list[np.ndarray] = []
        self.forecast: dict[str, list[np.ndarray]] = {name: [] for name in names}

    def add(self, frames: Frames) -> None:
        """Take a batch; clips with missing values are left out."""
        which = np.flatnonzero(np.isfinite(frames.truth).all(axis=(1, 2, 3, 4)))
        odd = which[(self.seen + np.arange(len(which))) % 2 == 1]
        self.seen += len(which)
        if len(which):
            self.real.append(self._features(frames, frames.truth[which]))
        for name, made in self.forecast.items():
            drawn = frames.members[name][0] if name in frames.members else frames.forecasts[name]
            if len(odd):
                made.append(self._features(frames, drawn[odd]))

    @staticmethod
    def _features(frames: Frames, chosen: np.ndarray) -> np.ndarray:
        scale = frames.scales
        return clips.features(np.asarray((chosen - scale.offset) / scale.span, np.float32), clip_flow)

    def section(self) -> sections.ClipDistance:
        """The section of the document."""
        if self.seen < 2 * FEWEST_CLIPS:
            found = f"--metrics clip_distance: {self.seen} windows without missing values"
            raise UsageError(found, f"{2 * FEWEST_CLIPS} or more", "leave it out")
        real = np.concatenate(self.real)
        scaled = clips.standardised(real, real)
        drawn = {name: clips.standardised(np.concatenate(made), real) for name, made in self.forecast.items()}
        distances = {name: clips.distance(scaled[::2], made) for name, made in drawn.items()}
        return sections.ClipDistance(clips.distance(scaled[::2], scaled[1::2]), distances, len(scaled[::2]))


def clip_flow(frames: np.ndarray) -> np.ndarray:
    """The Lucas-Kanade flow of each frame of clips [N, τ, H, W] to the next: [N, τ - 1, 2, H, W]."""
    import torch

    from pdr_cli.models.motion import flow_between

    pairs = torch.from_numpy(np.ascontiguousarray(frames))[:, :, None]
    made = flow_between(pairs[:, :-1].flatten(0, 1), pairs[:, 1:].flatten(0, 1))
    return np.asarray(made.unflatten(0, (len(frames), -1)).numpy())


class EventsStudy:
    """Whether forecasters say that events happen."""

    def __init__(self, events: Sequence[str], task: Task, names: Sequence[str]) -> None:
        self.events = [Event.parse(text, channels(task.truth)) for text in events]
        leads, cells = task.windows.out_steps, size(task.truth)
        self.tallied = {e.name: {name: Tallied(e, leads, cells) for name in names} for e in self.events}

    def add(self, frames: Frames) -> None:
        """Take a batch."""
        for row in self.tallied.values():
            for name, tallied in row.items():
                tallied.add(frames.truth, frames.members.get(name, frames.forecasts[name]))

    def section(self) -> dict[str, dict[str, sections.EventScores]]:
        """The section of the document."""
        return {event: {name: t.section() for name, t in row.items()} for event, row in self.tallied.items()}


class Studies:
    """The chosen analyses of a task.

    Args:
        task: truth and first model, for the scales.
        analyses: names, of `ANALYSES`.
        names: forecasters.
        found: setting of the scores.
        raft: weights of RAFT, a file; None: a classical flow.
        events: as `Event.parse` takes them.
    """

    def __init__(
        self,
        task: Task,
        analyses: Sequence[str],
        names: Sequence[str],
        found: Setting,
        raft: Path | None,
        events: Sequence[str] = (),
    ) -> None:
        self.scales = Scales.of(task, found)
        self.studies: dict[str, Study] = {}
        if "calibration" in analyses:
            self.studies["calibration"] = CalibrationStudy(names, self.scales.ends)
        if "spectra" in analyses:
            self.studies["spectra"] = SpectraStudy(names, size(task.truth))
        if "concentration" in analyses:
            self.studies["concentration"] = ConcentrationStudy(names)
        if "warping" in analyses:
            self.studies["warping"] = WarpingStudy(raft)
        if "ranks" in analyses:
            self.studies["ranks"] = RanksStudy()
        if "intervals" in analyses:
            self.studies["intervals"] = IntervalsStudy(task)
        if "ways" in analyses:
            self.studies["ways"] = WaysStudy(task)
        if "clip_distance" in analyses:
            self.studies["clip_distance"] = ClipStudy(list(names))
        if "probe" in analyses:
            self.studies["probe"] = ProbeStudy(task)
        if events:
            self.studies["events"] = EventsStudy(events, task, names)

    def add(self, truth: np.ndarray, forecasts: Mapping[str, np.ndarray], which: np.ndarray) -> None:
        """Take a batch, the windows numbered `which`: truth and forecasts by name, [B, τ, C, H, W] each in data units, or
        members [M, B, τ, C, H, W].
        """
        members = {name: x for name, x in forecasts.items() if x.ndim > truth.ndim}
        frames = Frames(truth, {name: central(x) for name, x in forecasts.items()}, members, self.scales, which)
        for study in self.studies.values():
            study.add(frames)

    def sections(self) -> dict[str, Any]:
        """The sections of the document, by name."""
        return {name: study.section() for name, study in self.studies.items()}
