"""Everything needed to go on exactly where a run stopped, in one file that is replaced atomically."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import nn

from pdr_cli import files
from pdr_cli.errors import CheckpointError, InputNotFoundError


@dataclass
class Position:
    """How far a run has come."""

    step: int = 0
    elapsed: float = 0.0
    best_loss: float = float("inf")
    best_step: int = 0


def save(path: Path, position: Position, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write position, weights, optimiser and random state."""
    tensors = {f"network.{k}": v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    for number, entries in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{k}": v.detach().cpu().contiguous() for k, v in entries.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    path.parent.mkdir(exist_ok=True)
    files.write_bytes(path, serialise(tensors, {"position": json.dumps(asdict(position))}))


def load(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> Position:
    """Restore what `save` wrote into a network and optimiser built alike.

    Raises:
        InputNotFoundError: there is no state to resume from.
        CheckpointError: the file is damaged or of another model.
    """
    if not path.is_file():
        raise InputNotFoundError(f"nothing to resume: {path} is not there; start the run without --resume")
    try:
        with safe_open(path, framework="pt") as handle:
            position = Position(**json.loads(handle.metadata()["position"]))
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - no mapping
        network.load_state_dict(_under(tensors, "network."))
    except (SafetensorError, OSError, KeyError, TypeError, RuntimeError) as error:
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
    return position


def _laid_out_like(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` in the memory layout of its parameter: the fused optimiser walks both as flat memory."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
