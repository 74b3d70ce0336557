"""PredGS (Eq. 8): a forecast frame read as N Gaussians, and the picture that those Gaussians make."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from pdr_cli import splat
from pdr_cli.errors import ConfigError, GridError, did_you_mean

PLANE_CELLS = 256  # the pooled plane of all four published settings, which "auto" aims at
KERNEL_EXTENT = 10.0  # K lattice samples span [-5, 5], so s kernel units are s·(K−1)/10 pixels
BORDER = 1e-3  # how far from ±1 a centre starts at least, so that atanh is finite and tanh still learns
ANISOTROPY = 0.03  # s1 ≠ s2 at the start, or the rotation would have no gradient


class Gaussians(NamedTuple):
    """What the renderer takes, per frame. Positions in [-1, 1], scales in kernel units, rotation in radians."""

    coords: Tensor  # [B, T, N, 2], x to the right, y down
    scale: Tensor  # [B, T, N, 2]
    rotation: Tensor  # [B, T, N]
    amplitudes: Tensor  # [B, T, N, C]


class PredGS(nn.Module):
    """Average pooling to about 256 cells, then one MLP per Gaussian parameter, shared by all frames.

    Args:
        channels: C.
        size: (H, W), which the flattened plane ties the adapter to.
        gaussians: N.
        kernel_size: K, odd; "auto" = `auto_kernel_size`.
        downsample: r, the plane is (H/r, W/r) rounded; "auto" = `auto_downsample`.
        hidden: D, width of the hidden layer of each MLP.
        sigma_min: smallest standard deviation in pixels; the largest is (K−1)/10.
        normalize: "peak" (a Gaussian's maximum is its amplitude) or "density" (Eq. 4, divided by 2π·s1·s2).
        amplitude: "tanh" (signed, times a learnt size per channel), "sigmoid" (the paper's [0, 1]), "auto" = "tanh".

    Raises:
        ConfigError: values that leave nothing to render.
    """

    pool_rows: Tensor
    pool_columns: Tensor

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        *,
        gaussians: int,
        kernel_size: int | Literal["auto"],
        downsample: float | Literal["auto"],
        hidden: int,
        sigma_min: float,
        normalize: Literal["peak", "density"],
        amplitude: Literal["auto", "tanh", "sigmoid"],
    ) -> None:
        super().__init__()
        if gaussians < 1:
            raise ConfigError(f'gaussians is {gaussians}; at least 1 is needed (fusion "none" does without).')
        if kernel_size == "auto":
            kernel_size = auto_kernel_size(gaussians, size, sigma_min)
        if downsample == "auto":
            downsample = auto_downsample(size)
        check_options(kernel_size, downsample, sigma_min, normalize, amplitude)
        self.channels, self.size = channels, (size[0], size[1])
        self.normalize, self.backend = normalize, "auto"
        self.kernel_size: int = kernel_size
        self.sigma_min, self.sigma_max = sigma_min, sigma_max(kernel_size)
        self.plane = pooled_plane(size, downsample)
        self.register_buffer("pool_rows", pooling(size[0], self.plane[0]), persistent=False)  # [h, H]
        self.register_buffer("pool_columns", pooling(size[1], self.plane[1]), persistent=False)  # [w, W]

        cells = channels * self.plane[0] * self.plane[1]
        self.mlp_coords = MLP(cells, hidden, (gaussians, 2))
        self.mlp_scale = MLP(cells, hidden, (gaussians, 2))
        self.mlp_rotation = MLP(cells, hidden, (gaussians,))
        self.mlp_amplitudes = MLP(cells, hidden, (gaussians, channels))
        signed = amplitude in ("auto", "tanh")
        self.amplitude_size = nn.Parameter(torch.ones(channels)) if signed else None
        self._place(gaussians)

    def forward(self, coarse: Tensor) -> Tensor:
        """Y = R(F_c(X~)). coarse: [B, T, C, H, W] → [B, T, C, H, W]."""
        return splat.render(
            *self.gaussians(coarse),
            size=self.size,
            kernel_size=self.kernel_size,
            normalize=self.normalize,
            backend=self.backend,
        )

    def gaussians(self, coarse: Tensor) -> Gaussians:
        """The Gaussians of each frame. coarse: [B, T, C, H, W]."""
        built_for = (self.channels, *self.size)
        if tuple(coarse.shape[-3:]) != built_for:
            found, expected = ("×".join(map(str, shape)) for shape in (coarse.shape[-3:], built_for))
            raise GridError(f"The field is {found} (C×H×W); this model was built for {expected}. Regrid it or retrain.")
        # Half precision would place a centre on a 256-pixel side no better than to the pixel.
        with torch.autocast(coarse.device.type, enabled=False):
            coarse = coarse.to(self.mlp_coords.first.weight.dtype)
            cells = (self.pool_rows @ coarse @ self.pool_columns.T).flatten(2)  # [B, T, C·h·w]
            return Gaussians(
                coords=torch.tanh(self.mlp_coords(cells)),
                scale=self._scale(self.mlp_scale(cells)),
                rotation=math.pi / 2 * torch.tanh(self.mlp_rotation(cells)),
                amplitudes=self._amplitudes(self.mlp_amplitudes(cells)),
            )

    def _scale(self, raw: Tensor) -> Tensor:
        sigma = self.sigma_min + (self.sigma_max - self.sigma_min) * torch.sigmoid(raw)  # pixels
        return sigma / self.sigma_max  # sigma_max pixels are 1 kernel unit

    def _amplitudes(self, raw: Tensor) -> Tensor:
        return torch.sigmoid(raw) if self.amplitude_size is None else torch.tanh(raw) * self.amplitude_size

    @torch.no_grad()
    def _place(self, N: int) -> None:
        """Start from an even grid of Gaussians that just overlap and hardly show."""
        H, W = self.size
        for head in (self.mlp_scale, self.mlp_rotation, self.mlp_amplitudes):
            nn.init.normal_(head.last.weight, std=1e-3)
            nn.init.zeros_(head.last.bias)

        # Zero weights in the last layer only: zeros before it would stop every weight's gradient for ever.
        nn.init.zeros_(self.mlp_coords.last.weight)
        grid = even_grid(N, self.size).clamp(BORDER - 1, 1 - BORDER)
        self.mlp_coords.last.bias.copy_(torch.atanh(grid).flatten())

        sigma = 0.6 * math.sqrt(H * W / N)  # of the spacing between centres
        share = (sigma - self.sigma_min) / (self.sigma_max - self.sigma_min)
        share = min(max(share, 0.1), 0.9)  # clear of the sigmoid's flat ends
        pair = torch.tensor([share * (1 + ANISOTROPY), share * (1 - ANISOTROPY)], dtype=torch.float64)
        self.mlp_scale.last.bias.copy_(torch.logit(pair).repeat(N))

        if self.amplitude_size is None:
            nn.init.constant_(self.mlp_amplitudes.last.bias, math.log(0.1 / 0.9))  # sigmoid of it is 0.1


class MLP(nn.Module):
    """Linear, GELU, Linear, the last axis folded into `shape`. [..., inputs] → [..., *shape]."""

    def __init__(self, inputs: int, hidden: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.first = nn.Linear(inputs, hidden)
        self.last = nn.Linear(hidden, math.prod(shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(nn.functional.gelu(self.first(x))).unflatten(-1, self.shape)


def check_options(kernel_size: int, downsample: float, sigma_min: float, normalize: str, amplitude: str) -> None:
    """Refuse what could not be rendered, naming the way out."""
    if kernel_size < 3 or kernel_size % 2 == 0:
        raise ConfigError(f'kernel_size is {kernel_size}; it must be odd and at least 3, or "auto".')
    if downsample <= 0:
        raise ConfigError(f'downsample is {downsample}; it must be positive, or "auto".')
    if not 0 <= sigma_min < sigma_max(kernel_size):
        raise ConfigError(
            f"sigma_min is {sigma_min} px, but kernel_size {kernel_size} holds Gaussians of 0 to "
            f"{sigma_max(kernel_size)} px: lower sigma_min or raise kernel_size."
        )
    for option, value, known in (
        ("normalize", normalize, ("peak", "density")),
        ("amplitude", amplitude, ("auto", "tanh", "sigmoid")),
    ):
        if value not in known:
            raise ConfigError(f"{option} is {value!r}; it is one of {', '.join(known)}.{did_you_mean(value, known)}")


def sigma_max(kernel_size: int) -> float:
    """Largest standard deviation in pixels that a K×K kernel holds."""
    return (kernel_size - 1) / KERNEL_EXTENT


def auto_kernel_size(gaussians: int, size: tuple[int, int], sigma_min: float) -> int:
    """K ≈ 8·√(HW/N), odd, at most half of the shorter side.

    About 64 kernel values fall on every pixel whatever the size. On tiny frames half a side may leave no room above
    `sigma_min`; then K is the smallest that lets σ reach twice that.
    """
    H, W = size
    wanted = nearest_odd(8 * math.sqrt(H * W / gaussians))
    half = (min(H, W) // 2 - 1) // 2 * 2 + 1  # the largest odd number up to half
    smallest = 2 * math.ceil(sigma_min * KERNEL_EXTENT) + 1
    return max(min(wanted, half), smallest, 3)


def nearest_odd(value: float) -> int:
    return 2 * math.floor(value / 2) + 1


def auto_downsample(size: tuple[int, int]) -> int:
    """The power of two whose pooled plane is nearest to 256 cells by ratio, the smaller one of two equally near."""
    rates = [2**i for i in range(max(size).bit_length())]
    return min(rates, key=lambda rate: abs(math.log2(math.prod(pooled_plane(size, rate)) / PLANE_CELLS)))


def pooled_plane(size: tuple[int, int], rate: float) -> tuple[int, int]:
    """(H/r, W/r) rounded, at least one cell."""
    H, W = size
    return max(1, round(H / rate)), max(1, round(W / rate))


def pooling(length: int, cells: int) -> Tensor:
    """The matrix [cells, length] of adaptive average pooling along one axis.

    As a matrix because the pooling itself has no deterministic gradient on GPUs and no ONNX form for uneven cells.
    """
    return nn.functional.adaptive_avg_pool1d(torch.eye(length), cells).T.contiguous()


def even_grid(N: int, size: tuple[int, int]) -> Tensor:
    """N cell centres (x, y) in [-1, 1], row by row, as square as the frame allows. [N, 2], float64.

    n_x·n_y cells cover the frame; where that is more than N, N of them are taken at even steps.
    """
    H, W = size
    n_x = math.ceil(math.sqrt(N * W / H))
    n_y = math.ceil(N / n_x)
    cell = (2 * torch.arange(N) + 1) * (n_x * n_y) // (2 * N)
    x = (2 * (cell % n_x) + 1).double() / n_x - 1
    y = (2 * (cell // n_x) + 1).double() / n_y - 1
    return torch.stack([x, y], dim=-1)
