"""What the adapters share: their inputs, the ranges of their Gaussians' parameters, and the sizes these start with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from pdr_cli import splat
from pdr_cli.errors import ConfigError
from pdr_cli.models.interfaces import Adapter

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig

KERNEL_EXTENT = 10.0  # K lattice samples span [-5, 5], so s kernel units are s·(K−1)/10 pixels
ANISOTROPY = 0.03  # s1 ≠ s2 at the start, or the rotation would have no gradient
REACH = 1.5  # spacings that a Gaussian may move from its anchor
FAINT = 0.1  # amplitude at the start of a Gaussian that cannot be 0


class Gaussians(NamedTuple):
    """The renderer's arguments, per frame. Positions in [-1, 1], scales in kernel units, rotation in radians."""

    coords: Tensor  # [B, T, N, 2], x to the right, y down
    scale: Tensor  # [B, T, N, 2]
    rotation: Tensor  # [B, T, N]
    amplitudes: Tensor  # [B, T, N, C]


class FrameAdapter(Adapter):
    """An adapter that reads each coarse frame, and beside it the last observed one where `adapter_input` says so.

    The difference of both frames, the motion, is left to the first layer, which is linear.

    Args:
        channels: C.
        options: `adapter_input` is read.
    """

    auto_input: ClassVar[str] = "coarse"  # what `adapter_input` "auto" stands for

    def __init__(self, channels: int, options: ModelConfig) -> None:
        super().__init__()
        chosen = self.auto_input if options.adapter_input == "auto" else options.adapter_input
        self.channels, self.uses_last = channels, chosen == "coarse+last"
        self.inputs = channels * (1 + self.uses_last)

    def read(self, coarse: Tensor, observed: Tensor | None) -> Tensor:
        """The input of the network for each frame: [B, τ, C, H, W] and [B, T, C, H, W] → [B, τ, inputs, H, W]."""
        if not self.uses_last:
            return coarse
        if observed is None:
            raise ValueError("an adapter with adapter_input coarse+last is called with (coarse, observed)")
        return torch.cat([coarse, observed[:, -1:].expand_as(coarse)], dim=2)


