"""What `pdr bench-train` times: a preset's network, the frames that it is given, and the variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pdr_cli import config
from pdr_cli.errors import UsageError, did_you_mean
from pdr_cli.models.interfaces import Frames
from pdr_cli.schema import Config
from pdr_cli.system import devices
from pdr_cli.training import arithmetic
from pdr_cli.trust import Trust

# What the published data sets hold, which a preset leaves to its files: channels and (H, W).
PUBLISHED = {
    "taxibj": (2, (32, 32)),
    "weatherbench": (1, (32, 64)),
    "kth": (1, (128, 128)),
    "human36m": (3, (256, 256)),
}
VARIANTS = ("plain", "plain+malloc", "plain+predgs", "pdr", "pdr+bf16")
COMPILED = "pdr+compile"  # on request: its compilation takes a minute or more
ALONE = ("plain", "plain+malloc")  # the predictor without adapter and renderer


@dataclass(frozen=True)
class Setting:
    """The configuration of a step, and its frames: `channels` and `size` (H, W); `forward`: of a forecast."""

    config: Config
    channels: int
    size: tuple[int, int]
    device: torch.device
    trust: Trust | None = None
    forward: bool = False

    @property
    def frames(self) -> Frames:
        """The frames that the network is built for."""
        return Frames(self.config.data.in_steps, self.channels, self.size, out_steps=self.config.data.out_steps)

    def windows(self) -> tuple[Tensor, Tensor]:
        """A batch of random frames in [0, 1], observed and following: [B, T, C, H, W], [B, τ, C, H, W]."""
        random = torch.Generator().manual_seed(0)
        data, batch = self.config.data, self.config.train.batch
        x, y = (
            torch.rand(batch, steps, self.channels, *self.size, generator=random)
            for steps in (data.in_steps, data.out_steps)
        )
        return x.to(self.device), y.to(self.device)


@dataclass(frozen=True)
class Options:
    """The options of `pdr bench-train`; None and empty lists: the defaults."""

    preset: str = "taxibj"
    backbone: str | None = None
    batch: int | None = None
    size: tuple[int, int] | None = None
    channels: int | None = None
    settings: Sequence[str] = ()
    variants: Sequence[str] = ()
    device: str = "auto"
    threads: int | None = None
    repeats: int = 10
    trust_code: bool = False
    forward: bool = False

    def setting(self) -> Setting:
        """The preset with its changes, on frames as published unless both `size` and `channels` are given.

        Raises:
            UsageError: a preset whose frames are not published, without both.
        """
        changes = {"model.backbone": self.backbone, "train.batch": self.batch}
        overrides = [f"{key}={value}" for key, value in changes.items() if value is not None]
        overrides += self.settings
        resolved = config.load(self.preset, overrides)
        known = PUBLISHED.get(resolved.preset.removesuffix("-paper"))
        if known is None and (self.size is None or self.channels is None):
            raise UsageError(
                f"preset {resolved.preset} does not fix the size of its frames",
                "--size H W and --channels C",
                f"add them, or take one of {', '.join(PUBLISHED)}",
            )
        channels, size = known or (1, (1, 1))
        trust = Trust(self.trust_code).also(override.partition("=")[2] for override in overrides)
        device = devices.pick(self.device)
        resolved = arithmetic.resolved(resolved, device)
        return Setting(resolved, self.channels or channels, self.size or size, device, trust, self.forward)


def refuse_others(setting: Setting) -> None:
    """Refuse a preset whose network, or whose training, is not that of a forecaster by itself.

    Raises:
        UsageError: for that reason.
    """
    resolved = setting.config
    if resolved.scene is not None:
        other = "moving scenes"
    elif resolved.latent is not None and resolved.latent.generator != "none" and not setting.forward:
        other = "a generator in the latents of another run"
    else:
        return
    message = f"preset {resolved.preset} trains {other}, and bench-train times forecasters"
    raise UsageError(message, way_out="take another preset; pdr train --profile says where a step of this one goes")


def find_variants(names: Sequence[str]) -> list[str]:
    """The variants by name, each once; without names all but the compiled one."""
    known = (*VARIANTS, COMPILED)
    for name in names:
        if name not in known:
            found = f"--variants {name!r} is not known.{did_you_mean(name, known)}"
            raise UsageError(found, f"some of {', '.join(known)}")
    return list(dict.fromkeys(names or VARIANTS))
