"""LPIPS as a term of the loss: the perceptual distance of forecast frames of video, by weights that the user brings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from pdr_cli.data import kinds
from pdr_cli.data.scaling import Scaling
from pdr_cli.data.series import size
from pdr_cli.errors import ConfigError
from pdr_cli.models.lpips import LPIPS, SMALLEST
from pdr_cli.schema import Config, TrainConfig
from pdr_cli.training.prepare import Prepared


@dataclass(frozen=True)
class Perceptual:
    """The mean LPIPS of forecast frames, as a loss.

    Args:
        network: with the user's weights, which are not trained.
        offset, scale: that bring frames from network units to [0, 1], [C, 1, 1].
    """

    network: LPIPS
    offset: Tensor
    scale: Tensor

    @classmethod
    def of(cls, config: TrainConfig, scaling: Scaling, device: torch.device) -> Self | None:
        """The term of a configuration; None where its weight is 0.

        Raises:
            InputNotFoundError, CheckpointError: see `pretrained.load`.
        """
        if not config.lpips_weight:
            return None
        low, high = kinds.VIDEO.bounds
        span = (high or 0.0) - (low or 0.0)
        offset, scale = (torch.tensor(v, device=device)[:, None, None] / span for v in (scaling.offset, scaling.scale))
        network = LPIPS.load(Path(config.lpips_weights)).eval().requires_grad_(False).to(device)
        return cls(network, offset, scale)

    def __call__(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """See `losses.Loss`; values of weight 0 are taken to be right."""
        if weight is not None:
            pred = torch.where(weight > 0, pred, target)
        made, true = (x.float().flatten(0, 1) * self.scale + self.offset for x in (pred, target))
        distance: Tensor = self.network(made, true)
        return distance.mean()


def check(config: Config, prepared: Prepared) -> None:
    """Refuse LPIPS where it has no meaning, or nothing would learn from it.

    Raises:
        ConfigError: names the reason.
        InputNotFoundError, CheckpointError: see `pretrained.load`.
    """
    train = config.train
    if not train.lpips_weight:
        return
    for found in _against(config, prepared):
        raise ConfigError(
            f"train.lpips_weight is {train.lpips_weight:g}, and {found}", way_out="take --set train.lpips_weight=0"
        )
    LPIPS.load(Path(train.lpips_weights))


def _against(config: Config, prepared: Prepared) -> Iterator[str]:
    """What speaks against LPIPS, in the words of a message."""
    kind, latent = kinds.of(prepared.series[0]), config.latent
    sides = config.train.crop or size(prepared.series[0])
    if not kind.pictures:
        yield f"LPIPS compares pictures; the data are {kind.name}"
    if prepared.channels not in (1, 3):
        yield f"LPIPS takes 1 channel (grey) or 3 (red, green, blue); the data have {prepared.channels}"
    if min(sides) < SMALLEST:
        yield f"LPIPS takes frames of {SMALLEST} x {SMALLEST} pixels or more; training has {sides[0]} x {sides[1]}"
    if latent is not None and latent.generator != "none":
        yield f"beside latent.generator={latent.generator} the direct forecast is not trained"
    if latent is not None and latent.drop == "none":
        yield "with latent.drop=none the forecast is not trained"
    if config.train.members > 1:
        yield f"train.members is {config.train.members}; LPIPS would draw each member to the truth"
