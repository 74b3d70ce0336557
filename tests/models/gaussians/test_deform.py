"""The moving set: one canonical set of Gaussians, its curves in time, what it paints and what it carries."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pdr_cli.errors import ConfigError
from pdr_cli.models import registry
from pdr_cli.models.gaussians.deform import HALF, DeformDense, DeformGS
from pdr_cli.models.gaussians.moving import motion_loss
from pdr_cli.models.interfaces import Batch, Frames
from tests.models.builders import options

SIZE = (12, 20)


def small(adapter: str = "deform", *, T: int = 2, tau: int = 3, channels: int = 1, **changes: Any) -> DeformGS:
    torch.manual_seed(0)
    table = options(adapter=adapter, conv_width=6, kernel_size="auto", cell_stride=4, **changes)
    built = registry.build_adapter(table, Frames(T, channels, SIZE, out_steps=tau))
    assert isinstance(built, DeformGS)
    return built.eval()


def awake(adapter: DeformGS) -> DeformGS:
    """With heads whose Gaussians move, turn, stretch, fade and show."""
    torch.nn.init.normal_(adapter.head.weight, std=0.5)
    torch.nn.init.normal_(adapter.moves.weight, std=0.3)
    return adapter


def sliding(adapter: DeformGS, right: float, opacity: float = 20.0) -> DeformGS:
    """Gaussians that stand on their anchors and move `right` pixels in each of the τ frames, whatever they see."""
    torch.nn.init.zeros_(adapter.head.weight)
    torch.nn.init.zeros_(adapter.moves.weight)
    with torch.no_grad():
        adapter.head.bias[-1] = opacity  # of the only Gaussian of a cell
        # Curves [5, 3]: the first is x, of which u has the weight τ·right pixels, in spacings.
        adapter.moves.bias[0] = adapter.leads * right / adapter.spacing
    return adapter


def frames(n: int, channels: int = 1, seed: int = 0, size: tuple[int, int] = SIZE) -> torch.Tensor:
    return torch.rand(2, n, channels, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("basis", ["poly3", "dct4", "free"])
@pytest.mark.parametrize("fusion", ["concat", "carry"])
@pytest.mark.parametrize("fades", [False, True])
def test_nothing_has_moved_at_the_last_observed_frame(basis: str, fusion: str, fades: bool) -> None:
    adapter = awake(small(deform_basis=basis, fusion=fusion, deform_opacity=fades))
    x, coarse = frames(2), frames(3, seed=1)
    found = adapter._set(x, coarse, [0.0, 1.0, 3.0])
    assert not found.way[:, 0].any()
    assert (found.way[:, 1:].abs().amax(dim=(1, 2, 3)) > 0.1).all()
    assert torch.equal(found.opacity[:, 0], found.opacity[:, 2]) != fades


def test_the_set_is_one_of_which_only_the_deformation_changes() -> None:
    adapter = awake(small())
    with torch.no_grad():
        adapter.moves.weight.zero_()
    drawn = adapter.gaussians(frames(3, seed=1), frames(2))
    for part in drawn:
        assert torch.equal(part[:, :1].expand_as(part), part)


def test_free_curves_meet_their_numbers_at_the_leads_and_are_straight_between() -> None:
    adapter = awake(small(deform_basis="free"))
    way = adapter._set(frames(2), frames(3, seed=1), [1.0, 1.5, 2.0]).way
    torch.testing.assert_close(way[:, 1], (way[:, 0] + way[:, 2]) / 2)


@pytest.mark.parametrize("name", ["deform", "deform-dense"])
def test_carried_texture_arrives_where_the_gaussians_go(name: str) -> None:
    adapter, x = sliding(small(name, fusion="carry"), right=2.0), frames(2)
    coarse = torch.zeros(2, 3, 1, *SIZE)
    with torch.no_grad():
        layer = adapter(coarse, x)
    inside = (..., slice(2, -2), slice(8, -2))  # Gaussians that leave the border have none behind them
    for lead in range(3):
        moved = x[:, -1].roll(2 * (lead + 1), dims=-1)
        share = layer[:, lead][inside] / moved[inside]
        # Every cell's Gaussian is opaque: the share is what its sum of values makes of HALF, and the same in all values.
        assert share.min() > 1 / (1 + HALF) - 0.2
        torch.testing.assert_close(layer[:, lead][inside], share.mean() * moved[inside], atol=0.08, rtol=0.1)


def test_carrying_leaves_what_no_gaussian_reaches_to_the_coarse_forecast() -> None:
    adapter = sliding(small(fusion="carry"), right=2.0, opacity=-20.0)
    assert not adapter(frames(3, seed=1), frames(2)).any()


def test_transparent_gaussians_are_not_drawn() -> None:
    adapter = awake(small(prune_opacity=0.3))
    found = adapter.moving(frames(3, seed=1), frames(2))
    faint = found.opacity < 0.3
    assert 0 < faint.float().mean() < 1
    assert not found.drawn.amplitudes[faint.expand_as(found.drawn.amplitudes)].any()
    assert found.drawn.amplitudes[~faint].all()


@pytest.mark.parametrize("fusion", ["concat", "carry"])
def test_a_longer_forecast_is_made_block_by_block(fusion: str) -> None:
    adapter, x, coarse = awake(small(fusion=fusion)), frames(2), frames(7, seed=1)
    with torch.no_grad():
        whole = adapter(coarse, x)
        first, second = adapter(coarse[:, :3], x), adapter(coarse[:, 3:6], coarse[:, 1:3])
        last = adapter(coarse[:, [6, 6, 6]], coarse[:, 4:6])[:, :1]
    torch.testing.assert_close(whole, torch.cat([first, second, last], dim=1))


@pytest.mark.parametrize("fusion", ["concat", "carry"])
def test_whole_times_are_the_frames_themselves(fusion: str) -> None:
    adapter, x, coarse = awake(small(fusion=fusion)), frames(2), frames(5, seed=1)
    with torch.no_grad():
        halves = torch.stack([(a + b) / 2 for a, b in zip(coarse.unbind(1)[:-1], coarse.unbind(1)[1:], strict=True)], 1)
        between = torch.stack(
            [f for pair in zip(coarse.unbind(1)[:-1], halves.unbind(1), strict=True) for f in pair], 1
        )
        made = adapter.at(coarse, x, [1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5], between)
        torch.testing.assert_close(made[:, ::2], adapter(coarse, x)[:, :4])


@pytest.mark.parametrize("changes", [{}, {"fusion": "carry"}, {"deform_opacity": True, "deform_basis": "dct4"}])
@pytest.mark.parametrize("shape", [(1, 13, 18), (3, 9, 31)])
def test_any_grid_has_finite_gradients_of_every_weight(changes: dict[str, Any], shape: tuple[int, int, int]) -> None:
    C, *size = shape
    adapter = awake(small(channels=C, **changes)).train()
    x, y = frames(2, C, 0, (size[0], size[1])), frames(3, C, 1, (size[0], size[1]))
    tracks = torch.zeros(2, 3, 3, *size)
    tracks[:, :, 2] = 1
    layer, terms = adapter.training_forward(y, Batch(x, 3, y, tracks=tracks))
    assert layer.shape == y.shape
    assert terms.keys() == {"opacity", "motion"}
    (layer.square().mean() + sum(terms.values())).backward()
    gradients = {n: p.grad for n, p in adapter.named_parameters()}
    assert all(g is not None and g.isfinite().all() and g.any() for g in gradients.values()), gradients


def test_motion_is_learnt_from_tracks_and_not_where_they_are_not_trusted() -> None:
    """Half of the frame moves 3 pixels to the right by its tracks; the other half's tracks are wrong and not trusted."""
    adapter = awake(small(fusion="carry")).train()
    x, y = frames(2), frames(3, seed=1)
    tracks = torch.zeros(2, 3, 3, *SIZE)
    tracks[:, :, 0, :, :10], tracks[:, :, 2, :, :10] = 3.0, 1.0
    tracks[:, :, 1, :, 10:] = -50.0
    optimizer = torch.optim.Adam(adapter.parameters(), lr=2e-2)
    for _ in range(60):
        _, terms = adapter.training_forward(y, Batch(x, 3, y, tracks=tracks))
        optimizer.zero_grad()
        terms["motion"].backward()
        optimizer.step()
    found = adapter.moving(y, x)
    left = found.start[..., 0] < 8
    way = found.way.mean(dim=1)[left]
    assert (way - torch.tensor([3.0, 0.0])).norm(dim=-1).mean() < 0.8
    assert found.way[..., 1].abs().max() < 20


