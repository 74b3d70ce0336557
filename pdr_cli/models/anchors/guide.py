"""Guide: the forecast of a whole trained network, which members depart from."""

from __future__ import annotations

from torch import Tensor

from pdr_cli.models.interfaces import Anchor, Batch, Context
from pdr_cli.models.pdr import PDR


class Guide(Anchor):
    """A network that is not trained any more; its weights and configuration are kept in the model file.

    Args:
        network: for the same frames, in the same units.
    """

    def __init__(self, network: PDR) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Guide:
        """Stay in evaluation mode."""
        return super().train(False)

    def bound(self, low: Tensor, high: Tensor) -> None:
        """See `Anchor.bound`."""
        self.network.bound(low, high)

    def ahead(self, seen: Tensor, steps: int, context: Context) -> Tensor:
        normal, earlier, covariates = context
        batch = Batch(seen, steps, normal=normal, earlier=earlier, covariates=covariates)
        frames: Tensor = self.network(batch).fused
        return frames
