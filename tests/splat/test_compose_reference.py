"""The specification of compositing: its numbers on paper, and its gradients against finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from pdr_cli.splat.compose_reference import compose
from tests.splat.projected import projected


def one_pixel(opacity: list[float], features: list[float]) -> list[float]:
    """Gaussians on the only pixel of a frame, front to back: Σ w f and Σ w."""
    count = len(opacity)
    image = compose(
        torch.zeros(count, 2, dtype=torch.float64),
        torch.tensor([1.0, 0.0, 1.0]).expand(count, 3),
        torch.tensor(opacity, dtype=torch.float64),
        torch.tensor(features, dtype=torch.float64)[:, None],
        (1, 1),
    )
    return image.flatten().tolist()


def test_what_is_in_front_hides_what_is_behind():
    # 0.5 · 2 + (1 - 0.5) 0.8 · 3, and 0.5 + 0.4.
    assert one_pixel([0.5, 0.8], [2, 3]) == pytest.approx([2.2, 0.9])
    # 0.8 · 3 + (1 - 0.8) 0.5 · 2: the order matters.
    assert one_pixel([0.8, 0.5], [3, 2]) == pytest.approx([2.6, 0.9])


def test_alpha_is_at_most_099_and_nothing_below_a_255th():
    assert one_pixel([7.0, 1.0], [1, 1]) == pytest.approx([0.9999, 0.9999])  # 1 - 0.01²
    assert one_pixel([0.0039, 0.5], [1, 1]) == pytest.approx([0.5, 0.5])
    assert one_pixel([0.004, 0.5], [1, 0]) == pytest.approx([0.004, 0.502])


def test_a_gaussian_has_its_centre_and_conic_in_pixels():
    centre, conic = torch.tensor([[2.0, 1.0]]), torch.tensor([[0.5, 0.1, 0.25]])
    image = compose(centre, conic, torch.tensor([0.8]), torch.tensor([[1.0]]), (3, 5))
    # 3 columns to the left and one row down: q = 0.5 · 9 ... at column 0: dx = -2, dy = 1.
    q = 0.5 * 4 + 2 * 0.1 * -2 + 0.25
    assert image[0, 1, 2] == pytest.approx(0.8)
    assert image[0, 2, 0] == pytest.approx(0.8 * math.exp(-q / 2))


def test_the_last_channel_is_what_the_gaussians_cover_together():
    centre, conic, opacity, features = (x.detach() for x in projected(2, 6, 1, (5, 7)))
    parts = [
        compose(centre[:, i, None], conic[:, i, None], opacity[:, i, None], features[:, i, None], (5, 7))
        for i in range(6)
    ]
    passing = torch.stack([1 - part[:, -1] for part in parts]).prod(0)
    torch.testing.assert_close(compose(centre, conic, opacity, features, (5, 7))[:, -1], 1 - passing)


def test_nothing_to_draw():
    centre, conic, opacity, features = projected(2, 0, 3)
    assert not compose(centre, conic, opacity, features, (4, 5)).any()


@pytest.mark.parametrize(
    ("gaussians", "channels", "opacity"), [(1, 1, (0.1, 0.9)), (6, 3, (0.1, 0.9)), (5, 2, (0.6, 2.0))]
)
def test_gradients_are_those_of_finite_differences(gaussians, channels, opacity):
    size = (5, 6)
    inputs = [x.detach().double().requires_grad_() for x in projected(2, gaussians, channels, size, opacity=opacity)]
    assert torch.autograd.gradcheck(lambda *x: compose(*x, size), inputs, eps=1e-7, atol=1e-6)
