"""Programs of torch.export, read without running code of their file: torch's own reader unpickles parts of it."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import torch

from pdr_cli.errors import CheckpointError
from pdr_cli.system.damage import first_line

KNOWN = (
    "data/weights/",
    "data/constants/",
    "data/sample_inputs/",
    "models/",
    "extra/",
    "archive_",
    ".data/",
    "byteorder",
    "version",
)


def load(content: bytes, path: Path) -> torch.nn.Module:
    """The module of a program.

    Args:
        content: of the file.
        path: of the file, for messages.

    Raises:
        CheckpointError: parts that only code of the file could read, or not a program of this torch.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            if why := _pickled(name.partition("/")[2], archive.read(name)):
                raise CheckpointError(f"{path}: {name} {why}, and reading it could run code; it was not read")
    try:
        return torch.export.load(io.BytesIO(content)).module()
    except Exception as error:  # whatever fails in torch's deserialiser, the file is the cause
        raise CheckpointError(f"{path}: torch {torch.__version__} cannot run it: {first_line(error)}") from error


def _pickled(name: str, entry: bytes) -> str:
    """Why torch would read an entry of the archive by more than copying numbers; "" if it would not."""
    if not name.startswith(KNOWN):
        return "is of no kind that pdr writes"
    if name.startswith(("data/weights/", "data/constants/")) and name.endswith(".pt"):
        return "is of the old format"
    if name.endswith("_config.json"):
        parts = json.loads(entry)["config"].values()
        odd = [p for p in parts if p["use_pickle"] or p["path_name"].startswith(("custom_obj", "opaque_obj"))]
        return "names pickled parts" if odd else ""
    if name.startswith("data/sample_inputs/"):
        try:
            _: Any = torch.load(io.BytesIO(entry), weights_only=True)
        except Exception as error:  # torch would go on to unpickle what this refuses
            return f"holds objects ({first_line(error)})"
    return ""
