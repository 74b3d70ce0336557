"""Stages of a training with moving Gaussians (arXiv 2511.00503): they stand still on half the grid, stand still, then move."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError, PdrError
from pdr_cli.models.interfaces import Batch, Frames
from pdr_cli.models.pdr import PDR
from pdr_cli.models.shares import place
from pdr_cli.schema import TrainConfig
from pdr_cli.training.batches import WeightedBatch

HALF, STILL, MOVING = range(3)  # the stages
TERMS = {"motion": "motion_weight", "opacity": "opacity_weight"}  # loss terms of adapters that a key of [train] weighs


def weights(config: TrainConfig) -> dict[str, float]:
    """The weights of loss terms by name; all others weigh 1."""
    return {term: getattr(config, key) for term, key in TERMS.items()}


def check(network: PDR, config: TrainConfig, frames: Frames) -> None:
    """Refuse what only moving Gaussians can be trained by, and an early end of a training in parts.

    Raises:
        ConfigError: weights of ways and opacities, or stages, without such an adapter; or stages of a network that takes
            frames of one size; or patience with a predictor whose first parts are not validated.
    """
    if network.parts and config.patience:
        found = f"train.patience is {config.patience}, and the first parts of latent.stages have no validations"
        raise ConfigError(found, way_out="--set train.patience=0, or latent.stages=[]")
    chosen = [f"train.{key}" for key in (*TERMS.values(), "stages") if getattr(config, key)]
    if chosen and not network.reads_tracks:
        raise ConfigError(f"{' and '.join(chosen)} of a network whose Gaussians do not move", "--adapter deform")
    if config.stages and config.stages[0]:
        half = frames._replace(size=(frames.size[0] // 2, frames.size[1] // 2))
        try:
            with torch.no_grad():
                network(half.blank())
        except (RuntimeError, ValueError, PdrError) as error:
            raise ConfigError(
                "train.stages begins on frames of half the size, and this network takes frames of one size",
                way_out="--set train.stages=[], or [0, 0.6, 0.4] without them",
            ) from error


def of(batch: WeightedBatch, shares: Sequence[float], progress: float) -> WeightedBatch:
    """A batch as the stage of this share of the training has it; `shares`: see `TrainConfig.stages`."""
    stage = place(shares, progress)[0] if shares else MOVING
    if stage == MOVING:
        return batch
    still = batch._replace(inputs=batch.inputs._replace(still=True))
    return pooled(still) if stage == HALF else still


def pooled(batch: WeightedBatch) -> WeightedBatch:
    """A batch on half the grid: each cell is the mean of four, and is known where all four are."""
    inputs = batch.inputs
    fields = {
        name: halved(value)
        for name, value in inputs._asdict().items()
        if isinstance(value, Tensor) and value.dim() > 3 and name != "known"
    }
    if inputs.known is not None:
        fields["known"] = halved(inputs.known.float()) == 1
    if inputs.flow is not None:
        fields["flow"] = fields["flow"] / 2
    weight = batch.weight
    if weight is not None:
        weight = halved(weight.expand(inputs.observed.shape[0], *weight.shape[1:]))
    return batch._replace(inputs=Batch(**{**inputs._asdict(), **fields}), weight=weight)


def halved(frames: Tensor) -> Tensor:
    """Means of 2 x 2 cells of frames [..., H, W]; the last row or column of an odd number is left out."""
    return nn.functional.avg_pool2d(frames.flatten(0, -3), 2).unflatten(0, frames.shape[:-2])
