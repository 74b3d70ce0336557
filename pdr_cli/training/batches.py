"""From windows of the data to the tensors of a training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from pdr_cli.data import times as time_axis
from pdr_cli.data.ahead import Ahead
from pdr_cli.data.context import ContextSource, Moments
from pdr_cli.data.encoding import Encoding
from pdr_cli.data.series import size
from pdr_cli.data.windows import Windows
from pdr_cli.models import tiles
from pdr_cli.models.interfaces import Anchor, Batch, Context
from pdr_cli.models.motion import backward_motion
from pdr_cli.models.pdr import PDR
from pdr_cli.training.kept import Kept

NO_CONTEXT = ContextSource()
NAMED = 4  # windows of a batch that a message names


class WeightedBatch(NamedTuple):
    """A batch and its weight in the loss.

    Args:
        inputs: of the network, with the target.
        weight: of each value of the target, [B, τ, C, H, W]; None: all values weigh the same.
        which: numbers of the windows, [B].
    """

    inputs: Batch
    weight: torch.Tensor | None
    which: np.ndarray


class AnchorFrames:
    """The anchor's frames of training windows, kept from epoch to epoch.

    They may be those of anchors fitted without each window's block of time: a network trained on an anchor that has seen its
    windows would trust it too much.

    Args:
        anchors: one for each block; one alone for all windows.
        fold_of: the block of each training window, [n].
        limit_mb: of the kept frames.
    """

    def __init__(self, anchors: Sequence[Anchor], fold_of: np.ndarray, limit_mb: int = 256) -> None:
        self.anchors, self.fold_of = anchors, fold_of
        self._kept = Kept(limit_mb)

    def frames(self, batch: Batch, which: np.ndarray) -> torch.Tensor:
        """The anchor's frames of the training windows numbered `which`, [B, τ, C, H, W]."""
        return self._kept.of(which, lambda row: self._forecast(int(self.fold_of[which[row]]), batch, row))

    @torch.no_grad()
    def _forecast(self, fold: int, batch: Batch, row: int) -> torch.Tensor:
        context = Context(*(None if t is None else t[row : row + 1] for t in batch.context))
        anchor = self.anchors[fold].to(batch.observed.device)
        frames: torch.Tensor = anchor(batch.observed[row : row + 1], batch.steps, context)[0]
        return frames


class Flows:
    """The flow of training windows from their last observed frame back to the one before it.

    Args:
        limit_mb: of the kept flows.
    """

    def __init__(self, limit_mb: int = 256) -> None:
        self._kept = Kept(limit_mb)

    def of(self, observed: torch.Tensor, which: np.ndarray) -> torch.Tensor:
        """[B, T, C, H, W] of the training windows numbered `which` → [B, 2, H, W]."""
        return self._kept.of(which, lambda row: backward_motion(observed[row : row + 1])[0])


class Tracks:
    """The tracks of training windows, see `Batch.tracks`.

    Args:
        network: reads them.
        limit_mb: of the kept tracks.
    """

    def __init__(self, network: PDR, limit_mb: int = 256) -> None:
        self.network = network
        self._kept = Kept(limit_mb)

    def of(self, batch: Batch, which: np.ndarray) -> torch.Tensor:
        """The training windows numbered `which` → [B, τ, 3, h, w]."""
        return self._kept.of(which, lambda row: self.network.track(batch.rows(slice(row, row + 1)))[0])


class FrozenParts:
    """What the frozen parts of a network make of training windows.

    Args:
        network: on its device.
        limit_mb: of the kept tensors.
    """

    def __init__(self, network: PDR, limit_mb: int = 512) -> None:
        self.network = network
        self._kept = Kept(limit_mb)

    def of(self, batch: Batch, which: np.ndarray) -> torch.Tensor:
        """The training windows numbered `which` → [B, K]."""
        return self._kept.of(which, lambda row: self._one(batch.rows(slice(row, row + 1))))

    @torch.no_grad()
    def _one(self, window: Batch) -> torch.Tensor:
        return self.network.keep(window)[0]


