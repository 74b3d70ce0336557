"""Motion between frames: optical flow without weights, warping, and semi-Lagrangian advection by a flow that slows down.

A flow from a to b, [n, 2, H, W], is the displacement of each cell of a: u cells to the right and v cells down, so that
b(x + u, y + v) = a(x, y). Warping b by it gives a. All functions are deterministic, have no data-dependent control flow
and can be exported to ONNX.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

RADIUS, WARPS = 7, 5  # Lucas-Kanade's window is 15 cells wide; five warps reach what ten do, in half the time
WINDOW = (2 * RADIUS + 1) / 4  # σ of the window, cells
SMOOTHING = 2 / 3  # σ of the filter before the grid is halved, cells
COARSEST = 16  # the grid is halved while its shorter side is more than twice this
SINGULAR = 1e-14  # determinant below which a cell has no texture
ROUNDING = 1e-6  # share of its largest value up to which the spread of a channel is rounding
SQUARINGS = 16  # the correlation matrix to the power 2^16 is its leading eigenvector's projector
TRUNCATE = 4.0  # radius of Gaussian filters, in σ


def flow_between(a: Tensor, b: Tensor) -> Tensor:
    """Iterative Lucas-Kanade flow (Le Besnerais & Champagnat, 2005), coarse to fine, of frames in any units.

    [n, C, H, W] twice → [n, 2, H, W]. All channels move together, as their leading pattern does. Cells without texture,
    as in a constant frame, do not move. A NaN counts as the mean of its frame. The flow has no gradient.
    """
    with torch.no_grad(), torch.autocast(a.device.type, enabled=False):
        pairs = torch.stack([a, b], dim=1)
        pairs = pairs if pairs.dtype == torch.float64 else pairs.float()
        first, second = leading_pattern(pairs).float().unbind(dim=1)
        return lucas_kanade(first, second).to(a.dtype)


def leading_pattern(pairs: Tensor) -> Tensor:
    """[n, 2, C, H, W] in any units → [n, 2, H, W]: the first principal component of the standardised channels.

    Unlike their mean it survives channels that mirror each other, such as temperature and pressure.
    """
    channels = standardised(pairs)
    if pairs.shape[2] == 1:
        return channels[:, :, 0]
    flat = channels.transpose(1, 2).flatten(2)  # [n, C, 2·H·W]
    weights = leading_eigenvector(flat @ flat.mT)
    return (channels * weights[:, None, :, None, None]).sum(dim=2)


def standardised(pairs: Tensor) -> Tensor:
    """[n, 2, C, H, W], each channel of a pair with mean 0 and variance 1; NaN as the mean of its frame; a constant is 0."""
    filled = torch.where(pairs.isnan(), pairs.nanmean(dim=(-2, -1), keepdim=True).nan_to_num(), pairs)
    whole = (1, 3, 4)
    anomaly = filled - filled.mean(dim=whole, keepdim=True)
    anomaly = anomaly - anomaly.mean(dim=whole, keepdim=True)  # what rounding left of the mean of large values
    spread = anomaly.square().mean(dim=whole, keepdim=True).sqrt()
    textured = spread > ROUNDING * filled.abs().amax(dim=whole, keepdim=True)
    return torch.where(textured, anomaly / spread, 0.0)


def leading_eigenvector(matrix: Tensor) -> Tensor:
    """Of symmetric, positive matrices [n, C, C] → [n, C]; by repeated squaring, which every runtime computes."""
    for _ in range(SQUARINGS):
        matrix = matrix @ matrix / tiny_at_least(matrix.diagonal(dim1=1, dim2=2).square().sum(dim=1))[:, None, None]
    size = matrix.diagonal(dim1=1, dim2=2)
    column = size.argmax(dim=1)[:, None, None].expand(-1, matrix.shape[1], 1)
    vector = matrix.gather(2, column)[..., 0]
    return vector / tiny_at_least(vector.square().sum(dim=1, keepdim=True)).sqrt()


def tiny_at_least(values: Tensor) -> Tensor:
    """Values that can be divided by."""
    return values.clamp_min(torch.finfo(values.dtype).tiny)


def lucas_kanade(a: Tensor, b: Tensor) -> Tensor:
    """The flow from a to b: [n, H, W] twice → [n, 2, H, W]."""
    levels = [torch.stack([a, b], dim=1)]
    while min(levels[-1].shape[-2:]) > 2 * COARSEST:
        levels.append(halved(levels[-1]))
    flow = torch.zeros_like(levels[-1])
    for level in reversed(levels):
        flow = resized(flow, (level.shape[-2], level.shape[-1]))
        for _ in range(WARPS):
            flow = refined(level, flow)
    return flow


def refined(pair: Tensor, flow: Tensor) -> Tensor:
    """The flow of least squares in each window, linearised at a flow [n, 2, H, W].

    Args:
        pair: both frames, [n, 2, H, W].
        flow: the estimate so far.
    """
    a, moved = pair[:, 0], displaced(pair[:, 1:], flow)[:, 0]
    dx, dy = slope(moved, -1), slope(moved, -2)
    gap = dx * flow[:, 0] + dy * flow[:, 1] + a - moved
    products = torch.stack([dx * dx, dx * dy, dy * dy, dx * gap, dy * gap], dim=1)  # [n, 5, H, W]
    xx, xy, yy, xt, yt = filtered(products, WINDOW).unbind(dim=1)
    determinant = xx * yy - xy * xy
    textured = (determinant.abs() > SINGULAR)[:, None]
    solved = torch.stack([yy * xt - xy * yt, xx * yt - xy * xt], dim=1)
    return torch.where(textured, solved / torch.where(textured, determinant[:, None], 1.0), 0.0)


def slope(frames: Tensor, dim: int) -> Tensor:
    """Central differences along `dim`, one-sided at the ends; 0 along a single cell."""
    length = frames.shape[dim]
    if length == 1:
        return torch.zeros_like(frames)
    steps = frames.narrow(dim, 1, length - 1) - frames.narrow(dim, 0, length - 1)
    before, after = steps.narrow(dim, 0, length - 2), steps.narrow(dim, 1, length - 2)
    return torch.cat([steps.narrow(dim, 0, 1), (before + after) / 2, steps.narrow(dim, length - 2, 1)], dim)


def halved(frames: Tensor) -> Tensor:
    """Frames [n, C, H, W] on a grid of half the sides, rounded up, smoothed before."""
    H, W = frames.shape[-2:]
    size = [math.ceil(H / 2), math.ceil(W / 2)]
    return nn.functional.interpolate(filtered(frames, SMOOTHING), size, mode="bilinear", align_corners=False)


def resized(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """A flow on a grid of another size, in cells of that grid."""
    (h, w), (H, W) = flow.shape[-2:], size
    if (h, w) == (H, W):
        return flow
    scaled = torch.stack([flow[:, 0] * (W / w), flow[:, 1] * (H / h)], dim=1)
    return nn.functional.interpolate(scaled, [H, W], mode="bilinear", align_corners=False)


@cache
def gaussian_filter(length: int, sigma: float) -> np.ndarray:
    """Gaussian filter of one axis as a matrix [length, length], for vectors that are mirrored at both ends.

    A dense matrix product is several times faster on processors than convolutions of one channel.
    """
    radius, period = int(TRUNCATE * sigma + 0.5), max(2 * (length - 1), 1)
    gaps = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (gaps / sigma) ** 2)
    places = (np.arange(length)[:, None] + gaps) % period  # the mirror images repeat with this period
    matrix = np.zeros((length, length))
    np.add.at(
        matrix, (np.arange(length)[:, None], np.minimum(places, period - places) % period), weights / weights.sum()
    )
    return matrix


def filtered(frames: Tensor, sigma: float) -> Tensor:
    """Gaussian means of frames [..., H, W]."""
    rows, columns = (torch.from_numpy(gaussian_filter(side, sigma)).to(frames) for side in frames.shape[-2:])
    return rows @ frames @ columns.T


def sample(frames: Tensor, x: Tensor, y: Tensor, padding: str = "border") -> Tensor:
    """Bilinear values of frames [n, C, H, W] at columns x and rows y, [n, h, w] each → [n, C, h, w]."""
    H, W = frames.shape[-2:]
    grid = torch.stack([2 * x / max(W - 1, 1) - 1, 2 * y / max(H - 1, 1) - 1], dim=-1)
    return nn.functional.grid_sample(frames, grid, padding_mode=padding, align_corners=True)


def displaced(frames: Tensor, flow: Tensor) -> Tensor:
    """Values of frames [n, C, H, W] at (x + u, y + v), [n, C, H, W]; beyond the border the border's value continues."""
    H, W = frames.shape[-2:]
    cells = np.stack(np.meshgrid(np.arange(W), np.arange(H)), axis=-1)[None]  # [1, H, W, 2]
    unit = torch.tensor([2 / max(W - 1, 1), 2 / max(H - 1, 1)]).to(flow)
    grid = (torch.from_numpy(cells).to(flow) + flow.movedim(1, -1)) * unit - 1
    return nn.functional.grid_sample(frames, grid, padding_mode="border", align_corners=True)


