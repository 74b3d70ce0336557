"""PredFormer (Tang et al., 2024): gated transformers, alternately over time and space, without recurrence or convolution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError
from pdr_cli.models.interfaces import Frames
from pdr_cli.models.layers import drop_branch, pad_to_multiple

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig

HEADS = 8
DROPOUT = 0.1  # the authors', for TaxiBJ and WeatherBench
BASE = 10000.0  # base of the wavelengths of the positional encoding


class PredFormer(nn.Module):
    """n_t layers, each of attention over time, space, space and time: the authors' "Quadruplet-TSST".

    Args:
        frames: C.
        options: `hid_t` width of a token, a multiple of 8 (authors: 256), `n_s` for patches of side 2^(n_s/2) pixels (4),
            `n_t` layers (2), `mlp_ratio` width of the gated units over hid_t (4 for TaxiBJ, 2 for WeatherBench),
            `drop_path` stochastic depth of all blocks (0.1 and 0.25).
    """

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        super().__init__()
        hid_t, n_s = options.hid_t, options.n_s
        if hid_t % HEADS or n_s % 2:
            raise ConfigError(
                f"model.hid_t is {hid_t} and n_s {n_s}", f"hid_t a multiple of {HEADS}, its heads; n_s even"
            )
        self.patch: int = 2 ** (n_s // 2)
        inside = frames.channels * self.patch**2
        self.embed = nn.Linear(inside, hid_t)
        self.layers = nn.ModuleList(
            nn.ModuleList(GatedTransformer(hid_t, int(hid_t * options.mlp_ratio), options.drop_path) for _ in range(4))
            for _ in range(options.n_t)
        )
        self.readout = nn.Sequential(nn.LayerNorm(hid_t), nn.Linear(hid_t, inside))

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, T, C, H, W] → [B, T, C, H, W], the T frames that follow."""
        (B, T), (H, W) = x.shape[:2], x.shape[-2:]
        patches = nn.functional.pixel_unshuffle(pad_to_multiple(x.flatten(0, 1), self.patch), self.patch)
        rows, columns = patches.shape[-2:]
        tokens = self.embed(patches.flatten(2).transpose(1, 2)).unflatten(0, (B, T))  # [B, T, N, hid_t]
        tokens = tokens + positions(T * rows * columns, tokens.shape[-1]).to(tokens).view(T, -1, tokens.shape[-1])
        for layer in self.layers:
            before, *spatial, after = cast(nn.ModuleList, layer)
            tokens = over_time(before, tokens).flatten(0, 1)
            for block in spatial:
                tokens = block(tokens)
            tokens = over_time(after, tokens.unflatten(0, (B, T)))
        patches = self.readout(tokens).flatten(0, 1).transpose(1, 2).unflatten(2, (rows, columns))
        return nn.functional.pixel_shuffle(patches, self.patch)[..., :H, :W].unflatten(0, (B, T))


class GatedTransformer(nn.Module):
    """Attention, then a gated unit, both residual and on normalised tokens; the result is normalised."""

    def __init__(self, width: int, inside: int, drop_path: float) -> None:
        super().__init__()
        self.norm_attention, self.norm_unit, self.norm = (nn.LayerNorm(width) for _ in range(3))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width)
        self.gate, self.value, self.out = nn.Linear(width, inside), nn.Linear(width, inside), nn.Linear(inside, width)
        self.dropout = nn.Dropout(DROPOUT)
        self.drop_path = drop_path
        for linear in (self.qkv, self.project, self.gate, self.value, self.out):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """[P, tokens, width] → the same shape."""
        attended = self.attend(self.norm_attention(tokens))
        tokens = tokens + drop_branch(attended, self.drop_path, self.training)
        normed = self.norm_unit(tokens)
        unit = self.dropout(self.out(self.dropout(nn.functional.silu(self.gate(normed)) * self.value(normed))))
        return self.norm(tokens + drop_branch(unit, self.drop_path, self.training))

    def attend(self, tokens: Tensor) -> Tensor:
        """Self-attention of 8 heads."""
        q, k, v = self.qkv(tokens).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.dropout(self.project(mixed.transpose(1, 2).flatten(2)))


def over_time(block: nn.Module, tokens: Tensor) -> Tensor:
    """`block` along T at each patch: [B, T, N, width] → the same shape."""
    along = tokens.transpose(1, 2)
    return block(along.flatten(0, 1)).unflatten(0, along.shape[:2]).transpose(1, 2)


def positions(count: int, width: int) -> Tensor:
    """Sine and cosine, alternately, of the position in wavelengths from 2π up. [count, width]."""
    rates = torch.exp(-math.log(BASE) / width * 2 * torch.arange((width + 1) // 2))
    angles = torch.arange(count)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]
