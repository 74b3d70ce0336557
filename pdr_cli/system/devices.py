"""The device that computes, and in which precision: chosen by name, never replaced silently."""

from __future__ import annotations

import contextlib
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdr_cli.errors import DeviceError, UsageError
from pdr_cli.system.imports import uncollected
from pdr_cli.system.logs import log

if TYPE_CHECKING:
    import torch

PRECISIONS = ("fp32", "bf16")  # of the arithmetic of networks
BF16 = {"avx512_bf16", "amx_bf16", "bf16"}  # Linux's names of instructions for it, on x86 and Arm
CPUINFO = Path("/proc/cpuinfo")


def pick(name: str) -> torch.device:
    """The torch device named "auto", "cpu" or "cuda[:N]".

    Raises:
        UsageError: another name.
        DeviceError: a GPU that torch does not see.
    """
    torch = _torch()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        raise UsageError(f"--device {name}", "auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        found = f"{count} GPU{'s' if count != 1 else ''}" if count else "no GPU"
        way_out = "use --device cpu"
        raise DeviceError(f"--device {name}: this torch ({torch.__version__}) sees {found}", way_out=way_out)
    return torch.device("cuda", int(number or 0))


def check_precision(name: str, device: torch.device) -> None:
    """Refuse an arithmetic of networks that is not "fp32" or "bf16", and warn of one that a processor has to emulate.

    Raises:
        UsageError: another name.
        DeviceError: a GPU that does not compute in bf16.
    """
    if name not in PRECISIONS:
        raise UsageError(f"--precision {name}", " or ".join(PRECISIONS))
    if name != "bf16" or computes_bf16(device):
        return
    if device.type == "cuda":
        found = f"--precision bf16: {_torch().cuda.get_device_name(device)} does not compute in it"
        raise DeviceError(found, way_out="leave it out, or use --device cpu")
    log.warning("this processor has no instructions for bf16, and fp32 may be several times faster")


def computes_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16. Processors are asked on Linux alone: elsewhere none is known to."""
    if device.type == "cuda":
        return bool(_torch().cuda.is_bf16_supported(including_emulation=False))
    return not BF16.isdisjoint(_told("flags", "Features"))


def cpu_name() -> str:
    """The processor's model name, where the system gives one."""
    return " ".join(_told("model name")) or platform.processor() or platform.machine()


def _told(*keys: str) -> list[str]:
    """The words that Linux says of the first processor under one of these keys; none elsewhere."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    pairs = (line.partition(":") for line in lines)
    return next((said.split() for key, _, said in pairs if key.strip() in keys), [])


def _torch() -> Any:
    """torch."""
    with contextlib.nullcontext() if "torch" in sys.modules else uncollected():
        import torch
    return torch
