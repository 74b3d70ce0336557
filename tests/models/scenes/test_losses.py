"""The losses of scenes against closed forms."""

from __future__ import annotations

import pytest
import torch

from pdr_cli.models.lpips import LPIPS
from pdr_cli.models.scenes import losses
from pdr_cli.models.scenes.losses import Truth
from pdr_cli.models.scenes.scene import seen
from pdr_cli.splat.compose import View
from tests.models.scenes.builders import FRAMES, SIZE, awake, film, model, path

BATCH, H, W = 2, 12, 14


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def drawn(depth: torch.Tensor, weight: torch.Tensor | None = None) -> View:
    return View(
        depth[:, :, None].expand(-1, -1, 3, -1, -1), depth, torch.ones_like(depth) if weight is None else weight
    )


def test_equal_pictures_cost_nothing_and_a_shift_its_square() -> None:
    frames = random(BATCH, 3, 3, H, W)
    assert losses.photometric(frames, frames).item() == pytest.approx(0, abs=1e-6)
    constant = torch.full((1, 1, 3, H, W), 0.5)
    # Two constants differ in luminance alone: SSIM = (2xy + c) / (x² + y² + c) with c = 0.01².
    similar = (2 * 0.5 * 0.6 + 1e-4) / (0.5**2 + 0.6**2 + 1e-4)
    expected = 0.1**2 + 0.05 * (1 - similar)
    assert losses.photometric(constant + 0.1, constant).item() == pytest.approx(expected, rel=1e-4)


def test_with_its_network_half_of_lpips_takes_the_place_of_ssim() -> None:
    torch.manual_seed(0)
    network = LPIPS().eval()
    a, b = random(2, 2, 3, 32, 32), random(2, 2, 3, 32, 32, seed=1)
    distances = [network.distance(x[None], y[None]) for x, y in zip(a.flatten(0, 1), b.flatten(0, 1), strict=True)]
    expected = (a - b).square().mean() + 0.5 * torch.cat(distances).mean()
    assert losses.photometric(a, b, network).item() == pytest.approx(expected.item(), rel=1e-4)


def test_depth_counts_up_to_scale_and_shift_of_its_inverse() -> None:
    inverse = 0.2 + random(BATCH, 3, H, W)
    flat = torch.full((BATCH, 1, H, W), 0.3)
    found = losses.geometric(drawn(1 / (2 * inverse + 0.1)), 1 / inverse, flat)
    assert found.item() == pytest.approx(0, abs=1e-5)
    assert losses.geometric(drawn(1 / (2 - inverse)), 1 / inverse, flat).item() == pytest.approx(2, abs=1e-5)


def test_pixels_that_nothing_covers_have_no_depth() -> None:
    inverse = 0.2 + random(1, 1, H, W)
    weight = torch.ones(1, 1, H, W)
    weight[..., :4] = 0.2
    depth = torch.where(weight < 0.5, 0, 1 / inverse).requires_grad_()
    found = losses.geometric(drawn(depth, weight), 1 / inverse, torch.ones(1, 1, H, W))
    found.backward()
    assert found.item() == pytest.approx(0, abs=1e-5)
    assert depth.grad is not None
    assert depth.grad.isfinite().all()


def test_total_variation_of_a_ramp_is_its_slope() -> None:
    ramp = 0.01 * torch.arange(W).expand(1, 1, H, W)
    assert losses.total_variation(ramp).item() == pytest.approx(0.01, rel=1e-4)
    assert losses.total_variation(ramp.mT).item() == pytest.approx(0.01, rel=1e-4)


def test_the_correlation_of_a_constant_is_0() -> None:
    constant = torch.ones(1, H, W)
    assert losses.pearson(constant, random(1, H, W), constant).item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("per_pixel", [1, 2])
def test_moving_and_still_points_count_half_each(per_pixel: int) -> None:
    moving = torch.zeros(1, H, W, dtype=torch.bool)
    moving[0, 0, :3] = True  # 3 of 168
    track = torch.zeros(1, 1, 3, H, W)
    track[:, :, 0] = 2.0 * moving
    way = torch.zeros(1, 1, per_pixel * H * W, 3)
    # Standing still costs 2 · 2 on moving points and nothing on still ones.
    assert losses.motion(way, track, moving).item() == pytest.approx(2.0, abs=1e-3)
    right = track.flatten(3).mT.repeat(1, 1, per_pixel, 1)
    # Going the whole way costs 0.1 of its length on moving points.
    assert losses.motion(right, track, moving).item() == pytest.approx(0.5 * 0.1 * 2, abs=1e-3)


def test_where_nothing_moves_still_points_count_all() -> None:
    moving = torch.zeros(1, H, W, dtype=torch.bool)
    way = torch.full((1, 1, H * W, 3), 0.5)
    expected = 2 * 0.75**0.5 + 0.1 * 1.5
    assert losses.motion(way, torch.zeros(1, 1, 3, H, W), moving).item() == pytest.approx(expected, rel=1e-4)


def test_a_scene_that_stands_still_has_no_loss_of_motion_and_all_terms_reach_the_weights() -> None:
    net, cameras = awake(model()), path()
    frames, depth = film(cameras)
    scene = net(net.shot(frames, cameras))
    truth = Truth(frames, depth, torch.zeros(1, FRAMES, 3, *SIZE), torch.zeros(1, *SIZE, dtype=torch.bool))
    still = losses.terms(scene, None, seen(scene.still(FRAMES), cameras, SIZE), truth)
    assert still.keys() == {"photometric", "geometry", "opacity"}
    times = torch.linspace(0, 1, FRAMES).tolist()
    found = losses.terms(scene, scene.moves(times)[0], seen(scene.at(times), cameras, SIZE), truth)
    assert found.keys() == {*still, "motion"}
    for name, term in found.items():
        gradient = torch.autograd.grad(term, net.reconstructor.blocks[0].first.weight, retain_graph=True)[0]
        assert gradient.isfinite().all(), name
        assert gradient.abs().max() > 0, name
