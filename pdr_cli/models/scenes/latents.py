"""What the Reconstructor is given of a video beside its first picture: latents, and the rays of the frames they stand for."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from pdr_cli.models.layers import pad_to_multiple


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
        return rays[:, torch.tensor([0, self.frames // 2, self.frames - 1])]
