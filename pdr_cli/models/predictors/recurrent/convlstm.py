"""ConvLSTM (Shi et al., NeurIPS 2015): an LSTM with convolutions for products; without peepholes, as in OpenSTL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pdr_cli.models.interfaces import Frames
from pdr_cli.models.predictors.recurrent.sequence import Recurrent, patch_size, same_conv, zeros

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig

FILTER = 5
FORGET_BIAS = 1.0


class ConvLSTM(Recurrent):
    """n_t cells of hid_t channels on patches of 2^(n_s/2) pixels; OpenSTL: 4 of 128, n_s = 2."""

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        hid_t = options.hid_t
        super().__init__(patch_size(options.n_s))
        inside = frames.channels * self.patch**2
        self.hidden = hid_t
        self.cells = nn.ModuleList(ConvLSTMCell(hid_t if i else inside, hid_t) for i in range(options.n_t))
        self.readout = nn.Conv2d(hid_t, inside, 1, bias=False)

    def begin(self, frame: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [(zeros(frame, self.hidden), zeros(frame, self.hidden)) for _ in self.cells]

    def step(self, frame: Tensor, memory: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        after, h = [], frame
        for cell, (before, c) in zip(self.cells, memory, strict=True):
            h, c = cell(h, before, c)
            after.append((h, c))
        return self.readout(h), after


class ConvLSTMCell(nn.Module):
    """c ← f·c + i·g, h ← o·tanh(c), the gates from x and h."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.conv_x = same_conv(inputs, 4 * hidden, FILTER)
        self.conv_h = same_conv(hidden, 4 * hidden, FILTER)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """x: [B, inputs, H', W'], h and c: [B, hidden, H', W'] → the new h and c."""
        i, f, g, o = (self.conv_x(x) + self.conv_h(h)).chunk(4, dim=1)
        c = torch.sigmoid(f + FORGET_BIAS) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
