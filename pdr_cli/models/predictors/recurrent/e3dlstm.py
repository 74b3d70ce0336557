"""E3D-LSTM (Wang et al., ICLR 2019): 3-D convolutions inside the cell, and attention over all past cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from pdr_cli.models.interfaces import Frames
from pdr_cli.models.predictors.recurrent.predrnn import FILTER, FORGET_BIAS
from pdr_cli.models.predictors.recurrent.sequence import Recurrent, patch_size, patched_grid

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig

WINDOW = 2  # D: frames in a cell's input, and the depth of its convolutions (OpenSTL)


class Memory(NamedTuple):
    """Earlier frames, [B, C·p², D − 1, H', W'], and per layer the states [B, hid_t, D, H', W'] with all past cells."""

    frames: Tensor
    h: list[Tensor]
    past: list[list[Tensor]]
    m: Tensor


class E3DLSTM(Recurrent):
    """n_t eidetic cells of hid_t channels on patches of 2^(n_s/2) pixels; OpenSTL: 4 of 128 with n_s = 2.

    As in the paper, and unlike OpenSTL, the memory m is passed on, attention compares cells of the grid channel by channel,
    and convolutions extend the window by zeros (OpenSTL repeats one result).
    """

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        hid_t = options.hid_t
        super().__init__(patch_size(options.n_s))
        inside, grid = frames.channels * self.patch**2, patched_grid(frames.size, self.patch)
        self.hidden = hid_t
        self.cells = nn.ModuleList(EideticCell(hid_t if i else inside, hid_t, grid) for i in range(options.n_t))
        self.readout = nn.Conv3d(hid_t, inside, (WINDOW, 1, 1), bias=False)

    def begin(self, frame: Tensor) -> Memory:
        B, C, H, W = frame.shape
        blank = frame.new_zeros(B, self.hidden, WINDOW, H, W)
        return Memory(
            frame.new_zeros(B, C, WINDOW - 1, H, W), [blank] * len(self.cells), [[blank] for _ in self.cells], blank
        )

    def step(self, frame: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        window = torch.cat([memory.frames, frame[:, :, None]], dim=2)
        x, m, hs, past = window, memory.m, [], []
        for cell, h, cells in zip(self.cells, memory.h, memory.past, strict=True):
            x, c, m = cell(x, h, cells, m)
            hs.append(x)
            past.append([*cells, c])
        return self.readout(x).squeeze(2), Memory(window[:, :, 1:], hs, past, m)


class EideticCell(nn.Module):
    """The cell adds what it recalls from all past values to its last one; m is as in PredRNN."""

    def __init__(self, inputs: int, hidden: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.conv_x = DeepConv(inputs, 7 * hidden)
        self.conv_h = DeepConv(hidden, 4 * hidden)
        self.conv_m = DeepConv(hidden, 4 * hidden)
        self.conv_o_c = DeepConv(hidden, hidden)
        self.conv_o_m = DeepConv(hidden, hidden)
        self.norm = nn.LayerNorm([hidden, WINDOW, *grid])
        self.mix = nn.Conv3d(2 * hidden, hidden, 1, bias=False)

    def forward(self, x: Tensor, h: Tensor, past: list[Tensor], m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x: [B, inputs, D, H', W'], the others [B, hidden, D, H', W'], the newest of `past` last → the new h, c and m."""
        i_x, g_x, r_x, o_x, i_xm, g_xm, f_xm = self.conv_x(x).chunk(7, dim=1)
        i_h, g_h, r_h, o_h = self.conv_h(h).chunk(4, dim=1)
        recalled = recall(torch.sigmoid(r_x + r_h), past)
        c = self.norm(past[-1] + recalled) + torch.sigmoid(i_x + i_h) * torch.tanh(g_x + g_h)
        i_m, f_m, g_m, value = self.conv_m(m).chunk(4, dim=1)
        keep = torch.sigmoid(f_xm + f_m + FORGET_BIAS)
        m = keep * torch.tanh(value) + torch.sigmoid(i_xm + i_m) * torch.tanh(g_xm + g_m)
        o = torch.sigmoid(o_x + o_h + self.conv_o_c(c) + self.conv_o_m(m))
        return o * torch.tanh(self.mix(torch.cat([c, m], dim=1))), c, m


def recall(gate: Tensor, past: list[Tensor]) -> Tensor:
    """Attention of every place of the gate [B, hidden, D, H', W'] to every place of all past cells (Eq. 2 of the paper)."""
    # An axis for one head, which ONNX's attention requires.
    query = gate.flatten(2).mT[:, None]  # [B, 1, D·H'·W', hidden]
    keys = torch.cat([c.flatten(2) for c in past], dim=2).mT[:, None]  # [B, 1, steps·D·H'·W', hidden]
    found = nn.functional.scaled_dot_product_attention(query, keys, keys, scale=1.0)
    return found.mT.reshape(gate.shape)


class DeepConv(nn.Conv3d):
    """A convolution over window and grid that keeps both sizes; zeros follow the window if its depth is even."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, (WINDOW, FILTER, FILTER), padding=(0, FILTER // 2, FILTER // 2), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, inputs, D, H', W'] → [B, outputs, D, H', W']."""
        return super().forward(nn.functional.pad(x, (0, 0, 0, 0, (WINDOW - 1) // 2, WINDOW // 2)))
