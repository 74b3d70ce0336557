"""Optical flow in scores: where two flows agree, and the baselines that carry the last frame on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pdr_cli.models.motion import advect, backward_motion, positions, warp

# (a, b), each [n, C, H, W] -> the flow from a to b, [n, 2, H, W]
Flow = Callable[[Tensor, Tensor], Tensor]


def consistent(forward: Tensor, backward: Tensor) -> Tensor:
    """Cells of b without occlusion: [n, H, W].

    From such a cell the backward flow and then the forward flow lead back to it, within 1 % of the squared flows plus
    half a squared cell, and do not leave the frame (Sundaram, Brox & Keutzer, 2010).

    Args:
        forward: flow from a to b, [n, 2, H, W].
        backward: flow from b to a, [n, 2, H, W].
    """
    H, W = backward.shape[-2:]
    x, y = positions(backward)
    origin_x, origin_y = x + backward[:, 0], y + backward[:, 1]
    returning = warp(forward, backward)
    gap = (backward + returning).square().sum(dim=1)
    allowed = 0.01 * (backward.square() + returning.square()).sum(dim=1) + 0.5
    inside = (origin_x >= 0) & (origin_x <= W - 1) & (origin_y >= 0) & (origin_y <= H - 1)
    return (gap <= allowed) & inside


def extrapolate(observed: np.ndarray, steps: int, damping: float = 0.0) -> np.ndarray:
    """The last frame advected by the motion of the last two: [B, T, C, H, W] → [B, τ, C, H, W].

    See `motion.advect`. On weather and video, a mean flow of more frames was mostly worse. One observed frame, or constant
    ones, give persistence; so does a cell that is NaN or whose origin is.

    Args:
        observed: in any units.
        steps: τ.
        damping: rate at which the motion slows down, per frame; 0: it does not.
    """
    last = torch.from_numpy(observed[:, -1])
    frames = last.double()
    motion = backward_motion(torch.from_numpy(observed[:, -2:]).double())
    moved = advect(frames, motion, range(1, steps + 1), damping).to(last.dtype)
    stays = moved.isnan() | last.isnan()[:, None]
    return torch.where(stays, last[:, None], moved).numpy()
