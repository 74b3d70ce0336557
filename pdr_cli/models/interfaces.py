"""The faces that predictors and adapters share with the network around them, and what passes between them.

Everything here is a tuple or a module, so that DistributedDataParallel, torch.compile, torch.export and checkpointing can
pass it through `PDR.forward`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

Mode = Literal["forecast", "train"]
Terms = dict[str, Tensor]  # further losses by name, scalars


class Frames(NamedTuple):
    """The frames that a network is built for.

    Args:
        in_steps: T, observed frames.
        channels: C.
        size: (H, W).
        periodic: True if the last column is a neighbour of the first, as on a circle of longitudes.
        out_steps: τ of training; 0: T.
        covariates: F, further fields that are given at observed and forecast times.
    """

    in_steps: int
    channels: int
    size: tuple[int, int]
    periodic: bool = False
    out_steps: int = 0
    covariates: int = 0


class Batch(NamedTuple):
    """The input of the network, in network units and finite everywhere.

    Args:
        observed: [B, T, C, H, W].
        steps: τ, frames to forecast; may be smaller or larger than T.
        target: the frames that follow, [B, τ, C, H, W]; required in training.
        known: False where values of `observed` and `target` were missing and are filled, [B, T + τ, C, H, W]; None: no
            value is missing.
        progress: share of the training that is done, 0 to 1.
        covariates: further fields that are known for the forecast frames, [B, τ, F, H, W]; no predictor of ours reads them.
        generator: source of the random numbers of a member; None: torch's default generator.
    """

    observed: Tensor
    steps: int
    target: Tensor | None = None
    known: Tensor | None = None
    progress: float = 0.0
    covariates: Tensor | None = None
    generator: torch.Generator | None = None


def target_of(batch: Batch) -> Tensor:
    """The target of a training batch, [B, τ, C, H, W].

    Raises:
        ValueError: the batch has none.
    """
    if batch.target is None:
        raise ValueError('a batch in mode "train" needs a target')
    return batch.target


class Forecast(NamedTuple):
    """The output of the network.

    Args:
        fused: X^, the forecast, [B, τ, C, H, W].
        coarse: X~, the predictor's forecast, [B, τ, C, H, W].
        layer: Y, the adapter's layer, [B, τ, C, H, W]; None without an adapter.
        terms: losses of predictor and adapter, which training adds to its own; empty outside training.
    """

    fused: Tensor
    coarse: Tensor
    layer: Tensor | None
    terms: Terms


class Predictor(nn.Module, ABC):
    """F_p: a predictor that gives any number of frames and may train in its own way.

    Unrolling in time and teacher forcing belong to the predictor, not to the loop: a recurrent network feeds back single
    frames inside its memory, and only it can say which true frames it sees in training. The same holds for its loss terms.
    A predictor that maps T frames to T frames and needs none of this is a plain `nn.Module`: `PDR` anchors it and feeds its
    forecast back (`layers.rollout`).

    Attributes:
        bounded: keeps frames [..., C, H, W] within the bounds of their quantities; for the frames that are fed back. The
            network bounds the forecast itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bounded: nn.Module = nn.Identity()

    @abstractmethod
    def forward(
        self,
        x: Tensor,
        steps: int | None = None,
        anchored: bool = False,
        covariates: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Forecast: x: [B, T, C, H, W] → [B, steps, C, H, W]; T steps by default.

        With `anchored`, the network's output is the change since the last observed frame, which the predictor adds.
        """

    def training_forward(self, batch: Batch, anchored: bool = False) -> tuple[Tensor, Terms]:
        """The forward pass for training: the frames [B, τ, C, H, W] and the predictor's loss terms.

        The default is the forecast, and no terms.
        """
        return self(batch.observed, batch.steps, anchored, batch.covariates, batch.generator), {}


class Adapter(nn.Module, ABC):
    """F_c and R: reads the coarse forecast and makes the layer Y of the same shape, which the fusion adds to it.

    It sees the whole observed window and not the last frame only, because motion, and with it where a structure goes,
    shows in several frames. Its losses are its own for the same reason as a predictor's: a prior on positions or a distance
    of distributions can only be computed where the Gaussians are.
    """

    @abstractmethod
    def forward(
        self,
        coarse: Tensor,
        observed: Tensor,
        covariates: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The layer: coarse: [B, τ, C, H, W]; observed: [B, T, C, H, W] → [B, τ, C, H, W]."""

    def training_forward(self, coarse: Tensor, batch: Batch) -> tuple[Tensor, Terms]:
        """The forward pass for training: the layer [B, τ, C, H, W] and the adapter's loss terms.

        The default is the layer of a forecast, and no terms.
        """
        return self(coarse, batch.observed, batch.covariates, batch.generator), {}

    def initialize(self, frame: Tensor) -> None:
        """Start from a frame of the training data, [C, H, W], in network units; nothing by default."""


class Fusion(nn.Module, ABC):
    """Φ of Eq. 3: joins the coarse forecast X~ and the layer Y, all [B, τ, C, H, W].

    Args:
        channels: C.
    """

    needs_layer = True  # False: no adapter is built

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    @abstractmethod
    def forward(self, coarse: Tensor, layer: Tensor) -> Tensor:
        """X^ = Φ(X~, Y); without an adapter, `layer` is None."""

    def begin_with_coarse(self) -> None:
        """Initialise so that the first forecast is X~ and a small share of Y; nothing to do without parameters."""
