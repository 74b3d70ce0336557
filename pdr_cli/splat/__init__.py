"""Render Gaussians to images: one function, on the fastest backend available on this machine.

    image = render(coords, scale, rotation, amplitudes, size=(H, W), kernel_size=K)  # [..., C, H, W]

Equivalent to `splat.reference.render`, which is the specification. docs/renderer.md explains the convention. Gaussians in
space, which hide each other, are drawn by `splat.compose`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pdr_cli.splat import datasets, native, node, reference
from pdr_cli.splat.backends import BACKENDS, RendererUnavailable, reference_instead, select, unsupported
from pdr_cli.splat.native import ENVIRONMENT

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "BACKENDS", "ENVIRONMENT", "NORMALIZATIONS", "SAMPLINGS", "RendererUnavailable", "active_backend", "render", "render_dataset",
]  # fmt: skip
NORMALIZATIONS = ("peak", "density")
SAMPLINGS = ("lattice", "analytic")


def render(
    coords: Tensor,
    scale: Tensor,
    rotation: Tensor,
    amplitudes: Tensor,
    *,
    size: tuple[int, int],
    kernel_size: float,
    normalize: str = "peak",
    sampling: str = "lattice",
    backend: str = "auto",
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Render N Gaussians per frame (Algorithm 1), differentiable in all four tensors.

    Args:
        coords: [..., N, 2] centre (x, y): -1 is the centre of the first pixel, +1 that of the last.
        scale: [..., N, 2] standard deviations in kernel units, (K-1)/10 pixels each; at least 1e-3 is used.
        rotation: [..., N] radians from +x towards +y, rows counted downwards.
        amplitudes: [..., N, C] value at the centre, any number of channels.
        size: (H, W) of the frame.
        kernel_size: K, odd: the window is K pixels wide and may exceed the frame. With sampling="analytic" any
            number above 1, which only defines the unit of `scale`.
        normalize: "peak", or "density" for a further factor 1/(2π s1 s2) per Gaussian (Eq. 4).
        sampling: "lattice" as in Algorithm 1, or "analytic": the Gaussian's value at each pixel's centre. To render
            the same Gaussians at r times the resolution: size ((H-1)r+1, (W-1)r+1) and kernel_size (K-1)r+1.
        backend: "auto" uses the fastest available backend, or the one that PREDGSPLAT_BACKEND names.
        dtype: of the image, which is rounded to it once, such as torch.float16 or torch.bfloat16.

    Returns:
        [..., C, H, W] in `dtype`. None: in float32; in float64, from the reference, if an input is float64.

    Raises:
        ValueError: invalid shapes or options.
        RendererUnavailable: a backend requested by name is unavailable.
    """
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"dtype is {dtype}; expected one of real numbers, such as torch.float16")
    if not torch.compiler.is_compiling() and node.direct is not None:
        image = node.direct(coords, scale, rotation, amplitudes, size, kernel_size, normalize, sampling, backend)
        if image is not None:
            return image if dtype is None else image.to(dtype)
    single = coords.dtype == scale.dtype == rotation.dtype == amplitudes.dtype == torch.float32
    if not single:
        _check_types(coords, scale, rotation, amplitudes)
    _check(coords, scale, rotation, amplitudes, size, kernel_size, normalize, sampling)
    name, _ = select(backend, coords.device.type)
    if name != "reference" and (reason := unsupported(single, coords, scale, rotation, amplitudes)):
        name = reference_instead(backend, reason)
    if name == "reference":
        image = reference.render(coords, scale, rotation, amplitudes, size, kernel_size, normalize, sampling)
        return image if dtype is None else image.to(dtype)
    if not single:
        coords, scale, rotation, amplitudes = native.readable(coords, scale, rotation, amplitudes)
    if normalize == "density":
        scale = scale.float()  # first, so that both parts of its gradient are added in float32
        amplitudes = amplitudes.float() * reference.density(scale)
    return native.render(coords, scale, rotation, amplitudes, size, kernel_size, sampling == "analytic", dtype)


def render_dataset(dataset: xr.Dataset, size: tuple[int, int] | None = None, *, backend: str = "auto") -> Tensor:
    """Draw the Gaussians of a file that `pdr export -o gaussians.nc` has written.

    Args:
        dataset: the file, opened by xarray.
        size: (H, W) of the frames, spread evenly from the first to the last row and column of the file's grid, each
            Gaussian with its value there (sampling "analytic"). None: that grid, by Algorithm 1, as the model has drawn it.
        backend: as of `render`.

    Returns:
        The Gaussian layer in the units of the amplitudes, float32: [time, variable, H, W].

    Raises:
        ValueError: Gaussians that carry the last observed frame, and paint nothing.
        RendererUnavailable: as of `render`.
    """
    gaussians, keywords = datasets.arguments(dataset, size)
    return render(*(part.float() for part in gaussians), **keywords, backend=backend)  # type: ignore[arg-type]


def active_backend(device: torch.device | str) -> tuple[str, str]:
    """The backend that "auto" uses on a device, and the reason."""
    return select("auto", torch.device(device).type)


def _check(
    coords: Tensor,
    scale: Tensor,
    rotation: Tensor,
    amplitudes: Tensor,
    size: tuple[int, int],
    kernel_size: float,
    normalize: str,
    sampling: str,
) -> None:
    """Raise ValueError for invalid tensors or options. Takes a microsecond if all are valid."""
    shape = coords.shape
    gaussians = shape[:-1]
    if not (
        len(shape) >= 2
        and shape[-1] == 2
        and scale.shape == shape
        and rotation.shape == gaussians
        and len(amplitudes.shape) == len(shape)
        and amplitudes.shape[:-1] == gaussians
    ):
        _explain_shapes(coords, scale, rotation, amplitudes)
    if len(size) != 2 or min(size) < 1 or isinstance(size[0], float) or isinstance(size[1], float):
        raise ValueError(f"size is {tuple(size)}; expected (H, W), two integers, both at least 1")
    if normalize not in NORMALIZATIONS:
        raise ValueError(f"normalize is {normalize!r}; expected one of {', '.join(NORMALIZATIONS)}")
    if sampling == "lattice":
        if kernel_size < 3 or kernel_size % 2 != 1:
            raise ValueError(f"kernel_size is {kernel_size}; expected an odd number, 3 or more")
    elif sampling not in SAMPLINGS:
        raise ValueError(f"sampling is {sampling!r}; expected one of {', '.join(SAMPLINGS)}")
    elif not kernel_size > 1:
        raise ValueError(f"kernel_size is {kernel_size}; expected a number above 1")


def _check_types(*inputs: Tensor) -> None:
    for name, x in zip(("coords", "scale", "rotation", "amplitudes"), inputs, strict=True):
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        if not isinstance(x, Tensor) or x.is_complex():
            raise ValueError(f"{name} is {found}; expected a tensor of real numbers")


def _explain_shapes(coords: Tensor, scale: Tensor, rotation: Tensor, amplitudes: Tensor) -> None:
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
            found, required = list(x.shape), f"[{', '.join(map(str, shape))}]"
            raise ValueError(f"{name} has shape {found}; with coords {list(coords.shape)} expected {required}")
