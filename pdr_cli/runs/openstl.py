"""Files of weights that the OpenSTL toolbox has written."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pdr_cli.errors import CheckpointError, InputNotFoundError
from pdr_cli.models.openstl import tensors_of
from pdr_cli.system import damage, hashes


def load_openstl(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a .pth or .ckpt file, by the names that `from_openstl` takes. No code in the file is executed.

    Raises:
        InputNotFoundError: the file does not exist.
        CheckpointError: the file is damaged, or holds more than weights.
    """
    return read_openstl(Path(path))[0]


def read_openstl(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors as from `load_openstl`, and the SHA-256 of the bytes that were parsed."""
    if not path.is_file():
        raise InputNotFoundError(f"no weights in {path}: the file does not exist")
    with damage.reading(path, CheckpointError):
        content = path.read_bytes()
    return _parsed(content, path), hashes.sha256_of(content)


def _parsed(file: bytes, path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(io.BytesIO(file), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, str(error)) from error
    except damage.FAILURES as error:
        raise CheckpointError(f"{path} is not a PyTorch file, or is damaged: {damage.first_line(error)}") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}", "a state dict, names to tensors")
    try:
        return tensors_of(content)
    except CheckpointError as error:
        raise error.at(path) from error


def _refused(path: Path, message: str) -> CheckpointError:
    """The error for a file that torch does not read as weights alone; its message names the class that it would need."""
    needed = re.search(r"GLOBAL (\S+)", message)
    if needed is None:
        return CheckpointError(f"{path} is not a PyTorch file, or is damaged: {message.splitlines()[-1]}")
    return CheckpointError(
        f"{path} needs {needed[1]}, which is code",
        "a file of weights only",
        "save the weights alone where it was written: torch.save(model.state_dict(), 'weights.pth')",
    )
