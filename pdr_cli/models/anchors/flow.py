"""FlowAnchor: the last frame moved on along a motion that slows down."""

from __future__ import annotations

import torch
from torch import Tensor

from pdr_cli.models.interfaces import Anchor, Context, Frames
from pdr_cli.models.motion import carried_on

FIRST = 0.1  # damping before it is fitted


class FlowAnchor(Anchor):
    """Damped flow: the last observed frame, moved on by a motion that loses the share 1 - e^{-λ} of its speed a frame.

    The motion is the optical flow between the last two frames. One observed frame, or no texture, gives persistence.
    """

    damping: Tensor

    def __init__(self, frames: Frames) -> None:
        super().__init__()
        self.register_buffer("damping", torch.tensor(FIRST))  # λ; infinite: persistence

    def ahead(self, seen: Tensor, steps: int, context: Context) -> Tensor:
        return carried_on(seen, steps, self.damping)
