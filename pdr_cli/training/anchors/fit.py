"""Fits a network's anchor, and the spread of its anomalies, to the training windows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pdr_cli.data import kinds
from pdr_cli.data import windows as data_windows
from pdr_cli.models.anchors.flow import FlowAnchor
from pdr_cli.models.anchors.ridge import Ridge
from pdr_cli.models.anchors.simple import Anomaly, normal_of
from pdr_cli.models.interfaces import Anchor, Batch, Frames, target_of
from pdr_cli.models.pdr import PDR
from pdr_cli.system.logs import log
from pdr_cli.training.anchors import flow, ridge
from pdr_cli.training.batches import AnchorFrames, TrainingData

FLOW_WINDOWS, FEW_AT_ONCE = 32, 8  # windows that the damping of a flow is fitted to, and those of a batch
SMALLEST = 1e-3  # spread of a cell, over the channel's mean spread: a constant cell has no departures


@dataclass(frozen=True)
class Windows:
    """The training windows of a run as batches on the CPU.

    Args:
        data: of the run.
        frames: of the network.
    """

    data: TrainingData
    frames: Frames

    def __len__(self) -> int:
        return len(self.data.train)

    def batch(self, which: np.ndarray) -> Batch:
        """The windows numbered `which`, with the τ frames that follow, however many training forecasts."""
        return self.data.batch(self._followed, which, torch.device("cpu")).inputs

    @cached_property
    def _followed(self) -> data_windows.Windows:
        return self.data.train.followed_by(self.frames.out_steps)

    def batches(self, at_once: int) -> Iterator[Batch]:
        """All windows in turn."""
        for start in range(0, len(self), at_once):
            yield self.batch(np.arange(start, min(start + at_once, len(self))))

    def departures(self) -> Iterator[tuple[Batch, Tensor, Tensor]]:
        """All windows in batches that fit into memory, with the departures of observed frames and of those to forecast."""
        for batch in self.batches(ridge.at_once(self.frames)):
            before, following = normal_of(batch.context, batch.observed.shape[1])
            yield batch, batch.observed - before, target_of(batch) - following

    @cached_property
    def spread(self) -> Tensor:
        """The standard deviation of the departures from the climatology in each cell: [C, H, W]."""
        squares, count = torch.zeros(()), 0
        for _, departures, _ in self.departures():
            squares = squares + departures.double().square().sum((0, 1))
            count += departures.shape[0] * departures.shape[1]
        found = (squares / count).sqrt()
        return found.clamp_min(SMALLEST * float(found.mean()) + 1e-12).float()

    def evenly(self, most: int) -> Windows:
        """At most so many of the windows, evenly spaced."""
        return replace(self, data=replace(self.data, train=self.data.train.spread(most)))


def fit(network: PDR, data: TrainingData, frames: Frames, out_of_fold: bool = True) -> AnchorFrames | None:
    """Fit the anchor and the anomalies of a network in place.

    Args:
        network: with new weights.
        data: of the run.
        frames: of the network.
        out_of_fold: True if the network is trained on anchors that were fitted without a window's own block of time.

    Returns:
        The frames of the anchor that takes long, which training keeps; None of the others.
    """
    windows = Windows(data, frames)
    if network.anomalies is not None:
        network.anomalies.spread.copy_(windows.spread)
    if network.anchor is None:
        return None
    folds = fit_anchor(network.anchor, windows, "anchor")
    if not isinstance(network.anchor, Ridge) or (out_of_fold and folds is not None):
        return folds
    return AnchorFrames([network.anchor], np.zeros(len(windows), int))


def fit_anchor(anchor: Anchor, windows: Windows, word: str) -> AnchorFrames | None:
    """Fit an anchor in place and log what was found, in a line that begins with `word`.

    Returns:
        Of a ridge, the frames of those that were fitted without each window's own block of time, if there are windows enough.
    """
    began, found, out_of_fold = time.perf_counter(), "", None
    if isinstance(anchor, Anomaly):
        anchor.share.copy_(damping(windows))
        found = _shares(anchor.share)
    if isinstance(anchor, FlowAnchor):
        anchor.damping.fill_(flow.fit(windows.evenly(FLOW_WINDOWS).batches(FEW_AT_ONCE)))
        found = f"flow: motion slows down by {100 * (1 - math.exp(-float(anchor.damping))):.0f} % a frame"
    if isinstance(anchor, Ridge):
        set_units(anchor, windows)
        fitted = ridge.fit(windows.frames, windows.batch, len(windows), anchor)
        anchor.load_state_dict(fitted.anchor.state_dict())
        found = f"ridge: {fitted.about}"
        out_of_fold = AnchorFrames(fitted.folds, fitted.fold_of) if fitted.folds else None
    if found:
        log.info("%-7s %s; %.1f s", word, found, time.perf_counter() - began)
    return out_of_fold


def set_units(anchor: Ridge, windows: Windows) -> None:
    """Set the units of the departures: of counts by their climatology, else their spread in each cell."""
    if kinds.of(windows.data.train.series[0]) is kinds.TRAFFIC:
        scaling = windows.data.encoding.scaling
        offset, scale = torch.tensor(scaling.offset), torch.tensor(scaling.scale)
        anchor.zero, anchor.spread = -offset / scale, (1 / scale)[:, None, None]
    else:
        anchor.spread = windows.spread.clone()


def damping(windows: Windows) -> Tensor:
    """The share of the last departure that each lead keeps: [τ, C]."""
    return ridge.share_of(_last_and_next(windows))


def _last_and_next(windows: Windows) -> Iterator[tuple[Tensor, Tensor]]:
    for batch, before, following in windows.departures():
        known = torch.ones_like(following) if batch.known is None else batch.known[:, before.shape[1] :]
        yield before[:, -1:] * known, following * known


def _shares(share: Tensor) -> str:
    return "anomaly: shares of the last departure " + " ".join(f"{float(v):.2f}" for v in share.mean(1))
