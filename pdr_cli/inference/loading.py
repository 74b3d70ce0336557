"""Loading of any model: its own file, which torch runs, or an exported program."""

from __future__ import annotations

from pathlib import Path

from pdr_cli.inference import exported, model
from pdr_cli.inference.loaded import FP32, LoadedModel
from pdr_cli.runs import programs
from pdr_cli.trust import Trust


def load(
    path: Path,
    device: str = "auto",
    batch: int | None = None,
    trust: Trust | None = None,
    precision: str = FP32,
) -> LoadedModel:
    """Load a model file or an exported program; arguments and errors as of `model.load` and `exported.load`."""
    if programs.is_program(path):
        return exported.load(path, device, batch, precision)
    return model.load(path, device, batch, trust, precision)
