"""Pretrained weights of the networks in losses, scores and analyses; the user provides the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from pdr_cli.errors import CheckpointError, InputNotFoundError


def load(network: nn.Module, path: Path, what: str) -> None:
    """Load the weights of a safetensors file into a network, in evaluation mode and without gradients.

    Args:
        network: its state dict has exactly the names and shapes that the file must have.
        path: the file.
        what: name of the network, for messages.

    Raises:
        InputNotFoundError: no such file.
        CheckpointError: not a safetensors file, or a weight that is missing, of another shape, not finite, or unknown.
    """
    weights, wanted = _read(path, what), network.state_dict()
    for name, values in wanted.items():
        _check(weights, name, values.shape, path, what)
    for name in weights:
        if name not in wanted:
            raise CheckpointError(
                f"{path} has {name}", f"only the weights of {what}", "check that it is the right file"
            )
    network.load_state_dict(weights)
    network.eval().requires_grad_(False)


def _read(path: Path, what: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputNotFoundError(f"{path}: no such file", f"the weights of {what} as a safetensors file")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a safetensors file, or is truncated: {error}") from error


def _check(weights: Mapping[str, Tensor], name: str, shape: Sequence[int], path: Path, what: str) -> None:
    """Refuse a weight that is missing, of another shape or not finite."""
    if name not in weights:
        held = ", ".join(sorted(weights)[:3])
        raise CheckpointError(f"{path} lacks {name}; it has {held}, …", f"the weights of {what}")
    if weights[name].shape != shape:
        raise CheckpointError(f"{path}: {name} is {list(weights[name].shape)}", f"{list(shape)}, as {what} has it")
    if not weights[name].isfinite().all():
        raise CheckpointError(f"{path}: {name} holds NaN or infinity", way_out="the file is damaged: fetch it again")
