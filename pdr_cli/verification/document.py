"""The document of an evaluation: what `pdr evaluate -o` writes as JSON, as frozen dataclasses.

Fields have the names and the order of the JSON keys. A field whose metadata are `OPTIONAL` has no key where it is None.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np

OPTIONAL = {"optional": True}
KNOWN_BASELINES = ("persistence", "climatology")  # of documents that do not say what a forecaster is

ForecasterKind = Literal["model", "file", "baseline"]
Convention = Literal["standard", "openstl"]
Protocol = Literal["honest", "openstl"]
LeadUnits = Literal["hours", "months", "seconds"]


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
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The section of a saved document, NaN for null."""
        series = {k: _numbers(v) for k, v in values.items() if k in ("lead", "low", "high") and v is not None}
        return super().from_json({"lead": [], **values, "overall": _number(values.get("overall")), **series})


@dataclass(frozen=True)
class Skill(ByLead):
    """The MSE skill score against one rival: 1 - MSE / MSE of the rival.

    Args:
        interval: of the overall skill; None where the windows are too few for one.
        significant: whether the interval excludes 0.
    """

    ORDER: ClassVar = ("overall", "lead", "interval", "significant", "low", "high")

    interval: list[float] | None = field(default=None, metadata=OPTIONAL)
    significant: bool | None = field(default=None, metadata=OPTIONAL)

    def to_json(self) -> dict[str, Any]:
        """The skill as JSON values."""
        found = super().to_json()
        return {key: found[key] for key in self.ORDER if key in found}

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The interval of the overall skill, where both ends are finite."""
        ends = [_number(v) for v in self.interval or ()]
        return (ends[0], ends[1]) if ends and all(map(math.isfinite, ends)) else None

    @property
    def insignificant(self) -> bool:
        """True if the skill was tested and may be chance."""
        if self.significant is not None:
            return not self.significant
        return self.bounds is not None and self.bounds[0] <= 0 <= self.bounds[1]


@dataclass(frozen=True)
class Bootstrap(Section):
    """How intervals were made: blocks of windows drawn with replacement."""

    blocks: int
    windows_per_block: int
    resamples: int
    level: float


@dataclass(frozen=True)
class Missing(Section):
    """Values that no score counts, because the truth or a forecaster lacks them.

    Args:
        cells: number of values left out.
        of: number of values in all.
        share: `cells` / `of`.
        by: number of values that each lacks: "truth" and forecasters.
    """

    cells: int = 0
    of: int = 0
    share: float = 0.0
    by: dict[str, int] = field(default_factory=dict)


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
class Calibration(Section):
    """Mean observation by forecast value, [bins] each, from low to high values."""

    forecast: list[float]
    observed: list[float]
    count: list[int]


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
        return cls(values["flow"], _each(WarpingErrors, values["errors"]))


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


@dataclass(frozen=True)
class CardModel(Section):
    """A model that was scored."""

    file: str = ""
    sha256: str = ""
    preset: str | None = None
    backbone: str | None = None
    fusion: str | None = None
    parameters: int | None = None


@dataclass(frozen=True)
class CardFile(Section):
    """A forecast file that was scored."""

    file: str = ""
    layout: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Card(Section):
    """What it takes to repeat the evaluation.

    Args:
        command: as typed; "" of an evaluation from Python.
        pdr, torch: versions.
        device: name of the GPU, or "cpu".
        threads: of the CPU.
        date: UTC, ISO 8601.
        data: names of the files with the truth, at most twenty.
        models, files: by forecaster.
        truth_sha256: checksum of the truth that was scored on.
        ssim: definition of the SSIM.
        climatology: what the baseline of that name is a mean of; "" where it was not scored.
        seconds: spent in "total" and in each forecaster.
    """

    command: str = ""
    pdr: str = ""
    torch: str = ""
    device: str = ""
    threads: int = 0
    date: str = ""
    data: list[str] = field(default_factory=list)
    models: dict[str, CardModel] = field(default_factory=dict)
    files: dict[str, CardFile] = field(default_factory=dict)
    truth_sha256: str = ""
    ssim: str = ""
    climatology: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The section of a saved document."""
        models, files = _each(CardModel, values.get("models")), _each(CardFile, values.get("files"))
        return super().from_json({**values, "models": models, "files": files})


