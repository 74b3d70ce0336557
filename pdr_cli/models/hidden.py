"""Hidden channels: those that the network forecasts without reading their observed frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pdr_cli.models.interfaces import Batch


class Hidden(nn.Module):
    """Replaces the observed frames of some channels by the climatology, or by 0 where the batch has none.

    Which channels they are is in the header of a model file and not in the state dict, as the bounds.

    Args:
        channels: True for hidden channels, [C].
    """

    channels: Tensor

    def __init__(self, channels: Tensor) -> None:
        super().__init__()
        self.register_buffer("channels", channels[:, None, None], persistent=False)

    def forward(self, batch: Batch) -> Batch:
        """The batch without what was observed of the hidden channels, which may be NaN; nor the flow, which was made of it."""
        seen = batch.observed
        normal = torch.zeros_like(seen) if batch.normal is None else batch.normal[:, : seen.shape[1]]
        return batch._replace(observed=torch.where(self.channels, normal, seen), flow=None)
