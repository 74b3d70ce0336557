"""`pdr models`: the models that -m can name: the runs of this folder, and those that come with pdr."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pdr_cli.data.units import quantities
from pdr_cli.errors import PdrError
from pdr_cli.runs import folder as runs
from pdr_cli.runs import modelfile
from pdr_cli.runs.folder import RunFolder
from pdr_cli.system.logs import log
from pdr_cli.system.names import printable

COLUMNS = ("model", "kind", "forecasts", "grid", "frames", "trained", "size")


def run(as_json: bool) -> None:
    """Print a table of the models, or as JSON all that is said of them."""
    found = list(listed())
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in COLUMNS:
        table.add_column(title, overflow="fold")
    for one in found:
        table.add_row(*(Text(str(one[title])) for title in COLUMNS))  # units are no markup
    Console().print(table)


def listed() -> Iterator[dict[str, Any]]:
    """What is said of each model, the newest run first."""
    own = sorted(map(RunFolder, runs.trained()), key=lambda run: run.model.stat().st_mtime, reverse=True)
    for run in [*own, *map(RunFolder, runs.demos())]:
        try:
            yield described(run)
        except PdrError as error:
            log.warning("%s is left out: %s", run.path, error)


def described(run: RunFolder) -> dict[str, Any]:
    """What is said of a run's model.

    Raises:
        CheckpointError: its file is damaged.
    """
    header = modelfile.read_header(run.model)
    card, data = header.card, header.card.config.data
    named = runs.label_of(run.model)
    return {
        "model": named if runs.is_demo(run.model) else printable(run.path.name),
        "kind": card.kind,
        "forecasts": ", ".join(quantities(card.variables)),
        "grid": f"{card.size[0]} x {card.size[1]}",
        "frames": f"{data.in_steps} → {data.out_steps}, every {card.step}",
        "preset": card.config.preset,
        "trained": str(card.training.get("created", ""))[:10],
        "size": f"{run.model.stat().st_size / 1e6:.1f} MB",
        "path": str(run.model),
        "sha256": header.sha256,
    }
