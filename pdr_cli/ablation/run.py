"""An ablation: train every variant with every seed, score all of them, and summarise the scores.

RUN/ablation.json holds the plan, and then the scores; each variant and seed has a run folder of its own beside it.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from pdr_cli import config
from pdr_cli.ablation import catalogue, latents, scenes
from pdr_cli.ablation.summary import BASELINES, as_markdown, summary
from pdr_cli.bench.machine import describe
from pdr_cli.data import kinds
from pdr_cli.errors import ConfigError, DataError, InputNotFoundError, InterruptedRun, OutputError, UsageError
from pdr_cli.inference import model as inference
from pdr_cli.runs import inputs
from pdr_cli.runs.folder import RunFolder
from pdr_cli.schema import Config
from pdr_cli.settings import parse_duration
from pdr_cli.system import atomic, devices, locks
from pdr_cli.system.logs import log, progress, warnings_alone
from pdr_cli.training import ranks, warm_start
from pdr_cli.training import run as training
from pdr_cli.training.loop import NonFiniteLossError
from pdr_cli.training.prepare import Prepared, find_files, prepare
from pdr_cli.training.request import UNLIMITED
from pdr_cli.training.run import Run
from pdr_cli.trust import Trust
from pdr_cli.verification import evaluation, task
from pdr_cli.verification.evaluation import Options
from pdr_cli.verification.ways import adapter_of

PLAN = "ablation.json"
FOR_TRAINING = 0.8  # of a budget; the rest is for validation, scoring and drawing
FIRST, THEN = "", "-then"  # of the trainings of a variant and seed: the first, and the second that some ablations have


@dataclass
class AblationRun:
    """An ablation in its folder.

    Args:
        path: the folder.
        plan: what `ablation.json` holds.
        base: the preset that every variant changes.
        trust: see `families.Family.find`.
        latents: of scenes, which runs of this process share.
    """

    path: Path
    plan: dict[str, Any]
    base: Config
    trust: Trust = field(default_factory=Trust)
    latents: scenes.LatentsKept = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        """One run of each variant for each."""
        return self.plan["seeds"]

    @property
    def variants(self) -> dict[str, dict[str, Any]]:
        """What each variant sets."""
        return self.plan["variants"]

    def cells(self) -> Iterator[tuple[str, int]]:
        """Variant and seed of each run; a whole round of variants before the next seed."""
        for seed in self.seeds:
            for variant in self.variants:
                yield variant, seed

    @property
    def stages(self) -> tuple[str, ...]:
        """The trainings of each variant and seed, in turn."""
        return (FIRST, THEN) if self.plan.get("then") else (FIRST,)

    def folder(self, variant: str, seed: int, stage: str = FIRST) -> RunFolder:
        """Where a run is kept."""
        return RunFolder(self.path / f"{re.sub(r'[^a-z0-9._]+', '-', variant.lower()).strip('-')}-{seed}{stage}")

    def config(self, variant: str, seed: int, stage: str = FIRST) -> Config:
        """What a run is trained with; without fitted baselines, because variants are compared with each other."""
        steps = scenes.steps_of(self.base, self.variants[variant], self.plan["steps"])
        train = UNLIMITED | {"steps": steps, "seed": seed} | {"fallback": "false", "baselines": "false"}
        if THEN in self.stages:
            # Of the latents the last model, because those of a plain VAE have no forecast that could choose another.
            train |= {"val_every": steps if stage == FIRST else max(1, steps // latents.VALIDATIONS)}
        then = self.plan["then"] if stage == THEN else {}
        chosen = self.variants[variant] | then | {f"train.{key}": value for key, value in train.items()}
        settings = [f"{key}={value}" for key, value in chosen.items()]
        return config.load(str(self.path / "config.toml"), settings)

    def save(self) -> None:
        """Write the plan and what is known so far."""
        atomic.write_text(self.path / PLAN, json.dumps(self.plan, indent=1))

    def record(self, variant: str, seed: int, stage: str = FIRST, **values: Any) -> None:
        """Keep what one run gave."""
        self.plan["results"].setdefault(variant, {}).setdefault(f"{seed}{stage}", {}).update(values)
        self.save()

    def result(self, variant: str, seed: int, stage: str = FIRST) -> dict[str, Any]:
        """What is known of one run."""
        return self.plan["results"].get(variant, {}).get(f"{seed}{stage}", {})


def is_ablation(path: Path) -> bool:
    """True for a folder that an ablation was started in."""
    return (path / PLAN).is_file()


@dataclass(frozen=True)
class Request:
    """An ablation to start or to resume.

    Args:
        name: of the ablation; None to resume whatever is in `out`.
        base: the configuration that every variant changes; None to resume.
        out: its folder; None: a new one under runs/.
        seeds: runs of each variant.
        device: see `devices.pick`.
        resume: continue what is in `out`.
        dry_run: only list the runs.
        trust: see `families.Family.find`; what `name` names may run.
    """

    name: str | None
    base: Config | None
    out: Path | None
    seeds: int
    device: str
    resume: bool = False
    dry_run: bool = False
    trust: Trust = field(default_factory=Trust)


def plan(request: Request) -> AblationRun:
    """The runs of an ablation; its folder is created unless `dry_run`.

    Raises:
        UsageError: an unknown ablation, another one than the one being resumed, or several ranks.
        InputNotFoundError: nothing to resume.
        OutputError: the folder holds something else.
    """
    ranks.refuse("an ablation trains its runs")
    if request.resume:
        return _reopen(request)
    if request.name is None or request.base is None:
        raise UsageError("name an ablation with --ablation and a preset with --preset")
    return _begin(request.name, request.base, request)


def execute(run: AblationRun, device: str) -> dict[str, Any]:
    """Train every variant with every seed, score all of them, and write the table to ablation.md; returns the summary.

    Raises:
        InterruptedRun: a signal came; the state of the run in progress is saved.
    """
    paths = find_files(run.base)
    with locks.locked(run.path), _resumable(run):
        _train_all(run, paths, devices.pick(device))
        _score_all(run, paths, device)
    document = summary(run)
    atomic.write_text(run.path / "ablation.md", as_markdown(document))
    return document


def plan_lines(run: AblationRun) -> list[str]:
    """The runs and their settings, a line each."""
    lines = [f"# {run.plan['about']}"]
    for variant, seed in run.cells():
        settings = " ".join(f"--set {key}={value}" for key, value in run.variants[variant].items())
        lines.append(f"{variant}, seed {seed}: {settings}".rstrip())
    return lines


def _begin(name: str, base: Config, request: Request) -> AblationRun:
    ablation = catalogue.find(name, request.trust.also([name]))
    if ablation.of_scenes != scenes.is_for(base):
        kinds_of = ("moving scenes", "forecasts") if ablation.of_scenes else ("forecasts", "moving scenes")
        raise UsageError(
            f"--ablation {name} is of {kinds_of[0]}, and --preset {base.preset} of {kinds_of[1]}",
            way_out="take --preset scenes-small" if ablation.of_scenes else "take --ablation scenes",
        )
    where = devices.pick(request.device)
    path = request.out or Path("runs") / f"{name}-{base.preset}-{time.strftime('%Y%m%d-%H%M%S')}"
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        way_out = f"continue it with --resume -o {path}, or name another folder with -o"
        raise OutputError(f"{path} is not empty", way_out=way_out)
    plan: dict[str, Any] = {
        "ablation": name,
        "about": ablation.about,
        "preset": base.preset,
        "variants": {variant.name: dict(variant.settings) for variant in ablation.variants},
        "seeds": [base.train.seed + i for i in range(request.seeds)],
        "steps": base.train.steps,
        "then": dict(ablation.then),
        **describe(where),
        "results": {},
    }
    named = [value for variant in ablation.variants for value in variant.settings.values()]
    run = AblationRun(path, plan, base, request.trust.also([name, *named]))
    if not request.dry_run:
        prepared = None if ablation.of_scenes else prepare(base, find_files(base))
        count = scenes.examples(base) if prepared is None else len(prepared.train)
        path.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path / "config.toml", config.dump(base))
        plan["steps"] = _steps(run, prepared, count, where)
        run.save()
    return run


def _reopen(request: Request) -> AblationRun:
    name, out = request.name, request.out
    if out is None or not is_ablation(out):
        raise InputNotFoundError(
            f"no ablation to resume in {out or 'a folder: -o names none'}", way_out="leave out --resume"
        )
    plan = json.loads((out / PLAN).read_text(encoding="utf-8"))
    if name is not None and name != plan["ablation"]:
        raise UsageError(
            f"{out} holds the ablation {plan['ablation']}, not {name}", way_out="name another folder with -o"
        )
    trust = request.trust.also([] if name is None else [name])
    return AblationRun(out, plan, config.load(str(out / "config.toml")), trust)


def _steps(run: AblationRun, prepared: Prepared | None, examples: int, where: torch.device) -> int:
    """Steps of every run: the preset's, or as many as fit into the budget, for all variants the same.

    Args:
        run: of forecasts, or of scenes.
        prepared: data; None: scenes.
        examples: to train on.
        where: the device.
    """
    train = run.base.train
    per_epoch = max(1, examples // train.batch)
    steps = min(train.steps or math.inf, train.epochs * per_epoch)
    budget = parse_duration(train.budget)
    if budget is None:
        return int(steps)
    run.plan["steps"] = 1
    log.info("time    measuring a step of each of %d variants", len(run.variants))
    with warnings_alone():
        if prepared is None:
            seconds = scenes.seconds(run.base, _configs(run), where)
        else:
            cells = [(variant, stage) for variant in run.variants for stage in run.stages]
            seconds = sum(_seconds_per_step(run, variant, stage, prepared, where) for variant, stage in cells)
    fitting = int(FOR_TRAINING * budget / (max(seconds, 1e-6) * len(run.seeds)))
    if fitting < per_epoch:
        log.warning("%d steps fit into %s, less than one pass over the data (%d)", fitting, train.budget, per_epoch)
    return int(max(1, min(steps, fitting)))


def _configs(run: AblationRun) -> Iterator[Config]:
    """Of each variant that has one; others are said to have none when their turn comes."""
    for variant in run.variants:
        with suppress(ConfigError):
            yield run.config(variant, run.seeds[0])


def _seconds_per_step(run: AblationRun, variant: str, stage: str, prepared: Prepared, where: torch.device) -> float:
    resolved = inputs.resolved(run.config(variant, run.seeds[0], stage), kinds.of(prepared.series[0]))
    try:
        network = training.build(resolved, prepared, run.trust)
    except ConfigError:
        return 0.0  # said when its turn comes
    with tempfile.TemporaryDirectory() as folder:
        one = Run(resolved, RunFolder(Path(folder)), prepared, network, where, trust=run.trust)
        return training.trainer(one).seconds_per_step()


@contextmanager
def _resumable(run: AblationRun) -> Iterator[None]:
    """An interrupted run's message names the run, not the run."""
    try:
        yield
    except InterruptedRun as stop:
        way_out = f"continue with --resume -o {run.path}"
        raise InterruptedRun("interrupted; finished runs are kept", stop.code - 128, way_out) from stop


