"""Tables that commands print: scores, on the terminal and as CSV, and benchmarks."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pdr_cli.drawing.summary import lead_label
from pdr_cli.system import atomic

WIDE = 200  # where no terminal says how wide it is; tables are as wide as they need to be


def show(document: Mapping[str, Any]) -> None:
    """Print: what was scored, the first score and the skill by lead time, every score overall, and the analyses."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE)
    console.print(headline(document), highlight=False, soft_wrap=True)
    for table in (_by_lead(document), *_skills(document), _overall(document), *_analyses(document)):
        console.print(table)
    for line in _notes(document):
        console.print(line, style="dim", highlight=False, soft_wrap=True)


def headline(document: Mapping[str, Any]) -> str:
    """What was scored, in one line."""
    period = document["period"] if isinstance(document["period"], str) else " to ".join(document["period"])
    return (
        f"{', '.join(document['variables'])}: {_windows(document)}, {period}; "
        f"{document['convention']} convention, {document['protocol']} protocol"
    )


def _windows(document: Mapping[str, Any]) -> str:
    """`1 test window`, or `359 windows` of all there are."""
    count, split = document["n_windows"], document["split"]
    return f"{count} {'' if split == 'all' else f'{split} '}window{'' if count == 1 else 's'}"


def as_csv(document: Mapping[str, Any]) -> str:
    """One row for each forecaster, score and lead time; intervals beside the value."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["model", "score", "lead", "lead_units", "value", "low", "high"])
    for model, row in document["scores"].items():
        for score, values in row.items():
            writer.writerow([model, score, "all", "", values["overall"], "", ""])
            blank = [""] * len(document["lead"])
            ends = zip(values.get("low", blank), values.get("high", blank), strict=True)
            for lead, value, (low, high) in zip(document["lead"], values["lead"], ends, strict=True):
                writer.writerow([model, score, lead, document["lead_units"], value, low, high])
    return text.getvalue()


def _by_lead(document: Mapping[str, Any]) -> Any:
    main = document["metrics"][0]
    rows = document["scores"]
    table = _table(f"{main} ({document['metric_units'][main]}) by lead time", ["lead", *rows])
    for index, lead in enumerate(document["lead"]):
        values = [number(row[main]["lead"][index]) for row in rows.values()]
        table.add_row(lead_label(lead, document["lead_units"]), *values)
    table.add_section()
    table.add_row("all", *[number(row[main]["overall"]) for row in rows.values()])
    return table


def _skills(document: Mapping[str, Any]) -> list[Any]:
    """One table for each model: its skill against each baseline."""
    tables = []
    for model, rivals in document["skill"].items():
        if not rivals:
            continue
        table = _table(f"skill of {model} against", ["lead", *rivals])
        for index, lead in enumerate(document["lead"]):
            label = lead_label(lead, document["lead_units"])
            table.add_row(label, *[_skill(entry, index) for entry in rivals.values()])
        table.add_section()
        table.add_row("all", *[_skill(entry, None) for entry in rivals.values()])
        if all("interval" in entry for entry in rivals.values()):
            for label, side in (("95 % from", 0), ("to", 1)):
                ends = [f"{entry['interval'][side]:+.3f}" for entry in rivals.values()]
                table.add_row(label, *ends, style="dim")
        tables.append(table)
    return tables


def _table(title: str, columns: Sequence[str]) -> Any:
    """An empty table: the first column names the rows, the others hold numbers."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=not place)
    return table


def _overall(document: Mapping[str, Any]) -> Any:
    rows = document["scores"]
    table = _table("all lead times", ["score", *rows])
    for score in next(iter(rows.values())):
        base = score.split(":")[0]
        if base in document["metrics"]:
            unit = document["metric_units"][base] if score == base else ""
            label = score + (f" ({unit})" if unit not in ("", "1") else "")
            table.add_row(label, *[number(row[score]["overall"]) for row in rows.values()])
    return table


def _analyses(document: Mapping[str, Any]) -> list[Any]:
    """Small tables of what was asked for beyond scores."""
    tables = []
    if "concentration" in document:
        tables.append(_plain_table("concentration (nearest to truth is best)", document["concentration"]))
    if "warping" in document:
        title = f"temporal warping error, flow by {document['warping']['flow']}"
        tables.append(_plain_table(title, document["warping"]["errors"]))
    if "spectra" in document and "ratio" in document["spectra"]:
        power, slope = document["spectra"]["ratio"], document["spectra"]["gradient"]
        rows = {name: {"power below 4 cells": power[name], "mean gradient": slope[name]} for name in power}
        title = (
            f"sharpness at {lead_label(document['spectra']['lead'], document['lead_units'])} (1: as sharp as the truth)"
        )
        tables.append(_plain_table(title, rows))
    if "efficiency" in document:
        tables.append(_plain_table("efficiency, batch 1 unless said", document["efficiency"], sideways=True))
    return tables


