"""Builders shared by the model tests, and a renderer for a checkout that has none yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pdr_cli import splat
from pdr_cli.models.predgs import PredGS
from pdr_cli.models.registry import build_predictor


def dense_render(
    coords: Tensor,
    scale: Tensor,
    rotation: Tensor,
    amplitudes: Tensor,
    *,
    size: tuple[int, int],
    kernel_size: int,
    normalize: str = "peak",
    backend: str = "auto",
) -> Tensor:
    """Every Gaussian at every pixel centre: slow, and close enough to the real renderer for what is tested here."""
    H, W = size
    sigma = scale * (kernel_size - 1) / 10  # pixels
    x = torch.arange(W).to(coords) - (1 + coords[..., None, None, 0]) * (W - 1) / 2  # [B, T, N, 1, W]
    y = torch.arange(H).to(coords)[:, None] - (1 + coords[..., None, None, 1]) * (H - 1) / 2  # [B, T, N, H, 1]
    cos, sin = rotation.cos()[..., None, None], rotation.sin()[..., None, None]
    along, across = (x * cos + y * sin) / sigma[..., None, None, 0], (y * cos - x * sin) / sigma[..., None, None, 1]
    kernel = torch.exp(-(along**2 + across**2) / 2)
    if normalize == "density":
        kernel = kernel / (2 * torch.pi * scale.prod(-1)[..., None, None])
    return torch.einsum("btnc,btnhw->btchw", amplitudes, kernel)


@pytest.fixture(autouse=True)
def renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(splat, "render"):
        monkeypatch.setattr(splat, "render", dense_render, raising=False)


def build_small_tau(in_steps: int = 3, channels: int = 2, **changes: Any) -> nn.Module:
    options: dict[str, Any] = {"hid_s": 4, "hid_t": 16, "n_s": 2, "n_t": 2, "mlp_ratio": 2, "drop_path": 0.0}
    return build_predictor("tau", in_steps, channels, **options | changes)


def build_small_predgs(channels: int = 2, size: tuple[int, int] = (12, 20), **changes: Any) -> PredGS:
    options: dict[str, Any] = {
        "gaussians": 15,
        "kernel_size": 21,
        "downsample": "auto",
        "hidden": 8,
        "sigma_min": 0.3,
        "normalize": "peak",
        "amplitude": "auto",
    }
    return PredGS(channels, size, **options | changes)


@pytest.fixture
def small_tau() -> Callable[..., nn.Module]:
    """Called with what should differ from a tiny TAU of 3 frames and 2 channels."""
    return build_small_tau


@pytest.fixture
def small_predgs() -> Callable[..., PredGS]:
    """Called with what should differ from a tiny adapter of 2 channels on 12×20."""
    return build_small_predgs
