"""Sorted alpha compositing of projected Gaussians in plain torch: the specification of the compiled renderers.

At a pixel, Gaussian i has q_i = a dx² + 2 b dx dy + c dy², with (dx, dy) from its centre and its conic (a, b, c), and

    α_i = min(0.99, o_i exp(-q_i / 2)), 0 where that is below 1/255
    w_i = α_i Π_{j<i} (1 - α_j)
    image = Σ_i w_i f_i, and Σ_i w_i as a last channel

Dense: it holds several tensors of shape [P, N, H, W], 67 MB each for one frame of 64 × 64 and 4,096 Gaussians.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pdr_cli.splat.reference import autocast_off, working_dtype

MIN_ALPHA, MAX_ALPHA = 1 / 255, 0.99


def compose(centre: Tensor, conic: Tensor, opacity: Tensor, features: Tensor, size: tuple[int, int]) -> Tensor:
    """Equivalent to `compose.compose`, in float64 if an input is float64 and in float32 otherwise.

    Args:
        centre: [..., N, 2] pixels (x, y), whole numbers at the centres of pixels.
        conic: [..., N, 3] (a, b, c), the inverse [a b; b c] of the covariance in pixels.
        opacity: [..., N].
        features: [..., N, C].
        size: (H, W).

    Returns:
        [..., C+1, H, W].
    """
    dtype = working_dtype(centre, conic, opacity, features)
    centre, conic, opacity, features = (x.to(dtype) for x in (centre, conic, opacity, features))
    with autocast_off(centre.device.type):
        weight = weights(alphas(centre, conic, opacity, size))
        image = torch.einsum("...nc,...nhw->...chw", features, weight)
        return torch.cat([image, weight.sum(-3, keepdim=True)], -3)


def unlimited_alphas(centre: Tensor, conic: Tensor, opacity: Tensor, size: tuple[int, int]) -> Tensor:
    """o exp(-q/2): [..., N, 2], [..., N, 3], [..., N] -> [..., N, H, W]."""
    rows, columns = (torch.arange(n, dtype=centre.dtype, device=centre.device) for n in size)
    dx, dy = (columns - centre[..., 0, None])[..., None, :], (rows - centre[..., 1, None])[..., :, None]
    a, b, c = (x[..., None, None] for x in conic.unbind(-1))
    return opacity[..., None, None] * torch.exp(-(a * dx.square() + 2 * b * dx * dy + c * dy.square()) / 2)


def alphas(centre: Tensor, conic: Tensor, opacity: Tensor, size: tuple[int, int]) -> Tensor:
    """α of every Gaussian at every pixel: [..., N, H, W]."""
    alpha = unlimited_alphas(centre, conic, opacity, size)
    # Not `where(alpha >= MIN_ALPHA, ...)`, which would hide NaN.
    return alpha.masked_fill(alpha < MIN_ALPHA, 0).clamp(max=MAX_ALPHA)


def weights(alpha: Tensor) -> Tensor:
    """w of every Gaussian at every pixel, front to back: [..., N, H, W] -> [..., N, H, W]."""
    behind = torch.cumprod(1 - alpha, -3)
    return alpha * torch.cat([torch.ones_like(alpha[..., :1, :, :]), behind[..., :-1, :, :]], -3)
