"""What the Reconstructor is given of a video beside its first picture: latents, and the rays of the frames they stand for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError
from pdr_cli.models.interfaces import Frames, Terms
from pdr_cli.models.latent import objective
from pdr_cli.models.latent.members import Members
from pdr_cli.models.latent.objective import Clip
from pdr_cli.models.latent.vae import VAE, Groups
from pdr_cli.models.layers import pad_to_multiple

if TYPE_CHECKING:
    from pdr_cli.optional_tables import LatentConfig
    from pdr_cli.schema import ModelConfig


class LatentSource(nn.Module, ABC):
    """Videos to latents.

    Attributes:
        groups: G, latents of a video.
        channels: z, of a latent.
        halvings: of the grid of the frames to that of the latents.
    """

    groups: int
    channels: int
    halvings: int

    @abstractmethod
    def encode(self, video: Tensor) -> Tensor:
        """Frames from 0 to 1, [B, T, 3, H, W] → [B, G, z, h, w]."""

    @abstractmethod
    def grouped(self, rays: Tensor) -> Tensor:
        """The rays of the frames, [B, T, 6, H, W], as those of the latents, [B, G, 6, H, W]."""

    def rays(self, rays: Tensor) -> Tensor:
        """The rays of the frames, [B, T, 6, H, W], as those of the latents and on their grid: [B, G, 6, h, w]."""
        stride = 2**self.halvings
        folded = pad_to_multiple(self.grouped(rays).flatten(0, 1), stride)
        return nn.functional.avg_pool2d(folded, stride).unflatten(0, (len(rays), -1))

    def draw(self, picture: Tensor, rays: Tensor, seeds: Tensor) -> Tensor:
        """Latents of a video that begins with a picture [B, 3, H, W], by its seed [B], along rays [B, T, 6, H, W].

        Raises:
            ConfigError: a source that needs the true video.
        """
        raise ConfigError(
            "scene.latents oracle reads true videos, and draws none behind a picture", "true, drawn or mixed"
        )


class FrameLatents(LatentSource):
    """The first, the middle and the last frame of the true video, each through two strided convolutions.

    It needs the video, and so cannot forecast one: it tells apart what the Reconstructor cannot do and what its latents
    lack.

    Args:
        frames: T.
        channels: z.
    """

    groups, halvings = 3, 2

    def __init__(self, frames: int, channels: int) -> None:
        super().__init__()
        self.frames, self.channels = frames, channels
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, stride=2, padding=1),
        )

    def encode(self, video: Tensor) -> Tensor:
        """See `LatentSource.encode`."""
        three: Tensor = self.stem(2 * self.grouped(video).flatten(0, 1) - 1)
        return three.unflatten(0, (len(video), -1))

    def grouped(self, rays: Tensor) -> Tensor:
        """See `LatentSource.grouped`."""
        return rays[:, [0, self.frames // 2, self.frames - 1]]


class NoLatents(LatentSource):
    """Latents that are always 0, so that the rays of `VideoLatents` stand alone beside the picture.

    From the same picture and path it makes the same scene whatever happened: the control of what latents add.

    Args:
        frames: T.
        options: see `VAE`.
        latent: the [latent] table.
    """

    channels = 1

    def __init__(self, frames: int, options: ModelConfig, latent: LatentConfig) -> None:
        super().__init__()
        self.windows = Groups(1, frames - 1 or 1, latent.group)
        self.groups, self.halvings = self.windows.total, options.n_s // 2

    def encode(self, video: Tensor) -> Tensor:
        """See `LatentSource.encode`."""
        return self.rays(torch.zeros_like(video[:, :, :1]))

    def grouped(self, rays: Tensor) -> Tensor:
        """See `LatentSource.grouped`: the mean of the frames of a group."""
        return grouped(self.windows, rays)

    def draw(self, picture: Tensor, rays: Tensor, seeds: Tensor) -> Tensor:
        """See `LatentSource.draw`: the same for all seeds."""
        return self.encode(picture[:, None].expand(-1, rays.shape[1], -1, -1, -1))


class VideoLatents(LatentSource):
    """The latents of a causal VAE, which a generator draws behind that of the picture, along the rays of the path.

    A picture has many futures, so that each seed draws another video.

    Args:
        frames: T = 1, τ, C = 3 and (H, W).
        options: see `VAE`.
        latent: the [latent] table.

    Raises:
        ConfigError: no generator, or one that departs from a forecast: its mean would be a scene that stands still.
    """

    def __init__(self, frames: Frames, options: ModelConfig, latent: LatentConfig) -> None:
        super().__init__()
        if latent.generator == "none" or latent.guess != "none":
            found = f"latent.generator is {latent.generator} and latent.guess is {latent.guess}, for scenes"
            raise ConfigError(found, "flow or crps, and guess none")
        self.latent, self.windows = latent, Groups(1, frames.out_steps or 1, latent.group)
        self.groups, self.channels, self.halvings = self.windows.total, latent.channels, options.n_s // 2
        self.vae = VAE(frames, options, latent, self.windows)
        self.members = Members(latent, self.windows, further=6)

    def encode(self, video: Tensor) -> Tensor:
        """See `LatentSource.encode`; in units of their standard deviation over training videos, once it is measured."""
        return self.members.standard(self.vae.encode(self._clip(video))[0])

    def grouped(self, rays: Tensor) -> Tensor:
        """See `LatentSource.grouped`: the mean of the frames of a group."""
        return grouped(self.windows, rays)

    def draw(self, picture: Tensor, rays: Tensor, seeds: Tensor) -> Tensor:
        """See `LatentSource.draw`."""
        first = self.vae.encode(picture[:, None])[0]
        future = self.members.draw(first, None, seeds, 0, self.rays(rays))
        return self.members.standard(torch.cat([first, future], dim=1))

    def vae_terms(self, video: Tensor) -> Terms:
        """The losses of the VAE, see `objective.terms`; frames behind the picture are changes from it."""
        base = video[:, :1].expand(-1, self.windows.out_steps, -1, -1, -1)
        clip = Clip(self._clip(video), objective.weight_of(self.windows, None, video.device), base)
        return objective.terms(self.latent, self.vae, clip, self.vae.encode(clip.frames))

    def generator_loss(self, video: Tensor, rays: Tensor) -> Tensor:
        """The loss of the generator, for the latents of a true video."""
        with torch.no_grad():
            latents = self.vae.encode(self._clip(video))[0]
        return self.members.loss(latents, None, self.rays(rays))

    @torch.no_grad()
    def measure(self, videos: Iterable[Tensor]) -> None:
        """Measure mean and standard deviation of the latents over training videos."""
        self.members.measure((self.vae.encode(self._clip(video))[0], None) for video in videos)

    def _clip(self, video: Tensor) -> Tensor:
        return self.windows.clip(video[:, :1], video[:, 1:])


def grouped(windows: Groups, frames: Tensor) -> Tensor:
    """The first of some frames [B, T, ...] and the means of the groups of those that follow, [B, G, ...]."""
    first, following = frames[:, :1], windows.after(frames[:, 1:])
    return torch.cat([first, following.unflatten(1, (-1, windows.size)).mean(dim=2)], dim=1)
