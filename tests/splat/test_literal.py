"""The literal Algorithm 1 and the reference are the same function, through the exact map of conventions."""

from __future__ import annotations

import pytest
import torch

from pdr_cli.splat import literal, reference

SIZES = [  # H, W, K: square, not square, even and odd, K as large as the frame, frames of one and of several tiles
    (32, 32, 15),
    (33, 33, 15),
    (26, 54, 11),
    (40, 17, 7),
    (16, 15, 15),
    (21, 22, 21),
    (65, 64, 7),
]


def public(function, size, kernel_size):
    """A literal function behind the public convention."""

    def render(coords, scale, rotation, amplitudes):
        moved = literal.to_literal(coords, scale, rotation, size, kernel_size)
        return function(*moved, amplitudes, size, kernel_size)

    return render


@pytest.mark.parametrize("function", [literal.base, literal.base_grid])
@pytest.mark.parametrize(("H", "W", "K"), SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_reference_in_value_and_every_gradient(gaussians, evaluate, same, function, H, W, K, channels):
    inputs = gaussians(batch=(2,), gaussians=9, channels=channels)
    found = evaluate(lambda *x: reference.render(*x, (H, W), K), inputs)
    expected = evaluate(public(function, (H, W), K), inputs)
    # float64 leaves 1e-15 per operation and a few hundred terms per pixel.
    same(found, expected, 1e-11)
    torch.testing.assert_close(found[0], expected[0], atol=1e-12, rtol=0)


@pytest.mark.parametrize("channels", [2, 7])
def test_any_number_of_channels_and_more_than_256_gaussians_in_a_tile(gaussians, evaluate, same, channels):
    inputs = gaussians(gaussians=300, channels=channels)
    expected = evaluate(public(literal.base, (18, 20), 9), inputs)
    same(evaluate(lambda *x: reference.render(*x, (18, 20), 9), inputs), expected, 1e-11)


@pytest.mark.parametrize("corner", [(-1.0, -1.0), (1.0, 1.0), (-1.0, 1.0), (0.0, 0.0)])
def test_equals_reference_at_the_corners(gaussians, corner):
    # Only the value: at a whole pixel the derivative is one-sided, and rounding decides on which side.
    _, scale, rotation, amplitudes = gaussians(gaussians=1)
    coords = torch.tensor([corner], dtype=torch.float64)
    found = reference.render(coords, scale, rotation, amplitudes, (21, 33), 15)
    expected = public(literal.base, (21, 33), 15)(coords, scale, rotation, amplitudes)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_literal_content_moves_against_coords():
    # Sampling the padded kernel at +0.5 shows what lies right of each pixel: the content moves left.
    one = torch.ones(1, 1, dtype=torch.float64)
    coords = torch.tensor([[0.5, 0.0]], dtype=torch.float64)
    image = literal.base(coords, 0.3 * one.expand(1, 2), 0 * one[0], one, (33, 33), 15)[0]
    columns = torch.arange(33, dtype=torch.float64)
    assert (image.sum(0) @ columns / image.sum()).item() == pytest.approx(16 - 0.5 * 16)


def test_literal_first_scale_lies_along_the_rows():
    one = torch.ones(1, 1, dtype=torch.float64)
    scale = torch.tensor([[0.9, 0.2]], dtype=torch.float64)
    image = literal.base(0 * scale, scale, 0 * one[0], one, (33, 33), 15)[0]
    offsets = torch.arange(33, dtype=torch.float64) - 16
    variance_y, variance_x = (image.sum(1 - axis) @ offsets.square() / image.sum() for axis in (0, 1))
    # σ in pixels is s (K-1)/10 = 1.26 along the rows; across, 0.28 px is narrower than the lattice resolves.
    assert variance_y.item() == pytest.approx(1.26**2, rel=1e-3)
    assert variance_x < 0.28**2


@pytest.mark.parametrize("function", [literal.base, literal.base_grid])
def test_a_kernel_larger_than_the_frame_is_refused(gaussians, function):
    with pytest.raises(ValueError, match="cannot pad it to 14x32"):
        function(*gaussians(), (14, 32), 15)


def zeroed_rotation(scale, rotation, kernel_size, lattice=reference.lattice):
    return lattice(scale, rotation.detach() + 0 * rotation, kernel_size)


def doubled_off_diagonal(scale, rotation, kernel_size, lattice=reference.lattice):
    """The right value, but the gradient of an off-diagonal of Σ^-1 that counts twice (a published mistake)."""
    off = (scale[..., 0] ** -2 - scale[..., 1] ** -2) * rotation.cos() * rotation.sin()
    u = torch.arange(-(kernel_size // 2), kernel_size // 2 + 1, dtype=scale.dtype) * (10 / (kernel_size - 1))
    extra = -(off - off.detach())[..., None, None] * u * u[:, None]
    kernels = lattice(scale, rotation, kernel_size)
    return kernels + kernels.detach() * extra


@pytest.mark.parametrize("wrong", [zeroed_rotation, doubled_off_diagonal])
def test_a_wrong_gradient_is_noticed(gaussians, evaluate, same, monkeypatch, wrong):
    inputs = gaussians()
    expected = evaluate(public(literal.base, (20, 22), 9), inputs)
    monkeypatch.setattr(reference, "lattice", wrong)
    with pytest.raises(AssertionError, match="differs by"):
        same(evaluate(lambda *x: reference.render(*x, (20, 22), 9), inputs), expected, 1e-11)


def test_the_map_of_conventions_is_its_own_inverse(gaussians):
    coords, scale, rotation, _ = gaussians()
    there = literal.to_literal(coords, scale, rotation, (32, 33), 15)
    back = literal.to_literal(*there, (32, 33), 15)
    for found, expected in zip(back, (coords, scale, rotation), strict=True):
        torch.testing.assert_close(found, expected)


def test_the_origin_is_half_a_pixel_off_for_even_sizes():
    zero = torch.zeros(1, 2, dtype=torch.float64)
    (coords, *_) = literal.to_literal(zero, zero, zero[0], (33, 32), 15)
    # Padding 15 to 32 leaves 8 columns on the left, so the middle is column 15; the frame's centre is 15.5.
    torch.testing.assert_close(coords, torch.tensor([[2 * 15 / 31 - 1, 0.0]], dtype=torch.float64))
