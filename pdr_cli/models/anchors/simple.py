"""Anchors without or with few numbers: persistence, climatology, and damped anomaly persistence."""

from __future__ import annotations

import torch
from torch import Tensor

from pdr_cli.errors import ConfigError
from pdr_cli.models.interfaces import Anchor, Context, Frames


def without(frames: Frames) -> None:
    """No anchor: the predictor forecasts frames."""


def unresolved(frames: Frames) -> None:
    """The anchor of the kind of data, which only a training that has opened its data can choose.

    Raises:
        ConfigError: always.
    """
    raise ConfigError("model.anchor is auto, and no data say which anchor that is", way_out="name one with --anchor")


class Persistence(Anchor):
    """The last observed frame, for every lead time."""

    def __init__(self, frames: Frames) -> None:
        super().__init__()

    def ahead(self, seen: Tensor, steps: int, context: Context) -> Tensor:
        return seen[:, -1:].expand(-1, steps, -1, -1, -1)


class Climatology(Anchor):
    """The mean of the training data at the hour, day of week and season of each forecast frame."""

    def __init__(self, frames: Frames) -> None:
        super().__init__()

    def ahead(self, seen: Tensor, steps: int, context: Context) -> Tensor:
        return normal_of(context, seen.shape[1])[1][:, :steps]


class Anomaly(Anchor):
    """Damped anomaly persistence: the climatology, and a share of the last observed departure from it.

    A share of 1 is persistence of the anomaly, 0 is the climatology.

    Args:
        frames: C, and τ leads of which each has its own share.
    """

    share: Tensor

    def __init__(self, frames: Frames) -> None:
        super().__init__()
        self.register_buffer("share", torch.zeros(frames.out_steps or frames.in_steps, frames.channels))

    @property
    def gives(self) -> int:
        """τ, as many leads as were fitted."""
        return len(self.share)

    def ahead(self, seen: Tensor, steps: int, context: Context) -> Tensor:
        before, following = normal_of(context, seen.shape[1])
        departure = seen[:, -1:] - before[:, -1:]
        return following[:, :steps] + self.share[None, :steps, :, None, None] * departure


def normal_of(context: Context, in_steps: int) -> tuple[Tensor, Tensor]:
    """The climatology at observed and at forecast times: [B, T, C, H, W] and [B, τ, C, H, W].

    Raises:
        ValueError: the batch has none.
    """
    if context.normal is None:
        raise ValueError("an anchor that departs from the climatology needs Batch.normal")
    return context.normal[:, :in_steps], context.normal[:, in_steps:]
