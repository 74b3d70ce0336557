"""Structural similarity (Wang et al., 2004), as a loss and as a score."""

from __future__ import annotations

import torch
from torch import Tensor

from pdr_cli.splat import native
from pdr_cli.splat import similarity as kernel

WINDOW, SIGMA = 11, 1.5  # the Gaussian window of Wang et al. 2004


def ssim(pred: Tensor, target: Tensor, data_range: Tensor) -> Tensor:
    """Structural similarity of each frame, averaged over channels and over the windows inside the frame.

    [..., C, H, W] → [...], at most 1; arguments as for `ssim_map`.
    """
    return ssim_map(pred, target, data_range).mean(dim=(-3, -2, -1))


def ssim_map(pred: Tensor, target: Tensor, data_range: Tensor) -> Tensor:
    """Structural similarity of every window: [..., C, H, W] → [..., C, H − k + 1, W − k + 1].

    The window is 11 pixels wide, and at most half the shorter side of a frame.

    Args:
        pred: the forecast.
        target: the truth.
        data_range: [C], the span of each channel in the units of `target`, which scales the two stabilising constants.
    """
    # Variances are differences of large numbers, which half precision cannot hold.
    with torch.autocast(pred.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(pred.dtype, target.dtype), torch.float32)
        x, y, span = pred.to(dtype), target.to(dtype), data_range.to(pred.device, dtype)[:, None, None]
        c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
        mean_x, mean_y, xx, yy, xy = window_means(torch.stack([x, y, x * x, y * y, x * y]))
        luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        variances = (xx - mean_x**2) + (yy - mean_y**2)
        structure = (2 * (xy - mean_x * mean_y) + c2) / (variances + c2)
        return luminance * structure


def takes_kernel(pred: Tensor, target: Tensor, weight: Tensor | None) -> bool:
    """True for a forecast on a CPU that is trained: scores are computed in plain torch, in the precision of the data."""
    learned = pred.requires_grad and torch.is_grad_enabled()
    others = (target, *([] if weight is None else [weight]))
    if not learned or pred.device.type != "cpu" or any(x.requires_grad for x in others):
        return False
    return torch.float64 not in (pred.dtype, target.dtype) and native.usable_on_cpu()


def sums(pred: Tensor, target: Tensor, data_range: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sums of similarities times weights and of weights by the compiled kernel, see `splat.similarity.sums`: [..., C]."""
    window = gaussian_window(window_size(pred.shape[-2], pred.shape[-1]))
    return kernel.sums(pred, target, weight, data_range, window)


def window_means(x: Tensor) -> Tensor:
    """Gaussian-weighted means over windows inside the frame. [..., H, W] → [..., H − k + 1, W − k + 1].

    Computed as two products with banded matrices: on CPUs ten times faster than a one-channel convolution.
    """
    H, W = x.shape[-2:]
    weights = gaussian_window(window_size(H, W)).to(x)
    return band(weights, H) @ x @ band(weights, W).T


def window_size(H: int, W: int) -> int:
    """Side of the window: 11, or the largest odd number up to half the shorter side, at least 3 where 3 fit."""
    shorter = min(H, W)
    half = (shorter // 2 - 1) // 2 * 2 + 1
    return min(WINDOW, max(half, 3 if shorter >= 3 else 1))


def gaussian_window(size: int) -> Tensor:
    """Gaussian weights with sum 1: [size]."""
    offset = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    weights = torch.exp(-0.5 * (offset / SIGMA) ** 2)
    return weights / weights.sum()


def band(weights: Tensor, length: int) -> Tensor:
    """The matrix of weighted means at every position of the window. [length − k + 1, length]."""
    places = length - len(weights) + 1
    matrix = weights.new_zeros(places, length + 1)
    matrix[:, : len(weights)] = weights
    return matrix.flatten()[: places * length].view(
        places, length
    )  # rows are one short, so each starts one place further right
