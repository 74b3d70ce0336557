"""The document of an evaluation: what `pdr evaluate -o` writes as JSON, as frozen dataclasses.

Fields have the names and the order of the JSON keys. A field whose metadata are `OPTIONAL` has no key where it is None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from pdr_cli.verification.sections import (
    OPTIONAL,
    ByLead,
    Calibration,
    ClipDistance,
    Concentration,
    Efficiency,
    EventScores,
    Intervals,
    Probe,
    Ranks,
    Section,
    Spectra,
    Warping,
    Ways,
    each,
    number,
)  # fmt: skip

KNOWN_BASELINES = ("persistence", "climatology")  # of documents that do not say what a forecaster is

ForecasterKind = Literal["model", "file", "baseline"]
Convention = Literal["standard", "openstl"]
Protocol = Literal["honest", "openstl"]
LeadUnits = Literal["hours", "months", "seconds"]


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
        ends = [number(v) for v in self.interval or ()]
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
class CardModel(Section):
    """A model that was scored."""

    file: str = ""
    sha256: str = ""
    preset: str | None = None
    backbone: str | None = None
    fusion: str | None = None
    parameters: int | None = None
    precision: str | None = field(default=None, metadata=OPTIONAL)  # None: fp32


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
        models, files = each(CardModel, values.get("models")), each(CardFile, values.get("files"))
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
        events: scores of each event by forecaster; None without.
        ranks: of the truth among the members, by ensemble.
        intervals: of each calibrated model.
        ways: of each model whose Gaussians move; None where not computed.
        clip_distance: of forecast clips to real ones; None where not computed.
        probe: of each model with latents; None where not computed.
        strata: {season or region: {forecaster: {score: values}}}; None without.
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
    events: dict[str, dict[str, EventScores]] | None = field(default=None, metadata=OPTIONAL)
    ranks: dict[str, Ranks] | None = field(default=None, metadata=OPTIONAL)
    intervals: dict[str, list[Intervals]] | None = field(default=None, metadata=OPTIONAL)
    ways: dict[str, Ways] | None = field(default=None, metadata=OPTIONAL)
    clip_distance: ClipDistance | None = field(default=None, metadata=OPTIONAL)
    probe: dict[str, Probe] | None = field(default=None, metadata=OPTIONAL)
    strata: dict[str, dict[str, dict[str, ByLead]]] | None = field(default=None, metadata=OPTIONAL)
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
        given["scores"] = {name: each(ByLead, row) for name, row in given["scores"].items()}
        given["skill"] = {name: each(Skill, row) for name, row in given.get("skill", {}).items()}
        given |= {name: s.from_json(given[name]) for name, s in SECTIONS.items() if given.get(name) is not None}
        given |= {name: each(s, given[name]) for name, s in BY_FORECASTER.items() if given.get(name) is not None}
        if given.get("events") is not None:
            given["events"] = {event: each(EventScores, row) for event, row in given["events"].items()}
        if given.get("intervals") is not None:
            given["intervals"] = {n: [Intervals.from_json(v) for v in row] for n, row in given["intervals"].items()}
        if given.get("strata") is not None:
            strata = {label: {n: each(ByLead, v) for n, v in row.items()} for label, row in given["strata"].items()}
            given["strata"] = strata
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
    "clip_distance": ClipDistance,
}  # fmt: skip
BY_FORECASTER: dict[str, type[Section]] = {
    "calibration": Calibration, "concentration": Concentration, "efficiency": Efficiency, "ranks": Ranks,
    "ways": Ways, "probe": Probe,
}  # fmt: skip


def _kind(name: str) -> ForecasterKind:
    return "baseline" if name in KNOWN_BASELINES else "model"
