"""`pdr bench-train`: time a training step or a forecast of each variant and print the table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from pdr_cli.bench import step
from pdr_cli.bench.step import PARTS
from pdr_cli.bench.step_setting import Options
from pdr_cli.commands.tables import machine_of, publish, significant


def run(options: Options, output: Path | None, as_json: bool) -> int:
    """Measure and print; returns the exit code, 1 if a variant failed its check."""
    report = step.run(options)
    return publish(report, table(report), output, as_json)


def table(report: Mapping[str, Any]) -> Table:
    """All rows; the title says what the timings depend on."""
    first = report["rows"][0]
    frames = f"{first['in_steps']} to {first['out_steps']} frames of {first['channels']} x "
    frames += " x ".join(map(str, first["size"]))
    subject = f"{first['preset']}, {first['backbone']}, {first['batch']} windows of {frames}"
    subject = f"forecast: {subject}" if report["forward"] else subject
    result = Table(title=f"{subject}\n{machine_of(report)}", caption=f"parts: {', '.join(PARTS)}")
    headings = (
        "variant",
        "ms/step",
        "p10-p90",
        "of plain",
        "CPU ms",
        "of plain",
        "+malloc",
        "parts %",
        "error",
        "of gradients",
        "steps",
    )
    for heading in headings:
        result.add_column(heading, justify="left" if heading == "variant" else "right")
    for row in report["rows"]:
        result.add_row(*cells(row))
    return result


def cells(row: Mapping[str, Any]) -> list[str]:
    """One row as text."""
    spread = f"{significant(row['ms_p10'])}-{significant(row['ms_p90'])}" if row["ok"] else ""
    time_per_step = significant(row["ms_p50"]) if row["ok"] else "failed"
    shares = "/".join(f"{100 * row['shares'][part]:.1f}" for part in PARTS) if row["ok"] else ""
    errors = ["nan" if e is None else f"{e:.1e}" for e in (row["max_rel_err"], row["max_rel_err_gradients"])]
    numbers = ("ratio_to_plain", "cpu_ms_p50", "cpu_ratio_to_plain", "cpu_ratio_to_plain_malloc")
    ratios = [significant(row[name]) for name in numbers]
    return [row["variant"], time_per_step, spread, *ratios, shares, *errors, str(row["repeats"] or "")]
