"""Reconstructor: latents of a video and the rays of its cameras to numbers for each pixel of the first picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pdr_cli.models.latent.causal import ChannelRMS

if TYPE_CHECKING:
    from pdr_cli.optional_tables import SceneConfig

HEADS = 4  # of the attention
PICTURE = 3 + 6 + 2  # channels of the picture, its rays and the coordinates of its pixels
FIRST_NUMBERS, FIRST_CURVES = 0.1, 0.05  # of the initial weights of the heads, over those of PyTorch


class Reconstructor(nn.Module):
    """Residual blocks on the grid of the latents, then up to that of the picture, whose own features join at each size.

    It is convolutional, and takes pictures of any size that the halvings divide.

    Args:
        inputs: channels of all latents and their rays together.
        halvings: of the picture's grid to that of the latents.
        numbers: outputs for each pixel, of the Gaussians and of their curves.
        options: `width` and `blocks`; attention over the grid follows every second block but the last.
    """

    def __init__(self, inputs: int, halvings: int, numbers: tuple[int, int], options: SceneConfig) -> None:
        super().__init__()
        width = options.width
        self.picture = nn.Conv2d(PICTURE, width, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(halvings))
        self.enter = nn.Conv2d(inputs, width, 1)
        self.blocks = nn.ModuleList(Block(width) for _ in range(options.blocks))
        self.attention = nn.ModuleList(Attention(width) for _ in range((options.blocks - 1) // 2))
        self.up = nn.ModuleList(nn.Conv2d(width, 4 * width, 1) for _ in range(halvings))
        self.finer = nn.ModuleList(Block(width) for _ in range(halvings - 1))
        self.numbers, self.curves = (nn.Conv2d(width, count, 3, padding=1) for count in numbers)
        for head, share in ((self.numbers, FIRST_NUMBERS), (self.curves, FIRST_CURVES)):
            with torch.no_grad():
                head.weight.mul_(share)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]  # there is a bias

    def forward(self, latents: Tensor, rays: Tensor, picture: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of the Gaussians and of their curves, [B, n, H, W] each.

        Args:
            latents: [B, G, z, h, w].
            rays: of the latents, [B, G, 6, h, w].
            picture: 0 to 1, [B, 3, H, W].
            first: rays of the picture, [B, 6, H, W].
        """
        sizes = [self.picture(torch.cat([2 * picture - 1, first, coordinates(picture)], dim=1))]
        for down in self.down:
            sizes.append(down(nn.functional.gelu(sizes[-1])))
        x = self.enter(torch.cat([latents, rays], dim=2).flatten(1, 2)) + sizes.pop()
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number % 2 and number // 2 < len(self.attention):
                x = self.attention[number // 2](x)
        for up, finer in zip(self.up, [*self.finer, nn.Identity()], strict=True):
            x = finer(nn.functional.pixel_shuffle(up(x), 2) + sizes.pop())
        features = nn.functional.gelu(x)
        return self.numbers(features).float(), self.curves(features).float()


class Block(nn.Module):
    """A residual block of two convolutions; it begins as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ChannelRMS(width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, width, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, h, w] → the same shape."""
        return x + self.last(nn.functional.gelu(self.first(nn.functional.gelu(self.norm(x)))))


class Attention(nn.Module):
    """Residual attention of each place of a grid to all of them; the rays among the inputs say where each is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ChannelRMS(width)
        self.attend = nn.MultiheadAttention(width, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, h, w] → the same shape."""
        places = self.norm(x).flatten(2).mT
        seen = self.attend(places, places, places, need_weights=False)[0]
        return x + seen.mT.unflatten(2, x.shape[2:])


def coordinates(picture: Tensor) -> Tensor:
    """Row and column of each pixel of [B, C, H, W], from -1 to 1: [B, 2, H, W]."""
    rows, columns = (torch.linspace(-1, 1, n, device=picture.device) for n in picture.shape[-2:])
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    return grid.to(picture.dtype).expand(len(picture), -1, -1, -1)
