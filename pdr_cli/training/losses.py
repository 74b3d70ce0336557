"""Losses by name. Each takes (pred, target), [B, T, C, H, W], and returns the value to minimise and terms to log.

The third argument, `weight`, [B, T, C, H, W] or a shape that broadcasts to it, weights the cells: 0 where the truth is
missing, elsewhere 1 or the area of the cell. Where it is 0, the forecast changes neither loss nor gradient; `target` must
be finite there too. None: all cells weigh the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pdr_cli.choices import LOSSES
from pdr_cli.errors import ConfigError
from pdr_cli.models.interfaces import Terms
from pdr_cli.models.similarity import ssim, ssim_map, sums, takes_kernel, window_means, window_size
from pdr_cli.trust import Trust


class Loss(Protocol):
    """The value to minimise, and its terms to log."""

    def __call__(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Terms]:
        """pred, target and weight: [B, T, C, H, W]."""


# A mean, and the number of its values or the sum of their weights → the mean over all ranks of a training.
Pool = Callable[[Tensor, Tensor | float], Tensor]


def alone(local: Tensor, mass: Tensor | float) -> Tensor:
    """The mean of a training in one process."""
    return local


@dataclass(frozen=True)
class LossOptions:
    """The argument from which every loss is built.

    Args:
        l1_weight: λ of Eq. 9, in [0, 1].
        data_range: [C], see `ssim_map`; best on the device of the data.
        periodic: True if the last column is a neighbour of the first, so that windows of SSIM lie across both.
        pool: makes the means over this rank's windows those over the windows of a step.
    """

    l1_weight: float
    data_range: Tensor
    periodic: bool = False
    pool: Pool = alone


ALMOST = 0.95  # share of the fair CRPS in the almost fair one (Lang et al. 2024)
TAU_ALPHA, TAU_TEMPERATURE = 0.1, 0.1  # TAU's weight of the regulariser and the temperature inside it


def build_loss(name: str, options: LossOptions, trust: Trust | None = None) -> Loss:
    """The loss of that name: ours, or a callable of `LossOptions` from an entry point or at `module:Name`.

    Raises:
        ConfigError: an unknown name, or an object from which no loss can be built.
    """
    factory = LOSSES.find(name, trust)
    try:
        loss: Loss = factory(options)
    except TypeError as error:
        raise ConfigError(f"loss {name} cannot be built: {error}", "a callable of one LossOptions") from error
    if not callable(loss):
        raise ConfigError(f"loss {name} builds a {type(loss).__name__}", "a callable (pred, target, weight)")
    return loss


@dataclass(frozen=True)
class L1SSIM:
    """λ·L1 + (1 − λ)·(1 − SSIM) (Eq. 9).

    With weights, windows of SSIM that touch a cell of weight 0 are left out, and the others weigh as their cells do.
    """

    options: LossOptions

    def __post_init__(self) -> None:
        if not 0 <= self.l1_weight <= 1:
            raise ConfigError(f"l1_weight is {self.l1_weight}", "a number between 0 (SSIM alone) and 1 (L1 alone)")

    @property
    def l1_weight(self) -> float:
        """λ."""
        return self.options.l1_weight

    def __call__(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Terms]:
        absolute = absolute_error(pred, target, weight, self.options.pool)
        similarity = self._similarity(pred, target, weight)
        loss = self.l1_weight * absolute + (1 - self.l1_weight) * (1 - similarity)
        return loss, {"l1": absolute.detach(), "ssim": similarity.detach()}

    def _similarity(self, pred: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        if self.options.periodic:
            around = window_size(*pred.shape[-2:]) // 2
            weight = None if weight is None else wrap(weight.expand(pred.shape), around)
            pred, target = wrap(pred, around), wrap(target, around)
        if takes_kernel(pred, target, weight):
            similar, weights = sums(
                pred, target, self.options.data_range, None if weight is None else weight.expand(pred.shape)
            )
            total = weights.sum()
            above = similar.sum() / total.clamp_min(torch.finfo(total.dtype).tiny)
            return self.options.pool(torch.where(total > 0, above, 1.0), total)
        if weight is None:
            local = ssim(pred, target, self.options.data_range).mean()
            around = window_size(*pred.shape[-2:]) - 1
            return self.options.pool(local, pred[..., around:, around:].numel())
        weight = weight.float()
        whole = window_means((weight == 0).float()) == 0
        similar = ssim_map(pred, target, self.options.data_range)
        return mean(similar, window_means(weight) * whole, nothing=1.0, pool=self.options.pool)


class SSIM(L1SSIM):
    """1 − SSIM: Eq. 9 with λ = 0."""

    @property
    def l1_weight(self) -> float:
        """λ."""
        return 0.0


@dataclass(frozen=True)
class MSE:
    """Mean squared error."""

    options: LossOptions

    def __call__(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Terms]:
        loss = squared_error(pred, target, weight, self.options.pool)
        return loss, {"mse": loss.detach()}


@dataclass(frozen=True)
class L1:
    """Mean absolute error."""

    options: LossOptions

    def __call__(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Terms]:
        loss = absolute_error(pred, target, weight, self.options.pool)
        return loss, {"l1": loss.detach()}


@dataclass(frozen=True)
class L2Reg:
    """TAU's own loss: mean squared error + 0.1 · `differential_divergence`, where areas count only as 0 or not 0."""

    options: LossOptions

    def __call__(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Terms]:
        pool = self.options.pool
        squared = squared_error(pred, target, weight, pool)
        divergence = differential_divergence(pred, target, None if weight is None else weight > 0, pool)
        return squared + TAU_ALPHA * divergence, {"mse": squared.detach(), "divergence": divergence.detach()}