def _train_all(run: AblationRun, paths: Sequence[Path], where: torch.device) -> None:
    wanted = [(*cell, stage) for cell in run.cells() for stage in run.stages]
    log.info("plan    %d variants x %d seeds, %d steps each", len(run.variants), len(run.seeds), run.plan["steps"])
    for number, (variant, seed, stage) in enumerate(wanted, 1):
        if "seconds" in run.result(variant, seed, stage) or "failed" in run.result(variant, seed):
            continue
        log.info("run     %d of %d: %s, seed %d%s", number, len(wanted), variant, seed, stage.replace("-", ", "))
        try:
            _train(run, (variant, seed, stage), paths, where)
        except (ConfigError, NonFiniteLossError) as error:
            log.warning("%s, seed %d: %s", variant, seed, error)
            run.record(variant, seed, failed=str(error))
    reasons = [run.result(variant, seed).get("failed") for variant, seed in run.cells()]
    if all(reasons):
        raise DataError(f"none of the {len(wanted)} runs in {run.path} could be trained; the first: {reasons[0]}")


def _train(run: AblationRun, cell: tuple[str, int, str], paths: Sequence[Path], where: torch.device) -> None:
    """Train a variant with a seed in a stage, or continue its training."""
    if scenes.is_for(run.base):
        run.record(*cell, **scenes.train(run.config(*cell), run.folder(*cell), where, run.latents))
        return
    resolved, folder = training.without_unread(run.config(*cell), run.trust), run.folder(*cell)
    prepared = prepare(resolved, paths)
    resolved = inputs.resolved(resolved, kinds.of(prepared.series[0]))
    begun = folder.state.is_file()
    if not begun:
        folder.metrics.unlink(missing_ok=True)
    network = training.build(resolved, prepared, run.trust)
    one = Run(resolved, folder, prepared, network, where, resume="last" if begun else None, trust=run.trust)
    if cell[2] == THEN and begun:
        one = replace(one, start=warm_start.resume(network, folder))
    elif cell[2] == THEN:
        first = run.folder(*cell[:2]).model
        one = replace(one, start=warm_start.begin(network, resolved, one.frames, first, False))
    position = training.fit(one)
    count = sum(p.numel() for p in network.parameters())
    run.record(*cell, seconds=round(position.elapsed, 1), best_step=position.best_step, parameters=count)


