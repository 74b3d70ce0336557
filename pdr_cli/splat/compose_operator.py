"""The compiled compositing as a torch operator: its shapes and gradients.

    predgsplat::compose(centre, conic, opacity, features, height, width) -> image, state
    predgsplat::compose_backward(grad_image, state, centre, conic, opacity, features) -> four gradients

state: [..., 2, H, W], what passes all Gaussians of a pixel, and how many of them it took before it was opaque. Derivatives
of the gradients are computed by the reference.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pdr_cli.splat import compose_reference
from pdr_cli.splat.reference import autocast_off


def compose(centre: Tensor, conic: Tensor, opacity: Tensor, features: Tensor, size: tuple[int, int]) -> Tensor:
    """Equivalent to `compose_reference.compose` with tensors in float32; the library must be loaded."""
    image: Tensor = torch.ops.predgsplat.compose.default(centre, conic, opacity, features, *size)[0]
    return image


def describe_to_torch() -> None:
    """Register shapes and gradients of the operators, for torch.compile and autograd."""
    torch.library.register_fake("predgsplat::compose", _image_and_state)
    torch.library.register_fake("predgsplat::compose_backward", _gradient_shapes)
    torch.library.register_autograd("predgsplat::compose", _backward, setup_context=_keep)
    torch.library.register_autograd("predgsplat::compose_backward", _backward_twice, setup_context=_keep_twice)


def gradients_by_reference(grad_image: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Equivalent to the operator `compose_backward`, in plain torch and without the state."""

    def image(centre: Tensor, conic: Tensor, opacity: Tensor, features: Tensor) -> Tensor:
        return compose_reference.compose(centre, conic, opacity, features, (grad_image.shape[-2], grad_image.shape[-1]))

    with autocast_off(grad_image.device.type):
        return tuple(torch.func.vjp(image, *inputs)[1](grad_image))


def _image_and_state(
    centre: Tensor, conic: Tensor, opacity: Tensor, features: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    devices = {x.device for x in (centre, conic, opacity, features)}
    if len(devices) > 1:
        raise ValueError(f"the Gaussians are on {' and '.join(sorted(map(str, devices)))}; expected one device")
    planes = (*features.shape[:-2], features.shape[-1] + 1, height, width)
    return features.new_empty(planes), features.new_empty((*features.shape[:-2], 2, height, width))


def _gradient_shapes(grad_image: Tensor, state: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in inputs)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1], *inputs[:4])


def _backward(ctx: Any, grad_image: Tensor, grad_state: Tensor) -> tuple[Tensor | None, ...]:
    return (*torch.ops.predgsplat.compose_backward.default(grad_image.float(), *ctx.saved_tensors), None, None)


def _keep_twice(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
    grad_image, _, *tensors = inputs
    ctx.save_for_backward(grad_image, *tensors)


def _backward_twice(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    pull = torch.func.vjp(gradients_by_reference, *ctx.saved_tensors)[1]
    grad_image, *tensors = pull(grads)
    return (grad_image, None, *tensors)
