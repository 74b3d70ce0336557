"""Controls: what an adapter of equal size and input does without Gaussians, painting its layer directly.

A comparison with one of these tells what the Gaussians bring from what any further layers would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from pdr_cli.models.gaussians.base import Adapter
from pdr_cli.models.gaussians.local import Features
from pdr_cli.models.gaussians.predgs import MLP, Pooling, check_grid, pooled_plane

MISFIT = 0.025  # share of the parameters by which a control may differ, where a coarser plane fits better
NARROW = 0.1  # of PredGS's hidden width: through fewer units hardly a picture passes


class MLPControl(Adapter):
    """PredGS's pooled plane and an MLP, which paints the layer.

    On large frames each hidden unit costs a weight for every pixel, and few would be left: there a coarser plane is
    painted and interpolated, the finest that leaves enough of them and meets the number of parameters.

    Args:
        channels: C.
        size: (H, W), which the flattened plane ties the control to.
        uses_last: read the last observed frame beside the coarse forecast.
        downsample: as for `PredGS`.
        hidden: D of the `PredGS` it stands beside.
        mlp_depth: hidden layers.
        parameters: how many it should have.
    """

    up_rows: Tensor
    up_columns: Tensor

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        *,
        uses_last: bool,
        downsample: float | Literal["auto"],
        hidden: int,
        mlp_depth: int,
        parameters: int,
    ) -> None:
        super().__init__(channels, uses_last)
        self.size = (size[0], size[1])
        self.pool = Pooling(size, downsample)
        inputs = self.inputs * self.pool.cells

        def count(width: int, plane: tuple[int, int]) -> int:
            return mlp_parameters(inputs, width, mlp_depth, channels * math.prod(plane))

        (h, w), width = fitting_plane(count, self.size, parameters, math.ceil(NARROW * hidden))
        self.mlp = MLP(inputs, width, (channels, h, w), mlp_depth)
        make_faint(self.mlp.last)
        self.register_buffer("up_rows", interpolation(h, size[0]), persistent=False)  # [H, h]
        self.register_buffer("up_columns", interpolation(w, size[1]), persistent=False)  # [W, w]

    def forward(self, coarse: Tensor, last: Tensor | None = None) -> Tensor:
        check_grid(coarse, (self.channels, *self.size))
        painted = self.mlp(self.pool(self.read(coarse, last)))  # [B, T, C, h, w]
        return self.up_rows.to(painted) @ painted @ self.up_columns.to(painted).T


class ConvControl(Adapter):
    """LocalGS's convolutional features, from which each cell paints its own pixels.

    Args:
        channels: C.
        uses_last: read the last observed frame beside the coarse forecast.
        cell_stride: side of a cell in pixels, a power of 2.
        conv_depth: 3×3 convolutions at the resolution of the cells.
        parameters: how many it should have.
    """

    def __init__(self, channels: int, *, uses_last: bool, cell_stride: int, conv_depth: int, parameters: int) -> None:
        super().__init__(channels, uses_last)
        pixels = channels * cell_stride**2

        def layers(width: int) -> tuple[Features, nn.Conv2d]:
            return Features(self.inputs, width, cell_stride, conv_depth), nn.Conv2d(width, pixels, 1)

        width = nearest(lambda width: sum(map(parameters_of, on_meta(lambda: layers(width)))), parameters)
        self.features, self.head = layers(width)
        self.cell_stride = cell_stride
        make_faint(self.head)

    def forward(self, coarse: Tensor, last: Tensor | None = None) -> Tensor:
        B, T, _, H, W = coarse.shape
        cells = self.head(self.features(self.read(coarse, last).flatten(0, 1)))
        return nn.functional.pixel_shuffle(cells, self.cell_stride)[..., :H, :W].unflatten(0, (B, T))


def fitting_plane(
    count: Callable[[int, tuple[int, int]], int], size: tuple[int, int], wanted: int, least: int
) -> tuple[tuple[int, int], int]:
    """The finest plane (h, w) that meets the wanted `count(width, plane)` with a width of `least` or more, and the width.

    Where none does, the one that misses it least.
    """
    fits = []
    for plane in planes(size):
        width = nearest(lambda w, plane=plane: count(w, plane), wanted)  # type: ignore[misc]
        misfit = abs(count(width, plane) / wanted - 1)
        if misfit <= MISFIT and width >= least:
            return plane, width
        fits.append((misfit, plane, width))
    _, plane, width = min(fits)
    return plane, width


def planes(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The frame, and then ever coarser ones."""
    for rate in range(1, max(size) + 1):
        yield pooled_plane(size, rate)


def mlp_parameters(inputs: int, hidden: int, depth: int, outputs: int) -> int:
    """Weights and biases of an `MLP`."""
    return (inputs + 1) * hidden + (depth - 1) * (hidden + 1) * hidden + (hidden + 1) * outputs


def nearest(count: Callable[[int], int], wanted: int) -> int:
    """The width, from 1, whose count, which grows with it, is nearest to the wanted one."""
    width = 1
    while count(width) < wanted:
        width += 1
    return width if width == 1 or count(width) - wanted <= wanted - count(width - 1) else width - 1


def on_meta(build: Callable[[], tuple[nn.Module, ...]]) -> tuple[nn.Module, ...]:
    """What is built, without memory or random numbers."""
    with torch.device("meta"):
        return build()


def parameters_of(module: nn.Module) -> int:
    """How many numbers are learnt."""
    return sum(p.numel() for p in module.parameters())


def make_faint(layer: nn.Linear | nn.Conv2d) -> None:
    """Start from a layer that hardly shows, as the Gaussians do."""
    nn.init.normal_(layer.weight, std=1e-3)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # there is a bias


def interpolation(cells: int, length: int) -> Tensor:
    """The matrix [length, cells] of linear interpolation along one axis; of equal length it changes nothing.

    As a matrix because interpolation has no deterministic gradient on GPUs.
    """
    return nn.functional.interpolate(torch.eye(cells)[None], size=length, mode="linear")[0].T.contiguous()
