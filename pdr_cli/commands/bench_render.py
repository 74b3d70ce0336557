"""`pdr bench-render`: time the renderers and print the table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from pdr_cli.bench import render
from pdr_cli.commands.tables import machine_of, publish, significant

HEADINGS = (
    "res",
    "K",
    "N",
    "C",
    "batch",
    "pass",
    "variant",
    "ms/frame",
    "p10-p90",
    "FPS",
    "x base",
    "error",
    "repeats",
)


def run(options: render.Options, output: Path | None, as_json: bool) -> int:
    """Measure and print; returns the exit code, 1 if a variant failed its check."""
    report = render.run(options)
    return publish(report, table(report, options.paper), output, as_json)


def table(report: Mapping[str, Any], paper: bool) -> Table:
    """All rows; the title says what the timings depend on."""
    result = Table(title=machine_of(report))
    for heading in (*HEADINGS, *(["A800 FPS (paper)"] if paper else [])):
        result.add_column(heading, justify="left" if heading in ("pass", "variant") else "right")
    for row in report["rows"]:
        result.add_row(*cells(row), *([significant(row["paper_a800_fps"])] if paper else []))
    return result


def cells(row: Mapping[str, Any]) -> list[str]:
    """One row as text."""
    names = ("res", "kernel_size", "gaussians", "channels", "batch", "pass", "variant")
    spread = f"{significant(row['ms_p10'])}-{significant(row['ms_p90'])}" if row["ok"] else ""
    time_per_frame = significant(row["ms_p50"]) if row["ok"] else "failed"
    error = "nan" if row["max_rel_err"] is None else f"{row['max_rel_err']:.1e}"
    ratio, repeats = significant(row["speedup_vs_base"]), str(row["repeats"] or "")
    return [*(str(row[name]) for name in names), time_per_frame, spread, significant(row["fps"]), ratio, error, repeats]