def _score_all(run: AblationRun, paths: Sequence[Path], device: str) -> None:
    """Validation and test scores of each run; the test part is not looked at before all are trained."""
    wanted = list(run.cells())
    with progress("scoring") as bar:
        for number, (variant, seed) in enumerate(wanted, 1):
            known = run.result(variant, seed)
            if "failed" not in known and "test" not in known:
                score = _score_scenes if scenes.is_for(run.base) else _score
                score(run, variant, seed, paths, device)
            bar.update(number / len(wanted), f"{variant}, seed {seed}")


def _score(run: AblationRun, variant: str, seed: int, paths: Sequence[Path], device: str) -> None:
    model = inference.load(run.folder(variant, seed).model, device, trust=run.trust)
    prepared = prepare(model.card.config, paths)
    scores = {split: _scores(model, prepared, split, ()) for split in ("val", "test")}
    if THEN in run.stages:
        scores["test"]["model"] |= _latent_scores(run, variant, seed, model, prepared)
    if "baselines" not in run.plan:
        run.plan["baselines"] = {split: _scores(model, prepared, split, BASELINES) for split in ("val", "test")}
    run.plan |= {"units": scores["test"]["units"], "windows": scores["test"]["windows"]}
    run.record(variant, seed, **{split: found["model"] for split, found in scores.items()})


