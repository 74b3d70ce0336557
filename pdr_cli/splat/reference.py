"""Algorithm 1 in plain torch: the specification that every other backend is tested against.

A Gaussian is sampled on a K×K lattice of whole pixels, h = 10/(K-1) kernel units apart, and the lattice is moved to
the Gaussian's centre with bilinear weights, as `grid_sample` would move it. No tensor of shape [N, C, H, W] is built.
After blending by the fraction of a pixel, the remaining move is by whole pixels, and tiles cover the frame:

    window[n] = Y_n^T G_n X_n                               place the lattice in a window of two by two tiles
    tiles[c, t] = sum_n a[n, c] * [n starts in tile t] * window[n]              sum over all Gaussians at once
    out[c] = the windows of all tiles, overlapped and added

G_n: [K+1, K+1]; X_n and Y_n contain zeros and ones. Without a scatter operation, it also runs where
`torch.use_deterministic_algorithms(True)` forbids `grid_sample`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from functools import partial, reduce

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

EXTENT = 10.0  # the lattice spans [-5, 5] kernel units (Algorithm 1, line 2)
MIN_SCALE = 1e-3  # far below one lattice step; 1/s² of much smaller ones would overflow float32

# Largest buffer of one block. On a CPU, blocks that fit the cache are over twice as fast as one of 50 MiB; a GPU is
# faster with few launches.
CPU_BLOCK_BYTES = 8 << 20
GPU_BLOCK_BYTES = 256 << 20
# Autograd saves about ten such buffers per block. If the buffers of all blocks exceed this, the backward pass
# recomputes them (a third more work), and memory is bounded by one block instead of growing with the batch.
SAVED_BYTES = 64 << 20


def render(
    coords: Tensor,
    scale: Tensor,
    rotation: Tensor,
    amplitudes: Tensor,
    size: tuple[int, int],
    kernel_size: float,
    normalize: str = "peak",
    sampling: str = "lattice",
) -> Tensor:
    """Render Gaussians to images, in float64 if an input is float64 and in float32 otherwise.

    Args:
        coords: [..., N, 2] centre (x, y): -1 is the centre of the first pixel, +1 that of the last.
        scale: [..., N, 2] standard deviations in kernel units, the first along x at rotation 0.
        rotation: [..., N] radians from +x towards +y, rows counted downwards.
        amplitudes: [..., N, C] value at the centre.
        size: (H, W).
        kernel_size: K, odd; it may exceed the frame. In the analytic mode any number above 1.
        normalize: "peak", or "density" for a further factor 1/(2π s1 s2) per Gaussian (Eq. 4).
        sampling: "lattice", or "analytic": exp(-q/2) at each pixel's centre, without a window.

    Returns:
        [..., C, H, W].
    """
    if sampling == "lattice" and (kernel_size < 3 or kernel_size % 2 != 1):
        raise ValueError(f"kernel_size is {kernel_size}; expected an odd number, 3 or more")
    dtype = working_dtype(coords, scale, rotation, amplitudes)
    batch = coords.shape[:-2]
    frames = [
        x.to(dtype).reshape(math.prod(batch), *x.shape[len(batch) :]) for x in (coords, scale, rotation, amplitudes)
    ]
    with autocast_off(coords.device.type):
        if normalize == "density":
            frames[3] = frames[3] * density(frames[1])
        image = _render_frames(frames, size, kernel_size, sampling)
    return image.reshape(*batch, *image.shape[1:])


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 if a tensor has it, else float32: half precision is too coarse for pixel positions."""
    return torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32


def density(scale: Tensor) -> Tensor:
    """Factor that makes the integral 1 in kernel units: scale [..., N, 2] -> [..., N, 1]."""
    return 1 / (2 * math.pi * scale.clamp(min=MIN_SCALE).prod(-1, keepdim=True))


def lattice(scale: Tensor, rotation: Tensor, kernel_size: int) -> Tensor:
    """exp(-q/2) on the lattice, q = [u v] R S^-2 R^T [u v]^T: scale [P, N, 2], rotation [P, N] -> [P, N, K, K].

    q is the sum of squares of the two rotated coordinates, so that cancellation cannot make it negative.
    """
    radius = kernel_size // 2
    # Integers times h, because the middle of a float32 linspace(-5, 5, 15) is not exactly 0.
    u = torch.arange(-radius, radius + 1, dtype=scale.dtype, device=scale.device) * (EXTENT / (kernel_size - 1))
    return gaussian(scale, rotation, u, u)


