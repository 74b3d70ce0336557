"""Sections of the document of an evaluation: what each score and each analysis found, as frozen dataclasses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import numpy as np

from pdr_cli.verification.statistics import quotient

OPTIONAL = {"optional": True}

S = TypeVar("S", bound="Section")


class Section:
    """A part of the document that is written field by field."""

    def to_json(self) -> dict[str, Any]:
        """The section as JSON values: null for NaN and infinity."""
        found = {f: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {f.name: plain(v) for f, v in found.items() if v is not None or not f.metadata.get("optional")}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The section of a saved document; unknown keys are left out, missing ones have their defaults."""
        names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        return cls(**{k: v for k, v in values.items() if k in names})


@dataclass(frozen=True)
class ByLead(Section):
    """A score over all lead times and at each.

    Args:
        overall: NaN where it is not defined.
        lead: [τ], NaN where it is not defined.
        low, high: [τ], ends of the interval; None where the windows are too few for one.
    """

    overall: float
    lead: list[float]
    low: list[float] | None = field(default=None, metadata=OPTIONAL)
    high: list[float] | None = field(default=None, metadata=OPTIONAL)

    @classmethod
    def of_sums(cls, above: np.ndarray, below: np.ndarray) -> Self:
        """Quotients of sums by lead time, [τ] each, and of their totals; NaN where nothing was counted."""
        return cls(float(quotient(above.sum(), below.sum())), quotient(above, below).tolist())

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The section of a saved document, NaN for null."""
        series = {k: numbers(v) for k, v in values.items() if k in ("lead", "low", "high") and v is not None}
        return super().from_json({"lead": [], **values, "overall": number(values.get("overall")), **series})


@dataclass(frozen=True)
class Calibration(Section):
    """Mean observation by forecast value, [bins] each, from low to high values."""

    forecast: list[float]
    observed: list[float]
    count: list[int]


@dataclass(frozen=True)
class Spectra(Section):
    """Radially averaged power spectra at the last lead time.

    Args:
        wavelength: [bins], long to short.
        lead: the lead time.
        power: [bins] of "truth" and of each forecaster; None without frames.
        ratio: power at the finest scales over the truth's, of each forecaster.
        gradient: mean gradient over the truth's, of each forecaster.
    """

    wavelength: list[float]
    wavelength_units: str = "cells"
    lead: float | None = None
    power: dict[str, list[float] | None] = field(default_factory=dict)
    ratio: dict[str, float | None] = field(default_factory=dict)
    gradient: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class EventScores(Section):
    """How well one forecaster says whether an event happens.

    Args:
        scores: rate, csi, pod, far, ets, brier and fss_N of neighbourhoods of N x N cells, by name.
        reliability: the share of cases with the event by forecast probability; None of single forecasts.
        roc_area: under the curve of hits against false alarms; None of single forecasts.
    """

    scores: dict[str, ByLead]
    reliability: Calibration | None = field(default=None, metadata=OPTIONAL)
    roc_area: float | None = field(default=None, metadata=OPTIONAL)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The section of a saved document."""
        found = values.get("reliability")
        reliability = None if found is None else Calibration.from_json(found)
        return super().from_json({**values, "scores": each(ByLead, values["scores"]), "reliability": reliability})


@dataclass(frozen=True)
class Ranks(Section):
    """How often the truth has each rank among the members.

    Args:
        share: of the truths below all members, between the first and the second, ..., above all: [M + 1].
        outside: share of the truths outside of all members.
        expected: that share of a reliable ensemble, 2 / (M + 1).
    """

    share: list[float]
    outside: float
    expected: float


@dataclass(frozen=True)
class ClipDistance(Section):
    """How far forecast clips are from real ones; not FVD, see `verification/clips.py`.

    Args:
        real: distance of half of the real clips to the other half, of as many clips.
        distances: of half of the real clips to the forecasts of the other half's windows, by forecaster.
        clips: number of clips in a half.
    """

    real: float
    distances: dict[str, float]
    clips: int


