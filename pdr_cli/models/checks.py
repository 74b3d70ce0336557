"""What predictors, adapters and fusions return: frames that broadcasting would otherwise accept are refused."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError
from pdr_cli.models.interfaces import Terms

LAYOUT = "[B, T, C, H, W]"


def frames(made: object, like: Tensor, of: nn.Module, steps: int | None = None) -> Tensor:
    """`made`, if it is frames that fit `like`.

    Args:
        made: what `of` returned.
        like: [B, T, C, H, W], whose batch, channels and grid, type and device the frames must have.
        of: the module that returned them, for messages.
        steps: number of frames; None: any.

    Raises:
        ConfigError: another object, shape, type or device.
    """
    if torch.compiler.is_compiling():
        return made  # type: ignore[return-value]
    name = f"{type(of).__module__}.{type(of).__qualname__}"
    if not isinstance(made, Tensor):
        raise ConfigError(f"{name} returned a {type(made).__name__}", f"one tensor {LAYOUT}")
    _check_shape(made, like, name, steps)
    if made.device != like.device:
        raise ConfigError(f"{name} returned a tensor on {made.device}", f"{like.device}, as its input")
    if not _fits(made, like):
        expected = f"{_plain(like.dtype)}, as its input"
        raise ConfigError(f"{name} returned {_plain(made.dtype)}", expected, "return it with .to(x.dtype)")
    return made


def with_terms(made: object, of: nn.Module) -> tuple[Tensor, Terms]:
    """`made`, if it is what a `training_forward` returns: frames, and scalars by name.

    Raises:
        ConfigError: another object.
    """
    if torch.compiler.is_compiling():
        return made  # type: ignore[return-value]
    expected = "the frames and a dict of scalars by name"
    name = f"{type(of).__module__}.{type(of).__qualname__}.training_forward"
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], Mapping)):
        raise ConfigError(f"{name} returned a {type(made).__name__}", expected)
    for term, value in made[1].items():
        if isinstance(value, Tensor) and value.numel() != 1:
            raise ConfigError(f"{name} returned {term} of shape {list(value.shape)}", expected)
    return made[0], dict(made[1])


def _check_shape(made: Tensor, like: Tensor, name: str, steps: int | None) -> None:
    wanted = list(like.shape)
    wanted[1] = steps or (made.shape[1] if made.dim() == like.dim() and made.shape[1] else wanted[1])
    if list(made.shape) != wanted:
        raise ConfigError(f"{name} returned a tensor of shape {list(made.shape)}", f"{LAYOUT} = {wanted}")


def _fits(made: Tensor, like: Tensor) -> bool:
    """The same type; under autocast also those of lower precision."""
    lower = torch.is_autocast_enabled(like.device.type) and made.dtype in (torch.bfloat16, torch.float16)
    return made.dtype == like.dtype or lower or (like.dtype != torch.float32 and made.dtype == torch.float32)


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