def _score_scenes(run: AblationRun, variant: str, seed: int, paths: Sequence[Path], device: str) -> None:
    found = scenes.scores(run.folder(variant, seed).model, paths[0], device)
    known: dict[str, Any] = {split: scenes.columns(document) for split, document in found.items()}
    run.plan.setdefault("baselines", {split: scenes.simple(document) for split, document in found.items()})
    units = run.plan.get("units", {}) | scenes.units(list(known["test"]))
    run.plan |= {"units": units, "windows": found["test"].n_scenes, "examples": "scenes"}
    run.record(variant, seed, **known)


def _latent_scores(
    run: AblationRun, variant: str, seed: int, model: inference.Model, prepared: Prepared
) -> dict[str, Any]:
    """Scores of a VAE's latents and of the generator in them."""
    then = run.folder(variant, seed, THEN)
    reference = run.folder(next(iter(run.variants)), seed, THEN).metrics
    members = inference.load(then.model, str(model.device), trust=run.trust)
    return latents.scores(model, members, prepared, then.metrics, reference)


def _metrics(prepared: Prepared) -> Sequence[str]:
    """The kind's default scores, without the bias, whose mean over seeds says little."""
    return [name for name in kinds.of(prepared.series[0]).scores if name != "bias"]


def _scores(model: inference.Model, prepared: Prepared, split: str, against: Sequence[str]) -> dict[str, Any]:
    """Scores over all lead times, by forecaster; the model's name is "model"."""
    chosen = task.build({"model": model}, {}, prepared.series, split)
    analyses = ("spectra", "ways") if adapter_of(model) is not None else ("spectra",)
    # Analyses by name: those of `Options.analyses` come with others, such as that of intervals.
    options = Options([*_metrics(prepared), *analyses], against)
    document = evaluation.evaluate(chosen, options).document
    sharpness = {"detail": document.spectra.ratio, "gradient": document.spectra.gradient} if document.spectra else {}
    found: dict[str, Any] = {
        name: {metric: document.scores[name][metric].overall for metric in document.metrics}
        | {column: values[name] for column, values in sharpness.items()}
        for name in document.scores
    }
    for name, ways in (document.ways or {}).items():
        found[name] |= {
            "ways, share of standing still": ways.error.overall / ways.standing_still.overall,
            "pruned": ways.pruned,
        }
    return found | {"units": document.metric_units, "windows": document.n_windows}
