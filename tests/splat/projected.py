"""Random projected Gaussians and comparisons that the tests of `compose` share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pdr_cli.bench.compose import away_from_steps, conics
from pdr_cli.splat import compose_reference
from tests.splat.conftest import value_and_gradients

NAMES = ("image", "centre", "conic", "opacity", "features")
TOLERANCE = 1e-5  # of the largest entry
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def projected(
    frames: int = 1,
    gaussians: int = 30,
    channels: int = 3,
    size: tuple[int, int] = (20, 33),
    *,
    opacity: tuple[float, float] = (0.0, 1.0),
    widths: tuple[float, float] = (0.5, 4.0),
    seed: int = 0,
) -> Inputs:
    """centre [P, N, 2], conic [P, N, 3], opacity [P, N], features [P, N, C] in float32, requiring gradients.

    Centres lie up to 3 px outside the frame; widths: the standard deviations along both axes, in pixels.
    """
    random = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, low: float, high: float) -> Tensor:
        return torch.rand(frames, gaussians, *shape, generator=random) * (high - low) + low

    centre = uniform(2, low=-0.5, high=0.5) * (torch.tensor(size[::-1]) + 6) + (torch.tensor(size[::-1]) - 1) / 2
    spread = torch.exp(uniform(2, low=math.log(widths[0]), high=math.log(widths[1])))
    conic = conics(spread.square(), uniform(low=0, high=math.pi))
    covering = away_from_steps(centre, conic, uniform(low=opacity[0], high=opacity[1]), size)
    leaves = (centre, conic, covering, uniform(channels, low=-1, high=1))
    return tuple(x.detach().requires_grad_() for x in leaves)  # type: ignore[return-value]


def expected(inputs: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, ...]:
    """Image and gradients of the reference in float64."""
    double = tuple(x.detach().double().requires_grad_() for x in inputs)
    return value_and_gradients(lambda *x: compose_reference.compose(*x, size), double)


def check(compose: Callable[..., Tensor], inputs: Sequence[Tensor], size: tuple[int, int]) -> None:
    """Compare value and four gradients with the reference in float64, relative to each tensor's largest entry.

    Raises:
        AssertionError: names the tensor that differs.
    """
    single = tuple(x.detach().float().requires_grad_() for x in inputs)
    found = value_and_gradients(compose, single)
    for name, a, b in zip(NAMES, found, expected(single, size), strict=True):
        assert a.dtype == torch.float32
        assert a.isfinite().all(), f"{name} is not finite"
        # 1e-3: a tensor of gradients that are all nearly 0 says little.
        error = (a - b).abs().max().item() / max(1e-3, b.abs().max().item()) if a.numel() else 0.0
        assert error <= TOLERANCE, f"{name} is off by {error:.1e} of its maximum"
