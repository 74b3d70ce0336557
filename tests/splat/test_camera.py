"""Cameras: where points and Gaussians land in a frame, against numbers on paper and projected samples."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from pdr_cli.splat import camera
from pdr_cli.splat.camera import Camera, project, rays, rotations, to_camera
from pdr_cli.splat.compose import Gaussians, view


def turned(degrees: float, *, at: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Tensor:
    """World to a camera at a place, turned to its right."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = torch.tensor([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]], dtype=torch.float64)
    matrix[:3, 3] = -matrix[:3, :3] @ torch.tensor(at, dtype=torch.float64)
    return matrix


def ball(*mean: float, scale: float = 0.1) -> tuple[Tensor, Tensor, Tensor]:
    """mean, scale and quaternion of one round Gaussian."""
    return (
        torch.tensor([mean], dtype=torch.float64),
        torch.full((1, 3), scale, dtype=torch.float64),
        torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64),
    )


def test_x_points_right_y_down_z_forward():
    # Focal 1 half frame, 8 px: 4 px a unit of X/Z, from the middle of the frame at pixel 3.5.
    centre = project(*ball(1.0, -2.0, 4.0), Camera(turned(0), 1.0), (8, 8)).centre
    torch.testing.assert_close(centre, torch.tensor([[3.5 + 1, 3.5 - 2]], dtype=torch.float64))


@pytest.mark.parametrize("size", [(8, 20), (20, 8)])
def test_the_focal_length_is_in_halves_of_the_shorter_side(size):
    seen = project(*ball(1.0, 1.0, 2.0), Camera(turned(0), 1.5), size)
    middle = torch.tensor([(size[1] - 1) / 2, (size[0] - 1) / 2], dtype=torch.float64)
    torch.testing.assert_close(seen.centre[0] - middle, torch.full((2,), 1.5 * 4 * 0.5, dtype=torch.float64))


def test_a_camera_that_turns_right_sees_the_middle_on_its_left():
    at = to_camera(torch.tensor([[0.0, 0, 2]], dtype=torch.float64), turned(30))
    torch.testing.assert_close(at, torch.tensor([[-1.0, 0, math.sqrt(3)]], dtype=torch.float64))


def test_a_camera_that_moves_forward_sees_things_nearer():
    seen = project(*ball(0, 0, 5), Camera(turned(0, at=(0, 0, 2)), 1.0), (8, 8))
    assert seen.depth.item() == pytest.approx(3)


def test_the_size_of_a_round_gaussian_straight_ahead():
    # 0.1 units at depth 2, 8 px a unit of X/Z: 0.4 px; variance 0.16 + 0.3.
    seen = project(*ball(0, 0, 2), Camera(turned(0), 1.0), (16, 16))
    torch.testing.assert_close(seen.conic, torch.tensor([[1 / 0.46, 0, 1 / 0.46]], dtype=torch.float64))
    # The blur spreads it over 0.46/0.16 of its area.
    assert seen.compensation.item() == pytest.approx(0.16 / 0.46)


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
@pytest.mark.parametrize("seed", range(4))
def test_the_covariance_is_that_of_projected_samples(seed, size):
    """2·10⁵ samples estimate a variance to √(2 / 2·10⁵) = 0.3 %; small Gaussians, for which a projection is nearly linear."""
    random = torch.Generator().manual_seed(seed)
    normal = partial(torch.randn, generator=random, dtype=torch.float64)
    mean, scale, quaternion = (
        normal(1, 3) * 0.5 + torch.tensor([0, 0, 4.0]),
        normal(1, 3).abs() * 0.03 + 0.01,
        normal(1, 4),
    )
    seen_by = Camera(turned(20, at=(0.3, -0.2, 0.1)), 1.2)
    seen = project(mean, scale, quaternion, seen_by, size)
    a, b, c = seen.conic[0]
    covariance = torch.linalg.inv(torch.stack([torch.stack([a, b]), torch.stack([b, c])])) - camera.BLUR * torch.eye(2)

    samples = (normal(200_000, 3) * scale) @ rotations(quaternion)[0].mT + mean
    point = torch.zeros_like(samples)
    places = project(samples, point, quaternion.expand(len(samples), 4), seen_by, size).centre
    assert (torch.cov(places.mT) - covariance).abs().max() <= 0.02 * covariance.abs().max()
    assert (places.mean(0) - seen.centre[0]).abs().max() <= 0.05


def test_rotations_are_those_of_quaternions():
    half = math.radians(60) / 2
    found = rotations(torch.tensor([3 * math.cos(half), 0, 0, 3 * math.sin(half)]))  # of any length
    torch.testing.assert_close(found[:, 0], torch.tensor([0.5, math.sqrt(0.75), 0]))  # x turns towards y
    torch.testing.assert_close(found @ found.mT, torch.eye(3))


def test_beyond_the_margin_a_gaussian_does_not_stretch_further():
    def shear(x: float) -> Tensor:
        return project(*ball(x, 0, 1), Camera(turned(0), 1.0), (16, 16)).conic

    assert not torch.allclose(shear(1.0), shear(1.2))
    torch.testing.assert_close(shear(1.3), shear(5.0))


def test_what_is_nearer_than_the_near_plane_or_behind_is_not_drawn():
    depths = torch.tensor([-3.0, 0.0, 0.09, 0.11])
    mean = torch.stack([torch.zeros(4), torch.zeros(4), depths], -1).requires_grad_()
    seen = project(
        mean, torch.full((4, 3), 0.1), torch.tensor([[1.0, 0, 0, 0]]).expand(4, 4), Camera(torch.eye(4), 1.0), (8, 8)
    )
    assert (seen.compensation > 0).tolist() == [False, False, False, True]
    assert all(x.isfinite().all() for x in seen)
    assert torch.autograd.grad(sum(x.sum() for x in seen), mean)[0].isfinite().all()


