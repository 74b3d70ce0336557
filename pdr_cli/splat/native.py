"""The compiled renderer as a torch operator: loading, shapes; its gradients are in `derivatives`.

    predgsplat::render(coords, scale, rotation, amplitudes, height, width, kernel_size, analytic, dtype=None) -> image
    predgsplat::render_backward(grad_image, coords, ..., kernel_size, analytic) -> four gradients
    predgsplat::compose, compose_backward: `compose_operator`
    predgsplat::depthwise, depthwise_weights: `depthwise`
    predgsplat::similarity: `similarity`
    predgsplat::norm_silu, norm_silu_backward: `norm_silu`

Equivalent to `reference.render` in float32. For the backward pass it saves only its inputs. On a GPU, inputs and image may be
in half precision: the kernels convert what they read, and write gradients in the types of the inputs.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pdr_cli.splat import build, compose_operator, depthwise_operator, derivatives, node, norm_silu, similarity

log = logging.getLogger("pdr.splat")
ENVIRONMENT = "PREDGSPLAT_BACKEND"
TYPES = {"cuda": (torch.float32, torch.float16, torch.bfloat16)}  # of inputs and images, by device; elsewhere float32


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
        compose_operator.describe_to_torch()
        depthwise_operator.describe_to_torch()
        similarity.describe_to_torch()
        norm_silu.describe_to_torch()
        if reason := node.start(loaded.path):
            log.debug("rendering without the autograd node: %s", reason)
    return loaded


def _open(path: Path) -> Loaded:
    if not build.intact(path):
        return Loaded(reason=f"{path} does not load: it is damaged, or was changed after its build")
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        return Loaded(reason=f"{path} does not load: {error}")
    return Loaded(path=str(path))


def unavailable(kind: str) -> str:
    """Why the compiled renderer for "cpu" or "cuda" cannot be used, or an empty string."""
    return load(kind).reason


def usable_on_cpu() -> bool:
    """Whether the CPU's other kernels can be used here: not in graphs for elsewhere, transforms and forward mode."""
    if torch.compiler.is_compiling() or torch._C._is_tracing():
        return False
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return False
    return (os.environ.get(ENVIRONMENT) or "auto") in ("auto", "cpu") and not unavailable("cpu")


def readable(*inputs: Tensor) -> tuple[Tensor, ...]:
    """The inputs of `render`, in float32 unless the kernels of their device read them as they are."""
    types = _types(inputs[0])
    return tuple(x if x.dtype in types else x.float() for x in inputs)


def render(
    coords: Tensor,
    scale: Tensor,
    rotation: Tensor,
    amplitudes: Tensor,
    size: tuple[int, int],
    kernel_size: float,
    analytic: bool,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Equivalent to `reference.render(...).to(dtype)` with tensors that are `readable`; the library must be loaded."""
    arguments: tuple[Any, ...] = (coords, scale, rotation, amplitudes, *size, kernel_size, analytic)
    if dtype is not None and dtype in _types(coords):
        arguments += (dtype,)
    if torch.compiler.is_compiling() or torch._C._is_tracing():
        image: Tensor = torch.ops.predgsplat.render.default(*arguments)
    else:
        image = derivatives.render(*arguments)
    return image if dtype is None else image.to(dtype)


def _types(x: Tensor) -> tuple[torch.dtype, ...]:
    return TYPES.get(x.device.type, (torch.float32,))


@cache
def _describe_to_torch() -> torch.library.Library:
    """Register shapes and gradients of the operators, for torch.compile and autograd; they last as long as the result."""

    def image_shape(coords, scale, rotation, amplitudes, height, width, *options):  # type: ignore[no-untyped-def]
        devices = {x.device for x in (coords, scale, rotation, amplitudes)}
        if len(devices) > 1:
            raise ValueError(f"the Gaussians are on {' and '.join(sorted(map(str, devices)))}; expected one device")
        dtype = options[2] if len(options) > 2 else None  # after kernel_size and analytic
        shape = (*amplitudes.shape[:-2], amplitudes.shape[-1], height, width)
        return amplitudes.new_empty(shape, dtype=dtype or torch.float32)

    def gradient_shapes(grad_image, coords, scale, rotation, amplitudes, kernel_size, analytic):  # type: ignore[no-untyped-def]
        return tuple(x.new_empty(x.shape) for x in (coords, scale, rotation, amplitudes))

    torch.library.register_fake("predgsplat::render", image_shape)
    torch.library.register_fake("predgsplat::render_backward", gradient_shapes)
    library = torch.library.Library("predgsplat", "FRAGMENT")
    library.impl("render", derivatives.operator, "Autograd")
    library.impl("render_backward", derivatives.operator_backward, "Autograd")
    return library
