"""Studies: the analyses beside scores, fed batch by batch; each gives one section of the document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pdr_cli.data.series import size
from pdr_cli.verification import analysis, document, setting
from pdr_cli.verification.analysis import Calibration, Concentration, Sharpness, Spectra, WarpingError
from pdr_cli.verification.setting import Setting
from pdr_cli.verification.task import Task

ANALYSES = ("spectra", "calibration", "concentration", "warping")
TRUTH = "truth"


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
    """One batch: truth and forecasts by name, [B, τ, C, H, W] each in data units; NaN counts in no analysis."""

    truth: np.ndarray
    forecasts: Mapping[str, np.ndarray]
    scales: Scales

    @cached_property
    def all(self) -> dict[str, np.ndarray]:
        """Truth and forecasts."""
        return {TRUTH: self.truth, **self.forecasts}

    @cached_property
    def bounded(self) -> dict[str, np.ndarray]:
        """Truth and forecasts on the scale of [0, 1]."""
        offset, span = self.scales.offset, self.scales.span
        return {name: np.asarray((x - offset) / span, np.float32) for name, x in self.all.items()}


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
        last = {name: x[:, -1] / frames.scales.channel for name, x in frames.all.items()}
        for name, spectra in self.spectra.items():
            spectra.add(last[name])
        for name, sharpness in self.sharpness.items():
            sharpness.add(last[name], last[TRUTH])

    def section(self) -> document.Spectra:
        """The section of the document, without the lead time."""
        truth = self.spectra[TRUTH]
        return document.Spectra(
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

    def section(self) -> dict[str, document.Calibration]:
        """The section of the document."""
        return {name: document.Calibration(**found.result()) for name, found in self.calibration.items()}


class ConcentrationStudy:
    """Distribution of values, on the scale of [0, 1]."""

    def __init__(self, names: Sequence[str]) -> None:
        self.concentration = {name: Concentration() for name in (TRUTH, *names)}

    def add(self, frames: Frames) -> None:
        """Take a batch."""
        for name, concentration in self.concentration.items():
            concentration.add(frames.bounded[name])

    def section(self) -> dict[str, document.Concentration]:
        """The section of the document."""
        return {name: document.Concentration(**found.result()) for name, found in self.concentration.items()}


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

    def section(self) -> document.Warping:
        """The section of the document."""
        errors = {name: document.WarpingErrors(**found) for name, found in self.error.result().items()}
        return document.Warping(self.flow, errors)


class Studies:
    """The chosen analyses of a task.

    Args:
        task: truth and first model, for the scales.
        analyses: names, of `ANALYSES`.
        names: forecasters.
        found: setting of the scores.
        raft: weights of RAFT, a file; None: a classical flow.
    """

    def __init__(
        self, task: Task, analyses: Sequence[str], names: Sequence[str], found: Setting, raft: Path | None
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

    def add(self, truth: np.ndarray, forecasts: Mapping[str, np.ndarray]) -> None:
        """Take a batch: truth and forecasts by name, [B, τ, C, H, W] each in data units."""
        frames = Frames(truth, forecasts, self.scales)
        for study in self.studies.values():
            study.add(frames)

    def sections(self) -> dict[str, Any]:
        """The sections of the document, by name."""
        return {name: study.section() for name, study in self.studies.items()}
