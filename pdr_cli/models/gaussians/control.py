"""Controls: adapters of equal size and input that paint their layer directly, without Gaussians.

A comparison with a control tells what the Gaussians contribute from what further layers would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pdr_cli.models.gaussians.base import FrameAdapter
from pdr_cli.models.gaussians.local import Features, LocalGS
from pdr_cli.models.gaussians.predgs import MLP, Pooling, PredGS, check_grid, pooled_plane
from pdr_cli.models.interfaces import Frames
from pdr_cli.models.layers import interpolation

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig

MISFIT = 0.025  # share of the parameters by which a control may differ, where a coarser plane fits better
NARROW = 0.1  # of PredGS's hidden width: fewer units pass hardly any picture


class MLPControl(FrameAdapter):
    """The control of `PredGS`: its pooled plane and an MLP that paints the layer, with as many parameters.

    On large frames each hidden unit costs a weight for every pixel, and few units would remain: a coarser plane is then
    painted and interpolated, the finest one that leaves enough units and meets the number of parameters.

    Args:
        frames: C and (H, W), to which the flattened plane binds the control.
        options: of the `PredGS` that the control is compared with.
    """

    up_rows: Tensor
    up_columns: Tensor

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        super().__init__(frames.channels, options)
        self.size = (frames.size[0], frames.size[1])
        self.pool = Pooling(self.size, options)
        inputs, depth = self.inputs * self.pool.cells, options.mlp_depth

        def count(width: int, plane: tuple[int, int]) -> int:
            return mlp_parameters(inputs, width, depth, frames.channels * math.prod(plane))

        target, least = parameters_of(on_meta(lambda: PredGS(frames, options))), math.ceil(NARROW * options.hidden)
        (h, w), width = fitting_plane(count, self.size, target, least)
        self.mlp = MLP(inputs, width, (frames.channels, h, w), depth)
        make_faint(self.mlp.last)
        self.register_buffer("up_rows", interpolation(h, self.size[0]), persistent=False)  # [H, h]
        self.register_buffer("up_columns", interpolation(w, self.size[1]), persistent=False)  # [W, w]

    def forward(
        self,
        coarse: Tensor,
        observed: Tensor | None = None,
        covariates: Tensor | None = None,
        seeds: Tensor | None = None,
    ) -> Tensor:
        check_grid(coarse, (self.channels, *self.size))
        painted = self.mlp(self.pool(self.read(coarse, observed)))  # [B, τ, C, h, w]
        return self.up_rows.to(painted) @ painted @ self.up_columns.to(painted).T


class ConvControl(FrameAdapter):
    """The control of `LocalGS`: its convolutional features, from which each cell paints its own pixels.

    Args:
        frames: C.
        options: of the `LocalGS` that the control is compared with.
    """

    auto_input = LocalGS.auto_input

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        super().__init__(frames.channels, options)
        pixels = frames.channels * options.cell_stride**2

        def layers(width: int) -> tuple[Features, nn.Conv2d]:
            return Features(self.inputs, width, options.cell_stride, options.conv_depth), nn.Conv2d(width, pixels, 1)

        def count(width: int) -> int:
            return parameters_of(on_meta(lambda: nn.ModuleList(layers(width))))

        target = parameters_of(on_meta(lambda: LocalGS(frames, options)))
        self.features, self.head = layers(nearest(count, target))
        self.cell_stride = options.cell_stride
        make_faint(self.head)

    def forward(
        self,
        coarse: Tensor,
        observed: Tensor | None = None,
        covariates: Tensor | None = None,
        seeds: Tensor | None = None,
    ) -> Tensor:
        B, T, _, H, W = coarse.shape
        cells = self.head(self.features(self.read(coarse, observed).flatten(0, 1)))
        return nn.functional.pixel_shuffle(cells, self.cell_stride)[..., :H, :W].unflatten(0, (B, T))


def fitting_plane(
    count: Callable[[int, tuple[int, int]], int], size: tuple[int, int], target: int, least: int
) -> tuple[tuple[int, int], int]:
    """The finest plane (h, w) whose `count(width, plane)` meets `target` with a width of `least` or more, and the width.

    If none does, the plane with the smallest difference.
    """
    fits = []
    for plane in planes(size):
        width = nearest(lambda w, plane=plane: count(w, plane), target)  # type: ignore[misc]
        misfit = abs(count(width, plane) / target - 1)
        if misfit <= MISFIT and width >= least:
            return plane, width
        fits.append((misfit, plane, width))
    _, plane, width = min(fits)
    return plane, width


def planes(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The grid of the frame, then ever coarser ones."""
    for rate in range(1, max(size) + 1):
        yield pooled_plane(size, rate)


def mlp_parameters(inputs: int, hidden: int, depth: int, outputs: int) -> int:
    """Weights and biases of an `MLP`."""
    return (inputs + 1) * hidden + (depth - 1) * (hidden + 1) * hidden + (hidden + 1) * outputs


def nearest(count: Callable[[int], int], target: int) -> int:
    """The width, from 1, whose count is nearest to `target`; counts grow with the width."""
    width = 1
    while count(width) < target:
        width += 1
    return width if width == 1 or count(width) - target <= target - count(width - 1) else width - 1


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a module without memory or random numbers."""
    with torch.device("meta"):
        return build()


def parameters_of(module: nn.Module) -> int:
    """Number of learned values."""
    return sum(p.numel() for p in module.parameters())


def make_faint(layer: nn.Linear | nn.Conv2d) -> None:
    """Let the layer start faint, as Gaussians do."""
    nn.init.normal_(layer.weight, std=1e-3)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # there is a bias