@dataclass(frozen=True)
class Crops:
    """Random parts of the grid that steps are trained on.

    Args:
        sides: rows and columns of a part.
        cell: of the coarsest grid of the network, at a whole one of which a part begins.
        periodic: True if the last column is a neighbour of the first.
    """

    sides: tuple[int, int]
    cell: int
    periodic: bool

    def of(self, batch: WeightedBatch) -> WeightedBatch:
        """The same part of all windows of a batch."""
        H, W = batch.inputs.observed.shape[-2:]
        rows = tiles.random_places(H, self.sides[0], self.cell, around=False)
        columns = tiles.random_places(W, self.sides[1], self.cell, around=self.periodic)
        weight = None if batch.weight is None else tiles.crop(batch.weight, rows, columns)
        return batch._replace(inputs=tiles.cut(batch.inputs, rows, columns), weight=weight)


@dataclass(frozen=True)
class TrainingData:
    """The windows of a run, and how they become tensors.

    Args:
        train: training windows.
        val: validation windows.
        encoding: data units to network units.
        area: weight of each cell in the loss, [H, W]; None: all cells weigh the same.
        contexts: what the network is given beside the frames of a window.
        anchor_frames: the anchor's frames of training windows; None where the network computes them.
        flows: of training windows; None where the network reads none.
        tracks: of training windows; None where the network compares no ways with them.
        frozen: the parts of the network that are not trained and give the same in every epoch; None if there are none.
        ahead: reads the training windows of the next step; None: each step reads its own.
        crops: of the grid that steps are trained on; None: the whole grid.
    """

    train: Windows
    val: Windows
    encoding: Encoding
    area: np.ndarray | None = None
    contexts: ContextSource = NO_CONTEXT
    anchor_frames: AnchorFrames | None = None
    flows: Flows | None = None
    tracks: Tracks | None = None
    frozen: FrozenParts | None = None
    ahead: Ahead | None = None
    crops: Crops | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return size(self.train.series[0])

    def with_val_windows(self, most: int) -> TrainingData:
        """The same data with at most so many validation windows, evenly spaced."""
        return replace(self, val=self.val.spread(most))

    def batch(self, windows: Windows, which: np.ndarray, device: torch.device) -> WeightedBatch:
        """Windows in network units.

        Cells that training never observed are filled in all frames, other missing values in the observed frames alone.
        """
        may_lack: Literal["none", "following", "all"] = "none" if windows.never_observed is None else "following"
        frames = windows.batch(which, missing="all" if self.encoding.filling.method != "none" else may_lack)
        known = np.isfinite(np.concatenate(frames, axis=1))
        times = [windows.times(int(i))[: windows.in_steps] for i in which]
        observed = self.encoding.observed(frames[0], times, device)
        following = self.encoding.target(frames[1], device)
        weight = self._weight(known[:, windows.in_steps :], device)
        filled = None if known.all() else torch.from_numpy(known).to(device)
        context = self.encoding.context(self.contexts.of(Moments.of(windows, which)), device)
        inputs = Batch(observed, windows.out_steps, following, filled)._replace(**context)
        if windows is self.train and self.anchor_frames is not None:
            inputs = inputs._replace(anchor=self.anchor_frames.frames(inputs, which))
        if windows is self.train and self.flows is not None:
            inputs = inputs._replace(flow=self.flows.of(observed, which))
        if windows is self.train and self.tracks is not None:
            inputs = inputs._replace(tracks=self.tracks.of(inputs, which))
        if windows is self.train and self.frozen is not None:
            inputs = inputs._replace(kept=self.frozen.of(inputs, which))
        return WeightedBatch(inputs, weight, which)

    def _weight(self, known: np.ndarray, device: torch.device) -> torch.Tensor | None:
        """Weight of each value of [B, τ, C, H, W]; None if all weigh the same."""
        if known.all() and self.area is None:
            return None
        weight = known.astype(np.float32) * (1 if self.area is None else self.area.astype(np.float32))
        return torch.from_numpy(weight).to(device)

    def starts(self, which: np.ndarray) -> str:
        """File and first time of training windows, for a message."""
        starts = []
        for number, start in self.train.places[which[:NAMED]]:
            series = self.train.series[number]
            starts.append(f"{Path(series.attrs['files'][0]).name} {time_axis.label(series.time.values[start])}")
        more = f" and {len(which) - NAMED} more" if len(which) > NAMED else ""
        return f"windows from {', '.join(starts)}{more}"
