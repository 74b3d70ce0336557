"""Φ of Eq. 3: the coarse forecast X~ and the rendered Gaussians Y become one forecast. All [B, T, C, H, W]."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError, did_you_mean


class Fusion(nn.Module):
    """Called with (coarse, rendered); `needs_rendered` says whether the second one is looked at."""

    needs_rendered = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels


class ConcatFusion(Fusion):
    """1×1 convolution over the channels of both, per frame; begins as X~ + 0.1·Y (§3.2).

    A random mixture would destroy the forecast of a trained predictor at the first step, a plain X~ would leave the
    adapter without a gradient.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.mix = nn.Conv2d(2 * channels, channels, 1)
        identity = torch.eye(channels)
        with torch.no_grad():
            self.mix.weight.copy_(torch.cat([identity, 0.1 * identity], dim=1)[:, :, None, None])
            self.mix.bias.zero_()  # type: ignore[union-attr]  # there is a bias

    def forward(self, coarse: Tensor, rendered: Tensor) -> Tensor:
        both = torch.cat([coarse, rendered], dim=2).flatten(0, 1)  # [B·T, 2C, H, W]
        return self.mix(both).unflatten(0, coarse.shape[:2])


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


FUSIONS: dict[str, type[Fusion]] = {"none": NoFusion, "concat": ConcatFusion, "add": AddFusion, "gs": RenderedFusion}


def build_fusion(name: str, channels: int) -> Fusion:
    """The fusion of that name.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in FUSIONS:
        raise ConfigError(f"No fusion is called {name!r}.{did_you_mean(name, FUSIONS)} Known: {', '.join(FUSIONS)}.")
    return FUSIONS[name](channels)