@dataclass(frozen=True)
class Held(Section):
    """What intervals hold.

    Args:
        coverage: share of the truths inside.
        width: mean width, in data units.
        score: the interval score, width and a penalty for truths outside, in data units.
    """

    coverage: ByLead
    width: ByLead
    score: ByLead

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The section of a saved document."""
        return cls(**{key: ByLead.from_json(values[key]) for key in ("coverage", "width", "score")})


@dataclass(frozen=True)
class Intervals(Section):
    """Intervals of a calibrated model by what they should hold.

    Args:
        nominal: share of the truths that they should hold.
        coverage, width, score: as in `Held`.
        seasons: coverage of the windows that start in each season; None where all lie in one.
        adaptive: of intervals that follow the truths of earlier windows; None in documents of before.
    """

    nominal: float
    coverage: ByLead
    width: ByLead
    score: ByLead
    seasons: dict[str, ByLead] | None = field(default=None, metadata=OPTIONAL)
    adaptive: Held | None = field(default=None, metadata=OPTIONAL)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The section of a saved document."""
        given = {**values, **vars(Held.from_json(values))}
        if values.get("seasons") is not None:
            given["seasons"] = each(ByLead, values["seasons"])
        if values.get("adaptive") is not None:
            given["adaptive"] = Held.from_json(values["adaptive"])
        return super().from_json(given)


@dataclass(frozen=True)
class Ways(Section):
    """How well the Gaussians of one model follow the optical flow to the true frames; lengths in cells of the grid.

    Args:
        error: mean distance of the end of a way from that of its place, of places that move.
        standing_still: the same of Gaussians that would stand still: the mean length of these tracks.
        error_of_still: mean distance where places stand still.
        moving: share of places that move.
        pruned: share of the Gaussians that are too transparent to be drawn.
    """

    error: ByLead
    standing_still: ByLead
    error_of_still: ByLead
    moving: float
    pruned: float

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The section of a saved document."""
        found = {name: ByLead.from_json(values[name]) for name in ("error", "standing_still", "error_of_still")}
        return super().from_json({**values, **found})


@dataclass(frozen=True)
class Reading(Section):
    """Errors of what linear regressions read.

    Args:
        latents: from the latents.
        pixels: from the pixels under them.
        without: without a regression: of no motion, or of persistence.
    """

    latents: float
    pixels: float
    without: float

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The section of a saved document."""
        return cls(*(number(values.get(f.name)) for f in dataclasses.fields(cls)))


@dataclass(frozen=True)
class Probe(Section):
    """What the latents of one model hold; see `verification/probes.py`.

    Args:
        reconstruction: RMSE of windows and their futures, decoded from their own latents, data units.
        motion: mean end-point error of the flow to the next frame, cells of the grid.
        following: RMSE of the next frame, data units.
        fitted_to: "training windows" or "first half".
        fitted, scored: numbers of windows.
    """

    reconstruction: float
    motion: Reading
    following: Reading
    fitted_to: str
    fitted: int
    scored: int

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The section of a saved document."""
        found = {name: Reading.from_json(values[name]) for name in ("motion", "following")}
        return super().from_json({**values, **found, "reconstruction": number(values.get("reconstruction"))})


@dataclass(frozen=True)
class Concentration(Section):
    """Distribution of pixel values, a mean over sequences; None where no sequence has one."""

    kurtosis: float | None = None
    saturation: float | None = None
    diversity: float | None = None
    p90: float | None = None


@dataclass(frozen=True)
class WarpingErrors(Section):
    """Temporal warping error of one forecaster; `..._visible` over the share `visible` of the cells without occlusion."""

    l1: float | None = None
    l2: float | None = None
    l1_visible: float | None = None
    l2_visible: float | None = None
    visible: float | None = None


@dataclass(frozen=True)
class Warping(Section):
    """Temporal warping errors: the optical flow that they rest on, and the errors of "truth" and each forecaster."""

    flow: str
    errors: dict[str, WarpingErrors]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The section of a saved document."""
        return cls(values["flow"], each(WarpingErrors, values["errors"]))


@dataclass(frozen=True)
class Efficiency(Section):
    """What one model costs; see `verification.efficiency`. None: not in a saved document."""

    parameters: int | None = None
    flops: int | None = None
    macs: int | None = None
    renderer_flops: int | None = None
    ms_p50: float | None = None
    ms_p90: float | None = None
    frames_per_second: float | None = None
    sequences_per_second: float | None = None
    sequences_per_second_batch_16: float | None = None
    memory_mb: float | None = None
    memory_of: str | None = None
    grid: str | None = None


def plain(value: Any) -> Any:
    """JSON values of sections, mappings, sequences and NumPy's numbers; null for NaN and infinity."""
    if isinstance(value, Section):
        return value.to_json()
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str):
        return [plain(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def each(section: type[S], values: Mapping[str, Any] | None) -> dict[str, S]:
    return {name: section.from_json(entry) for name, entry in (values or {}).items()}


def number(value: Any) -> float:
    return math.nan if value is None else value


def numbers(values: Sequence[Any]) -> list[float]:
    return [number(v) for v in values]
