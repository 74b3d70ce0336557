"""Tracks: where the places of a frame go in the frames that follow, chained from optical flow, and where that can be trusted."""

from __future__ import annotations

import torch
from torch import Tensor

from pdr_cli.models.motion import WINDOW, displaced, filtered, flow_between, halved, leading_pattern, slope

FINEST = 64  # pixels of the shorter side at most, on which flows are computed
CLOSED = (
    0.01,
    0.25,
)  # a flow there and back may miss its start by this share of both lengths, plus so many pixels², squared
TEXTURE = (
    0.01  # smallest eigenvalue of the structure tensor, over the largest in the frame, from which a flow is determined
)


@torch.no_grad()
def tracks(last: Tensor, target: Tensor, known: Tensor | None = None) -> Tensor:
    """Displacements of the places of a frame and their trust: [B, C, H, W] and [B, τ, C, H, W] → [B, τ, 3, h, w].

    Displacements are in pixels of (H, W), columns first. They follow the Lucas-Kanade flow from frame to frame. The trust is
    1 where the flows there and back agree in each frame so far, where the place has texture in both directions, and where
    all values on the way are known; else 0. Frames of more than `FINEST` pixels are tracked on a coarser grid (h, w).

    Args:
        last: the frame.
        target: the frames that follow.
        known: False where values were missing, [B, τ + 1, C, H, W], from the frame on; None: none was.
    """
    frames = torch.cat([last[:, None], target], dim=1).float()
    small = frames.flatten(0, 1)
    while min(small.shape[-2:]) > FINEST:
        small = halved(small)
    (H, W), (h, w) = frames.shape[-2:], small.shape[-2:]
    small = small.unflatten(0, frames.shape[:2])
    before, after = small[:, :-1].flatten(0, 1), small[:, 1:].flatten(0, 1)
    ahead, back = (
        flow.unflatten(0, target.shape[:2]) for flow in (flow_between(before, after), flow_between(after, before))
    )
    whole = torch.ones_like(small[:, :, :1]) if known is None else _known(known, (h, w))
    place, trust, made = torch.zeros_like(ahead[:, 0]), textured(small[:, 0]) * whole[:, 0], []
    for lead in range(target.shape[1]):
        step = displaced(ahead[:, lead], place)
        returned = displaced(back[:, lead], place + step)
        place = place + step
        trust = trust * closes(step, returned) * displaced(whole[:, lead + 1], place).gt(0.99)
        made.append(torch.cat([place * place.new_tensor([W / w, H / h])[:, None, None], trust], dim=1))
    return torch.stack(made, dim=1)


def _known(known: Tensor, size: tuple[int, int]) -> Tensor:
    """1 where the values of all channels are known, on a grid of `size`: [B, τ + 1, C, H, W] → [B, τ + 1, 1, h, w]."""
    every = known.all(dim=2, keepdim=True).float().flatten(0, 1)
    return torch.nn.functional.adaptive_avg_pool2d(every, size).eq(1).float().unflatten(0, known.shape[:2])


def closes(step: Tensor, returned: Tensor) -> Tensor:
    """1 where a flow there and back ends near its start: [B, 2, H, W] twice → [B, 1, H, W]."""
    share, most = CLOSED
    lengths = step.square().sum(dim=1, keepdim=True) + returned.square().sum(dim=1, keepdim=True)
    return ((step + returned).square().sum(dim=1, keepdim=True) < share * lengths + most).to(step)


def textured(frame: Tensor) -> Tensor:
    """1 where a frame has texture in both directions, [B, C, H, W] → [B, 1, H, W]."""
    pattern = leading_pattern(torch.stack([frame, frame], dim=1))[:, 0]
    dx, dy = slope(pattern, -1), slope(pattern, -2)
    xx, xy, yy = filtered(torch.stack([dx * dx, dx * dy, dy * dy], dim=1), WINDOW).unbind(dim=1)
    smallest = (xx + yy) / 2 - (((xx - yy) / 2).square() + xy.square()).sqrt()
    largest = smallest.amax(dim=(-2, -1), keepdim=True)
    return ((smallest > TEXTURE * largest) & (largest > 0)).to(frame)[:, None]
