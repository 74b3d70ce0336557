"""Carry: Gaussians that start with the optical flow, are corrected, and travel; and twins that do the same without them.

All three forecast a frame at any time t as

    α_t · moved_t + (1 - α_t) · plate_t + change_t

where the plate is the last frame moved along the flow, which slows down, and the change is bounded in time. They differ in
how the corrected motion, its mask α and its own damping are drawn: by Gaussians that carry them along (`carry`), by the same
Gaussians with fixed places and shapes (`carry-grid`), or by a grid that is interpolated and moved along (`carry-dense`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError
from pdr_cli.models.gaussians.cells import NUMBERS, Cells, Shapes
from pdr_cli.models.gaussians.local import Features
from pdr_cli.models.gaussians.moving import DAMPING, carriers, damping_of, growth, transported, travelled
from pdr_cli.models.interfaces import Anchoring, Batch, Frames, Predictor, Terms
from pdr_cli.models.layers import interpolation
from pdr_cli.models.motion import advect, backward_motion, sample

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig

FASTEST = 8.0  # pixels a frame, of the flow that the convolutions read
FIRST = 0.6  # σ of a Gaussian at the start, cells
WEIGHTS = (-8.0, 6.0)  # logarithms of the lowest and highest weight of a Gaussian
COVER = 0.5  # sum of weights at which half of a pixel follows the Gaussians


class MotionPredictor(Predictor):
    """A body of convolutions on the observed frames and the flow, and a head whose numbers per cell correct the motion.

    Args:
        frames: T and C; the network takes frames of any (H, W).
        options: `hid_t` channels of the body, `n_t` of its convolutions on the grid of cells, and `n_s`: the side of a cell
            is 2^(n_s/2) pixels.

    Raises:
        ConfigError: an anchor that moved frames do not need.
    """

    reads_flow = True
    continuous = True
    numbers: ClassVar[int]  # per cell, for the motion

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        super().__init__()
        if options.anchor not in ("none", "persistence"):
            raise ConfigError(
                f"--anchor {options.anchor}: {options.backbone} moves the last frame and adds no anchor",
                "none or persistence",
                f"take --anchor none, or another --backbone than {options.backbone}",
            )
        self.stride = 2 ** (options.n_s // 2)
        self.features = Features(frames.in_steps * frames.channels + 2, options.hid_t, self.stride, options.n_t)
        self.head = nn.Conv2d(options.hid_t, self.numbers + 2 * frames.channels * self.stride**2, 1)
        nn.init.normal_(self.head.weight, std=1e-3)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]  # there is a bias

    def forward(
        self,
        x: Tensor,
        steps: int | None = None,
        anchor: Anchoring | None = None,
        covariates: Tensor | None = None,
        seeds: Tensor | None = None,
    ) -> Tensor:
        """See `Predictor.forward`; moved frames need no anchor, so `anchor` changes nothing."""
        return self.at(x, range(1, (steps or x.shape[1]) + 1))

    def training_forward(self, batch: Batch, anchor: Anchoring | None = None) -> tuple[Tensor, Terms]:
        """The forecast, by the batch's own flow if it has one."""
        motion = backward_motion(batch.observed) if batch.flow is None else batch.flow
        return self.moved(batch.observed, motion, range(1, batch.steps + 1)), {}

    def at(self, x: Tensor, times: Sequence[float], anchor: Anchoring | None = None) -> Tensor:
        """See `Predictor.at`."""
        return self.moved(x, backward_motion(x), times)

    def moved(self, x: Tensor, motion: Tensor, times: Sequence[float]) -> Tensor:
        """The forecast at any times from 0 on, in frames: [B, T, C, H, W] and [B, 2, H, W] → [B, times, C, H, W].

        Args:
            x: observed frames.
            motion: the flow from the last frame back to the one before it.
            times: in ascending order.
        """
        (H, W), last = x.shape[-2:], x[:, -1]
        near = motion.clamp(-FASTEST, FASTEST) / 2
        raw = self.head(self.features(torch.cat([x.flatten(1, 2) - 0.5, near], dim=1)))
        with torch.autocast(x.device.type, enabled=False):
            cells, change = raw.float().split([self.numbers, raw.shape[1] - self.numbers], dim=1)
            change = nn.functional.pixel_shuffle(change, self.stride)[..., :H, :W].unflatten(1, (2, -1))
            mask, moved = self.carried(cells, last, motion, times)
            plate = advect(last, motion, times, DAMPING)
            return torch.lerp(plate, moved, mask) + grown(change, times)

    @abstractmethod
    def carried(self, cells: Tensor, last: Tensor, motion: Tensor, times: Sequence[float]) -> tuple[Tensor, Tensor]:
        """The mask α [B, times, 1, H, W] and the last frame as the corrected motion moves it [B, times, C, H, W].

        Args:
            cells: the head's numbers, [B, numbers, h, w].
            last: [B, C, H, W].
            motion: [B, 2, H, W].
            times: in frames.
        """


