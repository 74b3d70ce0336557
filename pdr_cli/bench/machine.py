"""What a timing depends on, and how timings are taken and checked on a shared machine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pdr_cli.errors import UsageError
from pdr_cli.system.devices import cpu_name


def describe(device: torch.device) -> dict[str, Any]:
    """Device, torch version, threads and commit, which a timing depends on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    report = {"device": name, "torch": str(torch.__version__), "threads": torch.get_num_threads()}
    commit = checkout_commit()
    return report | ({"commit": commit} if commit else {})


def checkout_commit() -> str | None:
    """The commit of the checkout that tracks this file, marked if files have changed; None without a checkout."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # an installed package may lie inside another project's checkout
        return git("describe", "--always", "--dirty", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def at_least(name: str, value: int, lowest: int = 1) -> None:
    """Refuse an option's value below `lowest`.

    Raises:
        UsageError: names the option.
    """
    if value < lowest:
        raise UsageError(f"--{name.replace('_', '-')} {value}", f"at least {lowest}")


@contextmanager
def threads_set(count: int | None) -> Iterator[None]:
    """Let torch use `count` CPU threads inside the block; None: as many as before."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count or before)
        yield
    finally:
        torch.set_num_threads(before)
