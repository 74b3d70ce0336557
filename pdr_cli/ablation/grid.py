"""`pdr train --ablation NAME`: train every variant of a grid with every seed, score all of them, print one table.

RUN/ablation.json holds the plan, and then the scores; each variant and seed has a run folder of its own beside it.
"""

from __future__ import annotations

import json
import math
import re
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from pdr_cli import config
from pdr_cli.ablation import catalogue as ablations
from pdr_cli.bench.render import describe
from pdr_cli.commands import inputs
from pdr_cli.commands import train as one_run
from pdr_cli.config import Config, parse_duration
from pdr_cli.data import kinds
from pdr_cli.errors import ConfigError, DataError, InputNotFoundError, InterruptedRun, OutputError, UsageError
from pdr_cli.inference import model as inference
from pdr_cli.runs.folder import RunFolder
from pdr_cli.system import atomic, devices, locks
from pdr_cli.system.logs import log, progress
from pdr_cli.training.loop import NonFiniteLossError
from pdr_cli.training.prepare import Prepared, prepare
from pdr_cli.training.warm_start import WarmStart
from pdr_cli.verification import evaluation, task
from pdr_cli.verification.evaluation import Options

PLAN = "ablation.json"
FOR_TRAINING = 0.8  # of a budget; the rest is for validation, scoring and drawing
BASELINES = ("persistence", "climatology")
FIELD_METRICS, VIDEO_METRICS = ("rmse", "mae"), ("psnr", "ssim", "mae")
SHARPNESS = {"detail": "ratio", "gradient": "gradient"}  # our columns, and their names among the spectra


@dataclass
class Grid:
    """A grid in its folder.

    Args:
        path: the folder.
        plan: what `ablation.json` holds.
        base: the preset that every variant changes.
    """

    path: Path
    plan: dict[str, Any]
    base: Config

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

    def folder(self, variant: str, seed: int) -> RunFolder:
        """Where a run is kept."""
        return RunFolder(self.path / f"{re.sub(r'[^a-z0-9._]+', '-', variant.lower()).strip('-')}-{seed}")

    def config(self, variant: str, seed: int) -> Config:
        """What a run is trained with."""
        length = {"train.steps": self.plan["steps"], "train.epochs": 1000000, "train.budget": "", "train.seed": seed}
        settings = [f"{key}={value}" for key, value in (self.variants[variant] | length).items()]
        return config.load(str(self.path / "config.toml"), settings)

    def save(self) -> None:
        """Write the plan and what is known so far."""
        atomic.write_text(self.path / PLAN, json.dumps(self.plan, indent=1))

    def record(self, variant: str, seed: int, **values: Any) -> None:
        """Keep what one run gave."""
        self.plan["results"].setdefault(variant, {}).setdefault(str(seed), {}).update(values)
        self.save()

    def result(self, variant: str, seed: int) -> dict[str, Any]:
        """What is known of one run."""
        return self.plan["results"].get(variant, {}).get(str(seed), {})


def is_grid(path: Path) -> bool:
    """True for a folder that an ablation was started in."""
    return (path / PLAN).is_file()


def run(
    *,
    name: str | None,
    base: Config | None,
    out: Path | None,
    seeds: int,
    device: str,
    resume: bool,
    dry_run: bool,
) -> None:
    """Train and score a grid; see `pdr train --help` for the options.

    Args:
        name: of the grid; None to go on with whatever is in `out`.
        base: what the command line makes of the preset; None to go on.
        out: the grid's folder.
        seeds: runs of each variant.
        device: to train on.
        resume: go on with what is in `out`.
        dry_run: print the runs and train nothing.

    Raises:
        UsageError: an unknown grid, or another than the one being resumed.
        InputNotFoundError: nothing to resume.
        OutputError: the folder holds something else.
        InterruptedRun: a signal came; the state of the run in progress is saved.
    """
    where = devices.pick(device)
    if resume:
        grid = _reopen(name, out)
    else:
        if name is None or base is None:
            raise UsageError("name a grid with --ablation and a preset with --preset")
        grid = _begin(name, base, out, seeds, where, dry_run)
    if dry_run:
        _show_plan(grid)
        return
    paths = inputs.for_training(grid.base)
    with locks.locked(grid.path), _resumable(grid):
        _train_all(grid, paths, where)
        _score_all(grid, paths, device)
    document = summary(grid)
    atomic.write_text(grid.path / "ablation.md", as_markdown(document))
    show(document)
    print(grid.path)


