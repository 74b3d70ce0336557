"""Files of weights that the OpenSTL toolbox has written."""

from __future__ import annotations

import io
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdr_cli.errors import CheckpointError, InputNotFoundError
from pdr_cli.models.openstl import tensors_of
from pdr_cli.system import damage, hashes

SAFETENSORS = ".safetensors"


class Dictionary:
    """Stands for a class of dictionaries, or of objects whose state is one."""

    def __new__(cls, *_: object, **__: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        """The only class beside `dict` to which the unpickler of torch adds entries."""
        return OrderedDict()


class Thing:
    """Stands for any other class: takes any arguments and any state, and keeps nothing."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


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
        content = _safetensors(file) if path.suffix.lower() == SAFETENSORS else _unpickled(file)
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


def _unpickled(file: bytes) -> Any:
    """The content of a PyTorch file. Objects of classes that torch does not trust become empty ones, and no code of theirs runs.

    Such objects are the settings and callbacks that Lightning and others save beside the weights. Some are dictionaries.
    """
    classes = _classes(file)
    try:
        return _with(file, dict.fromkeys(classes, Dictionary))
    except (pickle.UnpicklingError, TypeError, ValueError):
        return _with(file, {name: type(name.rpartition(".")[2], (Thing,), {}) for name in classes})


def _with(file: bytes, stand_ins: Mapping[str, type]) -> Any:
    """The content of a PyTorch file, with these classes in place of others."""
    allowed: list[Any] = [(stand_in, name) for name, stand_in in stand_ins.items()]
    with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
        warnings.simplefilter("ignore")  # of archives and protocols that are refused, or read all the same
        return torch.load(io.BytesIO(file), map_location="cpu", weights_only=True)


def _classes(file: bytes) -> list[str]:
    """Names of the classes and functions in a file that torch does not trust; none of files of old formats."""
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(file))
    except (ValueError, RuntimeError):
        return []


def _safetensors(file: bytes) -> dict[str, Tensor]:
    from safetensors.torch import load

    return load(file)


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