@pytest.mark.parametrize("size", [(5, 5), (4, 7)])
def test_a_ray_goes_through_the_pixel_of_its_points(size):
    seen_by = Camera(turned(25, at=(1.0, 0.5, -2.0)), 1.3)
    o = torch.tensor([1.0, 0.5, -2.0], dtype=torch.float64)
    moment, d = rays(seen_by, size).movedim(0, -1).split(3, -1)  # [H, W, 3]
    torch.testing.assert_close(d.norm(dim=-1), torch.ones(size, dtype=torch.float64))
    torch.testing.assert_close(moment, torch.linalg.cross(o.expand_as(d), d))
    points = (o + 3 * d).flatten(0, 1)
    quaternion = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64).expand(len(points), 4)
    found = project(points, torch.ones_like(points), quaternion, seen_by, size).centre.unflatten(0, size)
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in size), indexing="ij")
    torch.testing.assert_close(found, torch.stack([columns, rows], -1))


def test_every_camera_of_a_batch_has_its_own_focal_length():
    together = Camera(torch.stack([turned(0), turned(10)]), torch.tensor([1.0, 1.5], dtype=torch.float64))
    seen, seen_rays = project(*ball(0.2, 0.1, 3), together, (8, 12)), rays(together, (8, 12))
    for i, alone in enumerate((Camera(turned(0), 1.0), Camera(turned(10), 1.5))):
        for a, b in zip(seen, project(*ball(0.2, 0.1, 3), alone, (8, 12)), strict=True):
            torch.testing.assert_close(a[i], b)
        torch.testing.assert_close(seen_rays[i], rays(alone, (8, 12)))


def scene(count: int, *, seed: int = 0) -> Gaussians:
    """Gaussians before a camera at the origin, in float64 and requiring gradients."""
    random = torch.Generator().manual_seed(seed)
    uniform = partial(torch.rand, generator=random, dtype=torch.float64)
    mean = (uniform(count, 3) - 0.5) * torch.tensor([4, 4, 3]) + torch.tensor([0, 0, 4.0])
    leaves = (
        mean,
        uniform(count, 3) * 0.3 + 0.05,
        uniform(count, 4) - 0.5,
        uniform(count) * 0.8 + 0.1,
        uniform(count, 2),
    )
    return Gaussians(*(x.requires_grad_() for x in leaves))


def test_the_nearer_gaussian_is_in_front_in_whatever_order_they_come():
    far, near = ball(0, 0, 6, scale=2.0), ball(0, 0, 3, scale=1.0)
    colours = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    opacity = torch.tensor([0.5, 0.8], dtype=torch.float64)
    both = [torch.cat(pair) for pair in zip(far, near, strict=True)]
    seen = view(Gaussians(*both, opacity, colours), Camera(turned(0), 1.0), size=(33, 33))
    other = view(Gaussians(*(x.flip(0) for x in (*both, opacity, colours))), Camera(turned(0), 1.0), size=(33, 33))
    for a, b in zip(seen, other, strict=True):
        torch.testing.assert_close(a, b)
    # At the middle 0.8 of the near one, 0.5 · 0.2 of the far one; the blur takes less than 1 % of Gaussians this large.
    assert seen.features[0, 16, 16].item() == pytest.approx(0.8, rel=0.01)
    assert seen.weight[16, 16].item() == pytest.approx(0.9, rel=0.01)
    assert seen.depth[16, 16].item() == pytest.approx((0.8 * 3 + 0.1 * 6) / 0.9, rel=0.01)


def test_depth_is_0_where_nothing_is_drawn():
    seen = view(Gaussians(*ball(0, 0, 3), torch.ones(1), torch.ones(1, 1)), Camera(turned(0), 1.0), size=(33, 33))
    assert seen.depth[0, 0] == seen.weight[0, 0] == 0
    assert seen.depth[16, 16].item() == pytest.approx(3)
    drawn = seen.weight > 0
    torch.testing.assert_close(seen.depth[drawn], torch.full_like(seen.depth[drawn], 3))


def test_a_view_has_the_gradients_of_finite_differences():
    gaussians = scene(4)
    pose = turned(5).requires_grad_()

    def seen(*leaves: Tensor) -> tuple[Tensor, ...]:
        *parts, world_to_camera = leaves
        return view(Gaussians(*parts), Camera(world_to_camera, 1.2), size=(6, 7))

    # A last row of (0, 0, 0, 1) is not read, and its gradient is 0.
    assert torch.autograd.gradcheck(seen, (*gaussians, pose), eps=1e-6, atol=1e-5)


def test_one_set_may_be_seen_by_many_cameras():
    gaussians = Gaussians(*(x.detach().float() for x in scene(30)))
    poses = torch.stack([turned(d) for d in (-10, 0, 10)]).float()
    together = view(gaussians, Camera(poses, 1.2), size=(12, 14))
    assert together.features.shape == (3, 2, 12, 14)
    for i in range(3):
        for a, b in zip(together, view(gaussians, Camera(poses[i], 1.2), size=(12, 14)), strict=True):
            torch.testing.assert_close(a[i], b)


def test_a_view_is_the_same_in_float32_and_under_autocast():
    gaussians, seen_by = Gaussians(*(x.detach().float() for x in scene(30))), Camera(turned(3).float(), 1.2)
    expected = view(gaussians, seen_by, size=(12, 14))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = view(gaussians, seen_by, size=(12, 14))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
