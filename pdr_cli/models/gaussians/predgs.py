"""PredGS (Eq. 8): a forecast frame read as N Gaussians, and the picture that those Gaussians make."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError, GridError
from pdr_cli.models.gaussians.base import REACH, GaussianAdapter, Gaussians, check_choice, nearest_odd, smallest_kernel
from pdr_cli.models.gaussians.initialization import FROM_DATA, centres_in, first_centres

PLANE_CELLS = 256  # the pooled plane of all four published settings, which "auto" aims at
BORDER = 1e-3  # how far from ±1 a centre starts at least, so that atanh is finite and tanh still learns


class PredGS(GaussianAdapter):
    """Average pooling to about 256 cells, then one MLP per Gaussian parameter, shared by all frames.

    Args:
        channels: C.
        size: (H, W), which the flattened plane ties the adapter to.
        uses_last: read the last observed frame beside the coarse forecast.
        gaussians: N.
        kernel_size: K, odd; "auto" = `auto_kernel_size`.
        downsample: r, the plane is (H/r, W/r) rounded; "auto" = `auto_downsample`.
        hidden: D, width of the hidden layers of each MLP.
        mlp_depth: hidden layers of each MLP.
        init: where the Gaussians start: "grid", "corner" or "color" (once `initialize` is given a frame; a grid
            before), "random", or "none": wherever PyTorch's own initial weights put them.
        coords: "absolute" (tanh of the MLP's output, anywhere in the frame) or "offset" (moved from where it started by
            at most `REACH` times the spacing between Gaussians).
        sigma_min: see `GaussianAdapter`, as `normalize` and `amplitude`.
        normalize: "peak" or "density".
        amplitude: "auto", "tanh", "sigmoid" or "linear".

    Raises:
        ConfigError: values that leave nothing to render.
    """

    pool_rows: Tensor
    pool_columns: Tensor
    anchors: Tensor

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        *,
        uses_last: bool,
        gaussians: int,
        kernel_size: int | Literal["auto"],
        downsample: float | Literal["auto"],
        hidden: int,
        mlp_depth: int,
        init: str,
        coords: Literal["absolute", "offset"],
        sigma_min: float,
        normalize: Literal["peak", "density"],
        amplitude: Literal["auto", "tanh", "sigmoid", "linear"],
    ) -> None:
        if gaussians < 1:
            raise ConfigError(f'gaussians is {gaussians}; at least 1 is needed (fusion "none" does without).')
        if kernel_size == "auto":
            kernel_size = auto_kernel_size(gaussians, size, sigma_min)
        super().__init__(
            channels, uses_last, kernel_size=kernel_size, sigma_min=sigma_min, normalize=normalize, amplitude=amplitude
        )
        check_choice("coords", coords, ("absolute", "offset"))
        if coords == "offset" and init == "none":
            raise ConfigError('coords "offset" moves Gaussians from where they start, and init "none" gives no place.')
        self.size, self.init, self.coords = (size[0], size[1]), init, coords
        self.pool = Pooling(size, downsample)
        cells = self.inputs * self.pool.cells
        self.mlp_coords = MLP(cells, hidden, (gaussians, 2), mlp_depth)
        self.mlp_scale = MLP(cells, hidden, (gaussians, 2), mlp_depth)
        self.mlp_rotation = MLP(cells, hidden, (gaussians,), mlp_depth)
        self.mlp_amplitudes = MLP(cells, hidden, (gaussians, channels), mlp_depth)
        if init != "none":
            # A loaded model needs neither the data it was placed by nor the rule of the grid.
            kept = init != "grid" or coords == "offset"
            self.register_buffer("anchors", torch.zeros(gaussians, 2), persistent=kept)
            self._place(first_centres(init, gaussians, self.size))
        self._shape_first_gaussians(math.sqrt(size[0] * size[1] / gaussians))

    def initialize(self, frame: Tensor) -> None:
        """Move the Gaussians to the corners or bright pixels of a frame, where `init` says so. [C, H, W]."""
        if self.init in FROM_DATA:
            self._place(centres_in(self.init, self.count(self.size), frame))

    def count(self, size: tuple[int, int]) -> int:
        """N, whatever the frame."""
        return self.mlp_rotation.shape[0]

    def gaussians(self, coarse: Tensor, last: Tensor | None = None) -> Gaussians:
        """The Gaussians of each frame. coarse: [B, T, C, H, W]; last: [B, C, H, W]."""
        check_grid(coarse, (self.channels, *self.size))
        # Half precision would place a centre on a 256-pixel side no better than to the pixel.
        with torch.autocast(coarse.device.type, enabled=False):
            cells = self.pool(self.read(coarse, last).to(self.mlp_coords.first.weight.dtype))  # [B, T, inputs·h·w]
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
        """Start the Gaussians at centres [N, 2], whatever the forecast."""
        # Zero weights in the last layer only: zeros before it would stop every weight's gradient for ever.
        nn.init.zeros_(self.mlp_coords.last.weight)
        nn.init.zeros_(self.mlp_coords.last.bias)
        self.anchors.copy_(centres)
        if self.coords == "absolute":
            self.mlp_coords.last.bias.copy_(torch.atanh(centres.clamp(BORDER - 1, 1 - BORDER)).flatten())

    @torch.no_grad()
    def _shape_first_gaussians(self, spacing: float) -> None:
        """Let them just overlap and hardly show."""
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

    def __init__(self, size: tuple[int, int], downsample: float | Literal["auto"]) -> None:
        super().__init__()
        rate = auto_downsample(size) if downsample == "auto" else downsample
        if rate <= 0:
            raise ConfigError(f'downsample is {rate}; it must be positive, or "auto".')
        self.plane = pooled_plane(size, rate)
        self.cells: int = math.prod(self.plane)
        self.register_buffer("rows", pooling(size[0], self.plane[0]), persistent=False)  # [h, H]
        self.register_buffer("columns", pooling(size[1], self.plane[1]), persistent=False)  # [w, W]

    def forward(self, frames: Tensor) -> Tensor:
        return (self.rows @ frames @ self.columns.T).flatten(-3)


def check_grid(coarse: Tensor, built_for: tuple[int, int, int]) -> None:
    """Refuse frames of another shape than (C, H, W).

    Raises:
        GridError: says both.
    """
    if tuple(coarse.shape[-3:]) != built_for:
        found, expected = ("×".join(map(str, shape)) for shape in (coarse.shape[-3:], built_for))
        raise GridError(f"The field is {found} (C×H×W); this model was built for {expected}. Regrid it or retrain.")


def auto_kernel_size(gaussians: int, size: tuple[int, int], sigma_min: float) -> int:
    """K ≈ 8·√(HW/N), odd, at most half of the shorter side.

    About 64 kernel values fall on every pixel whatever the size. On tiny frames half a side may leave no room above
    `sigma_min`; then K is the smallest that lets σ reach twice that.
    """
    H, W = size
    wanted = nearest_odd(8 * math.sqrt(H * W / gaussians))
    half = (min(H, W) // 2 - 1) // 2 * 2 + 1  # the largest odd number up to half
    return max(min(wanted, half), smallest_kernel(sigma_min))


def auto_downsample(size: tuple[int, int]) -> int:
    """The power of two whose pooled plane is nearest to 256 cells by ratio, the smaller one of two equally near."""
    rates = [2**i for i in range(max(size).bit_length())]
    return min(rates, key=lambda rate: abs(math.log2(math.prod(pooled_plane(size, rate)) / PLANE_CELLS)))


def pooled_plane(size: tuple[int, int], rate: float) -> tuple[int, int]:
    """(H/r, W/r) rounded, at least one cell."""
    H, W = size
    return max(1, round(H / rate)), max(1, round(W / rate))


def pooling(length: int, cells: int) -> Tensor:
    """The matrix [cells, length] of adaptive average pooling along one axis.

    As a matrix because the pooling itself has no deterministic gradient on GPUs and no ONNX form for uneven cells.
    """
    return nn.functional.adaptive_avg_pool1d(torch.eye(length), cells).T.contiguous()
