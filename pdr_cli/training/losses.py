"""Losses by name. Each takes (pred, target), [B, T, C, H, W], and gives what to minimise and what to log."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError, did_you_mean

Terms = dict[str, Tensor]
Loss = Callable[[Tensor, Tensor], tuple[Tensor, Terms]]

WINDOW, SIGMA = 11, 1.5  # the Gaussian window of Wang et al. 2004
TAU_ALPHA, TAU_TEMPERATURE = 0.1, 0.1  # TAU's weight of the regulariser and the temperature inside it


def build_loss(name: str, *, l1_weight: float, data_range: Tensor) -> Loss:
    """The loss of that name: "l1ssim" (Eq. 9), "ssim" (its λ = 0), "l1", "mse" or "l2reg" (TAU's).

    Raises:
        ConfigError: an unknown name.
    """
    losses: dict[str, Loss] = {
        "l1ssim": L1SSIM(l1_weight, data_range),
        "ssim": L1SSIM(0.0, data_range),
        "l1": l1,
        "mse": mse,
        "l2reg": l2reg,
    }
    if name not in losses:
        raise ConfigError(f"No loss is called {name!r}.{did_you_mean(name, losses)} Known: {', '.join(losses)}.")
    return losses[name]


class L1SSIM:
    """λ·L1 + (1 − λ)·(1 − SSIM) (Eq. 9).

    Args:
        l1_weight: λ in [0, 1].
        data_range: [C], see `ssim`; best on the device of the data.
    """

    def __init__(self, l1_weight: float, data_range: Tensor) -> None:
        if not 0 <= l1_weight <= 1:
            raise ConfigError(f"l1_weight is {l1_weight}; it must lie between 0 (SSIM alone) and 1 (L1 alone).")
        self.l1_weight = l1_weight
        self.data_range = data_range

    def __call__(self, pred: Tensor, target: Tensor) -> tuple[Tensor, Terms]:
        absolute = nn.functional.l1_loss(pred, target)
        similarity = ssim(pred, target, self.data_range).mean()
        loss = self.l1_weight * absolute + (1 - self.l1_weight) * (1 - similarity)
        return loss, {"l1": absolute.detach(), "ssim": similarity.detach()}


def mse(pred: Tensor, target: Tensor) -> tuple[Tensor, Terms]:
    """Mean squared error."""
    loss = nn.functional.mse_loss(pred, target)
    return loss, {"mse": loss.detach()}


def l1(pred: Tensor, target: Tensor) -> tuple[Tensor, Terms]:
    """Mean absolute error."""
    loss = nn.functional.l1_loss(pred, target)
    return loss, {"l1": loss.detach()}


def l2reg(pred: Tensor, target: Tensor) -> tuple[Tensor, Terms]:
    """TAU's own loss: mean squared error + 0.1 · `differential_divergence`."""
    squared, divergence = nn.functional.mse_loss(pred, target), differential_divergence(pred, target)
    return squared + TAU_ALPHA * divergence, {"mse": squared.detach(), "divergence": divergence.detach()}


def differential_divergence(pred: Tensor, target: Tensor) -> Tensor:
    """KL divergence between softmaxes over [C·H·W] of the differences of consecutive frames, averaged over everything.

    Zero where there are fewer than 3 frames, that is fewer than 2 differences (Tan et al., CVPR 2023).
    """
    if pred.shape[1] < 3:
        return pred.new_zeros(())
    p, q = (nn.functional.softmax(frames.diff(dim=1).flatten(2) / TAU_TEMPERATURE, dim=-1) for frames in (pred, target))
    return (p * torch.log(p / (q + 1e-12) + 1e-12)).mean()


def ssim(pred: Tensor, target: Tensor, data_range: Tensor) -> Tensor:
    """Structural similarity of each frame, averaged over channels and over windows that lie wholly inside.

    [..., C, H, W] → [...], at most 1; arguments as for `ssim_map`.
    """
    return ssim_map(pred, target, data_range).mean(dim=(-3, -2, -1))


def ssim_map(pred: Tensor, target: Tensor, data_range: Tensor) -> Tensor:
    """Structural similarity of every window: [..., C, H, W] → [..., C, H − k + 1, W − k + 1].

    Frames below 22 pixels take a window of at most half their shorter side.

    Args:
        pred: the forecast.
        target: what it should be.
        data_range: [C], the span of each channel in the units of `target`, which scales the two stabilising constants.
    """
    # Variances are differences of large numbers: half precision would leave nothing of them.
    with torch.autocast(pred.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(pred.dtype, target.dtype), torch.float32)
        x, y, span = pred.to(dtype), target.to(dtype), data_range.to(pred.device, dtype)[:, None, None]
        c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
        mean_x, mean_y, xx, yy, xy = window_means(torch.stack([x, y, x * x, y * y, x * y]))
        luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        variances = (xx - mean_x**2) + (yy - mean_y**2)
        structure = (2 * (xy - mean_x * mean_y) + c2) / (variances + c2)
        return luminance * structure


def window_means(x: Tensor) -> Tensor:
    """Gaussian-weighted means over windows inside the frame. [..., H, W] → [..., H − k + 1, W − k + 1].

    As two products with banded matrices: on CPUs an order of magnitude faster than a one-channel convolution.
    """
    H, W = x.shape[-2:]
    weights = gaussian_window(window_size(H, W)).to(x)
    return band(weights, H) @ x @ band(weights, W).T


def window_size(H: int, W: int) -> int:
    """11, or the largest odd number up to half the shorter side, 3 at least where 3 fit."""
    shorter = min(H, W)
    half = (shorter // 2 - 1) // 2 * 2 + 1
    return min(WINDOW, max(half, 3 if shorter >= 3 else 1))


def gaussian_window(size: int) -> Tensor:
    """[size], summing to 1."""
    offset = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    weights = torch.exp(-0.5 * (offset / SIGMA) ** 2)
    return weights / weights.sum()


def band(weights: Tensor, length: int) -> Tensor:
    """The matrix that takes the weighted mean at every place the window fits. [length − k + 1, length]."""
    places = length - len(weights) + 1
    matrix = weights.new_zeros(places, length + 1)
    matrix[:, : len(weights)] = weights
    return matrix.flatten()[: places * length].view(places, length)  # rows one short: each starts one further
