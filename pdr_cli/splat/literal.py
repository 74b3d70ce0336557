"""Algorithm 1 exactly as printed: every kernel is padded to the frame, moved by `grid_sample`, and summed.

It builds [P·N, C, H, W] and needs K <= H, W. The oracle of the tests, and the rows `base` and `base_grid` of the
benchmark. Its convention differs from the public one in three ways:

* coords are added to the sampling grid, so the content moves to -coords;
* the first scale lies along the rows, and rotation turns from +y towards +x;
* the origin is the middle of the padded kernel, half a pixel off centre for even sizes.

`to_literal` converts exactly.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad


def base(
    coords: Tensor, scale: Tensor, rotation: Tensor, amplitudes: Tensor, size: tuple[int, int], kernel_size: int
) -> Tensor:
    """The paper's `Base`: one affine grid per Gaussian.

    Arguments as in `reference.render`, in the literal convention. Returns [..., C, H, W].
    """
    batch, (N, C) = amplitudes.shape[:-2], amplitudes.shape[-2:]
    kernels = padded_kernels(scale, rotation, amplitudes, size, kernel_size)
    shift = coords.reshape(-1, 2)  # [P N, 2]
    identity = torch.eye(2, dtype=shift.dtype, device=shift.device).expand(len(shift), 2, 2)
    theta = torch.cat([identity, shift[..., None]], dim=-1)  # [P N, 2, 3]
    grid = affine_grid(theta, [len(shift), C, *size], align_corners=True)
    moved = grid_sample(kernels, grid, align_corners=True)
    return moved.reshape(*batch, N, C, *size).sum(-4)


def base_grid(
    coords: Tensor, scale: Tensor, rotation: Tensor, amplitudes: Tensor, size: tuple[int, int], kernel_size: int
) -> Tensor:
    """The paper's `+base_grid`: one grid for all Gaussians, shifted by the coords of each; otherwise like `base`."""
    batch, (N, C) = amplitudes.shape[:-2], amplitudes.shape[-2:]
    kernels = padded_kernels(scale, rotation, amplitudes, size, kernel_size)
    grid = sampling_grid(size, coords.dtype, coords.device) + coords.reshape(-1, 1, 1, 2)  # [P N, H, W, 2]
    moved = grid_sample(kernels, grid, align_corners=True)
    return moved.reshape(*batch, N, C, *size).sum(-4)


def to_literal(
    coords: Tensor, scale: Tensor, rotation: Tensor, size: tuple[int, int], kernel_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Convert from the public convention to the literal one, in which `base` equals `reference.render`."""
    H, W = size
    middle = torch.tensor([_middle(pixels, kernel_size) for pixels in (W, H)], dtype=coords.dtype, device=coords.device)
    return middle - coords, scale.flip(-1), -rotation


def padded_kernels(
    scale: Tensor, rotation: Tensor, amplitudes: Tensor, size: tuple[int, int], kernel_size: int
) -> Tensor:
    """Lines 1 to 6: kernels times amplitudes, zero-padded to the frame: [P N, C, H, W]."""
    H, W = size
    if kernel_size > min(size):
        raise ValueError(f"kernel_size is {kernel_size}, but the literal Algorithm 1 cannot pad it to {H}x{W}")
    kernels = gaussian_kernels(scale.reshape(-1, 2), rotation.reshape(-1), kernel_size)
    kernels = kernels[:, None] * amplitudes.reshape(-1, amplitudes.shape[-1], 1, 1)  # [P N, C, K, K]
    top, left = (H - kernel_size) // 2, (W - kernel_size) // 2
    return pad(kernels, (left, W - kernel_size - left, top, H - kernel_size - top))


def gaussian_kernels(scale: Tensor, rotation: Tensor, kernel_size: int) -> Tensor:
    """exp(-q/2) over [-5, 5] with its maximum scaled to 1: scale [M, 2], rotation [M] -> [M, K, K]."""
    cos, sin = torch.cos(rotation), torch.sin(rotation)
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)  # [M, 2, 2]
    covariance = turn @ torch.diag_embed(scale.square()) @ turn.mT
    axis = torch.linspace(-5, 5, kernel_size, dtype=scale.dtype, device=scale.device)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)  # [K, K, 2], the first along the rows
    q = torch.einsum("iju,muv,ijv->mij", points, torch.linalg.inv(covariance), points)
    kernels = torch.exp(-0.5 * q) / (2 * math.pi * torch.linalg.det(covariance).sqrt()[:, None, None])
    return kernels / kernels.amax((-2, -1), keepdim=True)


@lru_cache(maxsize=16)
def sampling_grid(size: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Pixel centres in [-1, 1], computed once per size: [H, W, 2]."""
    y, x = (torch.linspace(-1, 1, pixels, dtype=dtype, device=device) for pixels in size)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def _middle(pixels: int, kernel_size: int) -> float:
    """The middle of the padded kernel, in the coordinates of the frame."""
    middle = (pixels - kernel_size) // 2 + kernel_size // 2
    return 2 * middle / (pixels - 1) - 1
