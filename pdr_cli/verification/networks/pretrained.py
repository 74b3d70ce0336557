"""Pretrained weights of the networks that judge forecasts; the files are the user's."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from pdr_cli.errors import CheckpointError, InputNotFoundError


def load(network: nn.Module, path: Path, what: str) -> None:
    """Fill a network with the weights of a safetensors file and make it ready to judge.

    Args:
        network: its state dict has exactly the names and shapes that the file must have.
        path: the file.
        what: the network's name in messages.

    Raises:
        InputNotFoundError: no such file.
        CheckpointError: no safetensors file, or a weight that is missing, of another shape, not finite, or unknown.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputNotFoundError(f"{path} is not there; give the weights of {what} as a safetensors file")
    try:
        given = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no safetensors file, or is truncated: {error}") from error
    wanted = network.state_dict()
    for name, values in wanted.items():
        if name not in given:
            raise CheckpointError(f"{path} has no {name}, which {what} needs; it has {', '.join(sorted(given)[:3])}, …")
        if given[name].shape != values.shape:
            raise CheckpointError(
                f"{path}: {name} is {list(given[name].shape)}, but {what} has {list(values.shape)} there"
            )
        if not given[name].isfinite().all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinity; the file is damaged")
    for name in given:
        if name not in wanted:
            raise CheckpointError(f"{path} has {name}, which {what} does not know; is it another network's file?")
    network.load_state_dict(given)
    network.eval().requires_grad_(False)
