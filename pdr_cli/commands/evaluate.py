"""`pdr evaluate`: score models beside baselines, print a table, keep the numbers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pdr_cli import files, forecast, runs
from pdr_cli.commands import inputs
from pdr_cli.data import formats
from pdr_cli.errors import UsageError
from pdr_cli.forecast import Model
from pdr_cli.logs import progress
from pdr_cli.verification import evaluation

DEFAULT_METRICS = {"video": ["psnr", "ssim", "mae"]}
FIELD_METRICS = ["rmse", "mae", "bias"]


def run(
    arguments: Sequence[str],
    *,
    models: Sequence[str],
    split: str,
    against: Sequence[str],
    metrics: Sequence[str],
    steps: int | None,
    rename: Sequence[str],
    output: Path | None,
    plot: Path | None,
    as_json: bool,
    device: str,
) -> None:
    """Score; see `pdr evaluate --help` for the options."""
    paths = formats.find_inputs(arguments)
    for target in (output, plot):
        if target is not None:
            files.check_output(target, paths)
    if output is not None and output.suffix.lower() not in (".json", ".csv"):
        raise UsageError(f"scores go to .json or .csv, not {output.suffix or 'a name without suffix'!r}")
    loaded = _load(models, device)
    first = next(iter(loaded.values()))
    series = first.open(paths, inputs.renames(rename, list(first.card.variables)))
    wanted = list(metrics) or DEFAULT_METRICS.get(first.card.format, FIELD_METRICS)
    job = evaluation.task(loaded, series, split, steps)
    with progress("evaluating") as bar:
        document = evaluation.evaluate(job, against, wanted, bar)
    if output is not None:
        files.write_text(
            output, _as_csv(document) if output.suffix.lower() == ".csv" else json.dumps(document, indent=1) + "\n"
        )
    if plot is not None:
        from pdr_cli.export import pictures

        pictures.skill(plot, document)
    if as_json:
        print(json.dumps(document))
    else:
        print_table(document)


def _load(models: Sequence[str], device: str) -> dict[str, Model]:
    loaded: dict[str, Model] = {}
    for argument in models or [None]:  # type: ignore[list-item]
        path = runs.find_model(argument)
        name = path.parent.name if path.name == "model.safetensors" else path.stem
        while name in loaded:
            name += "'"
        loaded[name] = forecast.load(path, device)
    return loaded


def print_table(document: dict[str, Any]) -> None:
    """Tables on stdout: the first score per lead time, then every score overall, skill beside both."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    main = document["metrics"][0]
    units = {"psnr": "dB", "ssim": "1"}.get(main, document["units"])
    skills = [(model, rival) for model, row in document["skill"].items() for rival in row]
    period = document["period"] if isinstance(document["period"], str) else " to ".join(document["period"])
    console.print(
        f"{', '.join(document['variables'])}: {document['n_windows']} {document['split']} windows, {period}; "
        f"{document['convention']} convention, {document['protocol']} protocol",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(title=f"{main} ({units}) by lead time", title_justify="left")
    table.add_column("lead", justify="right")
    for name in document["scores"]:
        table.add_column(name, justify="right")
    for model, rival in skills:
        table.add_column(_skill_title(model, rival, len(document["skill"])), justify="right")
    for index, lead in enumerate(document["lead"]):
        row = [f"{row[main]['lead'][index]:.4g}" for row in document["scores"].values()]
        table.add_row(_lead(lead, document["lead_units"]), *row, *[_skill(document, s, index) for s in skills])
    row = [f"{row[main]['overall']:.4g}" for row in document["scores"].values()]
    table.add_section()
    table.add_row("all", *row, *[_skill(document, s, None) for s in skills])
    console.print(table)
    summary = Table(title="all lead times", title_justify="left")
    summary.add_column("score")
    for name in document["scores"]:
        summary.add_column(name, justify="right")
    for score in next(iter(document["scores"].values())):
        if score.split(":")[0] in document["metrics"]:
            summary.add_row(score, *[f"{row[score]['overall']:.4g}" for row in document["scores"].values()])
    console.print(summary)
    console.print("skill = 1 - MSE / MSE of the reference; above 0 is better than it", style="dim", highlight=False)


def _skill_title(model: str, rival: str, models: int) -> str:
    return f"skill vs {rival}" if models == 1 else f"{model} vs {rival}"


def _skill(document: dict[str, Any], pair: tuple[str, str], index: int | None) -> str:
    entry = document["skill"][pair[0]][pair[1]]
    value = entry["overall"] if index is None else entry["lead"][index]
    return f"[{'green' if value > 0 else 'red'}]{value:+.3f}[/]"


def _lead(lead: float, units: str) -> str:
    if units == "seconds":
        return f"{lead:.2f} s"
    return f"{lead:g} h" if lead < 72 or lead % 24 else f"{lead / 24:g} d"


def _as_csv(document: dict[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["model", "score", "lead", "lead_units", "value"])
    for model, row in document["scores"].items():
        for score, values in row.items():
            writer.writerow([model, score, "all", "", values["overall"]])
            for lead, value in zip(document["lead"], values["lead"], strict=True):
                writer.writerow([model, score, lead, document["lead_units"], value])
    return text.getvalue()