def _begin(name: str, base: Config, out: Path | None, seeds: int, where: torch.device, dry_run: bool) -> Grid:
    ablation = ablations.find(name)
    path = out or Path("runs") / f"{name}-{base.preset}-{time.strftime('%Y%m%d-%H%M%S')}"
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OutputError(f"{path} is not empty; go on with --resume -o {path}, or name another folder with -o")
    plan: dict[str, Any] = {
        "ablation": name,
        "about": ablation.about,
        "preset": base.preset,
        "variants": {variant.name: dict(variant.settings) for variant in ablation.variants},
        "seeds": [base.train.seed + i for i in range(seeds)],
        "steps": base.train.steps,
        **describe(where),
        "results": {},
    }
    grid = Grid(path, plan, base)
    if not dry_run:
        prepared = prepare(base, inputs.for_training(base))
        path.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path / "config.toml", config.dump(base))
        plan["steps"] = _steps(grid, prepared, where)
        grid.save()
    return grid


def _reopen(name: str | None, out: Path | None) -> Grid:
    if out is None or not is_grid(out):
        raise InputNotFoundError(
            f"no ablation to resume in {out or 'the folder that -o would name'}; leave out --resume"
        )
    plan = json.loads((out / PLAN).read_text())
    if name is not None and name != plan["ablation"]:
        raise UsageError(f"{out} holds the ablation {plan['ablation']}, not {name}; name another folder with -o")
    return Grid(out, plan, config.load(str(out / "config.toml")))


