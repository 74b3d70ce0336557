"""From a picture, a path and latents to Gaussians that move, and what cameras see of them."""

from __future__ import annotations

import pytest
import torch

from pdr_cli.models.scenes.scene import MOVES, Scene, SceneModel, Shot, inverse_depth, seen
from pdr_cli.splat.camera import Camera, rays
from pdr_cli.splat.compose import Gaussians
from tests.models.scenes.builders import FOCAL, FRAMES, GOES, SIZE, awake, cast, film, model, path


def shot(model: SceneModel, batch: int = 2, size: tuple[int, int] = SIZE) -> Shot:
    video = torch.rand(batch, FRAMES, 3, *size, generator=torch.Generator().manual_seed(1))
    return model.shot(video, path(batch=batch))


@pytest.mark.parametrize("per_pixel", [1, 2])
@pytest.mark.parametrize("size", [SIZE, (8, 12)])
def test_each_pixel_has_its_gaussians_at_each_time(per_pixel: int, size: tuple[int, int]) -> None:
    net = awake(model(per_pixel=per_pixel))
    scene = net(shot(net, size=size))
    N = per_pixel * size[0] * size[1]
    assert scene.weights.shape == (2, N, sum(MOVES), 3)
    shapes = [tuple(x.shape) for x in scene.at([0.0, 0.3])]
    assert shapes == [(2, 2, N, 3), (2, 2, N, 3), (2, 2, N, 4), (2, 2, N), (2, 2, N, 3)]
    drawn = seen(scene.at([0.0, 0.3]), path(2, batch=2), size)
    assert (drawn.features.shape, drawn.depth.shape) == ((2, 2, 3, *size), (2, 2, *size))
    assert inverse_depth(scene, size).shape == (2, per_pixel, *size)


def test_a_gaussian_starts_near_the_ray_of_its_pixel_within_the_bounds() -> None:
    net = awake(model())
    one = shot(net)
    canonical = net(one).canonical
    direction = rays(Camera(torch.eye(4), FOCAL), SIZE)[3:].flatten(1).T
    direction = direction / direction[:, 2:]
    # Of a depth z from 1.5 to 8, the nudge is at most a tenth in each direction.
    depth = canonical.mean[0, :, 2]
    assert depth.min() > 1.5 * 0.9
    assert depth.max() < 8 * 1.1
    beside = (canonical.mean[0] - direction * depth[:, None])[:, :2].abs() / depth[:, None]
    # 0.1 of its own, and 0.1 times the ray's tangent, below 1 / 1.2, as the depth is off; over 0.9.
    assert beside.max() <= 0.1 * (1 + 1 / 1.2) / 0.9
    footprint = depth / (FOCAL * 8)
    ratio = canonical.scale[0] / footprint[:, None]
    # e^-1.2 = 0.30 and e^1.2 = 3.32, over a depth that is off by a tenth.
    assert 0.30 / 1.1 <= ratio.min() < ratio.max() <= 3.33 / 0.9
    tint = (canonical.features[0].T.unflatten(1, SIZE) - one.picture[0]).abs()
    assert tint.max() <= 0.25 + 1e-6


@pytest.mark.parametrize("basis", ["poly3", "dct4", "free"])
def test_nothing_has_moved_at_time_0(basis: str) -> None:
    net = awake(model(basis))
    scene = net(shot(net))
    first, still, later = scene.at([0.0]), scene.still(), scene.at([0.6])
    assert all(a.equal(b) for a, b in zip(first, still, strict=True))
    assert (later.mean - still.mean).norm(dim=-1).mean() > 0.05
    assert not later.scale.equal(still.scale)
    assert not later.quaternion.equal(still.quaternion)


def test_gaussians_that_do_not_move_stay_where_they_are() -> None:
    net = awake(model(moves=False))
    found = net(shot(net))
    for name in ("mean", "scale", "quaternion"):
        assert getattr(found.at([1.0]), name).equal(getattr(found.still(), name)), name


def test_the_free_basis_has_a_number_for_each_frame_and_is_linear_between() -> None:
    net = awake(model("free"))
    scene = net(shot(net))
    way = scene.moves([0.5, 0.75, 1.0])[0]
    torch.testing.assert_close(way[:, 1], (way[:, 0] + way[:, 2]) / 2)
    torch.testing.assert_close(way[:, 0], scene.weights[..., :3, 0])


