"""The tables of `pdr evaluate`: on the terminal, and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from typing import Any


def show(document: Mapping[str, Any]) -> None:
    """Print: what was scored, the first score per lead time with skill, every score overall, and the analyses."""
    from rich.console import Console

    console = Console()
    console.print(headline(document), highlight=False, soft_wrap=True)
    console.print(_by_lead(document))
    console.print(_overall(document))
    for table in _analyses(document):
        console.print(table)
    for line in _notes(document):
        console.print(line, style="dim", highlight=False, soft_wrap=True)


def headline(document: Mapping[str, Any]) -> str:
    """What was scored, in one line."""
    period = document["period"] if isinstance(document["period"], str) else " to ".join(document["period"])
    return (
        f"{', '.join(document['variables'])}: {document['n_windows']} {document['split']} windows, {period}; "
        f"{document['convention']} convention, {document['protocol']} protocol"
    )


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
    from rich.table import Table

    main = document["metrics"][0]
    skills = [(model, rival) for model, row in document["skill"].items() for rival in row]
    table = Table(title=f"{main} ({document['metric_units'][main]}) by lead time", title_justify="left")
    table.add_column("lead", justify="right")
    for name in document["scores"]:
        table.add_column(name, justify="right")
    for model, rival in skills:
        table.add_column(_skill_title(model, rival, len(document["skill"])), justify="right")
    for index, lead in enumerate(document["lead"]):
        row = [number(row[main]["lead"][index]) for row in document["scores"].values()]
        table.add_row(lead_label(lead, document["lead_units"]), *row, *[_skill(document, s, index) for s in skills])
    table.add_section()
    row = [number(row[main]["overall"]) for row in document["scores"].values()]
    table.add_row("all", *row, *[_skill(document, s, None) for s in skills])
    if any("interval" in document["skill"][m][r] for m, r in skills):
        table.add_row("95 %", *[""] * len(row), *[_interval(document, s) for s in skills], style="dim")
    return table


def _overall(document: Mapping[str, Any]) -> Any:
    from rich.table import Table

    table = Table(title="all lead times", title_justify="left")
    table.add_column("score")
    for name in document["scores"]:
        table.add_column(name, justify="right")
    for score in next(iter(document["scores"].values())):
        base = score.split(":")[0]
        if base not in document["metrics"]:
            continue
        unit = document["metric_units"][base] if score == base else ""
        label = score + (f" ({unit})" if unit not in ("", "1") else "")
        table.add_row(label, *[number(row[score]["overall"]) for row in document["scores"].values()])
    return table


def _analyses(document: Mapping[str, Any]) -> list[Any]:
    """Small tables of what was asked for beyond scores."""
    tables = []
    if "concentration" in document:
        tables.append(_plain_table("concentration (nearest to truth is best)", document["concentration"]))
    if "warping" in document:
        rows = {k: v for k, v in document["warping"].items() if k != "flow"}
        tables.append(_plain_table(f"temporal warping error, flow {document['warping']['flow']}", rows))
    if "spectra" in document and "ratio" in document["spectra"]:
        rows = {name: {"power / truth": value} for name, value in document["spectra"]["ratio"].items()}
        tables.append(_plain_table("power at the finest scales (1: as sharp as the truth)", rows))
    if "efficiency" in document:
        tables.append(_plain_table("efficiency, batch 1 unless said", document["efficiency"], sideways=True))
    return tables


def _plain_table(title: str, rows: Mapping[str, Mapping[str, Any]], sideways: bool = False) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    columns = list(next(iter(rows.values())))
    if sideways:
        table.add_column("")
        for name in rows:
            table.add_column(name, justify="right")
        for column in columns:
            table.add_row(column.replace("_", " "), *[number(row.get(column)) for row in rows.values()])
        return table
    table.add_column("")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
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


def lead_label(lead: float, units: str) -> str:
    """A lead time as people say it: `36 h`, `5 d`, `0.33 s`."""
    if units == "seconds":
        return f"{lead:.2f} s"
    return f"{lead:g} h" if lead < 72 or lead % 24 else f"{lead / 24:g} d"


def _skill_title(model: str, rival: str, models: int) -> str:
    return f"skill vs {rival}" if models == 1 else f"{model} vs {rival}"


def _skill(document: Mapping[str, Any], pair: tuple[str, str], index: int | None) -> str:
    entry = document["skill"][pair[0]][pair[1]]
    value = entry["overall"] if index is None else entry["lead"][index]
    if index is None:
        sure = entry.get("significant", True)
    else:
        sure = "low" not in entry or entry["low"][index] > 0 or entry["high"][index] < 0
    if not sure:
        return f"[dim]{value:+.3f} n.s.[/]"
    return f"[{'green' if value > 0 else 'red'}]{value:+.3f}[/]"


def _interval(document: Mapping[str, Any], pair: tuple[str, str]) -> str:
    ends = document["skill"][pair[0]][pair[1]].get("interval")
    return f"{ends[0]:+.3f} to {ends[1]:+.3f}" if ends else ""
