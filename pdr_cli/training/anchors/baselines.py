"""Fits the simple forecasts that `pdr evaluate` compares a model with, on what the model is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from pdr_cli.data.climatology import Climatology
from pdr_cli.models import registry
from pdr_cli.models.anchors.flow import FlowAnchor
from pdr_cli.models.interfaces import Anchor, Frames
from pdr_cli.runs import inputs
from pdr_cli.schema import Config
from pdr_cli.system.logs import log
from pdr_cli.training.anchors.fit import Windows, fit_anchor
from pdr_cli.training.batches import TrainingData

MOST = 6000  # training windows that a baseline is fitted to, evenly spaced: more hardly change it, and cost time


@torch.no_grad()
def fit(
    config: Config, data: TrainingData, frames: Frames, climatology: Climatology, cycles: Sequence[int], pictures: bool
) -> dict[str, Anchor]:
    """Fit the baselines that the network's own anchor is not; those that cannot be fitted are left out, with a warning.

    Args:
        config: of the run.
        data: of the run.
        frames: of the network.
        climatology: of the training data.
        cycles: lengths of the earlier cycles, in steps.
        pictures: whether the data are pictures.
    """
    fitted: dict[str, Anchor] = {}
    for name in inputs.baselines_of(config, pictures):
        if name == inputs.own_baseline(config):
            continue
        alone = inputs.alone(config, inputs.BASELINES[name])
        contexts = inputs.contexts_of(alone, climatology, tuple(cycles))
        its_frames = frames._replace(lags=len(contexts.cycles))
        windows = Windows(replace(data, contexts=contexts), its_frames).evenly(MOST)
        anchor = registry.build_anchor(alone.model, its_frames)
        if anchor is not None and _fitted(anchor, windows, name):
            fitted[name] = anchor
    return fitted


def _fitted(anchor: Anchor, windows: Windows, name: str) -> bool:
    """Fit a baseline in place; False if its equations have no finite solution."""
    try:
        fit_anchor(anchor, windows, "against", name)
        # An infinite damping of a flow is persistence.
        solved = isinstance(anchor, FlowAnchor) or all(bool(buffer.isfinite().all()) for buffer in anchor.buffers())
    except torch.linalg.LinAlgError:
        solved = False
    if not solved:
        log.warning("the training data do not determine the baseline %s; pdr evaluate will not compare with it", name)
    return solved
