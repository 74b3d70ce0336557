"""Φ of Eq. 3: the coarse forecast X~ and the layer Y become one forecast. All [B, T, C, H, W]."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pdr_cli.models.interfaces import Fusion

SHARE = 0.1  # of Y in the first forecast of a fusion that learns


class ConcatFusion(Fusion):
    """1×1 convolution over the channels of both, per frame (§3.2); starts as X~ + 0.1·Y.

    A random mixture would destroy the forecast of a trained predictor at the first step, X~ alone would leave the adapter
    without a gradient.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.mix = nn.Conv2d(2 * channels, channels, 1)

    def begin_with_coarse(self) -> None:
        identity = torch.eye(self.channels)
        with torch.no_grad():
            self.mix.weight.copy_(torch.cat([identity, SHARE * identity], dim=1)[:, :, None, None])
            self.mix.bias.zero_()  # type: ignore[union-attr]  # there is a bias

    def forward(self, coarse: Tensor, layer: Tensor) -> Tensor:
        both = torch.cat([coarse, layer], dim=2).flatten(0, 1)  # [B·T, 2C, H, W]
        return self.mix(both).unflatten(0, coarse.shape[:2])


class GatedFusion(Fusion):
    """X~ + σ(1×1 convolution of both)·Y, per frame: a weight of Y for each pixel. Starts as X~ + 0.1·Y."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.gate = nn.Conv2d(2 * channels, channels, 1)

    def begin_with_coarse(self) -> None:
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, math.log(SHARE / (1 - SHARE)))  # type: ignore[arg-type]  # there is a bias

    def forward(self, coarse: Tensor, layer: Tensor) -> Tensor:
        both = torch.cat([coarse, layer], dim=2).flatten(0, 1)  # [B·T, 2C, H, W]
        return coarse + torch.sigmoid(self.gate(both)).unflatten(0, coarse.shape[:2]) * layer


class AddFusion(Fusion):
    """X~ + Y (Table 8)."""

    def forward(self, coarse: Tensor, layer: Tensor) -> Tensor:
        return coarse + layer


class CarryFusion(AddFusion):
    """X~ + Y, where Y is the change that Gaussians make which carry the last observed frame (adapter deform)."""

    needs_carrier = True


class RenderedFusion(Fusion):
    """Y alone (Table 8, "GS only")."""

    def forward(self, coarse: Tensor, layer: Tensor) -> Tensor:
        return layer


class NoFusion(Fusion):
    """X~ alone: the predictor without PDR."""

    needs_layer = False

    def forward(self, coarse: Tensor, layer: Tensor | None = None) -> Tensor:
        return coarse
