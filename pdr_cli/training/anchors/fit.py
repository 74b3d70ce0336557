"""Fits a network's anchor, and the spread of its anomalies, to the training windows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pdr_cli.data import kinds
from pdr_cli.models.anchors.flow import FlowAnchor
from pdr_cli.models.anchors.ridge import Ridge
from pdr_cli.models.anchors.simple import Anomaly
from pdr_cli.models.interfaces import Anchor, Batch, Frames, target_of
from pdr_cli.models.pdr import PDR
from pdr_cli.system.logs import log
from pdr_cli.training.anchors import flow, ridge
from pdr_cli.training.batches import OutOfFold, TrainingData

AT_ONCE = 128  # windows
FLOW_WINDOWS, FEW_AT_ONCE = 96, 8  # windows that the damping of a flow is fitted to, and those of a batch
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
        windows = self.data.train.followed_by(self.frames.out_steps)
        return self.data.batch(windows, which, torch.device("cpu")).inputs

    def sample(self, at_most: int) -> Iterator[Batch]:
        """At most so many windows, evenly spaced, in batches."""
        which = np.unique(np.linspace(0, len(self) - 1, min(at_most, len(self))).round().astype(int))
        for start in range(0, len(which), FEW_AT_ONCE):
            yield self.batch(which[start : start + FEW_AT_ONCE])

    def batches(self) -> Iterator[Batch]:
        """All windows in turn."""
        for start in range(0, len(self), AT_ONCE):
            yield self.batch(np.arange(start, min(start + AT_ONCE, len(self))))

    def evenly(self, most: int) -> Windows:
        """At most so many of the windows, evenly spaced."""
        return replace(self, data=replace(self.data, train=self.data.train.spread(most)))


def fit(network: PDR, data: TrainingData, frames: Frames) -> OutOfFold | None:
    """Fit the anchor and the anomalies of a network in place.

    Args:
        network: with new weights.
        data: of the run.
        frames: of the network.

    Returns:
        The anchors that training windows are trained on, fitted without each window's own block of time; None where the
        anchor that was fitted to all windows serves.
    """
    windows = Windows(data, frames)
    if network.anomalies is not None:
        network.anomalies.spread.copy_(spread(windows))
    return None if network.anchor is None else fit_anchor(network.anchor, windows, "anchor")


def fit_anchor(anchor: Anchor, windows: Windows, word: str) -> OutOfFold | None:
    """Fit an anchor in place and log what was found, in a line that begins with `word`; returns as `fit`."""
    began, found, out_of_fold = time.perf_counter(), "", None
    if isinstance(anchor, Anomaly):
        anchor.share.copy_(damping(windows))
        found = _shares(anchor.share)
    if isinstance(anchor, FlowAnchor):
        anchor.damping.fill_(flow.fit(windows.sample(FLOW_WINDOWS)))
        found = f"flow: motion slows down by {100 * (1 - math.exp(-float(anchor.damping))):.0f} % a frame"
    if isinstance(anchor, Ridge):
        set_units(anchor, windows)
        fitted = ridge.fit(windows.frames, windows.batch, len(windows), anchor)
        for name, value in fitted.anchor.named_buffers():
            setattr(anchor, name, value)
        found = f"ridge: {fitted.about}"
        out_of_fold = OutOfFold(fitted.folds, fitted.fold_of) if fitted.folds else None
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
        anchor.spread = spread(windows)


def spread(windows: Windows) -> Tensor:
    """The standard deviation of the departures from the climatology in each cell: [C, H, W]."""
    squares, count = torch.zeros(()), 0
    for batch in windows.batches():
        departures = batch.observed - normal_of(batch)[:, : batch.observed.shape[1]]
        squares = squares + departures.double().square().sum((0, 1))
        count += departures.shape[0] * departures.shape[1]
    found = (squares / count).sqrt()
    return found.clamp_min(SMALLEST * float(found.mean()) + 1e-12).float()


def damping(windows: Windows) -> Tensor:
    """The share of the last departure that each lead keeps, by least squares, between 0 and 1: [τ, C]."""
    products = squares = torch.zeros((), dtype=torch.float64)
    for batch in windows.batches():
        T, normal = batch.observed.shape[1], normal_of(batch)
        x = (batch.observed[:, -1:] - normal[:, T - 1 : T]).double()
        y = (target_of(batch) - normal[:, T:]).double()
        known = torch.ones_like(y) if batch.known is None else batch.known[:, T:].double()
        products, squares = products + (x * y * known).sum((0, 3, 4)), squares + (x * x * known).sum((0, 3, 4))
    return (products / squares.clamp_min(1e-12)).clamp(0, 1).float()


def normal_of(batch: Batch) -> Tensor:
    """The climatology of a batch, [B, T + τ, C, H, W]."""
    if batch.normal is None:
        raise ValueError("departures need Batch.normal")
    return batch.normal


def _shares(share: Tensor) -> str:
    return "anomaly: shares of the last departure " + " ".join(f"{float(v):.2f}" for v in share.mean(1))
