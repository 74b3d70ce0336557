"""Derivatives of the compiled renderer, and its behaviour under torch's transforms.

| | computed by |
|---|---|
| image, first derivative in reverse mode (`backward`, `func.grad`, `vjp`, `jacrev`), `vmap` of both | the kernels |
| derivatives of that derivative (`create_graph=True`, `jacrev(jacrev(f))`) | the reference |
| everything while forward mode is active (`jvp`, `jacfwd`, `hessian`, dual tensors) | the reference |

The functions save their inputs and nothing else.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from pdr_cli.splat import reference


def unsupported(compiling: bool = False) -> str:
    """Why the kernels cannot take part in the transforms that are active now, or an empty string."""
    if forward_ad._current_level >= 0:
        return "has no forward-mode derivatives (jvp, jacfwd, hessian, dual tensors)"
    if not torch._C._are_functorch_transforms_active():
        return ""
    if compiling:
        return "does not run in torch.func's transforms within torch.compile"
    active = {level.key().name for level in torch._C._functorch.get_interpreter_stack() or ()}
    others = sorted(active - {"Grad", "Vmap"})
    return f"does not run in torch.func's transform {others[0]}" if others else ""


# torch.compile calls it while tracing, within the transforms that the traced code has entered, and keeps the result.
unsupported._dynamo_marked_constant = True  # type: ignore[attr-defined]


def render(*arguments: Any) -> Tensor:
    """The image, differentiable, where nothing is `unsupported`; the arguments of the operator."""
    if torch._C._are_functorch_transforms_active():
        return Transformable.apply(*arguments)
    if torch.is_grad_enabled():
        coords, scale, rotation, amplitudes, *_ = arguments
        if coords.requires_grad or scale.requires_grad or rotation.requires_grad or amplitudes.requires_grad:
            return Kernel.apply(*arguments)
    return image(*arguments)


def render_backward(*arguments: Any) -> tuple[Tensor, ...]:
    """The four gradients, differentiable; the arguments of the operator."""
    transformed = torch._C._are_functorch_transforms_active()
    if (transformed or forward_ad._current_level >= 0) and unsupported():
        return gradients_by_reference(*arguments)
    if transformed or torch.is_grad_enabled():
        return TransformableGradients.apply(*arguments)
    return image_gradients(*arguments)


def operator(*arguments: Any) -> Tensor:
    """The operator `render` where torch calls it: in compiled graphs, and for those who call it directly."""
    _require_tangents(arguments)
    if unsupported() or torch._C._are_functorch_transforms_active():
        return image_by_reference(*arguments)
    return render(*arguments)


def operator_backward(*arguments: Any) -> tuple[Tensor, ...]:
    """The operator `render_backward` where torch calls it."""
    _require_tangents(arguments)
    if torch._C._are_functorch_transforms_active():
        return gradients_by_reference(*arguments)
    return render_backward(*arguments)


def _require_tangents(arguments: tuple[Any, ...]) -> None:
    """Raise an error where a graph of torch.compile has dropped the tangents; its default backend does so, silently."""
    if forward_ad._current_level < 0 or torch._C._are_functorch_transforms_active():
        return
    if all(forward_ad.unpack_dual(x).tangent is None for x in arguments if isinstance(x, Tensor)):
        raise RuntimeError(
            "forward-mode AD in a compiled graph: torch.compile has dropped the tangents before the renderer; "
            "call torch.func.jvp within the compiled function, or do not compile it"
        )


def image(*arguments: Any) -> Tensor:
    """Calls the kernel directly: torch's Python layer around a registered gradient takes longer than a small frame."""
    with torch._C._AutoDispatchBelowAutograd():
        return _operators()[0](*arguments)


def image_gradients(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Calls the kernel of the backward pass directly."""
    with torch._C._AutoDispatchBelowAutograd():
        return _operators()[1](*arguments)


@cache
def _operators() -> tuple[Any, Any]:
    return torch.ops.predgsplat.render.default, torch.ops.predgsplat.render_backward.default


def keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Save the four tensors and the options of their gradient."""
    ctx.save_for_backward(*inputs[:4])
    ctx.options = inputs[6:8]
    ctx.others = len(inputs) - 4


def gradients(ctx: Any, grad_image: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of the arguments of `render`: four tensors, and None for each option.

    Half precision of the image's gradient is converted once here, and not by the kernel, which reads each pixel for every
    Gaussian over it.
    """
    if grad_image.dtype != torch.float32:
        grad_image = grad_image.float()
    return (*render_backward(grad_image, *ctx.saved_tensors, *ctx.options), *[None] * ctx.others)


class Kernel(Function):
    """The registered gradient for eager mode, where torch's layer around it takes 30 µs, or two frames."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        keep_inputs(ctx, arguments, None)
        return image(*arguments)

    @staticmethod
    def backward(ctx: Any, grad_image: Tensor) -> tuple[Tensor | None, ...]:
        return gradients(ctx, grad_image)


class Transformable(Function):
    """`Kernel` for torch.func, whose form of a Function takes 10 µs more per call."""

    @staticmethod
    def forward(*arguments: Any) -> Tensor:
        return image(*arguments)

    setup_context = staticmethod(keep_inputs)
    backward = staticmethod(gradients)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Tensor, int]:
        return render(*_batch_in_front(info.batch_size, in_dims, arguments)), 0


class TransformableGradients(Function):
    """The gradients as a function of the image's gradient and the four tensors, differentiable by the reference."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return image_gradients(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:5])
        ctx.options = inputs[5:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        pull = torch.func.vjp(lambda *x: gradients_by_reference(*x, *ctx.options), *ctx.saved_tensors)[1]
        with reference.autocast_off(grads[0].device.type):
            return (*pull(grads), None, None)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return TransformableGradients.apply(*_batch_in_front(info.batch_size, in_dims, arguments)), (0, 0, 0, 0)


def _batch_in_front(batch: int, in_dims: tuple[int | None, ...], arguments: tuple[Any, ...]) -> list[Any]:
    """The batch of a vmap as the first of the leading dimensions, which are frames: [...] -> [batch, ...]."""

    def in_front(x: Any, dim: int | None) -> Any:
        if not isinstance(x, Tensor):
            return x
        return x.expand(batch, *x.shape) if dim is None else x.movedim(dim, 0)

    return [in_front(x, dim) for x, dim in zip(arguments, in_dims, strict=True)]


def image_by_reference(*arguments: Any) -> Tensor:
    """Equivalent to the operator `render`, in plain torch."""
    coords, scale, rotation, amplitudes, height, width, kernel_size, analytic, *dtype = arguments
    sampling = "analytic" if analytic else "lattice"
    image = reference.render(coords, scale, rotation, amplitudes, (height, width), kernel_size, "peak", sampling)
    return image.to(dtype[0]) if dtype and dtype[0] else image


def gradients_by_reference(grad_image: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """Equivalent to the operator `render_backward`, in plain torch."""
    inputs, options = arguments[:4], (*grad_image.shape[-2:], *arguments[4:])
    with reference.autocast_off(grad_image.device.type):
        return torch.func.vjp(lambda *x: image_by_reference(*x, *options), *inputs)[1](grad_image)
