"""Deformable: one set of Gaussians that moves, turns and fades, and whose change of picture is the forecast; and its control.

Both forecast a frame at any time t as

    anchor_t + R(G_t) - R(G_0)

where R renders Gaussians. In `deformable` each has an identity: it moves and turns at its own constant speed, while its
amplitude changes by a bounded amount. In `deformable-still` the Gaussians stand still, and their amplitudes are free in time.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pdr_cli.models import layers
from pdr_cli.models.gaussians.cells import NUMBERS, Cells, Shapes
from pdr_cli.models.gaussians.local import Features
from pdr_cli.models.gaussians.moving import GROWTH, growth
from pdr_cli.models.interfaces import Anchoring, Frames, Predictor

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig

PER_CELL = 4
FIRST = 0.4  # σ of a Gaussian at the start, cells
WEIGHTS = 1e-2  # standard deviation of the first weights of the head
FASTEST = 3.0  # pixels a frame
TURN = 0.2  # radians a frame at most
PERIODS = (10.0, 5.0)  # half periods of free amplitudes, frames


class ChangePredictor(Predictor):
    """A body of convolutions on the observed frames, and a head that says what the Gaussians of each cell are.

    Args:
        frames: T and C; the network takes frames of any (H, W).
        options: `hid_t` channels of the body, `n_t` of its convolutions on the grid of cells, and `n_s`: the side of a cell
            is 2^(n_s/2) pixels.
    """

    continuous = True

    def __init__(self, frames: Frames, options: ModelConfig, numbers: int) -> None:
        super().__init__()
        stride = 2 ** (options.n_s // 2)
        self.channels, self.cells = frames.channels, Cells(stride, FIRST)
        self.features = Features(frames.in_steps * frames.channels, options.hid_t, stride, options.n_t)
        self.head = nn.Conv2d(options.hid_t, PER_CELL * (NUMBERS + numbers), 1)
        nn.init.normal_(self.head.weight, std=WEIGHTS)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]  # there is a bias

    def forward(
        self,
        x: Tensor,
        steps: int | None = None,
        anchor: Anchoring | None = None,
        covariates: Tensor | None = None,
        seeds: Tensor | None = None,
    ) -> Tensor:
        """See `Predictor.forward`; without an anchor, the change is that from the last observed frame."""
        return self.at(x, range(1, (steps or x.shape[1]) + 1), anchor)

    def at(self, x: Tensor, times: Sequence[float], anchor: Anchoring | None = None) -> Tensor:
        """See `Predictor.at`; an anchor's frames are blended in between."""
        raw = self.head(self.features(x.flatten(1, 2) - 0.5))
        with torch.autocast(x.device.type, enabled=False):
            numbers = raw.float().unflatten(1, (PER_CELL, -1)).flatten(3).transpose(2, 3)  # [B, k, h·w, numbers]
            shapes = self.cells.shapes(numbers[..., :NUMBERS], raw.shape[-2:])
            flat = Shapes(*(t.flatten(1, 2)[:, None] for t in shapes))  # [B, 1, N, ...]
            change = self.change(flat, numbers[..., NUMBERS:].flatten(1, 2), times, (x.shape[-2], x.shape[-1]))
        return self._anchored(x, times, anchor) + change

    def _anchored(self, x: Tensor, times: Sequence[float], anchor: Anchoring | None) -> Tensor:
        if anchor is None:
            return x[:, -1:]
        whole = [round(time) for time in times]
        frames = anchor(x, 0, math.ceil(times[-1]))
        if whole == list(times):
            return frames[:, [time - 1 for time in whole]]
        return layers.between(torch.cat([x[:, -1:], frames], dim=1), times)

    @abstractmethod
    def change(self, shapes: Shapes, numbers: Tensor, times: Sequence[float], size: tuple[int, int]) -> Tensor:
        """R(G_t) - R(G_0), [B, times, C, H, W].

        Args:
            shapes: at time 0, [B, 1, N, ...].
            numbers: further ones of each Gaussian, [B, N, numbers].
            times: in frames.
            size: (H, W).
        """


class Deformable(ChangePredictor):
    """Gaussians that keep their identity: each moves and turns at a constant speed, and its amplitude fades in or out."""

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        super().__init__(frames, options, 3 + 3 * frames.channels)

    def change(self, shapes: Shapes, numbers: Tensor, times: Sequence[float], size: tuple[int, int]) -> Tensor:
        """See `ChangePredictor.change`."""
        velocity, turn, amplitudes = numbers.split([2, 1, 3 * self.channels], dim=-1)
        t = numbers.new_tensor([0.0, *times])[:, None, None]
        functions = torch.cat([torch.ones_like(t[:, 0]), growth([0.0, *times], t)], dim=-1)
        amplitude = torch.einsum("bnkc,tk->btnc", amplitudes.unflatten(-1, (3, -1)), functions)
        moved = Shapes(
            shapes.centre + t * (FASTEST * torch.tanh(velocity / FASTEST))[:, None],
            shapes.scale,
            shapes.rotation + t[..., 0] * (TURN * torch.tanh(turn))[:, None, :, 0],
        )
        drawn = self.cells.render(moved, amplitude, size)
        return drawn[:, 1:] - drawn[:, :1]


class DeformableStill(ChangePredictor):
    """The control: Gaussians that stand still, with amplitudes that are free in time."""

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        super().__init__(frames, options, (len(GROWTH) + 2 * len(PERIODS)) * frames.channels)

    def change(self, shapes: Shapes, numbers: Tensor, times: Sequence[float], size: tuple[int, int]) -> Tensor:
        """See `ChangePredictor.change`; R(G_0) is 0."""
        t = numbers.new_tensor(list(times))[:, None] * math.pi / numbers.new_tensor(PERIODS)
        functions = torch.cat([growth(times, t), torch.sin(t), 1 - torch.cos(t)], dim=-1)  # [times, k], 0 at time 0
        amplitude = torch.einsum("bnkc,tk->btnc", numbers.unflatten(-1, (functions.shape[1], -1)), functions)
        still = shapes._replace(centre=shapes.centre.expand(-1, len(times), -1, -1))
        return self.cells.render(still, amplitude, size)
