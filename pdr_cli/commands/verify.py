"""`pdr verify`: print whether a forecast or a model is sound."""

from __future__ import annotations

import json
from pathlib import Path

from pdr_cli.commands import tables
from pdr_cli.inspection import soundness


def run(path: Path, as_json: bool) -> None:
    """Print every finding.

    Raises:
        InputNotFoundError: no such file.
        CheckpointError, DataError: a problem was found.
    """
    subject, found = soundness.of(path)
    rows = [f.row() for f in found]
    if as_json:
        sound = all(f.level != "problem" for f in found)
        print(json.dumps({"file": str(path), "kind": subject, "sound": sound, "findings": rows}))
    else:
        tables.show_findings(rows)
    soundness.refuse(path, subject, found)