def test_every_weight_has_a_finite_gradient_and_matters() -> None:
    net = awake(model())
    one = shot(net)
    scene = net(one)
    drawn = seen(scene.at([0.0, 0.5, 1.0]), path(batch=2), SIZE)
    (drawn.features.square().mean() + drawn.depth.mean()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A shift of all keys of an attention changes nothing, so that third of its bias alone may have no gradient.
        assert parameter.grad.abs().max() > 0, name


def test_the_latents_decide_where_gaussians_go() -> None:
    net = awake(model())
    one = shot(net)
    other = one._replace(latents=one.latents + 1)
    assert not net(one).weights.allclose(net(other).weights, atol=1e-3)


def test_gaussians_below_the_opacity_of_pruning_are_not_drawn_and_keep_it() -> None:
    net = awake(model(prune=0.7))
    scene = net(shot(net))
    opacity = scene.canonical.opacity
    drawn = scene.at([0.5]).opacity[:, 0]
    assert 0 < (opacity < 0.7).float().mean() < 1
    assert drawn.equal(torch.where(opacity < 0.7, 0, opacity))


def test_gaussians_are_float32_under_autocast() -> None:
    net = awake(model())
    one = shot(net)
    with torch.autocast("cpu", torch.bfloat16):
        scene = net(one)
        gaussians = scene.at([0.5])
        drawn = seen(gaussians, path(1, batch=2), SIZE)
    assert {x.dtype for x in (*gaussians, *scene.moves([0.5]), scene.weights, *drawn)} == {torch.float32}


def test_places_keep_their_precision_under_autocast() -> None:
    net = model()
    for head in (net.reconstructor.numbers, net.reconstructor.curves):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.constant_(head.bias, 0.3)
    one = shot(net)
    plain = net(one)
    with torch.autocast("cpu", torch.bfloat16):
        half = net(one)
        moved = half.at([0.7])
    # bfloat16 would round numbers of the size of 1 by up to 0.004; the constants of the heads are 0.3 rounded to it.
    raw = torch.tensor(0.3).bfloat16().float()
    torch.nn.init.constant_(net.reconstructor.numbers.bias, float(raw))
    torch.nn.init.constant_(net.reconstructor.curves.bias, float(raw))
    torch.testing.assert_close(half.canonical.mean, net(one).canonical.mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(moved.mean, net(one).at([0.7]).mean, rtol=1e-5, atol=1e-5)
    assert not plain.canonical.mean.equal(half.canonical.mean)


def true_scene(size: tuple[int, int]) -> Scene:
    """The world's own Gaussians: one a pixel at its true depth, which goes where the point under it goes."""
    picture, depth, square = cast(torch.eye(4), 0.0, size)
    d = rays(Camera(torch.eye(4), FOCAL), size)[3:].flatten(1).T
    z = depth.flatten()[:, None]
    N = len(z)
    canonical = Gaussians(
        mean=(d / d[:, 2:] * z)[None],
        scale=(0.6 * z / (FOCAL * size[0] / 2)).expand(-1, 3)[None],
        quaternion=torch.tensor([1.0, 0, 0, 0]).expand(1, N, 4),
        opacity=torch.full((1, N), 0.95),
        features=picture.flatten(1).T[None],
    )
    weights = torch.zeros(1, N, sum(MOVES), 3)
    weights[0, :, :3, 0] = GOES * square.flatten()[:, None]  # of u: at time 1 all of the way
    return Scene(canonical, weights, "poly3", 8, 0.005)


def psnr(x: torch.Tensor, y: torch.Tensor, where: torch.Tensor) -> float:
    """Of the pixels [1, T, H, W] where both are known."""
    return float(-10 * (x - y).square().mean(2)[where].mean().log10())


def test_the_true_depth_and_tracks_draw_the_video_and_its_depth() -> None:
    """Pixels that the first picture did not show stay empty, and those at edges mix two depths."""
    size, cameras = (48, 48), path(5)
    frames, depth = film(cameras, size)
    drawn = seen(true_scene(size).at(torch.linspace(0, 1, 5).tolist()), cameras, size)
    covered = drawn.weight > 0.9
    assert covered.float().mean() > 0.85
    assert psnr(drawn.features, frames, covered) > 22
    assert (drawn.depth - depth).abs()[covered].median() < 0.02
    still = seen(true_scene(size).still(5), cameras, size)
    assert psnr(still.features[:, 4:], frames[:, 4:], covered[:, 4:]) < psnr(drawn.features, frames, covered) - 3
