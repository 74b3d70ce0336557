"""Whether variants of a training step or a forecast compute the same, within the rounding of their precision."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# Of the largest entry. A gradient in float32 is a sum of up to 10^5 products that cancel, and their order is not the same.
VALUE_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4
# bfloat16 rounds by 2^-9 in each of some ten layers; single gradients that are almost 0 may be off by half.
VALUE_TOLERANCE_BF16, GRADIENT_TOLERANCE_BF16 = 2**-5, 1e-1


class Outcome(NamedTuple):
    """Both forecasts of a step, and the gradients by parameter name; a predictor alone has no gradients to compare."""

    coarse: Tensor
    fused: Tensor | None
    gradients: dict[str, Tensor]


def passes(value_error: float, gradient_error: float, bf16: bool = False) -> bool:
    """Whether errors are those of the precision."""
    if bf16:
        return value_error <= VALUE_TOLERANCE_BF16 and gradient_error <= GRADIENT_TOLERANCE_BF16
    return value_error <= VALUE_TOLERANCE and gradient_error <= GRADIENT_TOLERANCE


def compare(found: Outcome, truth: Outcome, bf16: bool = False) -> tuple[float, float]:
    """Largest errors of forecasts and of gradients, relative to the largest entry of each; infinite for a NaN.

    In bfloat16, the second is the length of the difference of all gradients together, relative to theirs.
    """
    if found.fused is None or truth.fused is None:
        return worst([(found.coarse, truth.coarse)]), 0.0
    if found.gradients.keys() != truth.gradients.keys():
        return math.inf, math.inf
    forecasts = [(found.coarse, truth.coarse), (found.fused, truth.fused)]
    pairs = [(found.gradients[name], truth.gradients[name]) for name in truth.gradients]
    return worst(forecasts), distance(pairs) if bf16 else worst(pairs)


def distance(pairs: list[tuple[Tensor, Tensor]]) -> float:
    """|found − truth| / |truth| of all entries together; infinite for a NaN, 0 of none."""
    if not pairs:
        return 0.0
    found, truth = (torch.cat([x.flatten() for x in tensors]) for tensors in zip(*pairs, strict=True))
    error = ((found - truth).norm() / truth.norm()).item()
    return math.inf if math.isnan(error) else error


def worst(pairs: list[tuple[Tensor, Tensor]]) -> float:
    errors = [relative_error(a, b) for a, b in pairs]
    return math.inf if any(map(math.isnan, errors)) else max(errors, default=0.0)


def relative_error(found: Tensor, truth: Tensor) -> float:
    difference, largest = (found - truth).abs().max().item(), truth.abs().max().item()
    return 0.0 if difference == 0 else difference / largest if largest else math.inf  # gradients may be 0 throughout
