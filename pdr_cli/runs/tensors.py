"""The tensors of a network as a safetensors file holds them, however its modules share or wrap their parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors.torch import _SIZE as STORED
from torch import Tensor, nn

from pdr_cli.errors import ConfigError

OURS = ("pdr_cli", "torch")


def of(network: nn.Module) -> dict[str, Tensor]:
    """The state dict, on the CPU and without shared memory; with the buffers that modules of others do not save.

    Such a buffer may be random, or change in training; ours follow from the configuration.
    """
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, value in (network.state_dict() | _further(network)).items():
        tensor = value.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone() if place in taken else tensor
        taken.add(place)
    return found


def restore(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load what `of` gave; buffers beyond the state dict are loaded where they exist.

    Raises:
        RuntimeError: the tensors are of another network.
    """
    further = _further(network)
    for tensor in (*network.parameters(), *network.buffers()):
        if any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
            tensor.data = tensor.data.contiguous()  # an expanded tensor has no place for each of its values
    network.load_state_dict({name: value for name, value in tensors.items() if name not in further})
    for name in further.keys() & tensors.keys():
        owner, _, buffer = name.rpartition(".")
        setattr(network.get_submodule(owner), buffer, tensors[name].to(further[name].device))


def check(network: nn.Module, name: str) -> None:
    """Refuse a network that cannot be saved; `name` names it in messages.

    Raises:
        ConfigError: names the entry of its state.
    """
    for key, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            raise ConfigError(f"{name} has {key} in its state, a {type(value).__name__}", "tensors only")
        if nn.parameter.is_lazy(value):
            way_out = "give its layer all sizes; the arguments hold in_steps, channels and size"
            raise ConfigError(f"{name} has the parameter {key} without a shape", way_out=way_out)
        if value.dtype not in STORED or value.layout != torch.strided:
            found = f"{name} has {key} of type {str(value.dtype).removeprefix('torch.')} ({value.layout})"
            raise ConfigError(found, "a dense tensor of a type that safetensors has")


def _further(network: nn.Module) -> dict[str, Tensor]:
    """The buffers of modules of others that their state dict leaves out, by name."""
    return {
        f"{prefix}.{name}".strip("."): buffer
        for prefix, module in network.named_modules()
        if type(module).__module__.partition(".")[0] not in OURS
        for name, buffer in module.named_buffers(recurse=False)
        if name in module._non_persistent_buffers_set
    }
