"""A forecast between the cells of its grid: Gaussians at any place, everything else interpolated.

The layer at a place is the interpolated layer of the grid, plus the difference between the Gaussians' value there and the same
interpolation of their values on the grid. At the cells themselves it is the layer that the model draws. The fusion, which joins
both parts pixel by pixel, then runs at the places.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pdr_cli import splat
from pdr_cli.models import fusion
from pdr_cli.models.gaussians.base import GaussianAdapter, Gaussians, drawing
from pdr_cli.models.interfaces import Forecast
from pdr_cli.models.pdr import PDR
from pdr_cli.splat.datasets import FINE, stretched
from pdr_cli.splat.reference import EXTENT, density

DIGITS = 9  # of a cell, to which rows and columns are told apart
POINTS = 2**22  # values of Gaussians at single places that are computed at once
BILINEAR, BICUBIC = 2, 4  # taps
Spread = Callable[[Tensor], Tensor]  # frames [..., H, W] to places [..., R, S]


class Spots(NamedTuple):
    """Places in cells of frames (H, W), float64.

    rows: [R], or of single places [P].
    columns: [S], or of single places [P].
    crossed: every row with every column; otherwise one place for each pair.
    circle: columns after which frames begin again, on a globe; 0: they do not.
    """

    rows: Tensor
    columns: Tensor
    crossed: bool
    circle: int = 0


def paints(network: PDR) -> GaussianAdapter | None:
    """The adapter whose Gaussians a forecast adds up and joins pixel by pixel; None where they do something else.

    Gaussians that carry move the last frame. The fusions of other packages may mix neighbouring pixels, and with tiles every tile
    has a forecast of its own.
    """
    adapter = drawing(network.adapter)
    ours = type(network.fusion).__module__ == fusion.__name__ and network.fusion.needs_layer
    carries = isinstance(network.fusion, fusion.CarryFusion)
    return adapter if adapter is not None and ours and not carries and network.tiles is None else None


def forecast(
    network: PDR, observed: Tensor, out: Forecast, spots: Spots, taps: int = BILINEAR, spread: Spread | None = None
) -> Tensor:
    """A forecast at places, within the bounds: [B, τ, C, R, S], of single places [B, τ, C, 1, P].

    Args:
        network: in evaluation mode.
        observed: the frames that it has read, [B, T, C, H, W].
        out: what it has made of them.
        spots: the places.
        taps: of the interpolation, see `interpolated`.
        spread: interpolates the coarse part, and without Gaussians that paint the whole forecast; default: as the layer.
    """

    def alike(frames: Tensor) -> Tensor:
        return interpolated(frames, spots, taps)

    adapter, spread = paints(network), spread or alike
    if adapter is None or out.layer is None:
        return network.bounded(spread(out.fused))
    gaussians = adapter.gaussians(out.coarse, observed)
    layer = alike(out.layer) + detail(gaussians, adapter, _size(out.layer), spots, taps)
    return network.bounded(network.fusion(spread(out.coarse), layer))


def interpolated(frames: Tensor, spots: Spots, taps: int = BILINEAR) -> Tensor:
    """Frames at places: [..., H, W] → [..., R, S], of single places [..., 1, P].

    Args:
        frames: to interpolate.
        spots: the places.
        taps: cells along each axis that a place depends on: 2 bilinear, 4 bicubic (Keys 1981, a = -1/2; the outermost cells
            are repeated).
    """
    H, W = _size(frames)
    rows, down = _taps(spots.rows, H, False, taps, frames)
    columns, along = _taps(spots.columns, spots.circle or W, bool(spots.circle), taps, frames)
    if spots.crossed:
        frames = sum((frames[..., rows[k], :] * down[k][:, None] for k in range(taps)), frames.new_zeros(()))
        return sum((frames[..., columns[k]] * along[k] for k in range(taps)), frames.new_zeros(()))
    pairs = ((j, k) for j in range(taps) for k in range(taps))
    at_each = (frames[..., rows[j], columns[k]] * (down[j] * along[k]) for j, k in pairs)
    return sum(at_each, frames.new_zeros(()))[..., None, :]


def detail(
    gaussians: Gaussians, adapter: GaussianAdapter, size: tuple[int, int], spots: Spots, taps: int = BILINEAR
) -> Tensor:
    """What Gaussians have between cells beyond the interpolation of their values at the cells; 0 across the end of a circle.

    In float32, whatever the network computes in: places do not fit into 8 bits.
    """
    with torch.autocast(gaussians.coords.device.type, enabled=False):
        return _detail(Gaussians(*(part.float() for part in gaussians)), adapter, size, spots, taps)


def _detail(gaussians: Gaussians, adapter: GaussianAdapter, size: tuple[int, int], spots: Spots, taps: int) -> Tensor:
    if adapter.normalize == "density":
        gaussians = gaussians._replace(amplitudes=gaussians.amplitudes * density(gaussians.scale))
    sigma = gaussians.scale * ((adapter.kernel_size - 1) / EXTENT)  # pixels
    H, W = size
    every = Spots(torch.arange(H, dtype=torch.float64), torch.arange(W, dtype=torch.float64), crossed=True)
    at_cells, at_spots = (_drawn(gaussians, sigma, size, at, adapter.backend) for at in (every, spots))
    beyond = spots.columns > spots.circle - 1 if spots.circle else torch.zeros_like(spots.columns, dtype=torch.bool)
    # Gaussians do not go round, so that the interpolation of their values does not either.
    apart = at_spots - interpolated(at_cells, spots._replace(circle=0), taps)
    return apart * ~beyond.to(at_spots.device)


def _drawn(gaussians: Gaussians, sigma: Tensor, size: tuple[int, int], spots: Spots, backend: str) -> Tensor:
    """The values of Gaussians at places of frames of a size: [B, τ, C, R, S], of single places [B, τ, C, 1, P]."""
    half = gaussians.coords.new_tensor([(size[1] - 1) / 2, (size[0] - 1) / 2])
    centre = (gaussians.coords + 1) * half  # cells
    if not spots.crossed:
        return _at_each(gaussians, sigma, centre, spots)
    (rows, row), (columns, column) = (_in_order(v) for v in (spots.rows, spots.columns))
    first = centre.new_tensor([columns[0], rows[0]])
    pitch = centre.new_tensor([_pitch(columns), _pitch(rows)])
    shape = (len(rows), len(columns))
    end = centre.new_tensor([max(shape[1] - 1, 1), max(shape[0] - 1, 1)])
    pixels, rotation = stretched(sigma, gaussians.rotation, *(1 / pitch))
    image = splat.render(
        2 * (centre - first) / pitch / end - 1, pixels * EXTENT / (FINE - 1), rotation, gaussians.amplitudes,
        size=shape, kernel_size=FINE, sampling="analytic", backend=backend,
    )  # fmt: skip
    return image[..., row, :][..., column]


def _at_each(gaussians: Gaussians, sigma: Tensor, centre: Tensor, spots: Spots) -> Tensor:
    """exp(-q/2) at single places, a block of places at a time: [B, τ, C, 1, P]."""
    places = torch.stack([spots.columns, spots.rows], dim=-1).to(centre)
    cos, sin = torch.cos(gaussians.rotation), torch.sin(gaussians.rotation)
    turn = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2) / sigma[..., None]
    blocks = []
    for part in places.split(max(1, POINTS // max(1, centre[..., 0].numel()))):
        apart = part[:, None] - centre[..., None, :, :]  # [B, τ, P, N, 2]
        q = torch.einsum("...nij,...pnj->...pni", turn, apart).square().sum(-1)
        blocks.append(torch.einsum("...pn,...nc->...cp", torch.exp(-q / 2), gaussians.amplitudes))
    return torch.cat(blocks, dim=-1)[..., None, :]


def _taps(index: Tensor, cells: int, around: bool, taps: int, frames: Tensor) -> tuple[Tensor, Tensor]:
    """The cells that fractional indices depend on and the share of each: [taps, n] both."""
    before = index.floor().clamp(0, cells - 1)
    t = index - before
    if taps == BILINEAR:
        first, shares = 0, torch.stack([1 - t, t])
    else:
        first = -1
        ends = [((-0.5 * u + 1) * u - 0.5) * u for u in (t, 1 - t)]  # of the cells farther away
        middles = [(1.5 * u - 2.5) * u * u + 1 for u in (t, 1 - t)]
        shares = torch.stack([ends[0], *middles, ends[1]])
    found = before.long() + torch.arange(first, first + taps)[:, None]
    found = found % cells if around else found.clamp(0, cells - 1)
    return found.to(frames.device), shares.to(frames)


def _in_order(index: Tensor) -> tuple[Tensor, Tensor]:
    """Indices in order, each once, and where in that order each is."""
    return torch.unique((index * 10**DIGITS).round() / 10**DIGITS, return_inverse=True)


def _pitch(index: Tensor) -> float:
    """The spacing of evenly spaced indices."""
    return float(index[-1] - index[0]) / (len(index) - 1) if len(index) > 1 else 1.0


def _size(frames: Tensor) -> tuple[int, int]:
    return int(frames.shape[-2]), int(frames.shape[-1])