def _plain_table(title: str, rows: Mapping[str, Mapping[str, Any]], sideways: bool = False) -> Any:
    columns = list(next(iter(rows.values())))
    if sideways:
        table = _table(title, ["", *rows])
        for column in columns:
            table.add_row(column.replace("_", " "), *[number(row.get(column)) for row in rows.values()])
        return table
    table = _table(title, ["", *[c.replace("_", " ") for c in columns]])
    for name, row in rows.items():
        table.add_row(name, *[number(row.get(column)) for column in columns])
    return table


def _notes(document: Mapping[str, Any]) -> list[str]:
    notes = ["skill = 1 - MSE / MSE of the reference; above 0 is better than it"]
    if document.get("bootstrap"):
        b = document["bootstrap"]
        notes.append(
            f"95 %: interval from {b['resamples']} resamples of {b['blocks']} blocks of up to {b['windows_per_block']} "
            "windows; n.s.: not significantly different from 0"
        )
    elif document["skill"]:
        notes.append("too few independent windows for intervals")
    if document["missing"]["cells"]:
        m = document["missing"]
        notes.append(
            f"{100 * m['share']:.2g} % of the values ({m['cells']} of {m['of']}) are missing and count in no score"
        )
    return notes


def number(value: Any) -> str:
    """A number with four digits; large counts with separators."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or (abs(value) >= 1e5 and value == int(value)):
        return f"{int(value):,}"
    return f"{value:.4g}"


def _skill(entry: Mapping[str, Any], index: int | None) -> str:
    """Overall or at one lead time; what is not significant is dimmed and says so."""
    if index is None:
        value, sure = entry["overall"], entry.get("significant", True)
    else:
        value = entry["lead"][index]
        sure = "low" not in entry or entry["low"][index] > 0 or entry["high"][index] < 0
    if not sure:
        return f"[dim]{value:+.3f} n.s.[/]"
    return f"[{'green' if value > 0 else 'red'}]{value:+.3f}[/]"


def significant(x: float | None) -> str:
    """Three significant digits without an exponent: 0.0213, 1.25, 48.1, 52100; nothing for None."""
    if x is None:
        return ""
    return f"{x:.0f}" if x >= 100 else f"{x:#.3g}"


def machine_of(report: Mapping[str, Any]) -> str:
    """Device, torch, threads and commit of a benchmark's report, in a line."""
    title = f"{report['device']}, torch {report['torch']}, {report['threads']} threads"
    return title + (f", commit {report['commit']}" if "commit" in report else "")


def publish(report: Mapping[str, Any], table: Any, output: Path | None, as_json: bool) -> int:
    """Write a benchmark's report as JSON to `output`, and print its table, or JSON instead.

    Returns:
        The exit code: 0, or 1 if a variant failed its check.
    """
    from rich.console import Console

    text = json.dumps(report, indent=2, allow_nan=False)
    if output is not None:
        atomic.write_text(output, text + "\n")
    if as_json:
        print(text)
    else:
        console = Console()
        # Without a terminal there is no width to respect, and a squeezed table cannot be read by a script.
        (console if console.is_terminal else Console(width=140)).print(table)
    return 0 if all(row["ok"] for row in report["rows"]) else 1


def show_findings(rows: Sequence[dict[str, str]]) -> None:
    """Print findings, each with its fix."""
    for row in rows:
        print(f"  {row['level']:<8} {row['what']}")
        if row["fix"]:
            print(f"  {'':<8} → {row['fix']}")


def show_ablation(document: Mapping[str, Any]) -> None:
    """Print the table of an ablation; the paper's columns are marked."""
    from rich.console import Console
    from rich.table import Table

    from pdr_cli.ablation import catalogue, summary

    headings, rows = summary.table_of(document)
    table = Table(title="\n".join(summary.title(document)))
    ours = len(headings) - len(document["paper_columns"])
    for number, heading in enumerate(headings):
        text = heading if number < ours else f"{heading}\n({catalogue.PAPER})"
        table.add_column(text, justify="left" if number == 0 else "right", style="dim" if number >= ours else None)
    for row in rows:
        table.add_row(*row)
    console = Console()
    console = console if console.is_terminal else Console(width=60 + 24 * len(headings))
    console.print(table)
    for note in summary.notes(document):
        console.print(note, highlight=False)
