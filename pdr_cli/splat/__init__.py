"""Render Gaussians to images: one function, the fastest backend that works on this machine.

    image = render(coords, scale, rotation, amplitudes, size=(H, W), kernel_size=K)  # [..., C, H, W]

Equivalent to `splat.reference.render`, which is the specification. See docs/renderer.md for the convention.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from . import reference

BACKENDS = ("auto", "reference", "cpu", "cuda")
NORMALIZATIONS = ("peak", "density")
ENVIRONMENT = "PREDGSPLAT_BACKEND"


class RendererUnavailable(RuntimeError):  # noqa: N818 - says what it is: the backend is not there
    """A backend that was asked for by name and cannot run here."""


def render(
    coords: Tensor,
    scale: Tensor,
    rotation: Tensor,
    amplitudes: Tensor,
    *,
    size: tuple[int, int],
    kernel_size: int,
    normalize: str = "peak",
    backend: str = "auto",
) -> Tensor:
    """Render N Gaussians per frame (Algorithm 1), differentiable in all four tensors.

    Args:
        coords: [..., N, 2] centre (x, y): -1 is the centre of the first pixel, +1 that of the last.
        scale: [..., N, 2] standard deviations in kernel units, (K-1)/10 pixels each; at least 1e-3 is used.
        rotation: [..., N] radians from +x towards +y, rows counted downwards.
        amplitudes: [..., N, C] value at the centre, any number of channels.
        size: (H, W) of the frame.
        kernel_size: K, odd: the window is K pixels wide and may exceed the frame.
        normalize: "peak", or "density" for a further factor 1/(2π s1 s2) per Gaussian (Eq. 4).
        backend: "auto" takes the fastest that works, or the one that PREDGSPLAT_BACKEND names.

    Returns:
        [..., C, H, W] in float32, or in float64 if an input is float64.

    Raises:
        ValueError: shapes or options that do not fit together.
        RendererUnavailable: a backend asked for by name that is not there.
    """
    _check(coords, scale, rotation, amplitudes, size, kernel_size)
    if normalize not in NORMALIZATIONS:
        raise ValueError(f"normalize is {normalize!r}; expected one of {', '.join(NORMALIZATIONS)}")
    _select(backend, coords.device)
    return reference.render(coords, scale, rotation, amplitudes, size, kernel_size, normalize)


def active_backend(device: torch.device | str) -> tuple[str, str]:
    """The backend that "auto" takes on a device, and why it is not a faster one."""
    return _select("auto", torch.device(device))


def _select(backend: str, device: torch.device) -> tuple[str, str]:
    """The name of the backend to use, and the reason for it."""
    asked = f"backend={backend!r}"
    if backend == "auto":
        backend = os.environ.get(ENVIRONMENT) or "auto"
        asked = f"{ENVIRONMENT}={backend}"
    if backend not in BACKENDS:
        raise ValueError(f"{asked} is not a renderer; expected one of {', '.join(BACKENDS)}")
    if backend == "auto":
        return "reference", f"no compiled renderer for {device.type} is built; plain torch serves every device"
    if backend == "reference":
        return "reference", f"asked for by {asked}"
    raise RendererUnavailable(
        f"{asked}, but the compiled {backend} renderer is not built; backend='reference' or 'auto' works everywhere"
    )


def _check(
    coords: Tensor, scale: Tensor, rotation: Tensor, amplitudes: Tensor, size: tuple[int, int], kernel_size: int
) -> None:
    """Raise ValueError unless the shapes belong together."""
    if coords.ndim < 2 or coords.shape[-1] != 2:
        raise ValueError(f"coords has shape {list(coords.shape)}; expected [..., N, 2]")
    gaussians = list(coords.shape[:-1])
    expected: dict[str, tuple[Tensor, Sequence[int | str]]] = {
        "scale": (scale, [*gaussians, 2]),
        "rotation": (rotation, gaussians),
        "amplitudes": (amplitudes, [*gaussians, "C"]),
    }
    for name, (x, shape) in expected.items():
        if x.ndim != len(shape) or any(n not in (m, "C") for m, n in zip(x.shape, shape, strict=True)):
            wanted = f"[{', '.join(map(str, shape))}]"
            raise ValueError(f"{name} has shape {list(x.shape)}; with coords {list(coords.shape)} expected {wanted}")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size is {tuple(size)}; expected (H, W), both at least 1")
    if kernel_size < 3 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size is {kernel_size}; expected an odd number, 3 or more")