@dataclass(frozen=True)
class CRPS:
    """The almost fair CRPS of members; of one forecast, the mean absolute error.

    `pred` holds the first members of all windows, then the second ones, and so on: [M·B, T, C, H, W].
    """

    options: LossOptions

    def __call__(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Terms]:
        members = pred.unflatten(0, (-1, len(target)))
        loss = fair_crps(members, target, weight, ALMOST, self.options.pool)
        return loss, {"spread": mean(members.detach().float().std(dim=0, correction=0), None, pool=self.options.pool)}


def fair_crps(
    members: Tensor, target: Tensor, weight: Tensor | None = None, fairness: float = 1.0, pool: Pool = alone
) -> Tensor:
    """CRPS of members [M, B, T, C, H, W] against the target, weighted mean over all values.

    mean|x_i − y| − ½·mean_{i≠j}|x_i − x_j|, whose expectation does not depend on M (Ferro 2014). `fairness` below 1 mixes
    in the CRPS of the members as they are, because the fair one does not see all members but one at the truth (Lang et al.
    2024, AIFS-CRPS).
    """
    M = len(members)
    total = sum((absolute_error(x, target, weight, pool) for x in members), target.new_zeros(())) / M
    if M == 1:
        return total
    # Of sorted members, the mean difference is a sum with weights: M log M in place of M² differences.
    ranks = torch.arange(1 - M, M, 2, device=members.device, dtype=members.dtype).view(-1, *[1] * target.ndim)
    differences = (members.sort(dim=0).values * ranks).sum(dim=0) * 2 / (M * (M - 1))
    apart = mean(differences, weight, pool=pool)
    return total - (1 - (1 - fairness) / M) * apart / 2


def squared_error(pred: Tensor, target: Tensor, weight: Tensor | None = None, pool: Pool = alone) -> Tensor:
    """Weighted mean of (pred − target)²."""
    if weight is None:
        return pool(nn.functional.mse_loss(pred, target), pred.numel())
    return mean((pred - target) ** 2, weight, pool=pool)


def absolute_error(pred: Tensor, target: Tensor, weight: Tensor | None = None, pool: Pool = alone) -> Tensor:
    """Weighted mean of |pred − target|."""
    if weight is None:
        return pool(nn.functional.l1_loss(pred, target), pred.numel())
    return mean((pred - target).abs(), weight, pool=pool)


def differential_divergence(pred: Tensor, target: Tensor, known: Tensor | None = None, pool: Pool = alone) -> Tensor:
    """KL divergence between softmaxes over [C·H·W] of the differences of consecutive frames, averaged over everything.

    Zero with fewer than 3 frames, that is fewer than 2 differences (Tan et al., CVPR 2023). Only differences between two
    `known` cells count.
    """
    if pred.shape[1] < 3:
        return pred.new_zeros(())
    p, q = (frames.diff(dim=1).flatten(2) / TAU_TEMPERATURE for frames in (pred, target))
    if known is None:
        p, q = nn.functional.softmax(p, dim=-1), nn.functional.softmax(q, dim=-1)
        return mean(p * torch.log(p / (q + 1e-12) + 1e-12), None, pool=pool)
    known = known.expand(pred.shape)
    both = (known[:, 1:] & known[:, :-1]).flatten(2)
    # The lowest number rather than -inf: a difference without any known cell would have no softmax.
    p, q = (nn.functional.softmax(x.masked_fill(~both, torch.finfo(x.dtype).min), dim=-1) for x in (p, q))
    return mean(p * torch.log(p / (q + 1e-12) + 1e-12), both.to(p.dtype), pool=pool)


def mean(values: Tensor, weight: Tensor | None, nothing: float = 0.0, pool: Pool = alone) -> Tensor:
    """Weighted mean over all values, in one process or over all ranks; `nothing` if all weights are 0."""
    if weight is None:
        return pool(values.mean(), values.numel())
    weight = weight.to(torch.promote_types(values.dtype, torch.float32)).expand(values.shape)
    total = weight.sum()
    above = (values * weight).sum() / total.clamp_min(torch.finfo(weight.dtype).tiny)
    return pool(torch.where(total > 0, above, nothing), total)


def wrap(frames: Tensor, columns: int) -> Tensor:
    """The last `columns` columns before the first, the first after the last: [..., W] → [..., W + 2·columns]."""
    return torch.cat([frames[..., frames.shape[-1] - columns :], frames, frames[..., :columns]], dim=-1)
