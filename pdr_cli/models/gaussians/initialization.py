"""Where Gaussians start (§3.3): on a grid, on corners or bright pixels of a training frame, or at random.

All centres are (x, y) in [-1, 1]: -1 is the centre of the first pixel, +1 that of the last. [N, 2], float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

HARRIS_K, HARRIS_SIGMA = 0.04, 1.0  # Harris and Stephens 1988, the usual values


@dataclass(frozen=True)
class Initialization:
    """A rule for the first centres.

    Args:
        first: (N, (H, W)) to the centres [N, 2] before any data are seen; None: the first weights place the Gaussians.
        points: a picture [H, W] and N to at most N salient points of it, [n, 2]; None: the data do not matter.
    """

    first: Callable[[int, tuple[int, int]], Tensor] | None
    points: Callable[[Tensor, int], Tensor] | None = None


def centres_in(points: Callable[[Tensor, int], Tensor], N: int, frame: Tensor) -> Tensor:
    """The salient points of a frame [C, H, W]; if they are fewer than N, the others fill the widest gaps."""
    picture = salience(frame.detach().double().cpu())
    return fill(points(picture, N), N, (picture.shape[0], picture.shape[1]))


def salience(frame: Tensor) -> Tensor:
    """A single channel unchanged; several as the mean of their absolute anomalies. [C, H, W] → [H, W]."""
    if len(frame) == 1:
        return frame[0]
    return (frame - frame.mean(dim=(1, 2), keepdim=True)).abs().mean(dim=0)


def brightest(picture: Tensor, N: int) -> Tensor:
    """The N largest pixels of [H, W], largest first, of equal ones the first in row order first."""
    order = picture.flatten().argsort(descending=True, stable=True)[:N]
    return positions(order // picture.shape[1], order % picture.shape[1], picture)


def corners(picture: Tensor, N: int) -> Tensor:
    """At most N Harris corners of [H, W], the strongest first."""
    from skimage.feature import corner_harris, peak_local_max

    response = corner_harris(picture.numpy(), k=HARRIS_K, sigma=HARRIS_SIGMA)
    # A corner's response is above 0, an edge's below it.
    found = torch.from_numpy(
        peak_local_max(response, min_distance=1, threshold_abs=0, exclude_border=False, num_peaks=N)
    )
    return positions(found[:, 0], found[:, 1], picture)


def positions(rows: Tensor, columns: Tensor, picture: Tensor) -> Tensor:
    """Pixels of [H, W] as centres."""
    H, W = picture.shape
    half = torch.tensor([max(W - 1, 1), max(H - 1, 1)], dtype=torch.float64) / 2
    return torch.stack([columns, rows], dim=-1).double() / half - 1


def fill(found: Tensor, N: int, size: tuple[int, int]) -> Tensor:
    """`found`, [n, 2], and cells of an even grid up to N points: each time the cell that is farthest from all points."""
    candidates = even_grid(N, size)
    aspect = torch.tensor([size[1], size[0]], dtype=torch.float64)  # distances are in pixels on any frame
    distance = torch.full((N,), math.inf, dtype=torch.float64)
    if len(found):
        distance = torch.cdist(candidates * aspect, found * aspect).amin(dim=1)
    chosen = [found]
    for _ in range(N - len(found)):
        farthest = candidates[distance.argmax()]
        chosen.append(farthest[None])
        distance = torch.minimum(distance, ((candidates - farthest) * aspect).norm(dim=1))
    return torch.cat(chosen)


def even_grid(N: int, size: tuple[int, int]) -> Tensor:
    """N cell centres, row by row, as square as the frame allows.

    n_x·n_y cells cover the frame; of more than N, N are taken at even steps.
    """
    H, W = size
    n_x = math.ceil(math.sqrt(N * W / H))
    n_y = math.ceil(N / n_x)
    cell = (2 * torch.arange(N) + 1) * (n_x * n_y) // (2 * N)
    x = (2 * (cell % n_x) + 1).double() / n_x - 1
    y = (2 * (cell // n_x) + 1).double() / n_y - 1
    return torch.stack([x, y], dim=-1)


def anywhere(N: int, size: tuple[int, int]) -> Tensor:
    """N centres uniformly at random."""
    return 2 * torch.rand(N, 2, dtype=torch.float64) - 1


grid = Initialization(even_grid)
corner = Initialization(even_grid, corners)
color = Initialization(even_grid, brightest)
random = Initialization(anywhere)
none = Initialization(None)
