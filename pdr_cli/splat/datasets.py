"""Gaussians that are kept in a file, drawn again: `pdr export -o gaussians.nc` writes them.

The file places them in the coordinates of its grid, such as degrees, and the renderer in pixels. A linear map of the plane takes
one ellipse to another, so both directions are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pdr_cli.splat.reference import EXTENT

if TYPE_CHECKING:
    import xarray as xr

AMPLITUDE = "amplitude_"  # before the name of each variable
COORDINATES = "coordinates"  # value of `sizes_in`: sizes are in the units of the centres, and not in cells
FINE = EXTENT + 1  # lattice points in a pixel's kernel unit, so that scales are in pixels


def arguments(
    dataset: xr.Dataset, size: tuple[int, int] | None = None
) -> tuple[tuple[Tensor, ...], Mapping[str, object]]:
    """What `render` is called with: (coords, scale, rotation, amplitudes), float64, and its keywords.

    Args:
        dataset: as `pdr export -o gaussians.nc` writes it.
        size: (H, W) from the first to the last row and column of its grid; None: its grid itself.

    Raises:
        ValueError: Gaussians without amplitudes, which carry the last observed frame and paint nothing.
    """
    names = [str(name) for name in dataset.data_vars if str(name).startswith(AMPLITUDE)]
    if not names:
        raise ValueError(
            f"the dataset has no {AMPLITUDE}NAME: its Gaussians carry the last observed frame, see docs/moving.md"
        )
    own = int(dataset.attrs["rows"]), int(dataset.attrs["columns"])
    H, W = size or own
    fine = [(n - 1) / max(m - 1, 1) for n, m in zip((H, W), own, strict=True)]  # new pixels in a cell
    place, factors = [], []
    for dim, cells, ratio in zip(("x", "y"), own[::-1], fine[::-1], strict=True):
        axis = _axis(dataset, dim, cells)
        place.append(2 * _index(axis, _tensor(dataset[f"centre_{dim}"])) / max(cells - 1, 1) - 1)
        spacing = (axis[-1] - axis[0]) / max(cells - 1, 1) if dataset.attrs["sizes_in"] == COORDINATES else 1.0
        factors.append(ratio / spacing)
    sigma = torch.stack([_tensor(dataset[name]) for name in ("sigma_1", "sigma_2")], dim=-1)
    sigma, rotation = stretched(sigma, _tensor(dataset["rotation"]), *factors)
    amplitudes = torch.stack([_tensor(dataset[name]) for name in names], dim=-1)
    K = float(dataset.attrs["kernel_size"]) if size is None else FINE
    keywords = {"size": (H, W), "kernel_size": K, "sampling": "lattice" if size is None else "analytic"}
    return (torch.stack(place, dim=-1), sigma * EXTENT / (K - 1), rotation, amplitudes), keywords


def stretched(
    sigma: Tensor, rotation: Tensor, along_x: Tensor | float, along_y: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Ellipses in a plane whose axes are stretched, mirrored where a factor is negative.

    Args:
        sigma: [..., 2] standard deviations along the ellipse's own axes.
        rotation: [...] of the first one from +x towards +y.
        along_x: factor of x.
        along_y: factor of y.

    Returns:
        sigma, the larger first, and rotation in the new plane.
    """
    first, second = sigma.square().unbind(-1)
    cos, sin = torch.cos(rotation), torch.sin(rotation)
    xx = (cos.square() * first + sin.square() * second) * along_x**2
    yy = (sin.square() * first + cos.square() * second) * along_y**2
    xy = cos * sin * (first - second) * (along_x * along_y)
    larger = (xx + yy) / 2 + torch.hypot((xx - yy) / 2, xy)
    smaller = first * second * (along_x * along_y) ** 2 / larger  # of the determinant, which does not cancel
    return torch.stack([larger, smaller], dim=-1).sqrt(), torch.atan2(2 * xy, xx - yy) / 2


def _tensor(array: xr.DataArray) -> Tensor:
    """Float64, the Gaussians last."""
    ordered = array.transpose(..., "gaussian") if "gaussian" in array.dims else array
    return torch.as_tensor(ordered.values.astype("float64"))


def _axis(dataset: xr.Dataset, dim: str, cells: int) -> Tensor:
    """The coordinate of the cells along x or y: [cells]; without one, their numbers."""
    name = dataset.attrs.get(f"grid_{dim}", "")
    return _tensor(dataset[name]) if name else torch.arange(cells, dtype=torch.float64)


def _index(axis: Tensor, values: Tensor) -> Tensor:
    """Values of a coordinate as fractional cells from the first; beyond the last cell its spacing goes on."""
    if len(axis) == 1:
        return values - axis[0]
    if axis[0] > axis[-1]:
        axis, values = -axis, -values
    after = torch.searchsorted(axis, values.contiguous()).clamp(1, len(axis) - 1)
    before = axis[after - 1]
    return after - 1 + (values - before) / (axis[after] - before)
