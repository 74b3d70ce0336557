"""Φ of Eq. 3: the coarse forecast X~ and the rendered Gaussians Y become one forecast. All [B, T, C, H, W]."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError, did_you_mean
from pdr_cli.models.gaussians.base import check_choice

INITS = ("residual", "random")
SHARE = 0.1  # of Y in the first forecast, where a fusion learns it


class Fusion(nn.Module):
    """Called with (coarse, rendered); `needs_rendered` says whether the second one is looked at."""

    needs_rendered = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def begin_with_coarse(self) -> None:
        """Set what is learnt so that the first forecast is X~ and a little of Y; nothing where nothing is learnt."""


class ConcatFusion(Fusion):
    """1×1 convolution over the channels of both, per frame (§3.2); begins as X~ + 0.1·Y.

    A random mixture would destroy the forecast of a trained predictor at the first step, a plain X~ would leave the
    adapter without a gradient.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.mix = nn.Conv2d(2 * channels, channels, 1)

    def begin_with_coarse(self) -> None:
        identity = torch.eye(self.channels)
        with torch.no_grad():
            self.mix.weight.copy_(torch.cat([identity, SHARE * identity], dim=1)[:, :, None, None])
            self.mix.bias.zero_()  # type: ignore[union-attr]  # there is a bias

    def forward(self, coarse: Tensor, rendered: Tensor) -> Tensor:
        both = torch.cat([coarse, rendered], dim=2).flatten(0, 1)  # [B·T, 2C, H, W]
        return self.mix(both).unflatten(0, coarse.shape[:2])


class GatedFusion(Fusion):
    """X~ + σ(1×1 convolution of both)·Y, per frame: how much of Y shows is decided pixel by pixel.

    Begins as X~ + 0.1·Y, as `ConcatFusion` does.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.gate = nn.Conv2d(2 * channels, channels, 1)

    def begin_with_coarse(self) -> None:
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, math.log(SHARE / (1 - SHARE)))  # type: ignore[arg-type]  # there is a bias

    def forward(self, coarse: Tensor, rendered: Tensor) -> Tensor:
        both = torch.cat([coarse, rendered], dim=2).flatten(0, 1)  # [B·T, 2C, H, W]
        return coarse + torch.sigmoid(self.gate(both)).unflatten(0, coarse.shape[:2]) * rendered


class AddFusion(Fusion):
    """X~ + Y (Table 8)."""

    def forward(self, coarse: Tensor, rendered: Tensor) -> Tensor:
        return coarse + rendered


class RenderedFusion(Fusion):
    """Y alone (Table 8, "GS only")."""

    def forward(self, coarse: Tensor, rendered: Tensor) -> Tensor:
        return rendered


class NoFusion(Fusion):
    """X~ alone: the predictor without PDR."""

    needs_rendered = False

    def forward(self, coarse: Tensor, rendered: Tensor | None = None) -> Tensor:
        return coarse


FUSIONS: dict[str, type[Fusion]] = {
    "none": NoFusion,
    "concat": ConcatFusion,
    "gated": GatedFusion,
    "add": AddFusion,
    "gs": RenderedFusion,
}


def build_fusion(name: str, channels: int, init: Literal["residual", "random"] = "residual") -> Fusion:
    """The fusion of that name.

    Args:
        name: of the fusion.
        channels: C.
        init: "residual" (see `Fusion.begin_with_coarse`) or "random", PyTorch's own weights.

    Raises:
        ConfigError: an unknown name or initialisation.
    """
    check_choice("fusion_init", init, INITS)
    if name not in FUSIONS:
        raise ConfigError(f"No fusion is called {name!r}.{did_you_mean(name, FUSIONS)} Known: {', '.join(FUSIONS)}.")
    fusion = FUSIONS[name](channels)
    if init == "residual":
        fusion.begin_with_coarse()
    return fusion