class GaussianAdapter(FrameAdapter):
    """An adapter whose layer is rendered from Gaussians.

    Standard deviations lie between `sigma_min` and (K−1)/10 pixels. Amplitudes are "tanh" (signed, times a learned size per
    channel), "sigmoid" (the paper's [0, 1]) or "linear" (unbounded); "auto" is "tanh". `normalize` "peak" makes a
    Gaussian's maximum its amplitude, "density" divides it by 2π·s1·s2 (Eq. 4).

    Args:
        channels: C.
        options: `adapter_input`, `sigma_min`, `normalize` and `amplitude` are read.
        kernel_size: K, odd.

    Raises:
        ConfigError: values with which nothing can be rendered.
    """

    draws: ClassVar[bool] = True  # False: a control that draws no Gaussians

    def __init__(self, channels: int, options: ModelConfig, kernel_size: int) -> None:
        super().__init__(channels, options)
        check_kernel(kernel_size, options.sigma_min)
        self.kernel_size = kernel_size
        self.sigma_min, self.sigma_max = options.sigma_min, sigma_max(kernel_size)
        self.normalize, self.backend = options.normalize, "auto"
        self.amplitude = "tanh" if options.amplitude == "auto" else options.amplitude
        self.amplitude_size = nn.Parameter(torch.ones(channels)) if self.amplitude == "tanh" else None

    def forward(
        self,
        coarse: Tensor,
        observed: Tensor | None = None,
        covariates: Tensor | None = None,
        seeds: Tensor | None = None,
    ) -> Tensor:
        """Y = R(F_c(X~))."""
        return self.render(self.gaussians(coarse, observed), (coarse.shape[-2], coarse.shape[-1]))

    def render(self, gaussians: Gaussians, size: tuple[int, int]) -> Tensor:
        """R: frames (H, W) of Gaussians, [B, τ, C, H, W]."""
        return splat.render(
            *gaussians, size=size, kernel_size=self.kernel_size, normalize=self.normalize, backend=self.backend
        )

    def gaussians(self, coarse: Tensor, observed: Tensor | None = None) -> Gaussians:
        """The Gaussians of each frame: coarse: [B, τ, C, H, W]; observed: [B, T, C, H, W]."""
        raise NotImplementedError

    def count(self, size: tuple[int, int]) -> int:
        """Gaussians in a frame of (H, W)."""
        raise NotImplementedError

    def scale_of(self, raw: Tensor) -> Tensor:
        """Unbounded values to standard deviations in kernel units, within their bounds."""
        sigma = self.sigma_min + (self.sigma_max - self.sigma_min) * torch.sigmoid(raw)  # pixels
        return sigma / self.sigma_max  # sigma_max pixels are 1 kernel unit

    def rotation_of(self, raw: Tensor) -> Tensor:
        """Unbounded values to angles within ±90°."""
        return math.pi / 2 * torch.tanh(raw)

    def amplitudes_of(self, raw: Tensor) -> Tensor:
        """Unbounded values [..., C] to amplitudes in the range of `amplitude`."""
        if self.amplitude_size is not None:
            return torch.tanh(raw) * self.amplitude_size
        return torch.sigmoid(raw) if self.amplitude == "sigmoid" else raw

    def first_scale(self, spacing: float) -> Tensor:
        """Raw scales [2], float64, of Gaussians that just overlap if their centres are this many pixels apart."""
        share = (0.6 * spacing - self.sigma_min) / (self.sigma_max - self.sigma_min)
        share = min(max(share, 0.1), 0.9)  # clear of the sigmoid's flat ends
        return torch.logit(torch.tensor([share * (1 + ANISOTROPY), share * (1 - ANISOTROPY)], dtype=torch.float64))

    def first_amplitude(self) -> float:
        """Raw amplitude of Gaussians that are faint at the start."""
        return math.log(FAINT / (1 - FAINT)) if self.amplitude == "sigmoid" else 0.0


def drawing(adapter: nn.Module | None) -> GaussianAdapter | None:
    """The adapter, if it draws Gaussians; a control may share its code and draw none."""
    return adapter if isinstance(adapter, GaussianAdapter) and adapter.draws else None


def to_coords(centre: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels [..., 2] of frames (H, W) to the renderer's coordinates in [-1, 1]."""
    H, W = size
    return centre * centre.new_tensor([2 / max(W - 1, 1), 2 / max(H - 1, 1)]) - 1


def check_kernel(kernel_size: int, sigma_min: float) -> None:
    """Refuse a lattice on which nothing can be rendered.

    Raises:
        ConfigError: an even or too small K, or one that leaves no room above `sigma_min`.
    """
    if kernel_size < 3 or kernel_size % 2 == 0:
        raise ConfigError(f"model.kernel_size is {kernel_size}", 'an odd number from 3 on, or "auto"')
    if not 0 <= sigma_min < sigma_max(kernel_size):
        raise ConfigError(
            f"model.sigma_min is {sigma_min} px",
            f"0 to {sigma_max(kernel_size)} px, which model.kernel_size {kernel_size} holds",
            "lower sigma_min or raise kernel_size",
        )


def sigma_max(kernel_size: int) -> float:
    """Largest standard deviation in pixels that a K×K kernel holds."""
    return (kernel_size - 1) / KERNEL_EXTENT


def kernel_size_for(spacing: float, sigma_min: float) -> int:
    """K ≈ 8 spacings, odd, so that about 64 kernel values fall on every pixel at any size.

    Where that leaves no room above `sigma_min`, the smallest K that lets σ reach twice `sigma_min`.
    """
    return max(nearest_odd(8 * spacing), smallest_kernel(sigma_min))


def smallest_kernel(sigma_min: float) -> int:
    """The smallest K that lets σ reach twice `sigma_min`."""
    return max(2 * math.ceil(sigma_min * KERNEL_EXTENT) + 1, 3)


def nearest_odd(value: float) -> int:
    """The odd number nearest to a positive value."""
    return 2 * math.floor(value / 2) + 1
