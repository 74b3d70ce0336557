"""What stands between forecast and fusion: reads the coarse forecast X~, makes a layer Y of the same shape."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from pdr_cli import splat
from pdr_cli.errors import ConfigError, did_you_mean

KERNEL_EXTENT = 10.0  # K lattice samples span [-5, 5], so s kernel units are s·(K−1)/10 pixels
ANISOTROPY = 0.03  # s1 ≠ s2 at the start, or the rotation would have no gradient
REACH = 1.5  # spacings that a Gaussian may move from its anchor
FAINT = 0.1  # amplitude at the start of a Gaussian that cannot be 0

NORMALIZATIONS = ("peak", "density")
AMPLITUDES = ("auto", "tanh", "sigmoid", "linear")


class Gaussians(NamedTuple):
    """What the renderer takes, per frame. Positions in [-1, 1], scales in kernel units, rotation in radians."""

    coords: Tensor  # [B, T, N, 2], x to the right, y down
    scale: Tensor  # [B, T, N, 2]
    rotation: Tensor  # [B, T, N]
    amplitudes: Tensor  # [B, T, N, C]


class Adapter(nn.Module):
    """Called with (coarse, last): [B, T, C, H, W] and the last observed frame [B, C, H, W] → Y [B, T, C, H, W].

    Args:
        channels: C.
        uses_last: read the last observed frame too. Their difference, the motion, is left to the first layer, which
            is linear.
    """

    def __init__(self, channels: int, uses_last: bool) -> None:
        super().__init__()
        self.channels, self.uses_last = channels, uses_last
        self.inputs = channels * (1 + uses_last)

    def read(self, coarse: Tensor, last: Tensor | None) -> Tensor:
        """What the network sees of each frame. [B, T, inputs, H, W]."""
        if not self.uses_last:
            return coarse
        if last is None:
            raise ValueError(
                "This adapter was built to read the last observed frame as well; call it with (coarse, last)."
            )
        return torch.cat([coarse, last[:, None].expand_as(coarse)], dim=2)

    def initialize(self, frame: Tensor) -> None:
        """Place what starts from the training data; frame: [C, H, W], in network units."""


class GaussianAdapter(Adapter):
    """An adapter whose layer is made of Gaussians.

    Args:
        channels: C.
        uses_last: see `Adapter`.
        kernel_size: K, odd.
        sigma_min: smallest standard deviation in pixels; the largest is (K−1)/10.
        normalize: "peak" (a Gaussian's maximum is its amplitude) or "density" (Eq. 4, divided by 2π·s1·s2).
        amplitude: "tanh" (signed, times a learnt size per channel), "sigmoid" (the paper's [0, 1]), "linear" (without
            bounds), "auto" = "tanh".

    Raises:
        ConfigError: values that leave nothing to render.
    """

    def __init__(
        self,
        channels: int,
        uses_last: bool,
        *,
        kernel_size: int,
        sigma_min: float,
        normalize: Literal["peak", "density"],
        amplitude: Literal["auto", "tanh", "sigmoid", "linear"],
    ) -> None:
        super().__init__(channels, uses_last)
        check_options(kernel_size, sigma_min, normalize, amplitude)
        self.kernel_size = kernel_size
        self.sigma_min, self.sigma_max = sigma_min, sigma_max(kernel_size)
        self.normalize, self.backend = normalize, "auto"
        self.amplitude = "tanh" if amplitude == "auto" else amplitude
        self.amplitude_size = nn.Parameter(torch.ones(channels)) if self.amplitude == "tanh" else None

    def forward(self, coarse: Tensor, last: Tensor | None = None) -> Tensor:
        """Y = R(F_c(X~))."""
        return splat.render(
            *self.gaussians(coarse, last),
            size=(coarse.shape[-2], coarse.shape[-1]),
            kernel_size=self.kernel_size,
            normalize=self.normalize,
            backend=self.backend,
        )

    def gaussians(self, coarse: Tensor, last: Tensor | None = None) -> Gaussians:
        """The Gaussians of each frame."""
        raise NotImplementedError

    def count(self, size: tuple[int, int]) -> int:
        """Gaussians in a frame of (H, W)."""
        raise NotImplementedError

    def scale_of(self, raw: Tensor) -> Tensor:
        """Any numbers to standard deviations in kernel units, within their bounds."""
        sigma = self.sigma_min + (self.sigma_max - self.sigma_min) * torch.sigmoid(raw)  # pixels
        return sigma / self.sigma_max  # sigma_max pixels are 1 kernel unit

    def rotation_of(self, raw: Tensor) -> Tensor:
        """Any numbers to angles within ±90°."""
        return math.pi / 2 * torch.tanh(raw)

    def amplitudes_of(self, raw: Tensor) -> Tensor:
        """Any numbers [..., C] to amplitudes in the range that `amplitude` names."""
        if self.amplitude_size is not None:
            return torch.tanh(raw) * self.amplitude_size
        return torch.sigmoid(raw) if self.amplitude == "sigmoid" else raw

    def first_scale(self, spacing: float) -> Tensor:
        """Raw scales [2] of Gaussians that just overlap at this many pixels from centre to centre; float64."""
        share = (0.6 * spacing - self.sigma_min) / (self.sigma_max - self.sigma_min)
        share = min(max(share, 0.1), 0.9)  # clear of the sigmoid's flat ends
        return torch.logit(torch.tensor([share * (1 + ANISOTROPY), share * (1 - ANISOTROPY)], dtype=torch.float64))

    def first_amplitude(self) -> float:
        """Raw amplitude of Gaussians that hardly show."""
        return math.log(FAINT / (1 - FAINT)) if self.amplitude == "sigmoid" else 0.0


def check_options(kernel_size: int, sigma_min: float, normalize: str, amplitude: str) -> None:
    """Refuse what could not be rendered, naming the way out."""
    if kernel_size < 3 or kernel_size % 2 == 0:
        raise ConfigError(f'kernel_size is {kernel_size}; it must be odd and at least 3, or "auto".')
    if not 0 <= sigma_min < sigma_max(kernel_size):
        raise ConfigError(
            f"sigma_min is {sigma_min} px, but kernel_size {kernel_size} holds Gaussians of 0 to "
            f"{sigma_max(kernel_size)} px: lower sigma_min or raise kernel_size."
        )
    check_choice("normalize", normalize, NORMALIZATIONS)
    check_choice("amplitude", amplitude, AMPLITUDES)


def check_choice(option: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a value that an option does not have.

    Raises:
        ConfigError: names the ones it has.
    """
    if value not in known:
        raise ConfigError(f"{option} is {value!r}; it is one of {', '.join(known)}.{did_you_mean(value, known)}")


def sigma_max(kernel_size: int) -> float:
    """Largest standard deviation in pixels that a K×K kernel holds."""
    return (kernel_size - 1) / KERNEL_EXTENT


def kernel_size_for(spacing: float, sigma_min: float) -> int:
    """K ≈ 8 spacings, odd, so that about 64 kernel values fall on every pixel whatever the size.

    Where that leaves no room above `sigma_min`, the smallest K that lets σ reach twice that.
    """
    return max(nearest_odd(8 * spacing), smallest_kernel(sigma_min))


def smallest_kernel(sigma_min: float) -> int:
    """The smallest K that lets σ reach twice `sigma_min`."""
    return max(2 * math.ceil(sigma_min * KERNEL_EXTENT) + 1, 3)


def nearest_odd(value: float) -> int:
    """The odd number nearest to a positive value."""
    return 2 * math.floor(value / 2) + 1
