"""FlowAnchor: the last frame moved on along a motion that slows down."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pdr_cli.models.interfaces import Frames
from pdr_cli.models.motion import carried_on

FIRST = 0.1  # damping before it is fitted


class FlowAnchor(nn.Module):
    """Damped flow: the last observed frame, moved on by a motion that slows down by the share 1 - e^{-λ} a frame.

    The motion is the optical flow between the last two frames. One observed frame, or no texture, gives persistence.
    """

    damping: Tensor

    def __init__(self, frames: Frames) -> None:
        super().__init__()
        self.register_buffer("damping", torch.tensor(FIRST))  # λ; infinite: persistence

    def ahead(self, seen: Tensor, steps: int, context: object = None) -> Tensor:
        """[B, T, C, H, W] → [B, steps, C, H, W]."""
        return carried_on(seen, steps, self.damping)

    def forward(self, observed: Tensor, steps: int, context: object = None) -> Tensor:
        """The forecast, [B, steps, C, H, W]."""
        return self.ahead(observed, steps, context)
