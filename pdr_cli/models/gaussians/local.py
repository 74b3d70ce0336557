"""LocalGS: Gaussians that are anchored to a place, moved and shaped by the forecast there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError
from pdr_cli.models.gaussians.base import REACH, GaussianAdapter, Gaussians, kernel_size_for, to_coords
from pdr_cli.models.gaussians.initialization import even_grid
from pdr_cli.models.interfaces import Frames
from pdr_cli.models.layers import pad_to_multiple

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig


class LocalGS(GaussianAdapter):
    """One or more Gaussians per cell of a convolutional feature map, anchored to the cell.

    The features of its cell move a Gaussian by at most `REACH` spacings, stretch, turn and weight it. So the layer moves
    with the field (away from the borders, by whole cells), and the adapter takes frames of any size.

    Args:
        frames: C; the adapter takes frames of any (H, W).
        options: of the adapter: `cell_stride` s is the side of a cell in pixels, a power of 2, `per_cell` k the Gaussians
            in a cell, `conv_width` and `conv_depth` the channels of the features and their 3×3 convolutions on the grid of
            cells; `kernel_size` "auto" is about 8·s/√k.

    Raises:
        ConfigError: values with which nothing can be rendered.
    """

    auto_input = "coarse+last"
    within: Tensor

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        stride, per_cell, channels = options.cell_stride, options.per_cell, frames.channels
        if per_cell < 1:
            raise ConfigError(f"model.per_cell is {per_cell}", "1 or more", "--adapter conv paints without Gaussians")
        spacing, kernel_size = stride / math.sqrt(per_cell), options.kernel_size
        super().__init__(
            channels, options, kernel_size_for(spacing, options.sigma_min) if kernel_size == "auto" else kernel_size
        )
        self.per_cell, self.cell_stride, self.spacing = per_cell, stride, spacing
        self.features = Features(self.features_in(frames, options), options.conv_width, stride, options.conv_depth)
        self.head = nn.Conv2d(options.conv_width, per_cell * (5 + channels + self.further(options)), 1)
        # Pixels from the first pixel of the cell: a cell of 2 has its middle at 0.5.
        within = (even_grid(per_cell, (stride, stride)) + 1) * stride / 2 - 0.5
        self.register_buffer("within", within.float(), persistent=False)  # [k, 2]
        self._shape_first_gaussians()

    def features_in(self, frames: Frames, options: ModelConfig) -> int:
        """Channels of the input of the convolutions."""
        return self.inputs

    def further(self, options: ModelConfig) -> int:
        """Numbers of a Gaussian beside its place, shape and amplitudes."""
        return 0

    def count(self, size: tuple[int, int]) -> int:
        """k for each cell, cells that the frame's border cuts included."""
        return self.per_cell * math.prod(math.ceil(side / self.cell_stride) for side in size)

    def gaussians(self, coarse: Tensor, observed: Tensor | None = None) -> Gaussians:
        """The Gaussians of each frame, cell by cell: coarse: [B, τ, C, H, W]; observed: [B, T, C, H, W]."""
        B, T, C, H, W = coarse.shape
        features = self.features(self.read(coarse, observed).flatten(0, 1))  # [B·T, width, h, w]
        # Half precision would place a centre on a 256-pixel side no better than to the pixel.
        with torch.autocast(coarse.device.type, enabled=False):
            raw = self.numbers(self.head, features).unflatten(0, (B, T))
            move, scale, rotation, amplitudes = raw.split([2, 2, 1, C], dim=-1)  # each [B, T, N, ...]
            return Gaussians(
                coords=to_coords(self.centre_of(move, features.shape[-2:]), (H, W)),
                scale=self.scale_of(scale),
                rotation=self.rotation_of(rotation[..., 0]),
                amplitudes=self.amplitudes_of(amplitudes),
            )

    def numbers(self, head: nn.Conv2d, features: Tensor) -> Tensor:
        """What a head says of each Gaussian: features [P, width, h, w] → [P, h·w·k, numbers]."""
        raw = head(features.to(head.weight.dtype))
        return raw.flatten(2).mT.unflatten(-1, (self.per_cell, -1)).flatten(1, 2)

    def centre_of(self, raw: Tensor, grid: Sequence[int]) -> Tensor:
        """Unbounded numbers [..., N, 2] to centres in pixels, near the anchors of a grid of cells (h, w)."""
        return self._anchors(*grid) + REACH * self.spacing * torch.tanh(raw)

    def _anchors(self, h: int, w: int) -> Tensor:
        """Pixels (x, y) of all Gaussians, [h·w·k, 2]."""
        rows, columns = (torch.arange(n, device=self.within.device) * self.cell_stride for n in (h, w))
        corners = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)  # [h, w, 2]
        return (corners[:, :, None] + self.within).flatten(0, 2)

    @torch.no_grad()
    def _shape_first_gaussians(self) -> None:
        """Let the Gaussians start on their anchors, faint and just overlapping."""
        nn.init.normal_(self.head.weight, std=1e-3)
        bias = self.head.weight.new_zeros(self.per_cell, self.head.out_channels // self.per_cell)
        bias[:, 2:4] = self.first_scale(self.spacing)
        bias[:, 5 : 5 + self.channels] = self.first_amplitude()
        self.head.bias.copy_(bias.flatten())  # type: ignore[union-attr]  # there is a bias


class Features(nn.Module):
    """Strided 3×3 convolutions down to one feature vector per cell, then `depth` more. [P, inputs, H, W] → [P, width, h, w].

    Nothing is normalised over the frame: a cell's features depend on its neighbourhood only.
    """

    def __init__(self, inputs: int, width: int, stride: int, depth: int) -> None:
        super().__init__()
        if stride < 2 or stride & (stride - 1):
            raise ConfigError(f"model.cell_stride is {stride}", "2, 4, 8 or another power of 2")
        self.stride = stride
        halvings = stride.bit_length() - 1
        self.down = nn.ModuleList(conv(width if i else inputs, width, 2) for i in range(halvings))
        self.convs = nn.ModuleList(conv(width, width) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = pad_to_multiple(x, self.stride)
        for layer in self.down:
            x = nn.functional.gelu(layer(x))
        for layer in self.convs:
            x = x + nn.functional.gelu(layer(x))
        return x


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """3×3, keeping or halving the grid; weights that keep a signal's size through GELU."""
    layer = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # there is a bias
    return layer
