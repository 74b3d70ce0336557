"""PredRNN (Wang et al., NeurIPS 2017) and PredRNN-V2 (Wang et al., TPAMI 2023)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from pdr_cli.models.interfaces import Batch, Frames, Terms
from pdr_cli.models.predictors.recurrent.sequence import SAMPLING_SPAN, Recurrent, patch_size, same_conv, zeros

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig

FILTER = 5
FORGET_BIAS = 1.0
DECOUPLING_WEIGHT = 0.1  # OpenSTL, for TaxiBJ


class Memory(NamedTuple):
    """Per layer the hidden state and the cell, [B, hid_t, H', W'], and the memory m that passes through all layers."""

    h: list[Tensor]
    c: list[Tensor]
    m: Tensor
    coupling: tuple[Tensor, ...] = ()


class PredRNN(Recurrent):
    """n_t spatiotemporal LSTMs of hid_t channels on patches of 2^(n_s/2) pixels; OpenSTL: 4 of 128, n_s = 2."""

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        hid_t = options.hid_t
        super().__init__(patch_size(options.n_s))
        inside = frames.channels * self.patch**2
        self.hidden = hid_t
        self.cells = nn.ModuleList(SpatiotemporalLSTMCell(hid_t if i else inside, hid_t) for i in range(options.n_t))
        self.readout = nn.Conv2d(hid_t, inside, 1, bias=False)

    def begin(self, frame: Tensor) -> Memory:
        blank = [zeros(frame, self.hidden)] * len(self.cells)
        return Memory(blank, blank, zeros(frame, self.hidden))

    def step(self, frame: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        hs, cs, m, x = [], [], memory.m, frame
        coupling = memory.coupling
        for cell, h, c in zip(self.cells, memory.h, memory.c, strict=True):
            x, c, m, increments = cell(x, h, c, m)
            coupling += self.coupling(*increments)
            hs.append(x)
            cs.append(c)
        return self.readout(x), Memory(hs, cs, m, coupling)

    def coupling(self, of_c: Tensor, of_m: Tensor) -> tuple[Tensor, ...]:
        """How similar the increments of both memories are, if training uses it; nothing here."""
        return ()


class PredRNNv2(PredRNN):
    """PredRNN trained to keep its two memories apart, and to look further back than one frame."""

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        super().__init__(frames, options)
        self.adapter = nn.Conv2d(options.hid_t, options.hid_t, 1, bias=False)

    def coupling(self, of_c: Tensor, of_m: Tensor) -> tuple[Tensor, ...]:
        """|cos| between the increments of c and of m over the grid, mean over channels (Eq. 8 of the TPAMI paper)."""
        if not self.training:
            return ()
        alike = nn.functional.cosine_similarity(self.adapter(of_c).flatten(2), self.adapter(of_m).flatten(2), dim=2)
        return (alike.abs().mean(),)

    def training_terms(self, memory: Memory) -> Terms:
        """The decoupling loss, with its weight."""
        return {"decoupling": DECOUPLING_WEIGHT * torch.stack(memory.coupling).mean()} if memory.coupling else {}

    def teacher_mask(self, batch: Batch) -> Tensor:
        """Reverse scheduled sampling: at first half of the observed frames are hidden, and half of the later ones true.

        Probabilities of true frames over the run: 1/2 for the first half of the span; then that of observed frames rises to
        1, exponentially with a fifth of that half, that of later ones falls linearly to 0 (OpenSTL's settings).
        """
        (B, T), device = batch.observed.shape[:2], batch.observed.device
        half = SAMPLING_SPAN / 2
        late = max(0.0, batch.progress / half - 1)  # 0 to 1 over the second half
        observed = 1.0 if late > 1 else 1 - 0.5 * math.exp(-5 * late)
        probability = torch.tensor([observed] * T + [0.5 * max(0.0, 1 - late)] * (batch.steps - 1), device=device)
        return torch.rand(B, len(probability), device=device) < probability


class SpatiotemporalLSTMCell(nn.Module):
    """ST-LSTM: an LSTM along time (c) and one along the layers (m) with a common output."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.conv_x = same_conv(inputs, 7 * hidden, FILTER)
        self.conv_h = same_conv(hidden, 4 * hidden, FILTER)
        self.conv_m = same_conv(hidden, 3 * hidden, FILTER)
        self.conv_o = same_conv(2 * hidden, hidden, FILTER)
        self.mix = nn.Conv2d(2 * hidden, hidden, 1, bias=False)

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
        """x: [B, inputs, H', W'], the others [B, hidden, H', W'] → the new h, c, m, and the increments of c and m."""
        x_c, x_m, x_o = self.conv_x(x).split([3 * h.shape[1], 3 * h.shape[1], h.shape[1]], dim=1)
        h_c, h_o = self.conv_h(h).split([3 * h.shape[1], h.shape[1]], dim=1)
        c, added_c = remember(c, x_c + h_c)
        m, added_m = remember(m, x_m + self.conv_m(m))
        both = torch.cat([c, m], dim=1)
        o = torch.sigmoid(x_o + h_o + self.conv_o(both))
        return o * torch.tanh(self.mix(both)), c, m, (added_c, added_m)


def remember(memory: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
    """f·memory + i·g and i·g, from the gates before their activations, [B, 3·hidden, H', W']."""
    i, f, g = gates.chunk(3, dim=1)
    added = torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(f + FORGET_BIAS) * memory + added, added
