"""The input files of a training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pdr_cli.config import Config
from pdr_cli.data import formats
from pdr_cli.errors import InputNotFoundError


def for_training(config: Config) -> list[Path]:
    """The files that `data.paths` names: absolute ones, or else the first glob that finds any under $PDR_DATA.

    Raises:
        InputNotFoundError: none there; says which files are wanted, in which layout and where they are published.
    """
    if all(os.path.isabs(p) for p in config.data.paths):
        return formats.find_inputs(config.data.paths)
    root = Path(os.environ.get("PDR_DATA", "data"))
    for pattern in config.data.paths:
        matches = sorted(root.glob(pattern))
        found = [p for p in matches if p.is_file()] or _inside(matches)
        if found:
            return found
    raise InputNotFoundError(
        f"preset {config.preset} found no {' or '.join(config.data.paths)} under {root}/ ($PDR_DATA). It wants "
        f"{config.data.layout}. Published: {config.data.source}. Or name your own files with --data"
    )


def _inside(folders: Sequence[Path]) -> list[Path]:
    """What folders hold; nothing, where they hold no data."""
    try:
        return formats.find_inputs(folders)
    except InputNotFoundError:
        return []
