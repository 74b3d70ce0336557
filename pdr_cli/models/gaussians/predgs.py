"""PredGS (Eq. 8): N Gaussians from each coarse frame, and the layer rendered from them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pdr_cli.choices import INITIALIZATIONS
from pdr_cli.errors import ConfigError, GridError
from pdr_cli.models.gaussians.base import REACH, GaussianAdapter, Gaussians, nearest_odd, smallest_kernel
from pdr_cli.models.gaussians.initialization import Initialization, centres_in
from pdr_cli.models.interfaces import Frames

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig

PLANE_CELLS = 256  # the pooled plane of all four published settings, which "auto" aims at
BORDER = 1e-3  # how far from ±1 a centre starts at least, so that atanh is finite and tanh still learns


class PredGS(GaussianAdapter):
    """Average pooling to about 256 cells, then one MLP per Gaussian parameter, shared by all frames.

    The MLPs read the flattened plane, so the adapter belongs to one grid.

    Args:
        frames: C and (H, W).
        options: of the adapter: `gaussians` is N, `kernel_size` K ("auto": `auto_kernel_size`), `downsample` the pooling
            rate r ("auto": `auto_downsample`), `hidden` and `mlp_depth` shape the MLPs. `init` names an
            `Initialization`. `coords` "absolute" takes tanh of an MLP's output as a centre anywhere in the frame; "offset"
            moves Gaussians from where they start by at most `REACH` times the spacing between them.

    Raises:
        ConfigError: values with which nothing can be rendered.
    """

    anchors: Tensor

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        N, size, C = options.gaussians, (frames.size[0], frames.size[1]), frames.channels
        check_options(options)
        kernel_size = options.kernel_size
        super().__init__(
            C, options, auto_kernel_size(N, size, options.sigma_min) if kernel_size == "auto" else kernel_size
        )
        self.size, self.coords = size, options.coords
        self.start: Initialization = INITIALIZATIONS.find(options.init)
        self.pool = Pooling(size, options)
        self.mlp_coords = self._mlp((N, 2), options)
        self.mlp_scale = self._mlp((N, 2), options)
        self.mlp_rotation = self._mlp((N,), options)
        self.mlp_amplitudes = self._mlp((N, C), options)
        if self.start.first is not None:
            # A saved model needs neither the data that placed its Gaussians nor the rule of the grid.
            kept = options.init != "grid" or options.coords == "offset"
            self.register_buffer("anchors", torch.zeros(N, 2), persistent=kept)
            self._place(self.start.first(N, size))
        self._shape_first_gaussians(math.sqrt(size[0] * size[1] / N))

    def _mlp(self, shape: tuple[int, ...], options: ModelConfig) -> MLP:
        return MLP(self.inputs * self.pool.cells, options.hidden, shape, options.mlp_depth)

    def initialize(self, frame: Tensor) -> None:
        """Move the Gaussians to the corners or bright pixels of a frame [C, H, W], if `init` asks for it."""
        if self.start.points is not None:
            self._place(centres_in(self.start.points, self.count(self.size), frame))

    def count(self, size: tuple[int, int]) -> int:
        """N, on any frame."""
        return self.mlp_rotation.shape[0]

    def gaussians(self, coarse: Tensor, observed: Tensor | None = None) -> Gaussians:
        """The Gaussians of each frame: coarse: [B, τ, C, H, W]; observed: [B, T, C, H, W]."""
        check_grid(coarse, (self.channels, *self.size))
        # Half precision would place a centre on a 256-pixel side no better than to the pixel.
        with torch.autocast(coarse.device.type, enabled=False):
            cells = self.pool(self.read(coarse, observed).to(self.mlp_coords.first.weight.dtype))  # [B, τ, inputs·h·w]
            return Gaussians(
                coords=self._coords(self.mlp_coords(cells)),
                scale=self.scale_of(self.mlp_scale(cells)),
                rotation=self.rotation_of(self.mlp_rotation(cells)),
                amplitudes=self.amplitudes_of(self.mlp_amplitudes(cells)),
            )

    def _coords(self, raw: Tensor) -> Tensor:
        if self.coords == "absolute":
            return torch.tanh(raw)
        H, W = self.size
        spacing = math.sqrt(H * W / raw.shape[-2])  # pixels
        reach = raw.new_tensor([2 * REACH * spacing / max(side - 1, 1) for side in (W, H)])
        return self.anchors + reach * torch.tanh(raw)

    @torch.no_grad()
    def _place(self, centres: Tensor) -> None:
        """Start the Gaussians at centres [N, 2] for every forecast."""
        # Zero weights in the last layer only: zeros before it would stop the gradients of all weights.
        nn.init.zeros_(self.mlp_coords.last.weight)
        nn.init.zeros_(self.mlp_coords.last.bias)
        self.anchors.copy_(centres)
        if self.coords == "absolute":
            self.mlp_coords.last.bias.copy_(torch.atanh(centres.clamp(BORDER - 1, 1 - BORDER)).flatten())

    @torch.no_grad()
    def _shape_first_gaussians(self, spacing: float) -> None:
        """Let the Gaussians start faint and just overlapping."""
        for head in (self.mlp_scale, self.mlp_rotation, self.mlp_amplitudes):
            nn.init.normal_(head.last.weight, std=1e-3)
            nn.init.zeros_(head.last.bias)
        self.mlp_scale.last.bias.copy_(self.first_scale(spacing).repeat(self.count(self.size)))
        nn.init.constant_(self.mlp_amplitudes.last.bias, self.first_amplitude())


class MLP(nn.Module):
    """Linear and GELU `depth` times, Linear, the last axis folded into `shape`. [..., inputs] → [..., *shape]."""

    def __init__(self, inputs: int, hidden: int, shape: tuple[int, ...], depth: int = 1) -> None:
        super().__init__()
        self.shape = shape
        self.first = nn.Linear(inputs, hidden)
        self.middle = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(depth - 1))
        self.last = nn.Linear(hidden, math.prod(shape))

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, *self.middle):
            x = nn.functional.gelu(layer(x))
        return self.last(x).unflatten(-1, self.shape)


class Pooling(nn.Module):
    """Adaptive average pooling to a plane of (H/r, W/r) cells, flattened. [..., C, H, W] → [..., C·h·w]."""

    rows: Tensor
    columns: Tensor

    def __init__(self, size: tuple[int, int], options: ModelConfig) -> None:
        super().__init__()
        rate = auto_downsample(size) if options.downsample == "auto" else options.downsample
        if rate <= 0:
            raise ConfigError(f"model.downsample is {rate}", 'a positive number, or "auto"')
        self.plane = pooled_plane(size, rate)
        self.cells: int = math.prod(self.plane)
        self.register_buffer("rows", pooling(size[0], self.plane[0]), persistent=False)  # [h, H]
        self.register_buffer("columns", pooling(size[1], self.plane[1]), persistent=False)  # [w, W]

    def forward(self, frames: Tensor) -> Tensor:
        return (self.rows @ frames @ self.columns.T).flatten(-3)


def check_options(options: ModelConfig) -> None:
    """Refuse options with which there is nothing to render or to move.

    Raises:
        ConfigError: no Gaussians, or offsets from no place.
    """
    if options.gaussians < 1:
        raise ConfigError(
            f"model.gaussians is {options.gaussians}", "1 or more", "--fusion none trains without Gaussians"
        )
    if options.coords == "offset" and options.init == "none":
        raise ConfigError(
            "model.coords offset moves Gaussians from their start, and model.init none gives them none",
            way_out="use another init, or coords absolute",
        )


def check_grid(coarse: Tensor, built_for: tuple[int, int, int]) -> None:
    """Refuse frames of another shape than (C, H, W).

    Raises:
        GridError: names both shapes.
    """
    if tuple(coarse.shape[-3:]) != built_for:
        found, expected = ("×".join(map(str, shape)) for shape in (coarse.shape[-3:], built_for))
        raise GridError(
            f"the field is {found} (C×H×W)", f"{expected}, which the model was built for", "regrid the field or retrain"
        )


def auto_kernel_size(gaussians: int, size: tuple[int, int], sigma_min: float) -> int:
    """K ≈ 8·√(HW/N), odd, at most half of the shorter side.

    About 64 kernel values fall on every pixel at any size. On tiny frames half a side may leave no room above `sigma_min`;
    then K is the smallest that lets σ reach twice `sigma_min`.
    """
    H, W = size
    wanted = nearest_odd(8 * math.sqrt(H * W / gaussians))
    half = (min(H, W) // 2 - 1) // 2 * 2 + 1  # the largest odd number up to half
    return max(min(wanted, half), smallest_kernel(sigma_min))


def auto_downsample(size: tuple[int, int]) -> int:
    """The power of two whose pooled plane is nearest to 256 cells by ratio; of two equally near ones the smaller."""
    rates = [2**i for i in range(max(size).bit_length())]
    return min(rates, key=lambda rate: abs(math.log2(math.prod(pooled_plane(size, rate)) / PLANE_CELLS)))


def pooled_plane(size: tuple[int, int], rate: float) -> tuple[int, int]:
    """(H/r, W/r) rounded, at least one cell."""
    H, W = size
    return max(1, round(H / rate)), max(1, round(W / rate))


def pooling(length: int, cells: int) -> Tensor:
    """The matrix [cells, length] of adaptive average pooling along one axis.

    A matrix, because the gradient of `adaptive_avg_pool2d` is not deterministic on GPUs, and it has no ONNX form for uneven
    cells.
    """
    return nn.functional.adaptive_avg_pool1d(torch.eye(length), cells).T.contiguous()
