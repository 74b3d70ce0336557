"""Tables that commands print: scores, on the terminal and as CSV, and benchmarks."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdr_cli.drawing.summary import headline as verdict
from pdr_cli.drawing.summary import lead_label
from pdr_cli.system import atomic
from pdr_cli.verification.document import Document, Skill
from pdr_cli.verification.sections import ByLead, EventScores, Intervals, Probe, Spectra, Ways

if TYPE_CHECKING:
    from rich.table import Table

WIDE = 200  # columns without a terminal; tables are as wide as they need to be


def show(document: Document) -> None:
    """Print: what was scored and the result, the first score and the skill by lead time, all scores, the analyses."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE)
    console.print(headline(document), highlight=False, soft_wrap=True)
    if document.skill:
        console.print(verdict(document).sentence.replace("\u00a0", " "), highlight=False, soft_wrap=True)
    for table in (_by_lead(document), *_skills(document), _overall(document), *_analyses(document)):
        console.print(table)
    for line in _notes(document):
        console.print(line, style="dim", highlight=False, soft_wrap=True)


def headline(document: Document) -> str:
    """What was scored, in one line."""
    period = document.period if isinstance(document.period, str) else " to ".join(document.period)
    return (
        f"{', '.join(document.variables)}: {_windows(document)}, {period}; "
        f"{document.convention} convention, {document.protocol} protocol"
    )


def _windows(document: Document) -> str:
    """`1 test window`, or `359 windows` of the whole series."""
    count, split = document.n_windows, document.split
    return f"{count} {'' if split == 'all' else f'{split} '}window{'' if count == 1 else 's'}"


def as_csv(document: Document) -> str:
    """One row for each forecaster, score and lead time; intervals beside the value."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["model", "score", "lead", "lead_units", "value", "low", "high"])
    blank = [""] * len(document.lead)
    for model, row in document.scores.items():
        for score, entry in row.items():
            writer.writerow([model, score, "all", "", entry.overall, "", ""])
            columns = (document.lead, entry.lead, entry.low or blank, entry.high or blank)
            for lead, value, low, high in zip(*columns, strict=True):
                writer.writerow([model, score, lead, document.lead_units, value, low, high])
    return text.getvalue()


def _by_lead(document: Document) -> Table:
    main = document.headline
    return _leads(document, f"{main} ({document.metric_units[main]}) by lead time", document.of_score(main))


def _skills(document: Document) -> list[Table]:
    """The skill of every model against the best baseline by lead time, and against the others overall."""
    rival = next((found for model in document.skill if (found := document.hardest_rival(model)) is not None), None)
    return [] if rival is None else [_skill_table(document, rival)]


def _skill_table(document: Document, rival: str) -> Table:
    entries = {model: row[rival] for model, row in document.skill.items() if rival in row}
    table = _table(f"skill vs {rival}", ["lead", *entries])
    for index, lead in enumerate(document.lead):
        label = lead_label(lead, document.lead_units)
        table.add_row(label, *[_skill(entry, index) for entry in entries.values()])
    table.add_section()
    table.add_row("all", *[_skill(entry, None) for entry in entries.values()])
    intervals = [entry.interval for entry in entries.values() if entry.interval is not None]
    if len(intervals) == len(entries):
        for label, side in (("95 % from", 0), ("to", 1)):
            table.add_row(label, *[f"{ends[side]:+.3f}" for ends in intervals], style="dim")
    table.add_section()
    rows = [document.skill[model] for model in entries]
    for other in dict.fromkeys(name for row in rows for name in row if name != rival):
        table.add_row(f"all vs {other}", *[_skill(row[other], None) if other in row else "–" for row in rows])
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    """An empty table: the first column names the rows, the others hold numbers."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=not place)
    return table


def _overall(document: Document) -> Table:
    rows = document.scores
    table = _table("all lead times", ["score", *rows])
    for score in next(iter(rows.values())):
        base = score.split(":")[0]
        if base in document.metrics:
            unit = document.metric_units[base] if score == base else ""
            label = score + (f" ({unit})" if unit not in ("", "1") else "")
            table.add_row(label, *[number(row[score].overall) for row in rows.values()])
    return table


