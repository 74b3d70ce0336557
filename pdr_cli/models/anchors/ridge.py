"""Ridge: linear regressions of the departures from the climatology, pooled over cells, local, and on leading patterns.

Damped persistence of the last departure is the first guess. Three forms, each of which may be missing, forecast what it
lacks, for all leads at once; `weights` blend them. So regularisation leads to damped persistence, and a season that training
has not seen, whose departures are large and last, is no trap.

* pooled: the same coefficients for all cells of a channel, on the cell's own last T frames, the mean of its neighbours, the mean
  of the field, the other channels, and the same time in earlier cycles.
* local: coefficients of each cell and channel, on the last T frames of the cells around it.
* patterns: on the amplitudes of the leading empirical orthogonal functions (EOFs) in the last T frames.

Departures are divided by their standard deviation in each cell, or for counts, whose variance grows with their mean, by the
root of the climatology.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pdr_cli.models.anchors.simple import normal_of
from pdr_cli.models.interfaces import Anchor, Context, Frames
from pdr_cli.models.layers import mean_around

POOLED_CHANNELS = 8  # others' last frames are features of the pooled form up to so many channels


class Ridge(Anchor):
    """The blend of the fitted forms; a form that was not fitted has coefficients of size 0.

    Args:
        frames: T, C, (H, W), L and whether columns go round; τ leads are fitted.
    """

    spread: Tensor  # [C, H, W], or of counts [C, 1, 1]: network value of a count of zero, and of one
    zero: Tensor
    share: Tensor  # [τ, C], of the last departure
    pooled: Tensor  # [τ, C, K]
    local: Tensor  # [C, H·W, K, τ], half precision
    patterns: Tensor  # [E, C·H·W], half precision
    scores: Tensor  # [T·E, τ·E]
    weights: Tensor  # [τ, 3]

    def __init__(self, frames: Frames) -> None:
        super().__init__()
        self.frames = frames
        leads, (H, W) = frames.out_steps or frames.in_steps, frames.size
        C = frames.channels
        shapes = {
            "spread": (C, H, W),
            "zero": (0,),
            "share": (leads, C),
            "pooled": (leads, C, 0),
            "local": (C, H * W, 0, leads),
            "patterns": (0, C * H * W),
            "scores": (0, 0),
            "weights": (leads, 3),
        }
        for name, shape in shapes.items():
            half = name in ("local", "patterns")
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float16 if half else torch.float32))
        self.spread.fill_(1)

    @property
    def gives(self) -> int:
        """τ, as many leads as were fitted."""
        return len(self.weights)

    def ahead(self, seen: Tensor, steps: int, context: Context) -> Tensor:
        inputs = self.inputs(seen, context)
        leads = inputs.following.shape[1]
        total = self.guess(inputs)[:, :leads]
        for number, form in enumerate(self.forms()):
            if form is not None:
                total = total + self.weights[:leads, number, None, None, None] * form(inputs)[:, :leads]
        return (inputs.following + total * inputs.unit)[:, :steps]

    def guess(self, inputs: Inputs) -> Tensor:
        """Damped persistence of the last departure: [B, τ, C, H, W]."""
        return self.share[None, :, :, None, None] * inputs.departures[:, -1:]

    def forms(self) -> tuple[Form | None, Form | None, Form | None]:
        """The fitted forms: pooled, local and patterns; None where one is missing."""
        return (
            Pooled(self.pooled) if self.pooled.numel() else None,
            Local(self.frames, self.local) if self.local.numel() else None,
            Patterns(self.frames, self.patterns, self.scores) if self.patterns.numel() else None,
        )

    def inputs(self, seen: Tensor, context: Context) -> Inputs:
        """The departures that the forms read."""
        before, following = normal_of(context, seen.shape[1])
        following = following[:, : self.gives]
        unit = self.unit(following)
        earlier = context.earlier
        if earlier is not None:
            earlier = (earlier[:, :, : self.gives] - following[:, None]) / unit[:, None]
            earlier = torch.nan_to_num(earlier)  # a missing frame tells nothing: no departure
        level = following / unit if self.zero.numel() else None
        return Inputs((seen - before) / self.unit(before), earlier, level, following, unit)

    def unit(self, normal: Tensor) -> Tensor:
        """The unit of departures from a climatology [B, n, C, H, W]."""
        if not self.zero.numel():
            return self.spread.expand_as(normal)
        zero, one = self.zero[:, None, None], self.spread
        return torch.sqrt(torch.clamp((normal - zero) / one, min=1.0)) * one


class Inputs(NamedTuple):
    """What the forms read, in units of departures.

    Args:
        departures: of the observed frames, [B, T, C, H, W].
        earlier: of the same time in earlier cycles, [B, L, τ, C, H, W]; None without cycles.
        level: the climatology of the forecast frames, [B, τ, C, H, W]; None unless counts.
        following: the climatology of the forecast frames in network units, [B, τ, C, H, W].
        unit: of the departures of the forecast frames in network units, [B, τ, C, H, W].
    """

    departures: Tensor
    earlier: Tensor | None
    level: Tensor | None
    following: Tensor
    unit: Tensor


Form = Callable[[Inputs], Tensor]  # -> what damped persistence lacks, [B, τ, C, H, W]


class Pooled:
    """Coefficients [τ, C, K] for all cells."""

    def __init__(self, coefficients: Tensor) -> None:
        self.coefficients = coefficients

    def __call__(self, inputs: Inputs) -> Tensor:
        leads = [
            (features * self.coefficients[lead, :, :, None, None]).sum(2)
            for lead, features in enumerate(pooled_features(inputs))
        ]
        return torch.stack(leads, dim=1)


class Local:
    """Coefficients [C, H·W, K, τ] of each cell."""

    def __init__(self, frames: Frames, coefficients: Tensor) -> None:
        self.frames, self.coefficients = frames, coefficients
        self.radius = (round((coefficients.shape[2] / frames.in_steps) ** 0.5) - 1) // 2

    def __call__(self, inputs: Inputs) -> Tensor:
        x = local_features(inputs, self.radius, self.frames.periodic)
        made = self.coefficients.to(x.dtype).mT @ x  # [C, H·W, τ, B]
        return made.permute(3, 2, 0, 1).unflatten(-1, self.frames.size)


class Patterns:
    """Patterns [E, C·H·W], and coefficients [T·E, τ·E] of their amplitudes."""

    def __init__(self, frames: Frames, patterns: Tensor, coefficients: Tensor) -> None:
        self.frames, self.patterns, self.coefficients = frames, patterns, coefficients

    def __call__(self, inputs: Inputs) -> Tensor:
        patterns = self.patterns.to(inputs.departures.dtype)
        observed = amplitudes(inputs.departures, patterns).flatten(1)  # [B, T·E]
        made = (observed @ self.coefficients).unflatten(1, (-1, len(patterns)))  # [B, τ, E]
        return (made @ patterns).unflatten(-1, (self.frames.channels, *self.frames.size))


def amplitudes(departures: Tensor, patterns: Tensor) -> Tensor:
    """Departures [B, T, C, H, W] on orthonormal patterns [E, C·H·W]: [B, T, E]."""
    return departures.flatten(2) @ patterns.T


def pooled_features(inputs: Inputs) -> list[Tensor]:
    """The features of the pooled form for each lead: [B, C, K, H, W]."""
    x = inputs.departures  # [B, T, C, H, W]
    C = x.shape[2]
    recent = x[:, -2:]
    parts = [x, neighbours(recent), recent.mean((-2, -1), keepdim=True).expand_as(recent)]
    shared = torch.cat([part.transpose(1, 2) for part in parts], dim=2)
    if 1 < C <= POOLED_CHANNELS:
        others = torch.stack([torch.cat([x[:, -1, :c], x[:, -1, c + 1 :]], dim=1) for c in range(C)], dim=1)
        shared = torch.cat([shared, others], dim=2)
    leads = []
    for lead in range(inputs.following.shape[1]):
        features = [shared]
        if inputs.earlier is not None:
            features.append(inputs.earlier[:, :, lead].transpose(1, 2))
        if inputs.level is not None:
            features.append(inputs.level[:, lead, :, None])
        leads.append(torch.cat(features, dim=2))
    return leads


def local_features(inputs: Inputs, radius: int, periodic: bool) -> Tensor:
    """The departures around each cell in its own channel: [C, H·W, (2r + 1)²·T, B].

    Windows come last, so that what is gathered from a neighbour is one piece.
    """
    return around(inputs.departures.permute(2, 3, 4, 1, 0), radius, periodic).flatten(3, 4).flatten(1, 2)


def neighbours(frames: Tensor) -> Tensor:
    """The mean of each cell and the cells around it: [B, n, C, H, W]."""
    return mean_around(mean_around(frames, 1, dim=-2), 1, dim=-1)


def around(values: Tensor, radius: int, periodic: bool) -> Tensor:
    """The values around each cell, the border's repeated beyond it: [C, H, W, ...] → [C, H, W, (2r + 1)², ...]."""
    wide = torch.cat([values[:, :1]] * radius + [values] + [values[:, -1:]] * radius, dim=1)
    if radius and periodic:
        wide = torch.cat([wide[:, :, -radius:], wide, wide[:, :, :radius]], dim=2)
    elif radius:
        wide = torch.cat([wide[:, :, :1]] * radius + [wide] + [wide[:, :, -1:]] * radius, dim=2)
    size = 2 * radius + 1
    return wide.unfold(1, size, 1).unfold(2, size, 1).movedim((-2, -1), (3, 4)).flatten(3, 4)
