"""MAU (Chang et al., NeurIPS 2021): motion-aware units with attention to their states of the last τ steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from pdr_cli.models.interfaces import Frames
from pdr_cli.models.predictors.recurrent.sequence import Recurrent, patch_size, patched_grid, same_conv

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig

FILTER = 5
REACH = 5  # τ of the paper, here of past steps (OpenSTL)


class Memory(NamedTuple):
    """Per layer the temporal state, and the last temporal and spatial states, oldest first. All [B, hid_t, H', W']."""

    temporal: list[Tensor]
    past_temporal: list[list[Tensor]]
    past_spatial: list[list[Tensor]]


class MAU(Recurrent):
    """n_t units of hid_t channels on a grid of 1/2^(n_s/2), between a small encoder and decoder.

    OpenSTL: 4 units of 64 with n_s = 2, and two unused 1×1 convolutions, which are omitted.
    """

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        hid_t, n_s = options.hid_t, options.n_s
        super().__init__(1, patch_size(n_s))
        grid, halvings = patched_grid(frames.size, self.multiple), n_s // 2
        halves = [part for _ in range(halvings) for part in (nn.Conv2d(hid_t, hid_t, 3, 2, 1), nn.LeakyReLU(0.2))]
        self.encoder = nn.Sequential(nn.Conv2d(frames.channels, hid_t, 1), nn.LeakyReLU(0.2), *halves)
        self.units = nn.ModuleList(MotionAwareUnit(hid_t, grid) for _ in range(options.n_t))
        doubles = [
            part
            for _ in range(halvings)
            for part in (nn.ConvTranspose2d(hid_t, hid_t, 3, 2, 1, output_padding=1), nn.LeakyReLU(0.2))
        ]
        self.decoder = nn.Sequential(*doubles[:-1], nn.Conv2d(hid_t, frames.channels, 1))
        self.hidden = hid_t

    def begin(self, frame: Tensor) -> Memory:
        B, _, H, W = frame.shape
        blank = frame.new_zeros(B, self.hidden, H // self.multiple, W // self.multiple)
        past = [[blank] * REACH for _ in self.units]
        return Memory([blank] * len(self.units), past, past)

    def step(self, frame: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        spatial, after = self.encoder(frame), Memory([], [], [])
        for layer, unit in enumerate(self.units):
            past_t, past_s = memory.past_temporal[layer], memory.past_spatial[layer]
            entered = spatial
            temporal, spatial = unit(memory.temporal[layer], entered, past_t, past_s)
            after.temporal.append(temporal)
            after.past_temporal.append([*past_t[1:], temporal])
            after.past_spatial.append([*past_s[1:], entered])
        return self.decoder(spatial), after


class MotionAwareUnit(nn.Module):
    """Attention to past temporal states by the similarity of spatial ones, then a gated exchange of both states."""

    def __init__(self, hidden: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.conv_t = normed_conv(hidden, 3 * hidden, grid)
        self.conv_s = normed_conv(hidden, 3 * hidden, grid)
        self.recall_t = normed_conv(hidden, hidden, grid)
        self.recall_s = normed_conv(hidden, hidden, grid)

    def forward(
        self, temporal: Tensor, spatial: Tensor, past_t: list[Tensor], past_s: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """All [B, hidden, H', W'] → the new temporal and spatial state."""
        query = self.recall_s(spatial)
        scores = torch.stack([(past * query).sum(dim=(1, 2, 3)) for past in past_s]) / math.sqrt(query[0].numel())
        weights = torch.softmax(scores, dim=0)  # [REACH, B]
        trend = torch.stack([w[:, None, None, None] * past for w, past in zip(weights, past_t, strict=True)]).sum(dim=0)
        keep = torch.sigmoid(self.recall_t(temporal))
        motion = keep * temporal + (1 - keep) * trend
        gate_t, t_to_t, t_to_s = self.conv_t(motion).chunk(3, dim=1)
        gate_s, s_to_t, s_to_s = self.conv_s(spatial).chunk(3, dim=1)
        gate_t, gate_s = torch.sigmoid(gate_t), torch.sigmoid(gate_s)
        return gate_t * t_to_t + (1 - gate_t) * s_to_t, gate_s * s_to_s + (1 - gate_s) * t_to_s


def normed_conv(inputs: int, outputs: int, grid: tuple[int, int]) -> nn.Sequential:
    """Convolution, then normalisation over channels and grid together, with weights for each place."""
    return nn.Sequential(same_conv(inputs, outputs, FILTER, bias=True), nn.LayerNorm([outputs, *grid]))
