"""`pdr presets`: list them, print one to copy, or the schema that editors check one with."""

from __future__ import annotations

import json

from pdr_cli import config
from pdr_cli.errors import UsageError


def run(name: str | None, schema: bool) -> None:
    """Print one preset as it is on disk, the schema of all, or a table of them.

    Raises:
        UsageError: a name and the schema.
    """
    if schema:
        if name is not None:
            raise UsageError(f"presets {name} --schema", way_out="leave out the name: all presets have one schema")
        print(json.dumps(config.schema(), indent=2, ensure_ascii=False))
        return
    if name is not None:
        print(config.preset_path(name).read_text(encoding="utf-8"), end="")
        return
    _table()


def _table() -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("preset", "kind", "frames", "what it is"):
        table.add_column(title, overflow="fold")
    for preset in config.preset_names():
        loaded = config.load(preset)
        first_line = config.preset_path(preset).read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        table.add_row(preset, loaded.data.kind, f"{loaded.data.in_steps} → {loaded.data.out_steps}", first_line)
    Console().print(table)