def gaussian(scale: Tensor, rotation: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """exp(-q/2) at offsets u and v in kernel units: [P, N, 2], [P, N], [..., W], [..., H] -> [P, N, H, W]."""
    inverse = math.sqrt(0.5) / scale.clamp(min=MIN_SCALE)
    cos, sin = torch.cos(rotation), torch.sin(rotation)
    along = _linear(cos * inverse[..., 0], sin * inverse[..., 0], u, v)
    across = _linear(-sin * inverse[..., 1], cos * inverse[..., 1], u, v)
    return torch.exp(-(along.square() + across.square()))


def whole_and_fraction(position: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    """Whole and fractional pixel of a centre: [P, N] in [-1, 1] -> two [P, N].

    One multiplication and one addition, as in every backend, so that all compute the same floor. The whole pixel has
    no gradient; the result is the one-sided derivative of bilinear sampling.
    """
    half = (pixels - 1) / 2
    centre = position * half + half
    whole = centre.detach().floor()
    return whole, centre - whole


def blend(kernels: Tensor, fraction_x: Tensor, fraction_y: Tensor) -> Tensor:
    """Move each lattice right and down by a fraction of a pixel: [P, N, K, K] -> [P, N, K+1, K+1]."""
    kernels = pad(kernels, (1, 1, 1, 1))
    kernels = torch.lerp(kernels[..., 1:], kernels[..., :-1], fraction_x[..., None, None])
    return torch.lerp(kernels[..., 1:, :], kernels[..., :-1, :], fraction_y[..., None, None])


def place(whole: Tensor, pixels: int, kernel_size: int) -> tuple[Tensor, Tensor]:
    """The position of the lattice rows in their window, and the tile in which the window starts, along one axis.

    A tile is K+1 pixels, so that a lattice that starts in a tile ends in the next one. Frames of up to two tiles are
    one window. Pixels outside the frame are 0.

    Args:
        whole: [P, N] whole pixel of the centre.

    Returns:
        [P, N, K+1, L] 1 where lattice row k falls on pixel l of the window; [P, N, tiles] 1 for the tile of its start.
    """
    rows = torch.arange(kernel_size + 1, dtype=whole.dtype, device=whole.device)
    start = whole - kernel_size // 2
    length, tiles = window_layout(pixels, kernel_size)
    if tiles == 1:
        first = torch.ones_like(whole)[..., None]
    else:
        tile = torch.floor(start / len(rows))
        start = start - tile * len(rows)
        # Tile -1 lies before the frame.
        first = tile[..., None] == torch.arange(-1, tiles - 1, dtype=whole.dtype, device=whole.device)
    offset = torch.arange(length, dtype=whole.dtype, device=whole.device) - start[..., None]  # [P, N, L]
    return (offset[..., None, :] == rows[:, None]).to(whole.dtype), first.to(whole.dtype)


def window_layout(pixels: int, kernel_size: int) -> tuple[int, int]:
    """Length L of a window, and the number of tiles in which windows may start, along one axis."""
    tile = kernel_size + 1
    return (pixels, 1) if pixels <= 2 * tile else (2 * tile, 1 + math.ceil(pixels / tile))


def overlap_add(windows: Tensor, pixels: int) -> Tensor:
    """Add overlapping windows that start one tile apart: [..., tiles, L] -> [..., pixels]."""
    tiles, length = windows.shape[-2:]
    if tiles == 1:
        return windows[..., 0, :]
    tile = length // 2
    frame = pad(windows[..., :tile], (0, 0, 0, 1)) + pad(windows[..., tile:], (0, 0, 1, 0))  # [..., tiles + 1, tile]
    return frame.flatten(-2)[..., tile : tile + pixels]


def _linear(x: Tensor, y: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """x u[j] + y v[i]: [P, N], [P, N], [..., W], [..., H] -> [P, N, H, W]."""
    return (x[..., None] * u)[..., None, :] + (y[..., None] * v)[..., :, None]


def _render_block(
    coords: Tensor, scale: Tensor, rotation: Tensor, amplitudes: Tensor, size: tuple[int, int], kernel_size: int
) -> Tensor:
    """One block of frames and Gaussians: [P, N, ...] -> [P, C, H, W]."""
    (P, _, C), (H, W) = amplitudes.shape, size
    x, fraction_x = whole_and_fraction(coords[..., 0], W)
    y, fraction_y = whole_and_fraction(coords[..., 1], H)
    kernels = blend(lattice(scale, rotation, kernel_size), fraction_x, fraction_y)  # [P, N, K+1, K+1]
    to_x, first_x = place(x, W, kernel_size)
    to_y, first_y = place(y, H, kernel_size)
    windows = to_y.mT @ (kernels @ to_x)  # [P, N, Ly, Lx]
    shares = amplitudes[..., None, None] * first_y[:, :, None, :, None] * first_x[:, :, None, None, :]
    tiles = shares.flatten(2).mT @ windows.flatten(2)  # [P, C ty tx, Ly Lx], summed over Gaussians
    tiles = tiles.reshape(P, C, first_y.shape[-1], first_x.shape[-1], *windows.shape[-2:])
    columns = overlap_add(tiles.permute(0, 1, 3, 5, 2, 4), H)  # [P, C, tx, Lx, H]
    return overlap_add(columns.movedim(-1, 2), W)  # [P, C, H, W]


def _analytic_block(
    coords: Tensor, scale: Tensor, rotation: Tensor, amplitudes: Tensor, size: tuple[int, int], kernel_size: float
) -> Tensor:
    """One block of frames and Gaussians, at the pixels' centres: [P, N, ...] -> [P, C, H, W]."""
    (H, W), h = size, EXTENT / (kernel_size - 1)
    (x, fraction_x), (y, fraction_y) = (whole_and_fraction(coords[..., i], size[1 - i]) for i in (0, 1))
    columns, rows = (torch.arange(n, dtype=x.dtype, device=x.device) for n in (W, H))
    # Whole pixels first: the difference of two large integers is exact.
    u = (columns - x[..., None] - fraction_x[..., None]) * h
    v = (rows - y[..., None] - fraction_y[..., None]) * h
    values = gaussian(scale, rotation, u, v)  # [P, N, H, W]
    return (amplitudes.mT @ values.flatten(2)).unflatten(-1, (H, W))


def _render_frames(frames: list[Tensor], size: tuple[int, int], kernel_size: float, sampling: str) -> Tensor:
    """All frames, in blocks of bounded size: [P, N, ...] -> [P, C, H, W]."""

    def render_block(*block: Tensor) -> Tensor:
        coords, scale, rotation, amplitudes = block
        if sampling == "analytic":
            return _analytic_block(coords, scale, rotation, amplitudes, size, kernel_size)
        return _render_block(coords, scale, rotation, amplitudes, size, int(kernel_size))

    if torch.compiler.is_compiling():
        # The number of frames may be symbolic in an exported graph; a loop over frames would make it a constant.
        return render_block(*frames)
    frames_per_block, gaussians_per_block, recompute = _plan(frames[3], size, kernel_size, sampling)
    render_part: Callable[..., Tensor] = render_block
    if recompute and torch.is_grad_enabled() and any(x.requires_grad for x in frames) and _may_recompute():
        render_part = partial(checkpoint, render_block, use_reentrant=False, preserve_rng_state=False)
    images = []
    for some_frames in zip(*(x.split(frames_per_block) for x in frames), strict=True):
        blocks = zip(*(x.split(gaussians_per_block, dim=1) for x in some_frames), strict=True)
        images.append(reduce(torch.add, (render_part(*block) for block in blocks)))
    return torch.cat(images)


def _may_recompute() -> bool:
    """Whether `checkpoint` works here: it needs hooks that torch.func forbids, and no dual level, which it would not re-enter."""
    hooks: bool = torch._C._autograd._saved_tensors_hooks_is_enabled()  # type: ignore[attr-defined]
    return hooks and forward_ad._current_level < 0


def _plan(amplitudes: Tensor, size: tuple[int, int], kernel_size: float, sampling: str) -> tuple[int, int, bool]:
    """Frames per block, Gaussians per block, and whether to recompute in the backward pass."""
    P, N, C = amplitudes.shape
    budget = CPU_BLOCK_BYTES if amplitudes.device.type == "cpu" else GPU_BLOCK_BYTES
    K = int(kernel_size) if sampling == "lattice" else max(size)
    (Ly, ty), (Lx, tx) = (window_layout(pixels, K) for pixels in size)
    lattice_area, window_area = (K + 2) * max(K + 2, Lx) if sampling == "lattice" else 0, Ly * Lx
    per_gaussian = max(lattice_area, window_area, C * ty * tx) * amplitudes.element_size()
    gaussians = max(1, min(N, budget // per_gaussian))
    per_frame = max(gaussians * per_gaussian, C * ty * tx * window_area * amplitudes.element_size())
    return max(1, budget // per_frame), gaussians, P * N * per_gaussian > SAVED_BYTES


def autocast_off(device_type: str) -> contextlib.AbstractContextManager[None]:
    """A context without autocast; it is a null context where possible, to keep it out of exported graphs."""
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return contextlib.nullcontext()
