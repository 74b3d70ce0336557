"""PredRNN++ (Wang et al., ICML 2018): causal LSTMs, and a gradient highway between steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError
from pdr_cli.models.interfaces import Frames
from pdr_cli.models.predictors.recurrent.predrnn import FILTER, FORGET_BIAS, remember
from pdr_cli.models.predictors.recurrent.sequence import Recurrent, patch_size, same_conv, zeros

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig

HIGHWAY_INIT = 0.001  # half the range of the highway's first weights (OpenSTL)


class Memory(NamedTuple):
    """Per layer the hidden state and the cell; the memory m of all layers; the highway's state z. [B, hid_t, H', W']."""

    h: list[Tensor]
    c: list[Tensor]
    m: Tensor
    z: Tensor


class PredRNNpp(Recurrent):
    """n_t causal LSTMs of hid_t channels on patches of 2^(n_s/2) pixels; OpenSTL: 4 of 128, n_s = 2."""

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        hid_t, n_t = options.hid_t, options.n_t
        super().__init__(patch_size(options.n_s))
        if n_t < 2:
            raise ConfigError(
                f"model.n_t is {n_t}", "2 or more layers, with the gradient highway between the first two"
            )
        inside = frames.channels * self.patch**2
        self.hidden = hid_t
        self.cells = nn.ModuleList(CausalLSTMCell(hid_t if i else inside, hid_t) for i in range(n_t))
        self.highway = GradientHighway(hid_t)
        self.readout = nn.Conv2d(hid_t, inside, 1, bias=False)

    def begin(self, frame: Tensor) -> Memory:
        blank = [zeros(frame, self.hidden)] * len(self.cells)
        return Memory(blank, blank, blank[0], blank[0])

    def step(self, frame: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        hs, cs, m, z, x = [], [], memory.m, memory.z, frame
        for layer, cell in enumerate(self.cells):
            h, c, m = cell(x, memory.h[layer], memory.c[layer], m)
            hs.append(h)
            cs.append(c)
            if layer == 0:
                z = self.highway(h, z)
            x = h if layer else z
        return self.readout(x), Memory(hs, cs, m, z)


class CausalLSTMCell(nn.Module):
    """Two memories in cascade: c from x and h, then m from x and the new c."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.conv_x = same_conv(inputs, 7 * hidden, FILTER)
        self.conv_h = same_conv(hidden, 4 * hidden, FILTER)
        self.conv_c = same_conv(hidden, 3 * hidden, FILTER)
        self.conv_m = same_conv(hidden, 3 * hidden, FILTER)
        self.conv_c_next = same_conv(hidden, 4 * hidden, FILTER)
        self.conv_o = same_conv(hidden, hidden, FILTER)
        self.mix = nn.Conv2d(2 * hidden, hidden, 1, bias=False)

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x: [B, inputs, H', W'], the others [B, hidden, H', W'] → the new h, c and m."""
        d = h.shape[1]
        x_c, x_m, x_o = self.conv_x(x).split([3 * d, 3 * d, d], dim=1)
        h_c, h_o = self.conv_h(h).split([3 * d, d], dim=1)
        c, _ = remember(c, x_c + h_c + self.conv_c(c))
        c_m, c_o = self.conv_c_next(c).split([3 * d, d], dim=1)
        i, f, g = (x_m + c_m).chunk(3, dim=1)
        i_m, f_m, value = self.conv_m(m).chunk(3, dim=1)
        m = torch.sigmoid(f + f_m + FORGET_BIAS) * torch.tanh(value) + torch.sigmoid(i + i_m) * torch.tanh(g)
        o = torch.tanh(x_o + h_o + c_o + self.conv_o(m))
        return o * torch.tanh(self.mix(torch.cat([c, m], dim=1))), c, m


class GradientHighway(nn.Module):
    """z ← u·p + (1 − u)·z: a state with a short path for gradients."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.conv_x = same_conv(hidden, 2 * hidden, FILTER)
        self.conv_z = same_conv(hidden, 2 * hidden, FILTER)
        for conv in (self.conv_x, self.conv_z):
            nn.init.uniform_(conv.weight, -HIGHWAY_INIT, HIGHWAY_INIT)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """x and z: [B, hidden, H', W'] → the new z."""
        p, u = (self.conv_x(x) + self.conv_z(z)).chunk(2, dim=1)
        return torch.sigmoid(u) * torch.tanh(p) + (1 - torch.sigmoid(u)) * z
