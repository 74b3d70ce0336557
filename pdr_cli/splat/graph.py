"""A render of fixed shapes as a CUDA graph: captured once, then replayed with other numbers.

    render = graphed(coords, scale, rotation, amplitudes, size=(H, W), kernel_size=K)
    image = render(coords, scale, rotation, amplitudes)  # one launch of a graph; another one for its gradients

For loops over small frames, where the host's work for a call takes longer than the kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pdr_cli import splat
from pdr_cli.splat.backends import RendererUnavailable

NAMES = ("coords", "scale", "rotation", "amplitudes")


@dataclass(frozen=True)
class Graphed:
    """A captured render: a function of coords, scale, rotation and amplitudes of the captured shapes."""

    replay: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]  # like those that it was captured with
    differentiable: bool

    def __call__(self, coords: Tensor, scale: Tensor, rotation: Tensor, amplitudes: Tensor) -> Tensor:
        """The image [..., C, H, W], in memory that the next call overwrites, as it does that of the gradients.

        Raises:
            ValueError: shapes, types or a device other than those that were captured, or inputs that need gradients
                where none were captured.
        """
        given = (coords, scale, rotation, amplitudes)
        for name, x, captured in zip(NAMES, given, self.inputs, strict=True):
            if (x.shape, x.dtype, x.device) != (captured.shape, captured.dtype, captured.device):
                raise ValueError(f"{name} is {_describe(x)}; the graph was captured for {_describe(captured)}")
        if not self.differentiable and torch.is_grad_enabled() and any(x.requires_grad for x in given):
            raise ValueError(
                "the graph was captured without gradients; capture it with gradients=True, or use no_grad()"
            )
        return self.replay(*given)


def graphed(
    coords: Tensor,
    scale: Tensor,
    rotation: Tensor,
    amplitudes: Tensor,
    *,
    gradients: bool = True,
    **options: Any,
) -> Graphed:
    """Capture `render` and, with `gradients`, its backward pass, for inputs of these shapes, types and device.

    Equivalent to `render` in value and in first derivatives. The image and the gradients are overwritten by the next call:
    use or clone them before.

    Args:
        coords, scale, rotation, amplitudes: as of `render`; their numbers do not matter.
        gradients: capture the gradients of all four inputs too.
        options: size, kernel_size, normalize, sampling and dtype, as of `render`.

    Raises:
        ValueError: invalid shapes or options.
        RendererUnavailable: the Gaussians are not on a CUDA device, or its compiled renderer is unavailable.
    """
    given = (coords, scale, rotation, amplitudes)
    if coords.device.type != "cuda":
        raise RendererUnavailable(f"a CUDA graph needs Gaussians on a CUDA device, and these are on {coords.device}")
    render = partial(splat.render, **options, backend="cuda")
    samples = tuple(x.detach().clone(memory_format=torch.contiguous_format).requires_grad_(gradients) for x in given)
    with torch.set_grad_enabled(gradients):
        replay: Any = torch.cuda.make_graphed_callables(render, samples)
    return Graphed(replay, samples, gradients)


def _describe(x: Tensor) -> str:
    return f"{list(x.shape)} {x.dtype} on {x.device}"
