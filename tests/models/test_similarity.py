"""Structural similarity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from pdr_cli.models.similarity import ssim, window_size


def pair(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(shape, generator=generator)
    return target + 0.2 * torch.randn(shape, generator=generator), target


@pytest.mark.parametrize("data_range", [1.0, 5.5])
def test_ssim_is_scikit_images_on_each_channel(data_range: float) -> None:
    pred, target = pair(2, 3, 2, 25, 53)
    spans = torch.tensor([data_range, 2 * data_range])
    found = ssim(pred, target, spans)
    assert found.shape == (2, 3)
    for b, t in np.ndindex(2, 3):
        expected = [
            structural_similarity(
                pred[b, t, c].double().numpy(),
                target[b, t, c].double().numpy(),
                data_range=spans[c].item(),
                gaussian_weights=True,  # 11×11, σ 1.5; its mean is over windows that lie inside
                use_sample_covariance=False,
            )
            for c in range(2)
        ]
        assert found[b, t].item() == pytest.approx(np.mean(expected), abs=1e-6)


@pytest.mark.parametrize(
    ("H", "W", "size"), [(22, 22, 11), (25, 53, 11), (21, 40, 9), (16, 8, 3), (6, 6, 3), (3, 9, 3), (2, 9, 1)]
)
def test_window_shrinks_on_small_frames(H: int, W: int, size: int) -> None:
    assert window_size(H, W) == size


def test_ssim_of_a_small_frame_is_its_definition() -> None:
    pred, target = (frame.double().numpy() for frame in pair(1, 16, 8))
    found = ssim(torch.from_numpy(pred), torch.from_numpy(target), torch.ones(1)).item()
    offset = np.arange(3) - 1
    weights = np.exp(-(offset[:, None] ** 2 + offset[None, :] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for i, j in np.ndindex(14, 6):
        x, y = pred[0, i : i + 3, j : j + 3], target[0, i : i + 3, j : j + 3]
        mx, my = (weights * x).sum(), (weights * y).sum()
        vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
        cov = (weights * (x - mx) * (y - my)).sum()
        values.append((2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
    assert found == pytest.approx(np.mean(values), abs=1e-12)


def test_ssim_of_equal_frames_is_one_even_when_flat() -> None:
    flat = torch.full((1, 1, 30, 30), 0.7)
    assert ssim(flat, flat, torch.ones(1)).item() == pytest.approx(1)


def test_ssim_depends_on_the_range_only_through_the_units() -> None:
    pred, target = pair(1, 1, 24, 24)
    in_kelvin = ssim(40 * pred, 40 * target, torch.tensor([40.0]))
    assert in_kelvin.item() == pytest.approx(ssim(pred, target, torch.ones(1)).item(), abs=1e-5)


def test_ssim_is_single_precision_inside_autocast() -> None:
    pred, target = pair(1, 1, 24, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ssim(pred, target, torch.ones(1))
        from_half = ssim(pred.bfloat16(), target.bfloat16(), torch.ones(1))
    assert torch.equal(found, ssim(pred, target, torch.ones(1)))
    assert from_half.dtype == torch.float32


def test_ssim_gradient_is_right() -> None:
    pred, target = (frame.double() for frame in pair(1, 2, 8, 7))
    pred.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ssim(x, target, torch.tensor([1.0, 3.0])), pred)