def test_moving_and_still_places_count_half_each() -> None:
    """One place of four moves 4 pixels, and nothing follows: 2·4 of the moving ones, 0 of the others, over 8 pixels."""
    centre = torch.tensor([[[1.0, 1.0], [5.0, 1.0], [1.0, 5.0], [5.0, 5.0]]])
    tracks = torch.zeros(1, 1, 3, 8, 8)
    tracks[:, :, 2] = 1
    tracks[:, :, 0, :3, :3] = 4.0
    still = torch.zeros(1, 1, 4, 2)
    # Errors are smoothed by 0.01 pixels: 0.02 of the still places.
    assert float(motion_loss(centre, still, tracks, (8, 8))) == pytest.approx((8 + 0.02) / 2 / 8, abs=1e-4)
    right = still.clone()
    right[0, 0, 0, 0] = 4.0
    # The length of the way is weighted by 0.1.
    assert float(motion_loss(centre, right, tracks, (8, 8))) == pytest.approx((0.4 + 0.02 + 0.02) / 2 / 8, abs=1e-4)
    tracks[:, :, 2] = 0
    assert float(motion_loss(centre, right, tracks, (8, 8))) == 0


def test_stages_of_standing_still_have_no_ways_and_no_loss_of_them() -> None:
    adapter, x, y = awake(small(fusion="carry")).train(), frames(2), frames(3, seed=1)
    tracks = torch.ones(2, 3, 3, *SIZE)
    layer, terms = adapter.training_forward(y, Batch(x, 3, y, tracks=tracks, still=True))
    assert terms.keys() == {"opacity"}
    share = (layer / (x[:, -1:] - y)).detach()  # the last frame stays where it is
    assert share.min() >= -1e-4
    assert share.max() <= 1


def test_the_control_has_the_size_of_the_set() -> None:
    sizes = [sum(p.numel() for p in small(n, fusion="carry").parameters()) for n in ("deform", "deform-dense")]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adapter": "local", "fusion": "carry"}, "--adapter deform"),
        ({"adapter": "conv", "fusion": "carry"}, "--adapter deform"),
        ({"adapter": "deform-dense", "fusion": "add"}, "--fusion carry"),
        ({"adapter": "deform", "adapter_input": "coarse"}, "all frames"),
        ({"adapter": "deform", "per_cell": 0}, "1 or more"),
    ],
)
def test_what_cannot_carry_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        registry.build(options(**changes), Frames(2, 1, SIZE))


def test_the_control_draws_no_gaussians() -> None:
    from pdr_cli.models.gaussians.base import drawing

    assert drawing(small("deform-dense", fusion="carry")) is None
    assert isinstance(small("deform-dense", fusion="carry"), DeformDense)
    assert drawing(small("deform")) is not None
