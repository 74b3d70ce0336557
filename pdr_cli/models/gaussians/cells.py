"""Gaussians measured in pixels, each near the middle of a cell: where they lie, how large they are, and their rendering."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pdr_cli import splat
from pdr_cli.models.gaussians.base import to_coords

REACH = 1.5  # cells from its anchor that a Gaussian may lie
SMALLEST = 0.3  # σ of a Gaussian, pixels
LARGEST = 1.6  # σ at most, cells
ANISOTROPY = 0.05  # raw difference of both σ at the start, or the rotation would have no gradient
NUMBERS = 5  # of a shape: place 2, scale 2, rotation


class Shapes(NamedTuple):
    """Places and shapes of Gaussians."""

    centre: Tensor  # [..., N, 2], pixels, x to the right, y down
    scale: Tensor  # [..., N, 2], σ in units of the largest
    rotation: Tensor  # [..., N], radians


@dataclass(frozen=True)
class Cells:
    """Gaussians of the cells of a frame.

    Args:
        stride: side of a cell, pixels.
        first: σ at the start, cells.
    """

    stride: int
    first: float

    @property
    def largest(self) -> float:
        """Largest σ, pixels."""
        return LARGEST * self.stride

    @property
    def kernel_size(self) -> float:
        """K of the renderer, whose unit of scale is then `largest`."""
        return 10 * self.largest + 1

    def anchors(self, grid: Sequence[int], like: Tensor) -> Tensor:
        """The middles of the cells of a grid (h, w), row by row, in pixels: [h·w, 2]."""
        rows, columns = (torch.arange(n).to(like) * self.stride + (self.stride - 1) / 2 for n in grid)
        return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).flatten(0, 1)

    def shapes(self, raw: Tensor, grid: Sequence[int]) -> Shapes:
        """Unbounded numbers [..., h·w, 5] → a shape for each cell; zeros are round Gaussians in the middles of their cells."""
        share = (self.first * self.stride - SMALLEST) / (self.largest - SMALLEST)
        start = math.log(share / (1 - share)) + raw.new_tensor([ANISOTROPY, -ANISOTROPY])
        sigma = SMALLEST + (self.largest - SMALLEST) * torch.sigmoid(raw[..., 2:4] + start)
        centre = self.anchors(grid, raw) + REACH * self.stride * torch.tanh(raw[..., :2])
        return Shapes(centre, sigma / self.largest, math.pi / 2 * torch.tanh(raw[..., 4]))

    def render(self, shapes: Shapes, amplitudes: Tensor, size: tuple[int, int]) -> Tensor:
        """The frames (H, W) of Gaussians whose centres move, [B, τ, N, 2], and whose scales or rotations may stay,
        [B, 1, N, ...]; amplitudes: [B, τ, N, C] → [B, τ, C, H, W].
        """
        frames = shapes.centre.shape[1]
        scale, rotation = (t.expand(-1, frames, *t.shape[2:]) for t in (shapes.scale, shapes.rotation))
        gaussians = (to_coords(shapes.centre, size), scale, rotation, amplitudes)

        def render(*gaussians: Tensor) -> Tensor:
            return splat.render(*gaussians, size=size, kernel_size=self.kernel_size, sampling="analytic")

        if not torch.compiler.is_compiling():
            return render(*gaussians)
        # An exported graph holds a value of each Gaussian at each pixel; frame by frame they fit into memory.
        each = zip(*(tensor.unbind(dim=1) for tensor in gaussians), strict=True)
        return torch.stack([render(*frame) for frame in each], dim=1)
