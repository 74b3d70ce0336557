"""`metrics.jsonl`: one JSON object a line for each logged step, each validation and the end of a run."""

from __future__ import annotations

import json
from typing import Any

from pdr_cli.runs.folder import RunFolder
from pdr_cli.system import atomic, space


def append(run: RunFolder, event: str, **values: Any) -> None:
    """Add a line.

    Raises:
        StorageError: the file system refused it.
    """
    with space.storage_errors(run.metrics), run.metrics.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"event": event, **values}) + "\n")


def keep_until(run: RunFolder, step: int) -> None:
    """Drop the lines after `step`, the line of a finished run, and a last line that was cut short."""
    lines = run.metrics.read_text(encoding="utf-8").splitlines() if run.metrics.is_file() else []
    kept = [line for line in lines if _is_until(line, step)]
    atomic.write_text(run.metrics, "".join(line + "\n" for line in kept))


def _is_until(line: str, step: int) -> bool:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return False
    return bool(entry["step"] <= step and entry["event"] != "finished")
