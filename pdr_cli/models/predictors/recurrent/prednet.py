"""PredNet (Lotter et al., ICLR 2017): each layer predicts the one below, and only the errors are passed upward.

The published model clips the lowest prediction to [0, 1], for pictures; this one does not, because fields may be
standardised.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from pdr_cli.models.interfaces import Frames
from pdr_cli.models.predictors.recurrent.sequence import Recurrent, same_conv

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig


class Memory(NamedTuple):
    """From the lowest layer to the highest: representations and their cells, [B, A_l, H/2^l, W/2^l], and predictions."""

    r: list[Tensor]
    c: list[Tensor]
    predicted: list[Tensor]


class PredNet(Recurrent):
    """n_t layers above the pixels, the lowest with hid_s channels, each with twice the channels and half the grid below it.

    OpenSTL: hid_s = 32, n_t = 4. H and W are extended to multiples of 2^n_t.
    """

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        n_t = options.n_t
        super().__init__(1, 2**n_t)
        self.widths = [frames.channels, *(options.hid_s * 2**layer for layer in range(n_t))]
        above = [*self.widths[1:], 0]
        self.lstm = nn.ModuleList(
            same_conv(3 * a + b, 4 * a, 3, bias=True) for a, b in zip(self.widths, above, strict=True)
        )
        self.predict = nn.ModuleList(same_conv(a, a, 3, bias=True) for a in self.widths)
        self.climb = nn.ModuleList(same_conv(2 * a, b, 3, bias=True) for a, b in itertools.pairwise(self.widths))
        for conv in (*self.lstm, *self.predict, *self.climb):
            nn.init.zeros_(conv.bias)

    def begin(self, frame: Tensor) -> Memory:
        B, _, H, W = frame.shape
        blank = [frame.new_zeros(B, a, H >> layer, W >> layer) for layer, a in enumerate(self.widths)]
        return self.descend([torch.cat([b, b], dim=1) for b in blank], blank, blank)

    def step(self, frame: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        after = self.descend(self.errors(frame, memory.predicted), memory.r, memory.c)
        return after.predicted[0], after

    def errors(self, frame: Tensor, predicted: list[Tensor]) -> list[Tensor]:
        """Positive and negative errors of each layer, [B, 2·A_l, H/2^l, W/2^l]; they make the targets of the layer above."""
        found, target = [], frame
        for layer, guess in enumerate(predicted):
            found.append(torch.cat([torch.relu(guess - target), torch.relu(target - guess)], dim=1))
            if layer < len(self.climb):
                target = nn.functional.max_pool2d(torch.relu(self.climb[layer](found[-1])), 2)
        return found

    def descend(self, errors: list[Tensor], rs: list[Tensor], cs: list[Tensor]) -> Memory:
        """Update the representations from the top down by the errors, and predict from them."""
        after = Memory([], [], [])
        for layer in reversed(range(len(self.widths))):
            seen = [rs[layer], errors[layer]]
            if after.r:
                seen.append(nn.functional.interpolate(after.r[0], scale_factor=2.0, mode="nearest"))
            r, c = self.lstm_step(layer, torch.cat(seen, dim=1), cs[layer])
            guess = self.predict[layer](r)
            for kept, new in ((after.r, r), (after.c, c), (after.predicted, torch.relu(guess) if layer else guess)):
                kept.insert(0, new)
        return after

    def lstm_step(self, layer: int, seen: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Representation and cell of one layer, with piecewise linear gates."""
        i, f, o, g = self.lstm[layer](seen).chunk(4, dim=1)
        c = hard_sigmoid(f) * c + hard_sigmoid(i) * torch.tanh(g)
        return hard_sigmoid(o) * torch.tanh(c), c


def hard_sigmoid(x: Tensor) -> Tensor:
    """x/5 + 1/2 between 0 and 1."""
    return torch.clamp(0.2 * x + 0.5, 0, 1)
