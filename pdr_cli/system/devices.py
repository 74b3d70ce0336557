"""Which device computes: asked for by name, never replaced silently."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdr_cli.errors import DeviceError, UsageError

if TYPE_CHECKING:
    import torch


def pick(name: str) -> torch.device:
    """The torch device that `auto`, `cpu` or `cuda[:N]` names.

    Raises:
        UsageError: another word.
        DeviceError: a GPU that is not there.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        raise UsageError(f"--device {name}: use auto, cpu, cuda or cuda:N")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= there:
        found = f"{there} GPU{'s' if there != 1 else ''}" if there else "no GPU"
        raise DeviceError(f"--device {name}: this torch ({torch.__version__}) sees {found}; use --device cpu")
    return torch.device("cuda", int(number or 0))
