"""`pdr presets`: list them, or print one to copy."""

from __future__ import annotations

from pdr_cli import config


def run(name: str | None) -> None:
    """Print one preset as it is on disk, or a table of all."""
    if name is not None:
        print(config.preset_path(name).read_text(encoding="utf-8"), end="")
        return
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