def _steps(grid: Grid, prepared: Prepared, where: torch.device) -> int:
    """Steps of every run: the preset's, or as many as fit into the budget, for all variants the same."""
    train = grid.base.train
    per_epoch = max(1, len(prepared.train) // train.batch)
    steps = min(train.steps or math.inf, train.epochs * per_epoch)
    budget = parse_duration(train.budget)
    if budget is None:
        return int(steps)
    grid.plan["steps"] = 1
    seconds = sum(_seconds_per_step(grid, variant, prepared, where) for variant in grid.variants)
    fitting = int(FOR_TRAINING * budget / (max(seconds, 1e-6) * len(grid.seeds)))
    if fitting < per_epoch:
        log.warning("%d steps fit into %s, less than one pass over the data (%d)", fitting, train.budget, per_epoch)
    return int(max(1, min(steps, fitting)))


def _seconds_per_step(grid: Grid, variant: str, prepared: Prepared, where: torch.device) -> float:
    resolved = grid.config(variant, grid.seeds[0])
    try:
        network = one_run.build(resolved, prepared)
    except ConfigError:
        return 0.0  # said when its turn comes
    with tempfile.TemporaryDirectory() as folder:
        trainer = one_run.trainer(resolved, prepared, network, RunFolder(Path(folder)), where, WarmStart())
        return trainer.seconds_per_step()


@contextmanager
def _resumable(grid: Grid) -> Iterator[None]:
    """An interrupted run's message names the grid, not the run."""
    try:
        yield
    except InterruptedRun as stop:
        text = f"interrupted; what is done is kept, continue with --resume -o {grid.path}"
        raise InterruptedRun(text, stop.code - 128) from stop


def _train_all(grid: Grid, paths: Sequence[Path], where: torch.device) -> None:
    wanted = list(grid.cells())
    log.info("grid    %d variants x %d seeds, %d steps each", len(grid.variants), len(grid.seeds), grid.plan["steps"])
    for number, (variant, seed) in enumerate(wanted, 1):
        if "seconds" in grid.result(variant, seed) or "failed" in grid.result(variant, seed):
            continue
        log.info("run     %d of %d: %s, seed %d", number, len(wanted), variant, seed)
        resolved, folder = grid.config(variant, seed), grid.folder(variant, seed)
        prepared = prepare(resolved, paths)
        begun = folder.state.is_file()
        if not begun:
            folder.metrics.unlink(missing_ok=True)
        try:
            network = one_run.build(resolved, prepared)
            position = one_run.fit(resolved, prepared, network, folder, where, begun, WarmStart())
        except (ConfigError, NonFiniteLossError) as error:
            log.warning("%s, seed %d: %s", variant, seed, error)
            grid.record(variant, seed, failed=str(error))
            continue
        count = sum(p.numel() for p in network.parameters())
        grid.record(variant, seed, seconds=round(position.elapsed, 1), best_step=position.best_step, parameters=count)
    reasons = [grid.result(variant, seed).get("failed") for variant, seed in wanted]
    if all(reasons):
        raise DataError(f"none of the {len(wanted)} runs in {grid.path} could be trained; the first: {reasons[0]}")


def _score_all(grid: Grid, paths: Sequence[Path], device: str) -> None:
    """Validation and test scores of each run; the test part is not looked at before all are trained."""
    wanted = list(grid.cells())
    with progress("scoring") as bar:
        for number, (variant, seed) in enumerate(wanted, 1):
            known = grid.result(variant, seed)
            if "failed" not in known and "test" not in known:
                _score(grid, variant, seed, paths, device)
            bar.update(number / len(wanted), f"{variant}, seed {seed}")


def _score(grid: Grid, variant: str, seed: int, paths: Sequence[Path], device: str) -> None:
    model = inference.load(grid.folder(variant, seed).model, device)
    prepared = prepare(model.card.config, paths)
    scores = {split: _scores(model, prepared, split, ()) for split in ("val", "test")}
    if "baselines" not in grid.plan:
        grid.plan["baselines"] = {split: _scores(model, prepared, split, BASELINES) for split in ("val", "test")}
    grid.plan |= {"units": scores["test"]["units"], "windows": scores["test"]["windows"]}
    grid.record(variant, seed, **{split: found["model"] for split, found in scores.items()})


def _scores(model: inference.Model, prepared: Prepared, split: str, against: Sequence[str]) -> dict[str, Any]:
    """Scores over all lead times, by forecaster; the model's name is "model"."""
    chosen = task.build({"model": model}, {}, prepared.series, split)
    options = Options(kinds.of(prepared.series[0]).scores[:3], against, analyses=("spectra",))
    document = evaluation.evaluate(chosen, options).document
    sharpness = {"detail": document.spectra.ratio, "gradient": document.spectra.gradient} if document.spectra else {}
    found: dict[str, Any] = {
        name: {metric: document.scores[name][metric].overall for metric in document.metrics}
        | {column: values[name] for column, values in sharpness.items()}
        for name in document.scores
    }
    return found | {"units": document.metric_units, "windows": document.n_windows}


def summary(grid: Grid) -> dict[str, Any]:
    """What the table shows: for each variant mean, standard deviation and number of seeds of each score on test data.

    "change" is the difference of the first score from the first variant's with the same seed, as a share.
    """
    ablation = ablations.find(grid.plan["ablation"])
    columns = list(dict.fromkeys(c for v, s in grid.cells() for c in grid.result(v, s).get("test", {})))
    reference = next(iter(grid.variants))
    rows = {}
    for variant in grid.variants:
        runs = {seed: grid.result(variant, seed) for seed in grid.seeds}
        scored = {seed: run["test"] for seed, run in runs.items() if "test" in run}
        row: dict[str, Any] = {c: spread([s[c] for s in scored.values() if s[c] is not None]) for c in columns}
        if columns and variant != reference:
            row["change"] = spread(_changes(grid, scored, reference, columns[0]))
        row["failed"] = [run["failed"] for run in runs.values() if "failed" in run]
        row["parameters"] = next((run["parameters"] for run in runs.values() if "parameters" in run), None)
        rows[variant] = row
    baselines = grid.plan.get("baselines", {}).get("test", {})
    return {
        **{k: grid.plan.get(k) for k in ("ablation", "about", "preset", "steps", "seeds", "units", "windows")},
        **{k: grid.plan.get(k) for k in ("device", "torch", "threads", "commit")},
        "columns": columns,
        "rows": rows,
        "baselines": {name: baselines[name] for name in BASELINES if name in baselines},
        "paper_columns": ablation.columns,
        "paper": {variant.name: dict(variant.paper) for variant in ablation.variants},
    }


def _changes(grid: Grid, scored: Mapping[int, Mapping[str, float]], reference: str, metric: str) -> list[float]:
    pairs = [
        (values[metric], grid.result(reference, seed).get("test", {}).get(metric)) for seed, values in scored.items()
    ]
    return [mine / theirs - 1 for mine, theirs in pairs if theirs]


def spread(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean, standard deviation (of a sample; None of a single value) and number."""
    return {
        "mean": statistics.fmean(values) if values else None,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "n": len(values),
    }


def table_of(document: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows as text, for the terminal and for Markdown alike; the paper's columns are the last."""
    units = document["units"] or {}
    heads = [f"{c} [{units[c]}]" if units.get(c, "1") != "1" else c for c in document["columns"]]
    first = document["columns"][0] if document["columns"] else ""
    headings = ["variant", "parameters", *heads, f"{first} against the first", *document["paper_columns"]]
    rows = []
    for variant, row in document["rows"].items():
        counted = f"{row['parameters']:,}" if row["parameters"] else ""
        cells = [_spread_text(row[c]) for c in document["columns"]]
        change = _spread_text(row["change"], percent=True) if "change" in row else ""
        failed = f" ({len(row['failed'])} failed)" if row["failed"] else ""
        printed = [document["paper"][variant].get(c, "") for c in document["paper_columns"]]
        rows.append([variant + failed, counted, *cells, change, *printed])
    for name, scores in document["baselines"].items():
        cells = [_number(scores[c]) for c in document["columns"]]
        rows.append([name, "", *cells, "", *[""] * len(document["paper_columns"])])
    return headings, rows


def notes(document: Mapping[str, Any]) -> list[str]:
    """Why runs failed, one line a variant."""
    return [f"{variant}: {row['failed'][0]}" for variant, row in document["rows"].items() if row["failed"]]


def title(document: Mapping[str, Any]) -> list[str]:
    """What was done, with what, in two lines."""
    commit = f", commit {document['commit']}" if document.get("commit") else ""
    seeds = ", ".join(map(str, document["seeds"]))
    return [
        f"{document['about']}: preset {document['preset']}, {document['steps']} steps each, seeds {seeds}, "
        f"{document['windows']} test windows; mean ± sd over seeds",
        f"{document['device']}, torch {document['torch']}, {document['threads']} threads{commit}",
    ]


def show(document: Mapping[str, Any]) -> None:
    """Print the table; what the paper printed is marked as such."""
    headings, rows = table_of(document)
    table = Table(title="\n".join(title(document)))
    ours = len(headings) - len(document["paper_columns"])
    for number, heading in enumerate(headings):
        text = heading if number < ours else f"{heading}\n({ablations.PAPER})"
        table.add_column(text, justify="left" if number == 0 else "right", style="dim" if number >= ours else None)
    for row in rows:
        table.add_row(*row)
    console = Console()
    console = console if console.is_terminal else Console(width=60 + 24 * len(headings))
    console.print(table)
    for note in notes(document):
        console.print(note, highlight=False)


def as_markdown(document: Mapping[str, Any]) -> str:
    """The same table for a document."""
    headings, rows = table_of(document)
    ours = len(headings) - len(document["paper_columns"])
    heads = [h if i < ours else f"{h} ({ablations.PAPER})" for i, h in enumerate(headings)]
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)], *rows]
    rows_as_text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return "\n\n".join([*title(document), rows_as_text, *notes(document)])


def _show_plan(grid: Grid) -> None:
    print(f"# {grid.plan['about']}")
    for variant, seed in grid.cells():
        settings = " ".join(f"--set {key}={value}" for key, value in grid.variants[variant].items())
        print(f"{variant}, seed {seed}: {settings}".rstrip())


def _spread_text(entry: Mapping[str, Any], percent: bool = False) -> str:
    if entry["mean"] is None:
        return ""
    if percent:
        sd = "" if entry["sd"] is None else f" ± {100 * entry['sd']:.1f}"
        return f"{100 * entry['mean']:+.1f}{sd} %".replace("-", "−")
    sd = "" if entry["sd"] is None else f" ± {_decimals(entry['sd'], entry['mean'])}"
    return f"{_number(entry['mean'])}{sd}"


def _number(value: float | None) -> str:
    return "" if value is None else _decimals(value, value)


def _decimals(value: float, beside: float) -> str:
    """With as many decimals as give `beside` four figures."""
    places = max(0, 3 - math.floor(math.log10(abs(beside)))) if beside else 4
    return f"{value:.{min(places, 6)}f}"
