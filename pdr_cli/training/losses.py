"""Losses by name. Each takes (pred, target), [B, T, C, H, W], and gives what to minimise and what to log.

A third argument, `weight`, [B, T, C, H, W] or what broadcasts to it, says how much each cell counts: 0 where there is no
truth, elsewhere 1 or the area of the cell. Where it is 0, the forecast changes neither loss nor gradient. `target` must be
finite there too, whatever it is. None: every cell counts alike.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError, did_you_mean
from pdr_cli.models import similarity

Terms = dict[str, Tensor]


class Loss(Protocol):
    """What to minimise, and its terms to log."""

    def __call__(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Terms]:
        """pred, target and weight: [B, T, C, H, W]."""


TAU_ALPHA, TAU_TEMPERATURE = 0.1, 0.1  # TAU's weight of the regulariser and the temperature inside it


def build_loss(name: str, *, l1_weight: float, data_range: Tensor, periodic: bool = False) -> Loss:
    """The loss of that name: "l1ssim" (Eq. 9), "ssim" (its λ = 0), "l1", "mse" or "l2reg" (TAU's).

    Args:
        name: of the loss.
        l1_weight: λ of Eq. 9.
        data_range: [C], see `similarity.ssim_map`.
        periodic: the last column is beside the first, so that windows of SSIM lie across both.

    Raises:
        ConfigError: an unknown name.
    """
    losses: dict[str, Loss] = {
        "l1ssim": L1SSIM(l1_weight, data_range, periodic),
        "ssim": L1SSIM(0.0, data_range, periodic),
        "l1": l1,
        "mse": mse,
        "l2reg": l2reg,
    }
    if name not in losses:
        raise ConfigError(f"No loss is called {name!r}.{did_you_mean(name, losses)} Known: {', '.join(losses)}.")
    return losses[name]


class L1SSIM:
    """λ·L1 + (1 − λ)·(1 − SSIM) (Eq. 9).

    With weights, windows of SSIM that touch a cell of weight 0 are left out, and the others weigh as their cells do.

    Args:
        l1_weight: λ in [0, 1].
        data_range: [C], see `ssim`; best on the device of the data.
        periodic: see `build_loss`.
    """

    def __init__(self, l1_weight: float, data_range: Tensor, periodic: bool = False) -> None:
        if not 0 <= l1_weight <= 1:
            raise ConfigError(f"l1_weight is {l1_weight}; it must lie between 0 (SSIM alone) and 1 (L1 alone).")
        self.l1_weight = l1_weight
        self.data_range = data_range
        self.periodic = periodic

    def __call__(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Terms]:
        absolute = l1(pred, target, weight)[0]
        similarity = self._similarity(pred, target, weight)
        loss = self.l1_weight * absolute + (1 - self.l1_weight) * (1 - similarity)
        return loss, {"l1": absolute.detach(), "ssim": similarity.detach()}

    def _similarity(self, pred: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        if self.periodic:
            around = similarity.window_size(*pred.shape[-2:]) // 2
            weight = None if weight is None else wrap(weight.expand(pred.shape), around)
            pred, target = wrap(pred, around), wrap(target, around)
        if weight is None:
            return similarity.ssim(pred, target, self.data_range).mean()
        weight = weight.float()
        whole = similarity.window_means((weight == 0).float()) == 0
        similar = similarity.ssim_map(pred, target, self.data_range)
        return mean(similar, similarity.window_means(weight) * whole, nothing=1.0)


def mse(pred: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Terms]:
    """Mean squared error."""
    loss = nn.functional.mse_loss(pred, target) if weight is None else mean((pred - target) ** 2, weight)
    return loss, {"mse": loss.detach()}


def l1(pred: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Terms]:
    """Mean absolute error."""
    loss = nn.functional.l1_loss(pred, target) if weight is None else mean((pred - target).abs(), weight)
    return loss, {"l1": loss.detach()}


def l2reg(pred: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Terms]:
    """TAU's own loss: mean squared error + 0.1 · `differential_divergence`, which knows areas only as 0 or not."""
    squared = mse(pred, target, weight)[0]
    divergence = differential_divergence(pred, target, None if weight is None else weight > 0)
    return squared + TAU_ALPHA * divergence, {"mse": squared.detach(), "divergence": divergence.detach()}


def differential_divergence(pred: Tensor, target: Tensor, known: Tensor | None = None) -> Tensor:
    """KL divergence between softmaxes over [C·H·W] of the differences of consecutive frames, averaged over everything.

    Zero where there are fewer than 3 frames, that is fewer than 2 differences (Tan et al., CVPR 2023). Differences are
    taken where both frames are `known`.
    """
    if pred.shape[1] < 3:
        return pred.new_zeros(())
    p, q = (frames.diff(dim=1).flatten(2) / TAU_TEMPERATURE for frames in (pred, target))
    if known is None:
        p, q = nn.functional.softmax(p, dim=-1), nn.functional.softmax(q, dim=-1)
        return (p * torch.log(p / (q + 1e-12) + 1e-12)).mean()
    known = known.expand(pred.shape)
    both = (known[:, 1:] & known[:, :-1]).flatten(2)
    # The lowest number rather than -inf: a difference that is known nowhere would have no softmax.
    p, q = (nn.functional.softmax(x.masked_fill(~both, torch.finfo(x.dtype).min), dim=-1) for x in (p, q))
    return mean(p * torch.log(p / (q + 1e-12) + 1e-12), both.to(p.dtype))


def mean(values: Tensor, weight: Tensor, nothing: float = 0.0) -> Tensor:
    """Weighted mean over everything; `nothing` where all weights are 0."""
    weight = weight.to(torch.promote_types(values.dtype, torch.float32)).expand(values.shape)
    total = weight.sum()
    return torch.where(total > 0, (values * weight).sum() / total.clamp_min(torch.finfo(weight.dtype).tiny), nothing)


def wrap(frames: Tensor, columns: int) -> Tensor:
    """The last `columns` columns before the first, the first after the last: [..., W] → [..., W + 2·columns]."""
    return torch.cat([frames[..., frames.shape[-1] - columns :], frames, frames[..., :columns]], dim=-1)