def _analyses(document: Document) -> list[Table]:
    """Small tables of the analyses."""
    tables = []
    if document.concentration is not None:
        rows = {name: entry.to_json() for name, entry in document.concentration.items()}
        tables.append(_plain_table("concentration (nearest to truth is best)", rows))
    if document.warping is not None:
        rows = {name: entry.to_json() for name, entry in document.warping.errors.items()}
        tables.append(_plain_table(f"temporal warping error, flow by {document.warping.flow}", rows))
    if document.spectra is not None:
        tables.append(_sharpness(document, document.spectra))
    if document.strata:
        tables.append(_strata(document, document.strata))
    tables += [_events(event, row) for event, row in (document.events or {}).items()]
    if document.ranks:
        rows = {
            name: {"outside of all members": r.outside, "if reliable": r.expected} for name, r in document.ranks.items()
        }
        tables.append(_plain_table("share of truths", rows))
    if document.ways:
        tables.append(_ways(document, document.ways))
    if document.clip_distance is not None:
        found = document.clip_distance
        rows = {"real clips": {"distance": found.real}} | {n: {"distance": d} for n, d in found.distances.items()}
        tables.append(
            _plain_table(f"distance to {found.clips} real clips, by features without weights (not FVD)", rows)
        )
    if document.probe:
        tables.append(_probe(document, document.probe))
    if document.intervals is not None:
        tables += [t for name, found in document.intervals.items() for t in _intervals(document, name, found)]
    if document.efficiency is not None:
        tables.append(_costs({name: entry.to_json() for name, entry in document.efficiency.items()}))
    return tables


def _ways(document: Document, ways: Mapping[str, Ways]) -> Table:
    """Errors of the ways of moving Gaussians over all lead times and at the last one."""
    last = lead_label(document.lead[-1], document.lead_units)
    table = _table("end of the ways of Gaussians, cells from where their places go by the optical flow", ["", *ways])
    for label, key in (
        ("moving places", "error"), ("standing still there", "standing_still"), ("still places", "error_of_still")
    ):  # fmt: skip
        found = [getattr(one, key) for one in ways.values()]
        table.add_row(label, *[number(one.overall) for one in found])
        table.add_row(f"{label}, {last}", *[number(one.lead[-1]) for one in found])
    table.add_row("share of places that move", *[number(one.moving) for one in ways.values()])
    table.add_row("share of Gaussians pruned", *[number(one.pruned) for one in ways.values()])
    return table


def _probe(document: Document, probes: Mapping[str, Probe]) -> Table:
    """What linear regressions read from the latents of the last observed frames, a column for each model."""
    count, units = next(iter(probes.values())), "" if document.units == "1" else f" ({document.units})"
    title = f"linear probes, fitted to {count.fitted} windows ({count.fitted_to}), scored on {count.scored}"
    table = _table(title, ["", *probes])
    table.add_row(f"reconstruction, RMSE{units}", *[number(one.reconstruction) for one in probes.values()])
    for label, key, without in (
        ("motion to the next frame, error (cells)", "motion", "standing still"),
        (f"next frame, RMSE{units}", "following", "persistence"),
    ):
        table.add_section()
        for source, name in (("from latents", "latents"), ("from pixels", "pixels"), (without, "without")):
            table.add_row(f"{label}: {source}", *[number(getattr(getattr(p, key), name)) for p in probes.values()])
    return table


def _strata(document: Document, strata: Mapping[str, Mapping[str, Mapping[str, ByLead]]]) -> Table:
    """The headline score over all lead times, a row for each season and region."""
    main = document.headline
    table = _table(f"{main} ({document.metric_units[main]}) by season and region", ["", *document.forecasters])
    for label, row in strata.items():
        table.add_row(label, *[number(row[name][main].overall) for name in document.forecasters])
    return table


def _events(event: str, row: Mapping[str, EventScores]) -> Table:
    """The scores of one event over all lead times, a column for each forecaster."""
    table = _table(f"event {event}, all lead times", ["score", *row])
    first = next(iter(row.values()))
    for score in first.scores:
        table.add_row(score.replace("_", " "), *[number(found.scores[score].overall) for found in row.values()])
    if any(found.roc_area is not None for found in row.values()):
        table.add_row("area under ROC", *[number(found.roc_area) for found in row.values()])
    return table


