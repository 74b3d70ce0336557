"""The predictor `none`: the forecast is the anchor's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from pdr_cli.errors import ConfigError
from pdr_cli.models.interfaces import Anchoring, Frames, Predictor

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig


class AnchorAlone(Predictor):
    """No network: the change from the anchor is zero.

    Raises:
        ConfigError: no anchor, so that nothing forecasts.
    """

    reads_covariates = True  # and leaves them to the anchor

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        super().__init__()
        if options.anchor == "none":
            raise ConfigError(
                "--backbone none forecasts with the anchor alone, and model.anchor is none",
                way_out="choose one with --anchor persistence, climatology, anomaly, ridge or flow",
            )

    def forward(
        self,
        x: Tensor,
        steps: int | None = None,
        anchor: Anchoring | None = None,
        covariates: Tensor | None = None,
        seeds: Tensor | None = None,
    ) -> Tensor:
        """See `Predictor.forward`."""
        if anchor is None:
            raise ValueError("AnchorAlone needs an anchor")
        return anchor(x, 0, steps or x.shape[1])