def warp(frames: Tensor, flow: Tensor) -> Tensor:
    """Frames [n, C, H, W] as seen from where the flow [n, 2, H, W] starts: the value at (x + u, y + v) comes to (x, y).

    Beyond the border the border's value continues. Where the flow is zero, values stay exactly as they are.
    """
    return torch.where((flow == 0).all(dim=1, keepdim=True), frames, displaced(frames, flow))


def positions(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Columns [1, 1, W] and rows [1, H, 1] of a flow's cells."""
    H, W = flow.shape[-2:]
    return torch.arange(W).to(flow)[None, None], torch.arange(H).to(flow)[None, :, None]


def advect(frames: Tensor, motion: Tensor, times: Sequence[float], damping: float | Tensor = 0.0) -> Tensor:
    """Frames moved along a motion that stays where it is and slows down: u_t = f e^{-λ(t - 1/2)} in frame t.

    Semi-Lagrangian advection (Germann & Zawadzki, 2002): each cell is traced back along the motion, and takes the value
    of the frame at its origin, interpolated once.

    Args:
        frames: at time 0, [B, C, H, W].
        motion: the flow from these frames back to the ones before them, f, [B, 2, H, W].
        times: in frames, any numbers from 0 on, in ascending order.
        damping: λ, the rate at which the motion slows down, a number or [B, 1, H, W]; infinite: nothing moves.

    Returns:
        [B, times, C, H, W].
    """
    rate = damping if isinstance(damping, Tensor) else motion.new_tensor(damping)

    def traced(origin: Tensor, start: float, length: float) -> Tensor:
        """The origins of cells after a further step of at most one frame; the midpoint rule keeps circles closed."""
        way = length * torch.exp(-(start + 0.5 * length) * rate) * motion
        return origin + displaced(way, origin + displaced(way, origin) / 2)

    origin, now, out = torch.zeros_like(motion), 0.0, []
    for time in times:
        while now + 1 <= time:
            origin, now = traced(origin, now, 1.0), now + 1
        # From the last whole frame, so that no frame depends on which others are asked for.
        out.append(warp(frames, traced(origin, now, time - now) if time > now else origin))
    return torch.stack(out, dim=1)


def backward_motion(observed: Tensor) -> Tensor:
    """The flow from the last frame back to the one before it: [B, T, C, H, W] → [B, 2, H, W]; 0 with a single frame."""
    last = observed[:, -1]
    if observed.shape[1] == 1:
        return torch.zeros_like(last[:, :1]).expand(-1, 2, -1, -1)
    return flow_between(last, observed[:, -2])


def carried_on(observed: Tensor, steps: int, damping: float | Tensor) -> Tensor:
    """The last frame moved on along the motion of the last two: [B, T, C, H, W] → [B, steps, C, H, W].

    A single observed frame, and cells without texture, give persistence.
    """
    return advect(observed[:, -1], backward_motion(observed), range(1, steps + 1), damping)
