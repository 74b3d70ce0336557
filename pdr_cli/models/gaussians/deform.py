"""DeformGS: one set of Gaussians for all frames of a forecast, each of which moves; after Diff4Splat (arXiv 2511.00503)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError
from pdr_cli.models.gaussians.base import Gaussians, to_coords
from pdr_cli.models.gaussians.local import LocalGS
from pdr_cli.models.gaussians.moving import (
    BASES,
    carriers,
    curves,
    damping_of,
    displaced_at_each,
    motion_loss,
    transported,
    travelled,
)
from pdr_cli.models.interfaces import Batch, Frames, Terms, target_of
from pdr_cli.models.layers import interpolation
from pdr_cli.models.motion import backward_motion, sample
from pdr_cli.models.tracking import tracks

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig

CARRY = "carry"  # the fusion
MOVES = 5  # curves of a Gaussian: place 2, rotation, scale 2
FIRST_OPACITY = -1.0  # added to the raw opacity
FIRST_MOVES = 1e-2  # standard deviation of the first weights of the head of the curves
FASTEST = 8.0  # pixels a frame, of the flow that the convolutions read
HALF = 0.2  # sum of opacities at which half of a pixel follows the Gaussians that carry


class MovingSet(NamedTuple):
    """Gaussians at some times: one row of N for all times, of which each time has its own numbers."""

    drawn: Gaussians  # at each time, with the amplitudes of painting
    start: Tensor  # where each is at the last observed frame, pixels, [B, N, 2]
    way: Tensor  # that each has covered, pixels, [B, τ, N, 2]
    opacity: Tensor  # [B, τ, N, 1], in (0, 1)


class DeformGS(LocalGS):
    """A canonical set of Gaussians, read once from the observed and all coarse frames, and a small deformation of each.

    Each cell has Gaussians with a place, a shape, amplitudes and an opacity, which hold for all frames, and with curves in
    time for place, rotation and scale, which are 0 at the last observed frame. With `deform_start` "flow" they go with the
    optical flow of the last two frames, each slowing down at a rate of its own, and the curves correct that. Gaussians with
    less opacity than `prune_opacity` are not drawn.

    With fusion "carry" the Gaussians do not paint: each carries the part of the last observed frame that it covers along its
    way, and the layer is the change of the coarse forecast that this makes (`moving.transported`).

    A forecast of more frames than the trained τ is made block by block; each block starts with the last frames before it, of
    the coarse forecast. A block that is not whole repeats its last coarse frame.

    Args:
        frames: T, τ and C; the adapter takes frames of any (H, W).
        options: those of `LocalGS`, with `deform_start`, `deform_basis`, `deform_opacity`, `prune_opacity` and `fusion`.

    Raises:
        ConfigError: values with which nothing can be rendered.
    """

    continuous = True
    reads_tracks = True

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        if options.adapter_input != "auto":
            raise ConfigError(
                f"model.adapter_input is {options.adapter_input}", "auto: --adapter deform reads all frames at once"
            )
        super().__init__(frames, options)
        self.leads, self.reads_flow = frames.out_steps or frames.in_steps, options.deform_start == "flow"
        self.basis, self.prune = options.deform_basis, options.prune_opacity
        self.carries, self.fades = options.fusion == CARRY, options.deform_opacity
        if self.carries:  # opacities, which are drawn as they are
            self.normalize, self.amplitude, self.amplitude_size = "peak", "linear", None
        functions = len(BASES[self.basis](0.0, self.leads))
        self.moves = nn.Conv2d(options.conv_width, self.per_cell * (MOVES + self.fades) * functions, 1)
        nn.init.normal_(self.moves.weight, std=FIRST_MOVES)
        nn.init.zeros_(self.moves.bias)  # type: ignore[arg-type]  # there is a bias

    def further(self, options: ModelConfig) -> int:
        """Opacity, and the damping of the flow."""
        return 1 + (options.deform_start == "flow")

    def features_in(self, frames: Frames, options: ModelConfig) -> int:
        """All observed and all coarse frames of a block, and the flow."""
        flow = 2 * (options.deform_start == "flow")
        return frames.channels * (frames.in_steps + (frames.out_steps or frames.in_steps)) + flow

    def forward(
        self,
        coarse: Tensor,
        observed: Tensor | None = None,
        covariates: Tensor | None = None,
        seeds: Tensor | None = None,
    ) -> Tensor:
        """Y: see `Adapter.forward`."""
        return self.at(coarse, observed, range(1, coarse.shape[1] + 1), coarse)

    def at(self, coarse: Tensor, observed: Tensor | None, times: Sequence[float], between: Tensor) -> Tensor:
        """The layer at any times: see `Adapter.at`."""
        return torch.cat([layer for _, layer in self._parts(coarse, observed, times, between)], dim=1)

    def training_forward(self, coarse: Tensor, batch: Batch) -> tuple[Tensor, Terms]:
        """The layer, the mean opacity, and where the batch has tracks the loss of the ways of the first block (`motion_loss`)."""
        times = range(1, coarse.shape[1] + 1)
        sets, layers = zip(*self._parts(coarse, batch.observed, times, coarse, batch), strict=True)
        terms = {"opacity": torch.stack([one.opacity.mean() for one in sets]).mean()}
        if batch.tracks is not None and not batch.still:
            start, way, size = sets[0].start, sets[0].way, (coarse.shape[-2], coarse.shape[-1])
            terms["motion"] = motion_loss(start, way, batch.tracks[:, : way.shape[1]], size)
        return torch.cat(layers, dim=1), terms

    def track(self, batch: Batch) -> Tensor:
        """See `Adapter.track`."""
        known = None if batch.known is None else batch.known[:, batch.observed.shape[1] - 1 :]
        return tracks(batch.observed[:, -1], target_of(batch), known)

    def gaussians(self, coarse: Tensor, observed: Tensor | None = None) -> Gaussians:
        """The Gaussians of each frame; of those that carry, the amplitude is the opacity."""
        return self.moving(coarse, observed).drawn

    def moving(self, coarse: Tensor, observed: Tensor | None = None) -> MovingSet:
        """The set of each frame: coarse: [B, τ, C, H, W]; observed: [B, T, C, H, W]. The starts are those of the first block."""
        blocks = self._blocks(coarse, observed, range(1, coarse.shape[1] + 1))
        sets = [self._set(*block) for block in blocks]
        drawn = Gaussians(*(torch.cat(parts, dim=1) for parts in zip(*(one.drawn for one in sets), strict=True)))
        way, opacity = torch.cat([one.way for one in sets], dim=1), torch.cat([one.opacity for one in sets], dim=1)
        return MovingSet(drawn, sets[0].start, way, opacity)

    def _parts(
        self,
        coarse: Tensor,
        observed: Tensor | None,
        times: Sequence[float],
        between: Tensor,
        batch: Batch | None = None,
    ) -> Iterator[tuple[MovingSet, Tensor]]:
        """The set and the layer of each block; arguments as of `at`, and the batch in training."""
        still, done = batch is not None and batch.still, 0
        for seen, block, inside in self._blocks(coarse, observed, times):
            flow = None if batch is None or done else batch.flow
            found = self._set(seen, block, inside, still, flow)
            yield found, self._layer(found, seen[:, -1], between[:, done : done + len(inside)])
            done += len(inside)

    def _blocks(
        self, coarse: Tensor, observed: Tensor | None, times: Sequence[float]
    ) -> Iterator[tuple[Tensor, Tensor, list[float]]]:
        """The observed and coarse frames of each block of τ lead times, and the times in it, from its start."""
        if observed is None:
            raise ValueError("adapter deform is called with (coarse, observed)")
        every, T, leads = torch.cat([observed, coarse], dim=1), observed.shape[1], self.leads
        for first in range(0, coarse.shape[1], leads):
            block = coarse[:, first : first + leads]
            block = torch.cat([block, block[:, -1:].expand(-1, leads - block.shape[1], -1, -1, -1)], dim=1)
            inside = [time - first for time in times if first < time <= first + leads]
            if inside:
                yield every[:, first : first + T], block, inside

    def _set(
        self, seen: Tensor, block: Tensor, times: Sequence[float], still: bool = False, flow: Tensor | None = None
    ) -> MovingSet:
        """The Gaussians of one block at times from its start on: [B, T, C, H, W] and [B, τ, C, H, W]."""
        size = (seen.shape[-2], seen.shape[-1])
        inputs = [torch.cat([seen, block], dim=1).flatten(1, 2)]
        if self.reads_flow:
            flow = backward_motion(seen) if flow is None else flow
            inputs.append(flow.clamp(-FASTEST, FASTEST) / 2)
        features = self.features(torch.cat(inputs, dim=1))
        with torch.autocast(seen.device.type, enabled=False):
            raw = self.numbers(self.head, features)
            sizes = [2, 2, 1, self.channels, 1, raw.shape[-1] - 6 - self.channels]
            move, scale, rotation, amplitudes, opacity, damping = raw.split(sizes, dim=-1)
            weights = self.numbers(self.moves, features).unflatten(-1, (MOVES + self.fades, -1))
            change = curves(weights * (not still), self.basis, times, self.leads)  # [B, τ, N, moves]
            start, way = self.centre_of(move, features.shape[-2:]), self.spacing * change[..., :2]
            if flow is not None and not still:
                way = way + going(flow, start, damping_of(damping), times)
            fading = change[..., MOVES:] if self.fades else torch.zeros_like(change[..., :1])
            opacity = torch.sigmoid(opacity[:, None] + FIRST_OPACITY + fading)
            shown = opacity * (opacity >= self.prune)
            strength = torch.ones_like(shown) if self.carries else self.amplitudes_of(amplitudes)[:, None]
            drawn = Gaussians(
                coords=to_coords(start[:, None] + way, size),
                scale=self.scale_of(scale[:, None] + change[..., 3:MOVES]),
                rotation=self.rotation_of(rotation)[:, None, :, 0] + change[..., 2],
                amplitudes=shown * strength,
            )
            return MovingSet(drawn, start, way, opacity)

    def _layer(self, found: MovingSet, last: Tensor, coarse: Tensor) -> Tensor:
        """Y of one block: [B, τ, C, H, W]."""
        size = (last.shape[-2], last.shape[-1])
        if not self.carries:
            return self.render(found.drawn, size)
        with torch.autocast(last.device.type, enabled=False):
            amplitudes = carriers(found.drawn.amplitudes, found.way)
            drawn = self.render(found.drawn._replace(amplitudes=amplitudes), size)
            share, moved = transported(drawn, last.float(), HALF)
            return share * (moved - coarse)


def going(flow: Tensor, start: Tensor, damping: Tensor, times: Sequence[float]) -> Tensor:
    """The ways of places [B, N, 2] that go on against the flow back to the frame before, [B, 2, H, W], and slow down at
    rates [B, N, 1]: [B, times, N, 2].
    """
    back = sample(flow, start[:, None, :, 0], start[:, None, :, 1])[:, :, 0].mT  # [B, N, 2]
    return -travelled(damping, times)[..., None] * back[:, None]


class DeformDense(DeformGS):
    """The control of `DeformGS` with fusion carry, of its size: ways and opacities of the cells are interpolated to pixels.

    There are no Gaussians that travel: each pixel is read from where the interpolated way at this very pixel comes from.

    Raises:
        ConfigError: another fusion than carry, or several ways in a cell.
    """

    draws = False

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        if options.fusion != CARRY or options.per_cell != 1:
            raise ConfigError(
                f"--adapter {options.adapter} with --fusion {options.fusion} and model.per_cell {options.per_cell}",
                f"--fusion {CARRY} and 1",
            )
        super().__init__(frames, options)

    def _layer(self, found: MovingSet, last: Tensor, coarse: Tensor) -> Tensor:
        with torch.autocast(last.device.type, enabled=False):
            cells = torch.cat([found.drawn.amplitudes, -found.way], dim=-1)  # [B, τ, h·w, 3]
            rows, columns = (self._between_cells(n).to(cells) for n in last.shape[-2:])
            fields = rows @ cells.mT.unflatten(-1, (-1, columns.shape[1])) @ columns.T
            share, gap = fields.split([1, 2], dim=2)
            return share / (share + HALF) * (displaced_at_each(last.float(), gap) - coarse)

    def _between_cells(self, length: int) -> Tensor:
        """The matrix [length, cells] of linear interpolation between the middles of the cells along one side."""
        cells = math.ceil(length / self.cell_stride)
        return interpolation(cells, cells * self.cell_stride)[:length]