def _intervals(document: Document, name: str, found: Sequence[Intervals]) -> list[Table]:
    """Coverage and width of intervals by lead time, and where windows lie in several seasons the coverage in each."""
    columns: dict[str, ByLead] = {}
    seasons: dict[str, ByLead] = {}
    for one in found:
        share = f"{100 * one.nominal:g} %:"
        columns |= {f"{share} coverage": one.coverage, f"{share} width": one.width}
        if one.adaptive is not None:
            columns |= {f"{share} adaptive": one.adaptive.coverage, f"{share} its width": one.adaptive.width}
        seasons |= {f"{share} {label}": held for label, held in (one.seasons or {}).items()}
    made = [_leads(document, f"intervals of {name}", columns)]
    return [*made, _leads(document, f"coverage of the intervals of {name} by season", seasons)] if seasons else made


def _leads(document: Document, title: str, columns: Mapping[str, ByLead]) -> Table:
    """A row for each lead time, and one for all."""
    table = _table(title, ["lead", *columns])
    for index, lead in enumerate(document.lead):
        table.add_row(lead_label(lead, document.lead_units), *[number(by.lead[index]) for by in columns.values()])
    table.add_section()
    table.add_row("all", *[number(by.overall) for by in columns.values()])
    return table


def _sharpness(document: Document, spectra: Spectra) -> Table:
    rows = {
        name: {"power below 4 cells": power, "mean gradient": spectra.gradient[name]}
        for name, power in spectra.ratio.items()
    }
    lead = lead_label(spectra.lead or 0, document.lead_units)
    return _plain_table(f"sharpness at {lead} (1: as sharp as the truth)", rows)


def _plain_table(title: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row for each forecaster."""
    columns = list(next(iter(rows.values())))
    table = _table(title, ["", *[c.replace("_", " ") for c in columns]])
    for name, row in rows.items():
        table.add_row(name, *[number(row.get(column)) for column in columns])
    return table


def _costs(models: Mapping[str, Mapping[str, Any]]) -> Table:
    """A column for each model."""
    table = _table("efficiency, batch 1 unless stated", ["", *models])
    for key in next(iter(models.values())):
        table.add_row(key.replace("_", " "), *[number(row.get(key)) for row in models.values()])
    return table


def _notes(document: Document) -> list[str]:
    score = document.skill_score
    notes = [f"skill = 1 - {score} / {score} of the reference; above 0 is better than it"]
    if document.bootstrap is not None:
        b = document.bootstrap
        notes.append(
            f"95 %: interval from {b.resamples} resamples of {b.blocks} blocks of up to {b.windows_per_block} "
            "windows; n.s.: not significantly different from 0"
        )
    elif document.skill:
        notes.append("too few independent windows for intervals")
    if document.missing.cells:
        m = document.missing
        notes.append(f"{100 * m.share:.2g} % of the values ({m.cells} of {m.of}) are missing and count in no score")
    return notes


def number(value: Any) -> str:
    """A number with four digits; large counts with separators."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or (1e5 <= abs(value) < math.inf and value == int(value)):
        return f"{int(value):,}"
    return f"{value:.4g}"


def _skill(entry: Skill, index: int | None) -> str:
    """Overall or at one lead time; what is not significant is dimmed and marked."""
    if index is None:
        value, sure = entry.overall, entry.significant is not False
    else:
        value = entry.lead[index]
        sure = entry.low is None or entry.high is None or entry.low[index] > 0 or entry.high[index] < 0
    if math.isnan(value):
        return "–"
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


def show_profile(found: Mapping[str, Sequence[float]], subject: str, machine: str) -> None:
    """Print the time of each part of a training step: seconds on the CPU and on the clock."""
    from rich.console import Console
    from rich.table import Table

    total = [sum(spent) for spent in zip(*found.values(), strict=True)]
    table = Table(title=f"{subject}\n{machine}")
    for heading in ("part of a step", "CPU ms", "share", "ms"):
        table.add_column(heading, justify="left" if heading.startswith("part") else "right")
    for part, (cpu, wall) in found.items():
        table.add_row(part, f"{1e3 * cpu:.1f}", f"{100 * cpu / total[0]:.1f} %", f"{1e3 * wall:.1f}")
    table.add_section()
    table.add_row("all", f"{1e3 * total[0]:.1f}", "100 %", f"{1e3 * total[1]:.1f}")
    Console().print(table)


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


def show_scenes(document: Mapping[str, Any]) -> None:
    """Print the scores of a model of scenes and of the simple forecasts beside it."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE)
    title = f"{document['n_scenes']} {document['split']} scenes, second view, "
    title += "no latents" if document["latents"] == "none" else "latents of the true videos"
    if document["members"]:
        title += f"; drawn, best: of {document['members']} members"
    console.print(_plain_table(title, document["scores"]))
