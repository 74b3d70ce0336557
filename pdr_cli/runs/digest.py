"""The checksum of a model file's tensors and header."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def digest(tensors: Mapping[str, torch.Tensor | np.ndarray], header: Mapping[str, str]) -> str:
    """SHA-256 of tensors, their names, types and shapes, and of a header without its own hash."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        kind, content = _bytes_of(tensors[name])
        found.update(f"{name} {kind} {tuple(tensors[name].shape)}".encode())
        found.update(content)
    for key in sorted(header.keys() - {"sha256"}):
        found.update(f"{key} {header[key]}".encode())
    return found.hexdigest()


def _bytes_of(tensor: torch.Tensor | np.ndarray) -> tuple[str, bytes]:
    """The name of a tensor's type and its bytes; NumPy lacks bfloat16 and float8."""
    if isinstance(tensor, np.ndarray):
        return str(tensor.dtype), np.ascontiguousarray(tensor).tobytes()
    import torch

    try:
        array = np.ascontiguousarray(tensor.numpy())
    except TypeError:
        return str(tensor.dtype), tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return str(array.dtype), array.tobytes()
