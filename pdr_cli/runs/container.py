"""Safetensors files: their text, their tensors, and single arrays read without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pdr_cli.errors import CheckpointError, UsageError
from pdr_cli.runs import programs

if TYPE_CHECKING:
    import torch

FOREIGN = (".pth", ".pt", ".ckpt")  # weights of other programs
DTYPES = {"F32": "<f4", "F64": "<f8"}  # of arrays, as safetensors names them


def model_content_of(path: Path) -> bytes:
    """The bytes of a model file.

    Raises:
        UsageError: an exported program.
    """
    if programs.is_program(path):
        raise UsageError(
            f"{path} is an exported program, which only forecasts", way_out="name the model that it was exported from"
        )
    return content_of(path)


def content_of(path: Path) -> bytes:
    """The bytes of a model file or a program."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read as a model file: {error.strerror}") from error


def tensors_of(content: bytes, path: Path) -> dict[str, torch.Tensor]:
    """All tensors, by name."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except SafetensorError as error:
        raise _not_a_model(path, len(content), error) from error


def text_of(content: bytes, path: Path) -> dict[str, str]:
    """The text part of a safetensors file: 8 bytes of length, JSON, then the tensors, whose ends the JSON names."""
    begin = 8 + int.from_bytes(content[:8], "little")
    try:
        entries = json.loads(content[8:begin])
        header: dict[str, str] = entries.pop("__metadata__", {})
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise _not_a_model(path, len(content), error) from error
    if begin + end != len(content):
        raise _not_a_model(path, len(content), f"its header describes {begin + end} bytes")
    if "pdr" not in header:
        raise CheckpointError(f"{path} is a safetensors file, but not a pdr model: its header has no model card")
    return header


def is_foreign(path: Path) -> bool:
    """True for a safetensors file of another program: its header has no model card."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if path.suffix.lower() != ".safetensors" or length > path.stat().st_size:
            return False
        try:
            return "pdr" not in json.loads(stream.read(length)).get("__metadata__", {})
        except (ValueError, AttributeError):
            return False


def _not_a_model(path: Path, size: int, found: object) -> CheckpointError:
    way_out = "weights of OpenSTL are read by pdr train --init-from" if path.suffix.lower() in FOREIGN else ""
    return CheckpointError(f"{path} ({size} bytes) is truncated or not a model file: {found}", way_out=way_out)


def arrays_of(content: bytes) -> dict[str, np.ndarray]:
    """All tensors of a file that holds `DTYPES` alone, by name, read without torch."""
    begin = 8 + int.from_bytes(content[:8], "little")
    found = {name: array_of(content, name) for name in json.loads(content[8:begin]) if name != "__metadata__"}
    return {name: array for name, array in found.items() if array is not None}


def array_of(content: bytes, name: str) -> np.ndarray | None:
    """A tensor of a model file, read without torch; None if the file has none of this name."""
    begin = 8 + int.from_bytes(content[:8], "little")
    entry = json.loads(content[8:begin]).get(name)
    if entry is None:
        return None
    low, high = (begin + offset for offset in entry["data_offsets"])
    return np.frombuffer(content[low:high], DTYPES[entry["dtype"]]).reshape(entry["shape"])
