"""Motion between frames: an optical flow that needs no weights, warping by a flow, and extrapolation of the motion.

A flow from a to b, [n, 2, H, W], is the displacement of each cell of a: u cells to the right and v cells down, so that
b(x + u, y + v) = a(x, y). Warping b by it gives a.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

# (a, b), each [n, C, H, W] -> the flow from a to b, [n, 2, H, W]
Flow = Callable[[Tensor, Tensor], Tensor]

RADIUS, WARPS = 7, 5  # Lucas-Kanade's window is 15 cells wide; five warps reach what ten do, in half the time


def classical(a: Tensor, b: Tensor) -> Tensor:
    """Iterative Lucas-Kanade flow (Le Besnerais & Champagnat, 2005) of frames in any units.

    [n, C, H, W] twice → [n, 2, H, W]. All channels move together, as their leading pattern does. Cells without texture,
    as in a constant frame, do not move. A NaN counts as the mean of its frame.
    """
    pairs = torch.stack([a, b], dim=1).detach().cpu().double().numpy()
    flows = [lucas_kanade(*leading_pattern(pair)) for pair in pairs]
    return torch.from_numpy(np.stack(flows)).to(a)


def leading_pattern(frames: np.ndarray) -> np.ndarray:
    """[T, C, H, W] in any units → [T, H, W]: the first principal component of the standardised channels.

    Unlike their mean it survives channels that mirror each other, such as temperature and pressure.
    """
    channels = np.stack([standardised(one) for one in np.moveaxis(frames, 1, 0)])
    flat = channels.reshape(len(channels), -1)
    weights = np.linalg.eigh(flat @ flat.T)[1][:, -1]
    return np.tensordot(weights, channels, axes=1)


def standardised(frames: np.ndarray) -> np.ndarray:
    """[T, H, W] with mean 0 and variance 1 over everything, NaN as the mean of its frame; a constant becomes 0."""
    valid = ~np.isnan(frames)
    count = np.maximum(valid.sum(axis=(-2, -1), keepdims=True), 1)
    means = np.where(valid, frames, 0).sum(axis=(-2, -1), keepdims=True) / count
    filled = np.where(valid, frames, means)
    anomaly = filled - filled.mean()
    spread = anomaly.std()
    # Rounding errors of a constant are not texture.
    return anomaly / spread if spread > 1e-7 * np.abs(filled).max() else np.zeros_like(anomaly)


def lucas_kanade(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The flow from a to b: [H, W] twice → [2, H, W]."""
    from skimage.registration import optical_flow_ilk

    down, right = optical_flow_ilk(a, b, radius=RADIUS, num_warp=WARPS, gaussian=True)
    return np.stack([right, down])


def sample(frames: Tensor, x: Tensor, y: Tensor, padding: str = "border") -> Tensor:
    """Bilinear values of frames [n, C, H, W] at columns x and rows y, [n, h, w] each → [n, C, h, w]."""
    H, W = frames.shape[-2:]
    grid = torch.stack([2 * x / max(W - 1, 1) - 1, 2 * y / max(H - 1, 1) - 1], dim=-1)
    return nn.functional.grid_sample(frames, grid, padding_mode=padding, align_corners=True)


def warp(frames: Tensor, flow: Tensor) -> Tensor:
    """Frames [n, C, H, W] as seen from where the flow [n, 2, H, W] starts: the value at (x + u, y + v) comes to (x, y).

    Beyond the border the border's value continues. Where the flow is zero, values stay exactly as they are.
    """
    x, y = positions(flow)
    moved = sample(frames, x + flow[:, 0], y + flow[:, 1])
    return torch.where((flow == 0).all(dim=1, keepdim=True), frames, moved)


def positions(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Columns [1, 1, W] and rows [1, H, 1] of a flow's cells."""
    H, W = flow.shape[-2:]
    return torch.arange(W).to(flow)[None, None], torch.arange(H).to(flow)[None, :, None]


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


def extrapolate(observed: np.ndarray, steps: int) -> np.ndarray:
    """The last frame advected by the motion of the last two: [B, T, C, H, W] → [B, τ, C, H, W].

    Semi-Lagrangian advection (Germann & Zawadzki, 2002): each cell is traced back along the constant flow, and takes the
    value of the last frame at its origin, interpolated once. On weather and video, a mean flow of more frames was mostly
    worse. One observed frame, or constant ones, give persistence; so does a cell that is NaN or whose origin is.
    """
    last = torch.from_numpy(observed[:, -1])
    frames = last.double()
    motion = torch.zeros_like(frames[:, :1]).repeat(1, 2, 1, 1)
    if observed.shape[1] > 1:
        motion = classical(frames, torch.from_numpy(observed[:, -2]).double())
    origin, out = torch.zeros_like(motion), []
    for _ in range(steps):
        origin = origin + warp(motion, origin + warp(motion, origin) / 2)  # midpoint rule: keeps circles closed
        moved = warp(frames, origin).to(last.dtype)
        out.append(torch.where(moved.isnan() | last.isnan(), last, moved))
    return torch.stack(out, dim=1).numpy()
