"""IncepU, the translator of SimVP (Gao et al., CVPR 2022): inception units in a U."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError
from pdr_cli.models.predictors.translators.options import TranslatorOptions

KERNEL_SIZES = (3, 5, 7, 11)
GROUPS = 8


class IncepU(nn.Module):
    """n_t encoder and n_t decoder units, all on one grid, with skip connections as in a U-Net.

    It has no stochastic depth and no MLP, so drop_path and mlp_ratio have no effect.
    """

    def __init__(self, options: TranslatorOptions) -> None:
        super().__init__()
        outside, inside, n_t = options.channels, options.hid_t, options.n_t
        self.enc = nn.ModuleList(InceptionUnit(inside if i else outside, inside, inside) for i in range(n_t))
        self.dec = nn.ModuleList(
            InceptionUnit(2 * inside if i else inside, inside, inside if i < n_t - 1 else outside) for i in range(n_t)
        )

    def forward(self, latent: Tensor) -> Tensor:
        """latent: [B, T·hid_S, H', W'] → the same shape."""
        kept = []
        for unit in self.enc:
            latent = unit(latent)
            kept.append(latent)
        latent = self.dec[0](kept.pop())
        for unit in self.dec[1:]:
            latent = unit(torch.cat([latent, kept.pop()], dim=1))
        return latent


class InceptionUnit(nn.Module):
    """1×1 to half of hid_t, then the sum of convolutions with kernels of four sizes."""

    def __init__(self, inputs: int, hid_t: int, outputs: int) -> None:
        super().__init__()
        half = hid_t // 2
        groups = GROUPS if half % GROUPS == 0 else 1
        if outputs % groups:
            raise ConfigError(
                f"in_steps · hid_s is {outputs}", f"a multiple of {groups}, the groups of simvp's convolutions"
            )
        self.conv1 = nn.Conv2d(inputs, half, 1)
        self.layers = nn.ModuleList(branch(half, outputs, k, groups) for k in KERNEL_SIZES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        first, *others = self.layers
        total = first(x)
        for layer in others:
            total = total + layer(x)
        return total


def branch(inputs: int, outputs: int, kernel_size: int, groups: int) -> nn.Sequential:
    """Grouped convolution, GroupNorm, leaky ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, groups=groups)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.GroupNorm(groups, outputs), activate=nn.LeakyReLU(0.2)))


def incepu_translator(options: TranslatorOptions) -> IncepU:
    """The IncepU translator."""
    return IncepU(options)
