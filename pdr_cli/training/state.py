"""The state from which a run continues exactly where it stopped, in one file that is replaced atomically."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import nn

from pdr_cli.errors import CheckpointError, InputNotFoundError
from pdr_cli.runs import modelfile
from pdr_cli.runs.folder import RunFolder
from pdr_cli.runs.tensors import of as of_network
from pdr_cli.runs.tensors import restore as restore_network
from pdr_cli.system import atomic, damage
from pdr_cli.system.logs import log
from pdr_cli.system.scratch import plainly_named
from pdr_cli.training.averages import Average
from pdr_cli.training.randomness import Randomness
from pdr_cli.training.ranks import ALONE, Ranks

# 2: with a SHA-256. 3: with the halving of a batch. 4: with CPU time, averages and the scores of the anchor
FORMAT_VERSION = 4
NETWORK = "network."  # names of the weights among the tensors of a state


@dataclass
class Position:
    """Progress of a run.

    Args:
        step: optimiser steps done.
        elapsed: seconds of training.
        cpu: CPU seconds of training, user and system, on all threads of the process; 0 in states of format 1 to 3.
        best_loss: lowest validation loss.
        best_step: the step of the lowest validation loss.
        best_rmse: of each channel, of the model with the lowest validation loss, in network units.
        at_once: windows in a pass of the network after a halving, which changes the means of batch norms; None: all
            windows of a batch, and in states of format 1 and 2.
        validated: the step of the last validation; -1: none yet, and in states of format 1 to 3.
        anchor_loss: validation loss of the anchor alone; NaN: not computed, and without an anchor.
        anchor_rmse: of each channel, of the anchor alone, in network units.
        anchor_alone: True if the saved model is the anchor alone.
    """

    step: int = 0
    elapsed: float = 0.0
    cpu: float = 0.0
    best_loss: float = float("inf")
    best_step: int = 0
    best_rmse: list[float] = field(default_factory=list)
    at_once: int | None = None
    validated: int = -1
    anchor_loss: float = float("nan")
    anchor_rmse: list[float] = field(default_factory=list)
    anchor_alone: bool = False


@dataclass(frozen=True)
class Parts:
    """What a state keeps beside the position of a run."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    randomness: Randomness
    average: Average

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of it, by names that differ."""
        tensors = {NETWORK + k: v for k, v in of_network(self.network).items()}
        for number, entries in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{k}": v.detach().cpu().contiguous() for k, v in entries.items()}
        return tensors | self.average.tensors() | self.randomness.tensors()


def save(run: RunFolder, position: Position, parts: Parts) -> None:
    """Write position, weights, their averages, optimiser and random state; the saved state stays as the previous one."""
    write(run, position, parts.tensors())


def write(run: RunFolder, position: Position, tensors: dict[str, torch.Tensor]) -> None:
    """Write position and tensors, named as those of `Parts`; the saved state stays as the previous one."""
    header = {"position": json.dumps(asdict(position)), "format_version": str(FORMAT_VERSION)}
    run.state.parent.mkdir(parents=True, exist_ok=True)
    atomic.keep_previous(run.state, run.previous_state)
    atomic.write_bytes(run.state, serialise(tensors, header | {"sha256": modelfile.digest(tensors, header)}))


Found = tuple[Path, Position, dict[str, torch.Tensor]]


def load(run: RunFolder, parts: Parts, which: Literal["last", "last-1"] = "last", ranks: Ranks = ALONE) -> Position:
    """Restore a saved state into parts of the same kind; the previous state if the last is damaged.

    Of several ranks the first one reads it, for any number of ranks.

    Raises:
        InputNotFoundError: the run has no saved state.
        CheckpointError: the file is damaged and has no previous one, or it is of another model.
    """
    path, position, tensors = ranks.processes.once(lambda: _find(run, which))
    _restore(path, tensors, parts.network, parts.optimizer)
    parts.average.restore(tensors)
    parts.randomness.restore(tensors)
    return position


def _find(run: RunFolder, which: Literal["last", "last-1"]) -> Found:
    path = run.previous_state if which == "last-1" else run.state
    if not path.is_file():
        raise InputNotFoundError(f"{path} does not exist", way_out="start the run without --resume")
    try:
        position, tensors = read(path)
    except CheckpointError as error:
        if which == "last-1" or not run.previous_state.is_file():
            raise
        path = run.previous_state
        position, tensors = read(path)
        log.warning("%s; continuing from the previous state, of step %d", error, position.step)
    return path, position, tensors


def read(path: Path) -> tuple[Position, dict[str, torch.Tensor]]:
    """Position and tensors of a saved state, checked.

    Raises:
        CheckpointError: truncated, altered or too new.
    """
    with damage.reading(path, CheckpointError):
        header, tensors = _read(path)
        for older in range(_version(header, path), FORMAT_VERSION):
            header = MIGRATIONS[older](header, tensors)
        if header["sha256"] != modelfile.digest(tensors, header):
            raise CheckpointError(f"{path} cannot be resumed from: its contents differ from its SHA-256; it is damaged")
        return Position(**json.loads(header["position"])), tensors


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    try:
        with safe_open(plainly_named(path), framework="pt") as handle:
            header = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be resumed from: it is truncated or not a state ({error})") from error
    if "position" not in header:
        raise CheckpointError(f"{path} cannot be resumed from: it is not a state of a run")
    return header, tensors


def _version(header: dict[str, str], path: Path) -> int:
    version = int(header.get("format_version", 1))
    if version > FORMAT_VERSION:
        found = f"{path} has format {version}, this pdr reads up to {FORMAT_VERSION}"
        raise CheckpointError(found, way_out="upgrade pdr-cli")
    return version


def _restore(
    path: Path, tensors: dict[str, torch.Tensor], network: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    try:
        restore_network(network, _under(tensors, NETWORK))
    except RuntimeError as error:
        raise CheckpointError(f"{path} cannot be resumed from: {error}") from error
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in _under(tensors, "optimizer.").items():
        number, key = name.split(".", 1)
        moments.setdefault(int(number), {})[key] = _laid_out_like(parameters[int(number)], tensor)
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def _add_hash(header: dict[str, str], tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    """Format 1 to 2: states of format 1 are not checked."""
    return header | {"sha256": modelfile.digest(tensors, header)}


def _keep(header: dict[str, str], tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    """Format 2 to 3, and 3 to 4: the position has new keys, whose defaults are their meaning in the format before."""
    return header


# From the header of each format to that of the next.
MIGRATIONS = {1: _add_hash, 2: _keep, 3: _keep}


def _laid_out_like(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` in the memory layout of its parameter, because the fused optimiser walks both as flat memory."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
