"""`pdr bench-render`: time the renderers and print the table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from pdr_cli.bench import compose, render
from pdr_cli.commands.tables import machine_of, publish, significant
from pdr_cli.errors import UsageError, did_you_mean

COMMON = ("gaussians", "channels", "batch", "pass", "variant")
NAMES = {"render": ("kernel_size", *COMMON), "compose": COMMON}
HEADINGS = {"kernel_size": "K", "gaussians": "N", "channels": "C"}
BASELINES = {"render": "base", "compose": "reference"}


def run(options: render.Options, output: Path | None, as_json: bool) -> int:
    """Measure and print; returns the exit code, 1 if a variant failed its check.

    Raises:
        UsageError: an unknown kind, or options that cannot be measured.
    """
    if options.kind not in NAMES:
        found = f"--kind {options.kind!r} is not known.{did_you_mean(options.kind, NAMES)}"
        raise UsageError(found, f"one of {', '.join(NAMES)}")
    report = (compose if options.kind == "compose" else render).run(options)
    return publish(report, table(report, options.kind, options.paper), output, as_json)


def table(report: Mapping[str, Any], kind: str, paper: bool) -> Table:
    """All rows; the title says what the timings depend on."""
    result = Table(title=machine_of(report))
    headings = ["frame"] + [HEADINGS.get(name, name) for name in NAMES[kind]]
    headings += ["ms/frame", "p10-p90", "FPS", f"x {BASELINES[kind]}", "CPU ms", "CPU x", "error", "repeats"]
    for heading in (*headings, *(["A800 FPS (paper)"] if paper else [])):
        result.add_column(heading, justify="left" if heading in ("pass", "variant") else "right")
    for row in report["rows"]:
        result.add_row(*cells(row, kind), *([significant(row["paper_a800_fps"])] if paper else []))
    return result


def cells(row: Mapping[str, Any], kind: str) -> list[str]:
    """One row as text."""
    spread = f"{significant(row['ms_p10'])}-{significant(row['ms_p90'])}" if row["ok"] else ""
    time_per_frame = significant(row["ms_p50"]) if row["ok"] else "failed"
    error = "nan" if row["max_rel_err"] is None else f"{row['max_rel_err']:.1e}"
    ratio = f"speedup_vs_{BASELINES[kind]}"
    subject = [f"{row['width']}x{row['height']}", *(str(row[name]) for name in NAMES[kind])]
    cpu = [significant(row["cpu_ms_p50"]), significant(row[f"cpu_{ratio}"])]
    elapsed = [time_per_frame, spread, significant(row["fps"]), significant(row[ratio])]
    return [*subject, *elapsed, *cpu, error, str(row["repeats"] or "")]
