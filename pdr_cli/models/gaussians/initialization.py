"""Where Gaussians start (§3.3): on a grid, on corners or bright pixels of a training frame, or anywhere.

All centres are (x, y) in [-1, 1]: -1 is the centre of the first pixel, +1 that of the last. [N, 2], float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pdr_cli.models.gaussians.base import check_choice

INITIALIZATIONS = ("grid", "corner", "color", "random", "none")
FROM_DATA = ("corner", "color")
HARRIS_K, HARRIS_SIGMA = 0.04, 1.0  # Harris and Stephens 1988, as usually set


def first_centres(init: str, N: int, size: tuple[int, int]) -> Tensor:
    """Centres before any data are seen: random, or the grid.

    Raises:
        ConfigError: an unknown initialisation.
    """
    check_choice("init", init, INITIALIZATIONS)
    return 2 * torch.rand(N, 2, dtype=torch.float64) - 1 if init == "random" else even_grid(N, size)


def centres_in(init: str, N: int, frame: Tensor) -> Tensor:
    """Centres by what a frame shows: its corners, or its brightest pixels ("color"); frame: [C, H, W].

    Where the frame has fewer than N, the rest fills the widest gaps.
    """
    picture = salience(frame.detach().double().cpu())
    found = corners(picture, N) if init == "corner" else brightest(picture, N)
    return fill(found, N, (picture.shape[0], picture.shape[1]))


def salience(frame: Tensor) -> Tensor:
    """One channel as it is; several as the mean of their absolute anomalies. [C, H, W] → [H, W]."""
    if len(frame) == 1:
        return frame[0]
    return (frame - frame.mean(dim=(1, 2), keepdim=True)).abs().mean(dim=0)


def brightest(picture: Tensor, N: int) -> Tensor:
    """The N largest pixels of [H, W], the largest first, the earlier of equal ones first."""
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
    """`found`, [n, 2], and further cells of an even grid until there are N: each time the one farthest from all."""
    candidates = even_grid(N, size)
    aspect = torch.tensor(
        [size[1], size[0]], dtype=torch.float64
    )  # distances are in pixels, whatever the frame's shape
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

    n_x·n_y cells cover the frame; where that is more than N, N of them are taken at even steps.
    """
    H, W = size
    n_x = math.ceil(math.sqrt(N * W / H))
    n_y = math.ceil(N / n_x)
    cell = (2 * torch.arange(N) + 1) * (n_x * n_y) // (2 * N)
    x = (2 * (cell % n_x) + 1).double() / n_x - 1
    y = (2 * (cell // n_x) + 1).double() / n_y - 1
    return torch.stack([x, y], dim=-1)
