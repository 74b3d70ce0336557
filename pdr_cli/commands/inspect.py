"""`pdr inspect`: print what a file holds, and whether a preset or a model can use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pdr_cli.commands import tables
from pdr_cli.data.formats import ReadOptions
from pdr_cli.errors import DataError
from pdr_cli.inspection import files, fitness


def run(path: Path, *, preset: str | None, reading: ReadOptions, as_json: bool) -> None:
    """Print a report of a data file, a folder of clips, or a model.

    Raises:
        DataError: the file cannot be used at all, or not by what `--for` names.
    """
    report = files.of(path, reading)
    if preset is not None:
        report |= fitness.of(path, preset, reading)
    if as_json:
        print(json.dumps(report, default=str))
    else:
        _print(report)
    if preset is not None and report["fits"]["usable"] != "yes":
        raise DataError(f"{preset} cannot use {path}: {report['fits']['finding']}")


def _print(report: dict[str, Any], indent: int = 0) -> None:
    for key, value in report.items():
        pad = "  " * indent
        if key == "findings":
            print(key)
            tables.show_findings(value)
        elif isinstance(value, dict):
            print(f"{pad}{key}")
            _print(value, indent + 1)
        elif isinstance(value, list) and value and not isinstance(value[0], dict):
            print(f"{pad}{key:<12} {', '.join(map(str, value))}")
        elif isinstance(value, list):
            shown = value if len(value) <= 4 else [value[0], value[-1]]
            for entry in shown:
                print(
                    f"{pad}{key}"
                    + (f" (first and last of {len(value)})" if shown is not value and entry is value[0] else "")
                )
                _print(entry, indent + 1)
        else:
            print(f"{pad}{key:<12} {value}")
