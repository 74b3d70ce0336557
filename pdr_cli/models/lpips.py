"""LPIPS: perceptual distance of two pictures (Zhang et al., CVPR 2018), version 0.1 on AlexNet."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from pdr_cli.errors import GridError, UsageError
from pdr_cli.models import pretrained

CHANNELS = (64, 192, 384, 256, 256)  # of AlexNet's five convolutions
SMALLEST = 31  # the shortest side that leaves a pixel after two poolings: 31 → 7 → 3 → 1
# ImageNet's mean and deviation, for pixels in [-1, 1].
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
EPSILON = 1e-10  # keeps the direction of a vanished feature finite
PIECE = 16  # frames taken at once, so that memory does not grow with the batch


class LPIPS(nn.Module):
    """AlexNet's features, and a learned weight of each of their channels.

    The weights are named as their authors name them: `features.{0,3,6,8,10}.{weight,bias}`, as in torchvision's
    AlexNet, and `lin{0..4}.model.1.weight`, as in the lpips package.
    """

    def __init__(self) -> None:
        super().__init__()
        c = CHANNELS
        self.features = nn.Sequential(
            nn.Conv2d(3, c[0], 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(c[0], c[1], 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(c[1], c[2], 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(c[2], c[3], 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(c[3], c[4], 3, padding=1),
            nn.ReLU(),
        )
        for level, channels in enumerate(c):
            head = nn.Sequential(nn.Dropout(), nn.Conv2d(channels, 1, 1, bias=False))
            self.add_module(f"lin{level}", nn.ModuleDict({"model": head}))
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None], persistent=False)

    @classmethod
    def load(cls, path: Path) -> LPIPS:
        """LPIPS with the weights of a safetensors file.

        Raises:
            InputNotFoundError, CheckpointError: see `pretrained.load`.
        """
        network = cls()
        pretrained.load(network, path, "LPIPS on AlexNet")
        return network

    @torch.no_grad()
    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of each pair of frames, 0 for equal ones: [n, C, H, W] twice, in [0, 1] → [n].

        One channel is grey; three are red, green, blue. Values beyond [0, 1] are taken as they are.

        Raises:
            UsageError: another number of channels.
            GridError: a side below 31 pixels.
        """
        check(a)
        pieces = zip(a.split(PIECE), b.split(PIECE), strict=True)
        return torch.cat([self(x, y) for x, y in pieces])

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The same with its gradient, which the weights have none of; in float32."""
        with torch.autocast(a.device.type, enabled=False):
            return self._distance(a, b)

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        heads = [self.get_submodule(f"lin{level}.model") for level in range(len(CHANNELS))]
        levels = zip(heads, self.directions(a), self.directions(b), strict=True)
        # [n, 1, h, w] of each level, its mean, and the sum over levels.
        return torch.stack([head((x - y).square()).mean(dim=(1, 2, 3)) for head, x, y in levels]).sum(dim=0)

    def directions(self, frames: Tensor) -> list[Tensor]:
        """Features after each convolution's ReLU, at unit length over channels: five of [n, c, h, w]."""
        shift, scale = self.get_buffer("shift"), self.get_buffer("scale")
        x = (2 * frames.to(shift) - 1 - shift) / scale  # grey becomes three channels here
        out = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                # A norm, and no root of a sum, whose gradient is infinite where all features are 0.
                out.append(x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + EPSILON))
        return out


def check(frames: Tensor) -> None:
    """Raise what `LPIPS.distance` raises for frames [n, C, H, W] that it is not defined for."""
    _, C, H, W = frames.shape
    if C not in (1, 3):
        raise UsageError(f"LPIPS: frames have {C} channels", "1 (grey) or 3 (red, green, blue)", "leave out lpips")
    if min(H, W) < SMALLEST:
        raise GridError(f"LPIPS: frames are {H} x {W}", f"{SMALLEST} x {SMALLEST} pixels or more", "leave out lpips")
