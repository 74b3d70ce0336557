"""Everything needed to go on exactly where a run stopped, in one file that is replaced atomically."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import nn

from pdr_cli.errors import CheckpointError, InputNotFoundError
from pdr_cli.runs import modelfile
from pdr_cli.runs.folder import RunFolder
from pdr_cli.system import atomic, damage
from pdr_cli.system.logs import log

FORMAT_VERSION = 2  # 2: with a SHA-256


@dataclass
class Position:
    """How far a run has come."""

    step: int = 0
    elapsed: float = 0.0
    best_loss: float = float("inf")
    best_step: int = 0


def save(run: RunFolder, position: Position, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write position, weights, optimiser and random state; what was saved before stays as the previous state."""
    tensors = {f"network.{k}": v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    for number, entries in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{k}": v.detach().cpu().contiguous() for k, v in entries.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    header = {"position": json.dumps(asdict(position)), "format_version": str(FORMAT_VERSION)}
    run.state.parent.mkdir(exist_ok=True)
    atomic.keep_previous(run.state, run.previous_state)
    atomic.write_bytes(run.state, serialise(tensors, header | {"sha256": modelfile.digest(tensors, header)}))


def load(
    run: RunFolder, network: nn.Module, optimizer: torch.optim.Optimizer, which: Literal["last", "last-1"] = "last"
) -> Position:
    """Restore what `save` wrote into a network and optimiser built alike; the state before, if the last is damaged.

    Raises:
        InputNotFoundError: there is no state to resume from.
        CheckpointError: the file is damaged and there is none before it, or it is of another model.
    """
    path = run.previous_state if which == "last-1" else run.state
    if not path.is_file():
        raise InputNotFoundError(f"nothing to resume: {path} is not there; start the run without --resume")
    try:
        position, tensors = read(path)
    except CheckpointError as error:
        if which == "last-1" or not run.previous_state.is_file():
            raise
        position, tensors = read(run.previous_state)
        log.warning("%s; going on from the state before it, of step %d", error, position.step)
    _restore(path, tensors, network, optimizer)
    return position


def read(path: Path) -> tuple[Position, dict[str, torch.Tensor]]:
    """A state's position and tensors, if they are what was written.

    Raises:
        CheckpointError: truncated, altered or too new.
    """
    with damage.reading(path, CheckpointError):
        return _read(path)


def _read(path: Path) -> tuple[Position, dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as handle:
            header = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - no mapping
        position = Position(**json.loads(header["position"]))
        version = int(header.get("format_version", 1))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be resumed from: it is truncated or no state ({error})") from error
    if version > FORMAT_VERSION:
        raise CheckpointError(f"{path} has format {version}, this pdr reads up to {FORMAT_VERSION}; upgrade pdr-cli")
    for older in range(version, FORMAT_VERSION):
        header = MIGRATIONS[older](header, tensors)
    if header["sha256"] != modelfile.digest(tensors, header):
        raise CheckpointError(f"{path} cannot be resumed from: its contents differ from its SHA-256; it is damaged")
    return position, tensors


def _restore(
    path: Path, tensors: dict[str, torch.Tensor], network: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    try:
        network.load_state_dict(_under(tensors, "network."))
    except RuntimeError as error:
        raise CheckpointError(f"{path} cannot be resumed from: {error}") from error
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in _under(tensors, "optimizer.").items():
        number, key = name.split(".", 1)
        moments.setdefault(int(number), {})[key] = _laid_out_like(parameters[int(number)], tensor)
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])


def _give_a_hash(header: dict[str, str], tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    """Format 1 to 2: theirs is taken as it is."""
    return header | {"sha256": modelfile.digest(tensors, header)}


# What makes a state of one format one of the next.
MIGRATIONS = {1: _give_a_hash}


def _laid_out_like(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` in the memory layout of its parameter: the fused optimiser walks both as flat memory."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
