"""Gaussians that hide each other: projected, sorted by depth and composited.

    image = compose(centre, conic, opacity, features, size=(H, W))  # [..., C+1, H, W], sorted front to back
    seen = view(gaussians, camera, size=(H, W))  # projects and sorts as well

Equivalent to `compose_reference.compose`, which is the specification. docs/renderer.md explains the convention.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pdr_cli.splat import compose_operator, compose_reference
from pdr_cli.splat.backends import reference_instead, select, unsupported
from pdr_cli.splat.camera import Camera, project
from pdr_cli.splat.compose_reference import MIN_ALPHA
from pdr_cli.splat.reference import autocast_off, working_dtype

NAMES = ("centre", "conic", "opacity", "features")


class Gaussians(NamedTuple):
    """Gaussians in the world: mean, scale [..., N, 3]; quaternion [..., N, 4]; opacity [..., N]; features [..., N, C].

    `camera.project` defines the first three. An opacity below 1/255 draws nothing.
    """

    mean: Tensor
    scale: Tensor
    quaternion: Tensor
    opacity: Tensor
    features: Tensor


class View(NamedTuple):
    """What a camera sees.

    features: [..., C, H, W], Σ w f, over black; weight: [..., H, W], Σ w, at most 1; depth: [..., H, W] along the axis,
    Σ w z / Σ w, and 0 where nothing is drawn.
    """

    features: Tensor
    depth: Tensor
    weight: Tensor


def compose(
    centre: Tensor,
    conic: Tensor,
    opacity: Tensor,
    features: Tensor,
    *,
    size: tuple[int, int],
    backend: str = "auto",
) -> Tensor:
    """Composite N Gaussians per frame, sorted front to back, differentiable in all four tensors.

    Gaussian i covers the share α_i = min(0.99, o_i exp(-q_i / 2)) of a pixel, nothing where that is below 1/255, and
    hides what is behind it: w_i = α_i Π_{j<i} (1 - α_j), with q = a dx² + 2 b dx dy + c dy².

    Args:
        centre: [..., N, 2] pixels (x, y), whole numbers at the centres of pixels.
        conic: [..., N, 3] (a, b, c), the inverse [a b; b c] of the covariance in pixels; not negative definite.
        opacity: [..., N].
        features: [..., N, C], any number.
        size: (H, W) of the frame.
        backend: "auto" uses the fastest available backend, or the one that PREDGSPLAT_BACKEND names.

    Returns:
        [..., C+1, H, W], Σ w f and, as the last channel, Σ w; in float32, or from the reference in float64 if an input is
        float64.

    Raises:
        ValueError: invalid shapes or options.
        RendererUnavailable: a backend requested by name is unavailable.
    """
    inputs = (centre, conic, opacity, features)
    _check(inputs, size)
    single = all(x.dtype == torch.float32 for x in inputs)
    name, _ = select(backend, centre.device.type)
    if name != "reference" and (reason := unsupported(single, *inputs) or _transformed()):
        name = reference_instead(backend, reason)
    if name == "reference":
        return compose_reference.compose(*inputs, size)
    return compose_operator.compose(centre.float(), conic.float(), opacity.float(), features.float(), size)


def view(gaussians: Gaussians, camera: Camera, *, size: tuple[int, int], backend: str = "auto") -> View:
    """What a camera sees of Gaussians, differentiable in all of them and in the camera.

    Leading dimensions of Gaussians and camera are broadcast: one set may be seen by many cameras.
    """
    with autocast_off(gaussians.mean.device.type):
        dtype = working_dtype(*gaussians)
        mean, scale, quaternion, opacity, features = (x.to(dtype) for x in gaussians)
        seen = project(mean, scale, quaternion, Camera(camera.world_to_camera.to(dtype), camera.focal), size)
        order = seen.depth.argsort(dim=-1, stable=True)[..., None]  # stable, so that the result is reproducible

        def front_to_back(x: Tensor) -> Tensor:
            return torch.take_along_dim(x.expand(*order.shape[:-1], -1), order, -2)

        covering = front_to_back((opacity * seen.compensation)[..., None])[..., 0]
        drawn = torch.cat([front_to_back(features), front_to_back(seen.depth[..., None])], -1)
        centre, conic = front_to_back(seen.centre), front_to_back(seen.conic)
        image = compose(centre, conic, covering, drawn, size=size, backend=backend)
    weight = image[..., -1, :, :]  # 0 or, but for rounding, at least MIN_ALPHA
    return View(image[..., :-2, :, :], image[..., -2, :, :] / weight.clamp(min=MIN_ALPHA / 2), weight)


def _transformed() -> str:
    """Why the operator cannot take part in the transforms that are active now, or an empty string."""
    if torch._C._are_functorch_transforms_active():
        return "does not run in torch.func's transforms"
    return ""


# As in `derivatives.unsupported`.
_transformed._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _check(inputs: tuple[Tensor, ...], size: tuple[int, int]) -> None:
    """Raise ValueError for invalid tensors or options."""
    for name, x in zip(NAMES, inputs, strict=True):
        if not isinstance(x, Tensor) or x.is_complex():
            found = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"{name} is {found}; expected a tensor of real numbers")
    centre, *others = inputs
    if centre.ndim < 2 or centre.shape[-1] != 2:
        raise ValueError(f"centre has shape {list(centre.shape)}; expected [..., N, 2]")
    tails: list[list[int | str]] = [[3], [], ["C"]]
    for name, x, tail in zip(NAMES[1:], others, tails, strict=True):
        expected = [*centre.shape[:-1], *tail]
        if x.ndim != len(expected) or any(n not in (m, "C") for m, n in zip(x.shape, expected, strict=True)):
            required = f"[{', '.join(map(str, expected))}]"
            raise ValueError(f"{name} has shape {list(x.shape)}; with centre {list(centre.shape)} expected {required}")
    if len(size) != 2 or min(size) < 1 or isinstance(size[0], float) or isinstance(size[1], float):
        raise ValueError(f"size is {tuple(size)}; expected (H, W), two integers, both at least 1")
