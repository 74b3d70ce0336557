"""The scores of an ablation as one table: mean and spread over seeds, beside the paper's."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pdr_cli.ablation import catalogue
from pdr_cli.ablation.catalogue import PAPER
from pdr_cli.ablation.scenes import COPY, STANDING_STILL, TRUTH

if TYPE_CHECKING:
    from pdr_cli.ablation.run import AblationRun

BASELINES = ("persistence", "climatology")
SIMPLE = (*BASELINES, STANDING_STILL, COPY, TRUTH)


def summary(run: AblationRun) -> dict[str, Any]:
    """For each variant mean, standard deviation and number of seeds of each score on test data.

    "change" is the relative difference of the first score from that of the first variant with the same seed.
    """
    ablation = catalogue.find(run.plan["ablation"], run.trust)
    columns = list(dict.fromkeys(c for v, s in run.cells() for c in run.result(v, s).get("test", {})))
    reference = next(iter(run.variants))
    rows = {}
    for variant in run.variants:
        runs = {seed: run.result(variant, seed) for seed in run.seeds}
        scored = {seed: entry["test"] for seed, entry in runs.items() if "test" in entry}
        row: dict[str, Any] = {c: spread([s[c] for s in scored.values() if s.get(c) is not None]) for c in columns}
        if columns and variant != reference:
            row["change"] = spread(_changes(run, scored, reference, columns[0]))
        row["failed"] = [entry["failed"] for entry in runs.values() if "failed" in entry]
        row["parameters"] = next((entry["parameters"] for entry in runs.values() if "parameters" in entry), None)
        rows[variant] = row
    baselines = run.plan.get("baselines", {}).get("test", {})
    return {
        **{
            k: run.plan.get(k)
            for k in ("ablation", "about", "preset", "steps", "seeds", "units", "windows", "examples")
        },
        **{k: run.plan.get(k) for k in ("device", "torch", "threads", "commit")},
        "columns": columns,
        "rows": rows,
        "baselines": {name: baselines[name] for name in SIMPLE if name in baselines},
        "paper_columns": ablation.columns,
        "paper": {variant.name: dict(variant.paper) for variant in ablation.variants},
    }


def _changes(run: AblationRun, scored: Mapping[int, Mapping[str, float]], reference: str, metric: str) -> list[float]:
    pairs = [
        (values[metric], run.result(reference, seed).get("test", {}).get(metric)) for seed, values in scored.items()
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
        cells = [_number(scores.get(c)) for c in document["columns"]]
        rows.append([name, "", *cells, "", *[""] * len(document["paper_columns"])])
    return headings, rows


def notes(document: Mapping[str, Any]) -> list[str]:
    """Why runs failed, one line per variant."""
    return [f"{variant}: {row['failed'][0]}" for variant, row in document["rows"].items() if row["failed"]]


def title(document: Mapping[str, Any]) -> list[str]:
    """The experiment and the machine, a line each."""
    commit = f", commit {document['commit']}" if document.get("commit") else ""
    seeds = ", ".join(map(str, document["seeds"]))
    return [
        f"{document['about']}: preset {document['preset']}, {document['steps']} steps each, seeds {seeds}, "
        f"{document['windows']} test {document.get('examples') or 'windows'}; mean ± sd over seeds",
        f"{document['device']}, torch {document['torch']}, {document['threads']} threads{commit}",
    ]


def as_markdown(document: Mapping[str, Any]) -> str:
    """The same table for a document."""
    headings, rows = table_of(document)
    ours = len(headings) - len(document["paper_columns"])
    heads = [h if i < ours else f"{h} ({PAPER})" for i, h in enumerate(headings)]
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)], *rows]
    rows_as_text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return "\n\n".join([*title(document), rows_as_text, *notes(document)])


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
    """With as many decimals as give `beside` four significant figures."""
    places = max(0, 3 - math.floor(math.log10(abs(beside)))) if beside else 4
    return f"{value:.{min(places, 6)}f}"