class Carry(MotionPredictor):
    """A Gaussian for each cell: it lies near its anchor, takes the flow there and a correction, and travels with it.

    All Gaussians are rendered to the weighted mean of their displacements, by which the last frame is moved.
    """

    numbers = NUMBERS + 4  # a shape, velocity 2, weight, damping

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        super().__init__(frames, options)
        self.cells = Cells(self.stride, FIRST)

    def carried(self, cells: Tensor, last: Tensor, motion: Tensor, times: Sequence[float]) -> tuple[Tensor, Tensor]:
        raw, velocity, weight, damping = self._split(cells)
        shapes = self.cells.shapes(raw, cells.shape[-2:])
        flow = sample(motion, shapes.centre[:, None, :, 0], shapes.centre[:, None, :, 1])[:, :, 0].mT  # [B, N, 2]
        way = travelled(damping_of(damping), times)[..., None] * (torch.tanh(velocity) - flow)[:, None]  # [B, τ, N, 2]
        weight = torch.exp((weight - 1).clamp(*WEIGHTS))[:, None].expand(-1, len(times), -1, -1)
        arrived = Shapes(shapes.centre[:, None] + way, shapes.scale[:, None], shapes.rotation[:, None])
        size = (last.shape[-2], last.shape[-1])
        return transported(self.cells.render(arrived, carriers(weight, way), size), last, COVER)

    def _split(self, cells: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Numbers of each Gaussian: shape [B, N, 5], velocity [B, N, 2], weight and damping [B, N, 1]."""
        return cells.flatten(2).mT.split([NUMBERS, 2, 1, 1], dim=-1)


class CarryGrid(Carry):
    """`Carry` whose Gaussians stay round and on their anchors at the start: velocity, weight and damping alone are learnt."""

    numbers = 4

    def _split(self, cells: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        velocity, weight, damping = cells.flatten(2).mT.split([2, 1, 1], dim=-1)
        return torch.zeros_like(velocity[..., :1]).expand(-1, -1, NUMBERS), velocity, weight, damping


class CarryDense(MotionPredictor):
    """The twin without Gaussians: velocity, mask and damping of each cell are interpolated, and move along with the frame."""

    numbers = 4

    def carried(self, cells: Tensor, last: Tensor, motion: Tensor, times: Sequence[float]) -> tuple[Tensor, Tensor]:
        velocity, mask, damping = self._enlarged(cells, last).split([2, 1, 1], dim=1)
        source = torch.cat([last, torch.sigmoid(mask)], dim=1)
        both = advect(source, motion + torch.tanh(velocity), times, damping_of(damping))
        return both[:, :, -1:], both[:, :, :-1]

    def _enlarged(self, cells: Tensor, last: Tensor) -> Tensor:
        """[B, numbers, h, w] → [B, numbers, H, W]."""
        rows, columns = (interpolation(n, n * self.stride).to(cells) for n in cells.shape[-2:])
        return (rows @ cells @ columns.T)[..., : last.shape[-2], : last.shape[-1]]


def grown(change: Tensor, times: Sequence[float]) -> Tensor:
    """Bounded changes in time, 0 at t = 0: [B, 2, C, H, W] → [B, times, C, H, W]."""
    return (growth(times, change) @ change.flatten(2)).unflatten(2, change.shape[2:])
