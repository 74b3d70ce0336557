"""The compiled renderer as a torch operator: loading, shapes, gradients.

    predgsplat::render(coords, scale, rotation, amplitudes, height, width, kernel_size, analytic) -> image
    predgsplat::render_backward(grad_image, coords, ..., kernel_size, analytic) -> four gradients

Equivalent to `reference.render` in float32. For the backward pass it saves only its inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdr_cli.splat import build


@dataclass(frozen=True)
class Loaded:
    """The path of a loaded library, or the reason why none is loaded."""

    path: str = ""
    reason: str = ""


@cache
def load(kind: str) -> Loaded:
    """Load the library for "cpu" or "cuda", once: the shipped one, or one built on this machine."""
    if kind == "cuda":
        if not torch.cuda.is_available():
            return Loaded(reason="torch sees no CUDA device")
        if reason := load("cpu").reason:  # the CPU library declares the operators
            return Loaded(reason=reason)
    shipped = build.shipped(kind)
    loaded = _open(shipped) if shipped else Loaded(reason="no library is shipped")
    if loaded.reason:
        try:
            loaded = _open(build.library(kind))
        except build.BuildError as error:
            return Loaded(reason=str(error) if not shipped else f"{loaded.reason}; {error}")
    if kind == "cpu" and not loaded.reason:
        _describe_to_torch()
    return loaded


def _open(path: Path) -> Loaded:
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        return Loaded(reason=f"{path} does not load: {error}")
    return Loaded(path=str(path))


def unavailable(kind: str) -> str:
    """Why the compiled renderer for "cpu" or "cuda" cannot be used, or an empty string."""
    return load(kind).reason


def render(
    coords: Tensor,
    scale: Tensor,
    rotation: Tensor,
    amplitudes: Tensor,
    size: tuple[int, int],
    kernel_size: float,
    analytic: bool,
) -> Tensor:
    """Equivalent to `reference.render`, computed and returned in float32; the library must be loaded."""
    if not coords.dtype == scale.dtype == rotation.dtype == amplitudes.dtype == torch.float32:
        coords, scale, rotation, amplitudes = (x.float() for x in (coords, scale, rotation, amplitudes))
    arguments = (coords, scale, rotation, amplitudes, *size, kernel_size, analytic)
    if torch.compiler.is_compiling():
        return torch.ops.predgsplat.render.default(*arguments)
    needs_gradient = coords.requires_grad or scale.requires_grad or rotation.requires_grad or amplitudes.requires_grad
    if needs_gradient and torch.is_grad_enabled():
        return _Render.apply(*arguments)
    return _forward(*arguments)


def _forward(*arguments: Any) -> Tensor:
    # Calls the kernel directly: torch's Python layer around a registered gradient takes longer than a small frame.
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.predgsplat.render.default(*arguments)


class _Render(torch.autograd.Function):
    """The same gradient for eager mode, where torch's layer around the registered one takes 30 µs, or two frames."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        _keep_inputs(ctx, arguments, None)
        return _forward(*arguments)

    @staticmethod
    def backward(ctx: Any, grad_image: Tensor) -> tuple[Tensor | None, ...]:
        return _gradients(ctx, grad_image)


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.options = inputs[6:]


def _gradients(ctx: Any, grad_image: Tensor) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():
        raise RuntimeError("the compiled renderer has no second derivatives; use backend='reference'")
    gradients = torch.ops.predgsplat.render_backward.default(grad_image.float(), *ctx.saved_tensors, *ctx.options)
    return (*gradients, None, None, None, None)


def _describe_to_torch() -> None:
    """Register shapes and gradient of the operators, for torch.compile and autograd."""

    def image_shape(coords, scale, rotation, amplitudes, height, width, kernel_size, analytic):  # type: ignore[no-untyped-def]
        return amplitudes.new_empty((*amplitudes.shape[:-2], amplitudes.shape[-1], height, width))

    def gradient_shapes(grad_image, coords, scale, rotation, amplitudes, kernel_size, analytic):  # type: ignore[no-untyped-def]
        return tuple(x.new_empty(x.shape) for x in (coords, scale, rotation, amplitudes))

    torch.library.register_fake("predgsplat::render", image_shape)
    torch.library.register_fake("predgsplat::render_backward", gradient_shapes)
    torch.library.register_autograd("predgsplat::render", _gradients, setup_context=_keep_inputs)