@dataclass(frozen=True)
class Document(Section):
    """What an evaluation found.

    Args:
        units: of the data, "sd" where channels have several.
        variables: channels.
        convention: how scores are defined.
        protocol: how windows are chosen.
        split: the part that was scored on.
        n_windows: number of windows.
        period: first and last time, or the number of clips.
        lead: [τ], lead times in `lead_units`.
        metrics: names of the scores, the headline first.
        metric_units: units of each, "1" of pure numbers; of "mse" too.
        higher_is_better: those of `metrics`.
        kinds: of each forecaster.
        scores: {forecaster: {score or "score:channel": values}}; of "mse" too.
        skill: {model or file: {baseline: skill}}.
        skill_of: the score that the skill is made of; None: MSE.
        bootstrap: None where the windows are too few for intervals.
        spectra, calibration, concentration, warping, efficiency: None where not computed.
    """

    units: str
    variables: list[str]
    convention: Convention
    protocol: Protocol
    split: str
    n_windows: int
    period: list[str] | str
    lead: list[float]
    lead_units: LeadUnits
    metrics: list[str]
    metric_units: dict[str, str]
    higher_is_better: list[str]
    kinds: dict[str, ForecasterKind]
    scores: dict[str, dict[str, ByLead]]
    skill: dict[str, dict[str, Skill]]
    skill_of: str | None = field(default=None, metadata=OPTIONAL)
    bootstrap: Bootstrap | None = None
    missing: Missing = field(default_factory=Missing)
    spectra: Spectra | None = field(default=None, metadata=OPTIONAL)
    calibration: dict[str, Calibration] | None = field(default=None, metadata=OPTIONAL)
    concentration: dict[str, Concentration] | None = field(default=None, metadata=OPTIONAL)
    warping: Warping | None = field(default=None, metadata=OPTIONAL)
    card: Card = field(default_factory=Card)
    efficiency: dict[str, Efficiency] | None = field(default=None, metadata=OPTIONAL)

    def to_json(self) -> dict[str, Any]:
        """The document as JSON values, with the best baseline's name."""
        return super().to_json() | {"best_baseline": self.best_baseline}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The document that `pdr evaluate -o` wrote."""
        given = dict(values)
        given["kinds"] = {name: _kind(name) for name in given["scores"]} | given.get("kinds", {})
        given["scores"] = {name: _each(ByLead, row) for name, row in given["scores"].items()}
        given["skill"] = {name: _each(Skill, row) for name, row in given.get("skill", {}).items()}
        given |= {name: s.from_json(given[name]) for name, s in SECTIONS.items() if given.get(name) is not None}
        given |= {name: _each(s, given[name]) for name, s in BY_FORECASTER.items() if given.get(name) is not None}
        return super().from_json(given)

    @property
    def skill_score(self) -> str:
        """The name of the score that the skill is made of: "MSE" or "CRPS"."""
        return (self.skill_of or "mse").upper()

    @property
    def headline(self) -> str:
        """The first of the metrics."""
        return self.metrics[0]

    @property
    def forecasters(self) -> list[str]:
        """All that were scored: models, files, baselines."""
        return list(self.scores)

    @property
    def baselines(self) -> list[str]:
        """Forecasters that need no model."""
        return [name for name in self.scores if self.is_baseline(name)]

    @property
    def keys(self) -> list[str]:
        """Every score and "score:channel", in the document's order."""
        return list(dict.fromkeys(key for row in self.scores.values() for key in row))

    def is_baseline(self, name: str) -> bool:
        """True for persistence, climatology and their like."""
        return self.kinds.get(name, _kind(name)) == "baseline"

    def of_score(self, key: str) -> dict[str, ByLead]:
        """One score, or "score:channel", of each forecaster that has it."""
        return {name: row[key] for name, row in self.scores.items() if key in row}

    def units_of(self, key: str) -> str:
        """Units of a score or "score:channel"; "" of a pure number."""
        found = self.metric_units.get(key.partition(":")[0], "")
        return "" if found == "1" else found

    @property
    def best_baseline(self) -> str | None:
        """The baseline with the best headline score over all lead times; None without baselines that have one."""
        found = {name: entry.overall for name, entry in self.of_score(self.headline).items() if self.is_baseline(name)}
        upwards = self.headline in self.higher_is_better
        losses = {name: -v if upwards else abs(v) for name, v in found.items() if math.isfinite(v)}
        return min(losses, key=losses.__getitem__, default=None)

    def hardest_rival(self, model: str) -> str | None:
        """The best baseline; without its skill the rival that `model` is least ahead of; None without rivals."""
        row = {name: e.overall for name, e in self.skill.get(model, {}).items() if math.isfinite(e.overall)}
        if self.best_baseline in row:
            return self.best_baseline
        baselines = {name: value for name, value in row.items() if self.is_baseline(name)} or row
        return min(baselines, key=baselines.__getitem__, default=None)

    @property
    def champion(self) -> str:
        """The model or file with the most skill against its hardest rival; the first where skill is unknown."""

        def merit(model: str) -> float:
            rival = self.hardest_rival(model)
            return -math.inf if rival is None else self.skill[model][rival].overall

        models = list(self.skill) or [name for name in self.scores if not self.is_baseline(name)]
        return max(models or self.forecasters, key=merit)


SECTIONS: dict[str, type[Section]] = {
    "bootstrap": Bootstrap, "missing": Missing, "spectra": Spectra, "warping": Warping, "card": Card,
}  # fmt: skip
BY_FORECASTER: dict[str, type[Section]] = {
    "calibration": Calibration, "concentration": Concentration, "efficiency": Efficiency,
}  # fmt: skip


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


def _each(section: type[S], values: Mapping[str, Any] | None) -> dict[str, S]:
    return {name: section.from_json(entry) for name, entry in (values or {}).items()}


def _kind(name: str) -> ForecasterKind:
    return "baseline" if name in KNOWN_BASELINES else "model"


def _number(value: Any) -> float:
    return math.nan if value is None else value


def _numbers(values: Sequence[Any]) -> list[float]:
    return [_number(v) for v in values]
