"""Swin (Liu et al., ICCV 2021): attention inside windows, shifted by half a window in every second stage."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError, DataError
from pdr_cli.models.predictors.translators.metaformer import MetaFormer, StagePlan, StochasticDepth, init_truncated
from pdr_cli.models.predictors.translators.options import PARTS, Grid, TranslatorOptions
from pdr_cli.models.predictors.translators.tokens import SelfAttention, token_mlp


class WindowAttention(SelfAttention):
    """Attention with a learned score for the distance of two cells of a w×w window."""

    relative_position_index: Tensor

    def __init__(self, dim: int, window: int) -> None:
        super().__init__(dim)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, PARTS))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_index(window), persistent=False)

    def bias(self) -> Tensor:
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)


def relative_index(window: int) -> Tensor:
    """Row of the table for each pair of cells in a window, [w·w, w·w], by their distance in y, then in x."""
    places = torch.cartesian_prod(torch.arange(window), torch.arange(window))  # [w·w, 2]
    distance = places[:, None] - places[None, :] + window - 1  # from 0 to 2w - 2
    return distance[..., 0] * (2 * window - 1) + distance[..., 1]


class SwinBlock(nn.Module):
    """A ViT block with attention inside windows; shifted windows wrap around the edges of the plane.

    They are not masked there, as in the released models.
    """

    def __init__(self, dim: int, hidden: int, drop_path: float, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = token_mlp(dim, hidden)
        self.drop_path = StochasticDepth(drop_path)
        init_truncated(self)

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(1, -1)  # [B, H', W', d]
        x = x + self.drop_path(self.attend(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x.movedim(-1, 1)

    def attend(self, h: Tensor) -> Tensor:
        """h: [B, H', W', d] → the same shape."""
        B, rows, columns, _ = h.shape
        w = self.window
        if rows % w or columns % w:
            raise DataError(f"the latent plane is {rows} x {columns}", f"multiples of the model's window, {w}")
        if self.shift:
            h = h.roll((-self.shift, -self.shift), dims=(1, 2))
        windows = h.unflatten(2, (-1, w)).unflatten(1, (-1, w)).transpose(2, 3)  # [B, H'/w, W'/w, w, w, d]
        mixed = self.attn(windows.flatten(3, 4).flatten(0, 2))  # [B·windows, w·w, d]
        mixed = mixed.unflatten(1, (w, w)).unflatten(0, (B, rows // w, columns // w)).transpose(2, 3)
        h = mixed.flatten(3, 4).flatten(1, 2)
        return h.roll((self.shift, self.shift), dims=(1, 2)) if self.shift else h


def window_of(rows: int) -> int:
    """Side of the windows on a plane of `rows`: 7 if it divides them, else 4 to 8, larger for more rows."""
    return 7 if rows % 7 == 0 else min(8, max(4, rows // 16))


def check_grid(grid: Grid) -> int:
    """The window for this grid.

    Raises:
        ConfigError: windows do not tile its latent plane; names the nearest grids whose planes they tile.
    """
    rows, columns = grid.latent
    window = window_of(rows)
    if rows % window == 0 and columns % window == 0:
        return window
    near = " or ".join(f"{h} x {w}" for h, w in nearest_grids(grid))
    raise ConfigError(
        f"swin needs a latent plane tiled by windows of {window} x {window}, and frames of {grid.size[0]} x {grid.size[1]} "
        f"give {rows} x {columns}",
        way_out=f"use frames of {near}, or another --backbone",
    )


def nearest_grids(grid: Grid) -> list[tuple[int, int]]:
    """The nearest frame sizes below and above whose latent planes windows tile."""
    rows, columns = grid.latent
    found = []
    smaller = next((r for r in range(rows, 0, -1) if r % window_of(r) == 0), 0)
    if smaller and columns >= window_of(smaller):
        found.append((smaller, columns // window_of(smaller) * window_of(smaller)))
    larger = next(r for r in range(rows, 2 * rows + 8) if r % window_of(r) == 0)
    found.append((larger, -(-columns // window_of(larger)) * window_of(larger)))
    return [(r * grid.cell, c * grid.cell) for r, c in found]


def swin_translator(options: TranslatorOptions) -> MetaFormer:
    """The Swin translator; widths must be multiples of 8, and the sides of the latent plane multiples of the window."""
    options.check_widths("swin")
    window = check_grid(options.grid)

    def block(plan: StagePlan) -> SwinBlock:
        shift = window // 2 if plan.stage % 2 else 0
        return SwinBlock(plan.inputs, options.hidden(plan.inputs), plan.drop_path, window, shift)

    return MetaFormer(options, block)
