"""MIM, memory in memory (Wang et al., CVPR 2019): LSTMs that model differences of states replace forget gates."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError
from pdr_cli.models.interfaces import Frames
from pdr_cli.models.predictors.recurrent.predrnn import FILTER, FORGET_BIAS, SpatiotemporalLSTMCell
from pdr_cli.models.predictors.recurrent.sequence import Recurrent, patch_size, patched_grid, same_conv, zeros

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig


class Memory(NamedTuple):
    """All [B, hid_t, H', W'], one for each layer; d and s for the layers from the second on.

    h and c are hidden states and cells, m passes through all layers, d holds (hidden, cell) of the modules for differences
    (MIM-N) and s the cells of the modules for stationary parts (MIM-S). `started` is False before the first frame.
    """

    h: list[Tensor]
    c: list[Tensor]
    m: Tensor
    d: list[tuple[Tensor, Tensor]]
    s: list[Tensor]
    started: bool


class MIM(Recurrent):
    """A spatiotemporal LSTM and n_t − 1 blocks of hid_t channels on patches of 2^(n_s/2) pixels.

    OpenSTL: 4 layers of 128 with n_s = 2, an unused 1×1 convolution for each difference, and gradients cut between steps
    inside the blocks; the last two are omitted.
    """

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        hid_t, n_t = options.hid_t, options.n_t
        super().__init__(patch_size(options.n_s))
        if n_t < 2:
            raise ConfigError(f"model.n_t is {n_t}", "2 or more layers, whose differences mim models")
        inside, grid = frames.channels * self.patch**2, patched_grid(frames.size, self.patch)
        self.hidden = hid_t
        self.first = SpatiotemporalLSTMCell(inside, hid_t)
        self.blocks = nn.ModuleList(MIMBlock(hid_t, grid) for _ in range(n_t - 1))
        self.differences = nn.ModuleList(PeepholeLSTM(hid_t, grid) for _ in range(n_t - 1))
        self.readout = nn.Conv2d(hid_t, inside, 1, bias=False)

    def begin(self, frame: Tensor) -> Memory:
        blank, above = zeros(frame, self.hidden), len(self.blocks)
        return Memory(
            [blank] * (above + 1), [blank] * (above + 1), blank, [(blank, blank)] * above, [blank] * above, False
        )

    def step(self, frame: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        x, c, m, _ = self.first(frame, memory.h[0], memory.c[0], memory.m)
        after = Memory([x], [c], m, [], [], True)
        change = x - memory.h[0]
        for layer, (block, difference) in enumerate(zip(self.blocks, self.differences, strict=True)):
            # The first frame has no difference, so this memory stays empty until the second.
            state = difference(change, *memory.d[layer]) if memory.started else memory.d[layer]
            change = state[0]
            x, c, m, s = block(x, change, memory.h[layer + 1], memory.c[layer + 1], m, memory.s[layer])
            after.h.append(x)
            after.c.append(c)
            after.d.append(state)
            after.s.append(s)
        return self.readout(x), after._replace(m=m)


class MIMBlock(nn.Module):
    """A spatiotemporal LSTM whose cell passes through MIM-S, with the difference of states, instead of a forget gate."""

    def __init__(self, hidden: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.conv_x = same_conv(hidden, 4 * hidden, FILTER)
        self.conv_h = same_conv(hidden, 3 * hidden, FILTER)
        self.conv_m = same_conv(hidden, 4 * hidden, FILTER)
        self.mix = nn.Conv2d(2 * hidden, hidden, 1, bias=False)
        self.stationary = PeepholeLSTM(hidden, grid)

    def forward(
        self, x: Tensor, change: Tensor, h: Tensor, c: Tensor, m: Tensor, s: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All [B, hidden, H', W'] → the new h, c, m and s."""
        i_x, g_x, f_x, o_x = self.conv_x(x).chunk(4, dim=1)
        i_h, g_h, o_h = self.conv_h(h).chunk(3, dim=1)
        i_m, g_m, f_m, o_m = self.conv_m(m).chunk(4, dim=1)
        m = torch.sigmoid(f_x + f_m + FORGET_BIAS) * m + torch.sigmoid(i_x + i_m) * torch.tanh(g_x + g_m)
        kept, s = self.stationary(change, c, s)
        c = kept + torch.sigmoid(i_x + i_h) * torch.tanh(g_x + g_h)
        o = torch.sigmoid(o_x + o_h + o_m)
        return o * torch.tanh(self.mix(torch.cat([c, m], dim=1))), c, m, s


class PeepholeLSTM(nn.Module):
    """A ConvLSTM whose gates also read its cell, weighted at each place; MIM-N and MIM-S of the paper."""

    def __init__(self, hidden: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.conv_x = same_conv(hidden, 4 * hidden, FILTER)
        self.conv_h = same_conv(hidden, 4 * hidden, FILTER)
        self.peep_in = nn.Parameter(torch.zeros(2, hidden, *grid))  # of the input and the forget gate
        self.peep_out = nn.Parameter(torch.zeros(hidden, *grid))

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """All [B, hidden, H', W'] → the new h and c."""
        i, g, f, o = (self.conv_x(x) + self.conv_h(h)).chunk(4, dim=1)
        keep = torch.sigmoid(f + self.peep_in[1] * c + FORGET_BIAS)
        c = keep * c + torch.sigmoid(i + self.peep_in[0] * c) * torch.tanh(g)
        return torch.sigmoid(o + self.peep_out * c) * torch.tanh(c), c
