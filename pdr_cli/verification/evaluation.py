"""Models, files and baselines on the same windows, one batch at a time; memory does not grow with their number."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pdr_cli.data import kinds
from pdr_cli.data.series import names
from pdr_cli.errors import MissingValuesError
from pdr_cli.system.logs import Progress, Silence, log
from pdr_cli.system.processes import Processes
from pdr_cli.verification import aggregation, baselines, cards, ensembles, forecasters, ranks, scores
from pdr_cli.verification.aggregation import Tally
from pdr_cli.verification.baselines import Request
from pdr_cli.verification.cellwise import CellErrors
from pdr_cli.verification.document import Document, LeadUnits, Missing
from pdr_cli.verification.forecasters import Forecaster
from pdr_cli.verification.setting import channel_scale, setting_of
from pdr_cli.verification.statistics import Sample
from pdr_cli.verification.strata import Strata
from pdr_cli.verification.studies import ANALYSES, TRUTH, Studies
from pdr_cli.verification.task import Task

BATCH, MEMBERS_AT_ONCE = 16, 64  # windows at once, of ensembles fewer
ENSEMBLE = ("crps", "spread_skill", "coverage")  # default scores where a forecaster draws members, the headline first
AGAINST = ("persistence", "climatology")  # default baselines beside the fitted ones; the second needs a model


@dataclass(frozen=True)
class Options:
    """What is computed; see `pdr evaluate --help`.

    Args:
        metrics: scores, the headline first, and analyses among them; without scores, those of the kind of data.
        against: baselines; None: persistence, unless the first model has targets, and with a model climatology and those
            that its training has fitted.
        convention: "standard" or "openstl".
        analyses: more of them.
        lpips, raft: weights, files.
        efficiency: measure what each model costs.
        events: thresholds, such as "air>273.15".
        by: "season" and "region", by which scores are given too.
        cells: sum the first forecaster's errors in each cell.
    """

    metrics: Sequence[str] = ()
    against: Sequence[str] | None = None
    convention: str = "standard"
    analyses: Sequence[str] = ()
    lpips: Path | None = None
    raft: Path | None = None
    efficiency: bool = False
    events: Sequence[str] = ()
    by: Sequence[str] = ()
    cells: bool = False

    def resolved(self, task: Task) -> Options:
        """The options with the defaults for a task."""
        chosen = [m for m in self.metrics if m not in ANALYSES] or self._default_metrics(task)
        analyses = dict.fromkeys([*(m for m in self.metrics if m in ANALYSES), *self.analyses, *self._further(task)])
        against = _default_baselines(task, "crps" in chosen) if self.against is None else self.against
        return dataclasses.replace(self, metrics=chosen, analyses=list(analyses), against=list(against))

    def _further(self, task: Task) -> list[str]:
        """The analyses of members and intervals, where a page with analyses is made and there are any."""
        if not self.analyses:
            return []
        known = any(ranks.known(model, task.windows.out_steps) for model in task.models.values())
        return [*(["ranks"] if task.draws else []), *(["intervals"] if known else [])]

    def _default_metrics(self, task: Task) -> list[str]:
        kind = kinds.of(task.truth)
        usual = kind.published_scores if self.convention == "openstl" else kind.scores
        chosen = [*usual, "lpips"] if kind.pictures and self.lpips is not None else list(usual)
        if self.convention != "standard" or not task.draws:
            return chosen
        return [ENSEMBLE[0], *(name for name in chosen if name not in ENSEMBLE), *ENSEMBLE[1:]]


def _default_baselines(task: Task, of_members: bool) -> list[str]:
    """The baselines where none is named: with targets none that reads their past, which a user of the model may not have.

    `of_members`: with those that are ensembles.
    """
    if task.first is None:
        return list(AGAINST[:1])
    targets = task.first.card.config.data.targets
    if targets:
        log.info(
            "against climatology alone: persistence reads the past of %s, which %s does not observe; --against adds it",
            ", ".join(targets), task.first.name,
        )  # fmt: skip
        return list(AGAINST[1:])
    return [*AGAINST, *(name for name in task.fitted if name != "dressed" or of_members)]


@dataclass(frozen=True)
class Result:
    """The document, and of the first forecaster its headline score in each window, [n], and if asked for the cells' errors."""

    document: Document
    by_window: np.ndarray
    cells: CellErrors | None = None

    def typical(self) -> dict[str, int]:
        """The windows of the best, the median and the worst headline score; none where no window has one."""
        headline = self.document.headline
        defined = np.flatnonzero(np.isfinite(self.by_window))
        badness = -self.by_window if headline in self.document.higher_is_better else np.abs(self.by_window)
        order = defined[np.argsort(badness[defined], kind="stable")]
        if not len(order):
            return {}
        return {"best": int(order[0]), "median": int(order[len(order) // 2]), "worst": int(order[-1])}


def evaluate(task: Task, options: Options, progress: Progress | None = None) -> Result:
    """Score every forecaster on every window of a task.

    Args:
        task: from `task.build`.
        options: what is computed.
        progress: told after each batch.

    Raises:
        UsageError: scores or baselines that are unknown, or not defined for the data.
        MissingValuesError: observations that a model needs are missing, or any value under the openstl convention.
    """
    return shared(task, options, Processes(), progress)[0]


def shared(task: Task, options: Options, processes: Processes, progress: Progress | None = None) -> list[Result]:
    """Score as `evaluate` does, with the forecasts shared over processes; the first one scores, so that numbers are the same.

    Returns:
        The result in the first process, nothing in the others.

    Raises:
        UsageError, MissingValuesError: see `evaluate`.
        LostProcessError: another process has ended.
    """
    began, progress = time.perf_counter(), progress or Silence()
    with processes.together():
        scoring = _Scoring(task, options.resolved(task))
    count, at_once = len(task.windows), scoring.at_once
    batches = [np.arange(start, min(start + at_once, count)) for start in range(0, count, at_once)]
    for first in range(0, len(batches), processes.size):
        group = batches[first : first + processes.size]
        with processes.together():
            made = scoring.forecast(group[processes.rank]) if processes.rank < len(group) else None
        for which, one in zip(group, processes.to_first(made), strict=False):
            if one is not None:
                scoring.add(which, one)
        progress.update((int(group[-1][-1]) + 1) / count)
    spent = processes.from_all({name: entry.seconds for name, entry in scoring.entries.items()})
    for name, entry in scoring.entries.items():
        entry.seconds = sum(seconds[name] for seconds in spent)
    return [scoring.result(time.perf_counter() - began)] if processes.first else []


class _Made(NamedTuple):
    """What is scored of some windows: truth, forecasts by name, and the climatology where a score needs it."""

    truth: np.ndarray
    forecasts: dict[str, np.ndarray]
    climate: np.ndarray | None


class _Scoring:
    """One pass over the windows: every forecaster forecasts them, every statistic counts them."""

    def __init__(self, task: Task, options: Options) -> None:
        self.task, self.options = task, options
        self.setting = setting_of(task.truth, task.first, options.convention, options.lpips)
        # Skill is made of squared errors.
        self.scores = scores.build(list(dict.fromkeys([*options.metrics, "mse"])), self.setting, options.convention)
        self.entries = _forecasters(task, options.against or ())
        self.blocks = aggregation.blocks(task.windows.places, task.windows.in_steps + task.windows.out_steps)
        scale = channel_scale(task.truth, task.first)
        self.tallies = {name: Tally(self.scores, self.blocks, scale) for name in self.entries}
        self.studies = Studies(task, options.analyses, list(self.entries), self.setting, options.raft, options.events)
        self.strata = Strata(options.by, task, self.scores, scale)
        self.missing = _Missing(list(self.entries))
        self.by_window = np.zeros(len(task.windows))
        self.cells = CellErrors(next(iter(self.entries))) if options.cells else None
        self.digest = hashlib.sha256()

    @property
    def at_once(self) -> int:
        """Windows of a batch, fewer where they have many members."""
        members = max(entry.members for entry in self.entries.values())
        return max(1, min(BATCH, MEMBERS_AT_ONCE // members))

    def forecast(self, which: np.ndarray) -> _Made:
        """Forecast the windows numbered `which`."""
        request, truth = self.task.batch(which)
        forecasts = {name: entry.forecast(request) for name, entry in self.entries.items()}
        return _Made(truth, forecasts, self._climate(request))

    def add(self, which: np.ndarray, made: _Made) -> None:
        """Score forecasts of the windows numbered `which`."""
        self.digest.update(np.ascontiguousarray(made.truth).tobytes())
        truth, forecasts, masked = self.missing.leave_out(made.truth, made.forecasts)
        if masked and self.options.convention == "openstl":
            raise MissingValuesError(
                f"{self.task.truth.attrs['files'][0]}: values are missing, and the openstl convention does not define how "
                "to score without them",
                way_out="use --convention standard",
            )
        self._score(which, self._on_score_scale(truth, forecasts), masked, made.climate)
        self.studies.add(truth, forecasts, which)

    def _score(
        self, which: np.ndarray, frames: dict[str, np.ndarray], masked: bool, climate: np.ndarray | None
    ) -> None:
        truth = frames.pop(TRUTH)
        for place, (name, forecast) in enumerate(frames.items()):
            members = forecast if forecast.ndim > truth.ndim else None
            sample = Sample(ensembles.central(forecast), truth, climate, masked, members)
            counted = self.tallies[name].add(sample, which)
            self.strata.add(name, sample, which)
            if place == 0:
                if self.cells is not None:
                    self.cells.add(sample)
                self.by_window[which] = self.tallies[name].by_window(self.options.metrics[0], counted)

    def _on_score_scale(self, truth: np.ndarray, forecasts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Truth and forecasts in data units, or under the openstl convention on the scale of [0, 1] where one exists."""
        frames = {TRUTH: truth, **forecasts}
        if self.options.convention != "openstl" or self.setting.unit is None:
            return frames
        offset, scale = (np.asarray(v, np.float64)[:, None, None] for v in self.setting.unit)
        return {name: (x - offset) / scale for name, x in frames.items()}

    def _climate(self, request: Request) -> np.ndarray | None:
        if "acc" not in self.scores or request.climatology is None:
            return None
        return baselines.climatology(request)

    def result(self, seconds: float) -> Result:
        """The document and the windows' scores."""
        spent = {"total": seconds} | {name: entry.seconds for name, entry in self.entries.items()}
        card = cards.card(self.task, self.options.convention, self.setting, spent)
        card = dataclasses.replace(card, truth_sha256=self.digest.hexdigest())
        found = Document(
            **self._about(),
            **self._numbers(),
            missing=self.missing.section(),
            **self._sections(),
            card=card,
            efficiency=cards.efficiencies(self.task) if self.options.efficiency else None,
        )
        return Result(found, self.by_window, self.cells)

    def _about(self) -> dict[str, Any]:
        """The document's fields on what was scored."""
        task, convention = self.task, self.options.convention
        units = _lead_units(task)
        chosen = [*self.options.metrics]
        return {
            "units": self.setting.units,
            "variables": names(task.truth),
            "convention": convention,
            "protocol": task.protocol,
            "split": task.split,
            "n_windows": len(task.windows),
            "period": _period(task),
            "lead": [
                (i + 1) * (task.step.hours if units == "hours" else task.step.count)
                for i in range(task.windows.out_steps)
            ],
            "lead_units": units,
            "metrics": chosen,
            "metric_units": {name: bound.score.units_in(self.setting) for name, bound in self.scores.items()},
            "higher_is_better": [name for name in chosen if self.scores[name].score.higher_is_better],
            "kinds": {name: entry.kind for name, entry in self.entries.items()},
        }

    def _numbers(self) -> dict[str, Any]:
        """Scores, skill, and how their intervals were made."""
        channels, tallies = names(self.task.truth), self.tallies
        rivals = [name for name, entry in self.entries.items() if entry.kind == "baseline"]
        return {
            "scores": {name: tally.result(channels) for name, tally in tallies.items()},
            "skill": {
                name: {rival: aggregation.skill(tallies[name], tallies[rival], self._skill_of) for rival in rivals}
                for name, entry in self.entries.items()
                if entry.kind != "baseline"
            },
            "skill_of": None if self._skill_of == "mse" else self._skill_of,
            "bootstrap": self.blocks.bootstrap,
            "strata": self.strata.section() or None,
        }

    @property
    def _skill_of(self) -> str:
        """The score whose ratios make the skill: CRPS where it is the headline."""
        return "crps" if self.options.metrics[0] == "crps" else "mse"

    def _sections(self) -> dict[str, Any]:
        """Sections of the analyses; the spectra are those of the last lead time."""
        found = self.studies.sections()
        if "spectra" in found:
            found["spectra"] = dataclasses.replace(found["spectra"], lead=self._about()["lead"][-1])
        return found


class _Missing:
    """Values that the truth or a forecaster lacks: no score counts them, for any forecaster."""

    def __init__(self, entries: Sequence[str]) -> None:
        self.total = self.left_out = 0
        self.by = dict.fromkeys([TRUTH, *entries], 0)

    def leave_out(
        self, truth: np.ndarray, forecasts: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, np.ndarray], bool]:
        """Truth and forecasts with NaN in the same cells, and whether there are any."""
        self.total += truth.size
        frames = {TRUTH: truth, **forecasts}
        absent = {name: ~np.isfinite(x) for name, x in frames.items()}
        absent = {name: a.any(axis=0) if a.ndim > truth.ndim else a for name, a in absent.items()}
        if not any(cells.any() for cells in absent.values()):
            return truth, dict(forecasts), False
        for name, cells in absent.items():
            self.by[name] += int(cells.sum())
        out = np.logical_or.reduce(list(absent.values()))
        self.left_out += int(out.sum())
        hidden = {name: np.where(out, np.float32(np.nan), x) for name, x in frames.items()}
        return hidden.pop(TRUTH), hidden, True

    def section(self) -> Missing:
        """The section of the document."""
        by = {name: count for name, count in self.by.items() if count}
        if self.left_out:
            log.info("%d of %d values are missing and count in no score", self.left_out, self.total)
        return Missing(self.left_out, self.total, self.left_out / max(self.total, 1), by)


def _forecasters(task: Task, against: Sequence[str]) -> dict[str, Forecaster]:
    grouped = {name for names in task.groups.values() for name in names}
    single = {name: forecasters.of_model(model, task.series, task.drawing) for name, model in task.models.items()}
    entries = {name: entry for name, entry in single.items() if name not in grouped}
    entries |= {name: forecasters.joined([single[n] for n in names]) for name, names in task.groups.items()}
    entries |= {name: forecasters.of_file(file, task.truth) for name, file in task.files.items()}
    drawn = {"dressed": task.dressed_members}
    rivals = baselines.build(against).items()
    return entries | {name: forecasters.of_baseline(rival, drawn.get(name, 1)) for name, rival in rivals}


def _lead_units(task: Task) -> LeadUnits:
    return "months" if task.step.unit == "month" else kinds.of(task.truth).lead_unit


def _period(task: Task) -> list[str] | str:
    """First and last time of the windows, or the number of clips."""
    return task.windows.period if task.windows.dated else f"{len(np.unique(task.windows.places[:, 0]))} clips"
