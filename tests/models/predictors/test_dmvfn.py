"""DMVFN: flows, what chooses their blocks, and its loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pdr_cli.errors import ConfigError
from pdr_cli.models.anchors.simple import Persistence
from pdr_cli.models.fusion import NoFusion
from pdr_cli.models.interfaces import Batch, Frames
from pdr_cli.models.pdr import PDR
from pdr_cli.models.predictors.dmvfn import DMVFN, mix, probabilities, pyramid_distance, warp
from tests.models.builders import build_predictor, training_forward

ANCHORS = {"none": None, "persistence": Persistence(Frames(4, 1, (8, 8)))}


def small(channels: int = 1, **changes: Any) -> DMVFN:
    torch.manual_seed(0)
    options: dict[str, Any] = {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2, "mlp_ratio": 2, "drop_path": 0.0}
    built = build_predictor("dmvfn", 3, channels, **options | changes)
    assert isinstance(built, DMVFN)
    return built


def still(model: DMVFN) -> DMVFN:
    """The same, with all flows zero and shares even."""
    for block in model.blocks:
        torch.nn.init.zeros_(block.out.weight)
        torch.nn.init.zeros_(block.out.bias)
    return model


def always(model: DMVFN, taken: list[int]) -> DMVFN:
    """The same, with only these blocks taken, surely."""
    torch.nn.init.zeros_(model.routing.rate.weight)
    bias = torch.full((len(model.blocks),), -30.0)
    bias[taken] = 0
    model.routing.rate.bias.data = bias
    return model


def moving(steps: int) -> torch.Tensor:
    """[2, steps, 1, 16, 16]: a spot that goes right, and one that goes down, by a pixel in each step."""
    place, t = torch.arange(16.0), torch.arange(steps)[:, None]
    across, standing = (torch.exp(-((place - at) ** 2) / 4) for at in (4 + t, 7 + 0 * t))
    right = standing[:, :, None] * across[:, None, :]
    return torch.stack([right, right.mT])[:, :, None]


@pytest.mark.parametrize("shape", [(2, 3, 1, 9, 10), (1, 2, 3, 16, 20), (1, 4, 2, 5, 40)])
def test_any_horizon_starts_alike(shape: tuple[int, ...]) -> None:
    model, x = small(shape[2]).eval(), torch.rand(shape)
    with torch.no_grad():
        assert model(x).shape == x.shape, "T frames by default"
        longest = model(x, 5)
        assert longest.shape == (shape[0], 5, *shape[2:])
        assert torch.allclose(model(x, 1), longest[:, :1], atol=1e-5)
        again = torch.cat([x[:, -1:], longest[:, :1]], dim=1)
        assert shape[-1] % 16 or torch.allclose(model(again, 1), longest[:, 1:2], atol=1e-5), "the frame is fed back"


def test_two_frames_are_needed() -> None:
    with pytest.raises(ConfigError, match="in_steps is 1"):
        build_predictor("dmvfn", 1, 1, hid_s=4, hid_t=8, n_s=2, n_t=2, mlp_ratio=2, drop_path=0)


def test_without_flow_a_static_scene_stays() -> None:
    model, frame = still(small(2)).eval(), torch.rand(2, 1, 2, 9, 10)
    with torch.no_grad():
        assert torch.allclose(model(frame.expand(-1, 3, -1, -1, -1), 4), frame.expand(-1, 4, -1, -1, -1), atol=1e-5)


def test_without_flow_two_frames_are_averaged() -> None:
    x = torch.rand(1, 3, 1, 16, 16)
    with torch.no_grad():
        first, second = still(small()).eval()(x, 2).unbind(1)
    assert torch.allclose(first, (x[:, 1] + x[:, 2]) / 2, atol=1e-5)
    assert torch.allclose(second, (x[:, 2] + first) / 2, atol=1e-5)


def test_warp_looks_along_the_flow() -> None:
    frame = torch.arange(12.0).view(1, 1, 3, 4)
    right, half_down = torch.zeros(2, 1, 2, 3, 4)
    right[:, 0], half_down[:, 1] = 1, 0.5
    assert torch.allclose(warp(frame, right)[0, 0, 0], torch.tensor([1.0, 2, 3, 3]), atol=1e-5), "the edge goes on"
    # Rows are 4 apart: half way to the next one, and the last as it is.
    assert torch.allclose(warp(frame, half_down)[0, 0, :, 0], torch.tensor([2.0, 6, 8]), atol=1e-5)


def test_frames_are_mixed_by_the_sigmoid_of_the_last_channel() -> None:
    voxels = torch.zeros(1, 5, 1, 2)
    voxels[:, 4] = torch.tensor([0.0, 1.0986123])  # ln 3: 3/4
    first, second = torch.full((1, 1, 1, 2), 8.0), torch.zeros(1, 1, 1, 2)
    assert mix((first, second), voxels).flatten().tolist() == pytest.approx([4, 6])


def test_both_frames_have_flows_of_their_own() -> None:
    # One block taken, whose bias alone acts: the frame before moves by (1, 0), the last by (0, 1), in equal shares.
    model, x = always(still(small()), [3]).eval(), torch.rand(1, 2, 1, 16, 16)
    model.blocks[3].out.bias.data = torch.tensor([1.0, 0, 0, 1, 0])
    with torch.no_grad():
        made = model(x, 1)[:, 0]
    expected = (x[:, 0, :, :-1, 1:] + x[:, 1, :, 1:, :-1]) / 2
    assert torch.allclose(made[..., :-1, :-1], expected, atol=1e-4)


def test_blocks_half_of_which_are_taken() -> None:
    # Shares of 1/2 each: 4 * 0.5 / 4. Shares 0.9 and three of 0.1, 1.2 in all: 2 * 0.9 / 1.2 is cut to 1, 2 * 0.1 / 1.2.
    rates = torch.logit(torch.tensor([[0.5] * 4, [0.9, 0.1, 0.1, 0.1]]))
    expected = torch.tensor([[0.5] * 4, [1, 1 / 6, 1 / 6, 1 / 6]])
    assert torch.allclose(probabilities(rates), expected, atol=1e-6)


def test_blocks_are_drawn_in_training_and_chosen_in_evaluation() -> None:
    routing = always(small(), []).routing
    shares = torch.tensor([0.8, 0.5, 0.2, 0.1, 0.1, 0.7])  # 2.4 in all; half of 6 blocks are 3, so times 3 / 2.4
    routing.rate.bias.data = torch.logit(shares)
    frames, chance = torch.rand(3000, 2, 4, 4), torch.tensor([1, 0.625, 0.25, 0.125, 0.125, 0.875])
    with torch.no_grad():
        drawn = routing.train()(frames)
        assert set(drawn.unique().tolist()) == {0, 1}
        assert torch.allclose(drawn.mean(dim=0), chance, atol=0.04)  # a standard deviation is below 0.0092
        assert not torch.equal(routing(frames), drawn)
        chosen = routing.eval()(frames)
        assert torch.equal(chosen, torch.tensor([1.0, 1, 0, 0, 0, 1]).expand(3000, 6))


def test_gradient_of_a_draw_is_that_of_its_chance() -> None:
    rates = torch.randn(1, 6, requires_grad=True)
    routing = small().routing.train()
    routing.look = torch.nn.Identity()
    routing.rate = torch.nn.Identity()
    weights = torch.arange(6.0)
    (drawn,) = torch.autograd.grad((routing(rates[..., None, None]) * weights).sum(), rates)
    (meant,) = torch.autograd.grad((probabilities(rates) * weights).sum(), rates)
    assert torch.allclose(drawn, meant)
    assert meant.any()


def test_blocks_that_are_not_taken_are_without_effect() -> None:
    model, x = always(small(), [0, 4]).eval(), torch.rand(1, 3, 1, 16, 16)
    with torch.no_grad():
        before = model(x, 2)
        for i, block in enumerate(model.blocks):
            block.out.bias.data += 1
            assert torch.equal(model(x, 2), before) is (i not in (0, 4)), f"block {i}"
            block.out.bias.data -= 1
            before = model(x, 2)


def test_training_makes_a_frame_of_each_block_as_if_it_was_taken() -> None:
    model = always(still(small()), [5]).train()
    model.blocks[1].out.bias.data[4] = 30  # all of the frame before
    before, last = torch.rand(2, 1, 1, 16, 16)
    with torch.no_grad():
        made = model.advance(before, last)
    assert len(made) == 6
    for i, frames in enumerate(made):
        assert torch.allclose(frames, before if i == 1 else (before + last) / 2, atol=1e-5), f"block {i}"
    assert len(model.eval().advance(before, last)) == 1


def test_coarse_blocks_see_flows_in_their_own_pixels() -> None:
    block, seen = small().blocks[0], []
    block.enter.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    voxels = torch.tensor([4.0, 8, 12, 16, 3])[None, :, None, None].expand(-1, -1, 16, 16)
    block(torch.ones(1, 4, 16, 16), voxels)
    assert seen[0].shape == (1, 9, 4, 4)
    assert seen[0][0, :, 0, 0].tolist() == pytest.approx([1, 1, 1, 1, 1, 2, 3, 4, 3])


def test_every_parameter_learns() -> None:
    model = small(2, hid_t=32).train()  # in narrower blocks all values may have one sign, so that a PReLU has no slope
    frames = torch.rand(4, 7, 2, 16, 16)
    forecast, terms = training_forward(model, frames[:, :4], frames[:, 4:], 0.5)
    (torch.nn.functional.mse_loss(forecast, frames[:, 4:]) + sum(terms.values())).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_pyramid_loss_does_not_see_what_is_unknown() -> None:
    model, frames = small(2).train(), torch.rand(2, 5, 2, 16, 16)
    known = torch.ones_like(frames, dtype=torch.bool)
    known[..., :5] = False
    losses = []
    for columns in (slice(0), slice(5), slice(6)):
        other = frames.clone()
        other[:, -1, :, :, columns] += 1  # of the last frame, which is compared but not fed in
        torch.manual_seed(0)  # blocks are taken by chance
        _, terms = training_forward(model, frames[:, :3], other[:, 3:], 0.5, known=known)
        losses.append(float(terms["pyramid_loss"].detach()))
    assert losses[0] == losses[1] != losses[2]


def test_motion_is_learnt() -> None:
    model, frames = small(hid_t=16).train(), moving(6)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def error() -> float:
        with torch.no_grad():
            return float(torch.nn.functional.mse_loss(model.eval()(frames[:, :3], 3), frames[:, 3:]))

    before = error()
    for _ in range(40):
        _, terms = training_forward(model.train(), frames[:, :3], frames[:, 3:], 0.5)
        optimizer.zero_grad()
        terms["pyramid_loss"].backward()
        optimizer.step()
    assert error() < before / 2


def test_training_shows_true_frames() -> None:
    model = small().train()
    frames = torch.rand(1, 7, 1, 16, 16)
    other = frames.clone()
    other[:, 3] += 1  # the first target

    def taught(true: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        with torch.no_grad():
            return training_forward(model, true[:, :3], true[:, 3:], 1.0)[0]

    changed = (taught(frames) - taught(other)).abs().amax(dim=(0, 2, 3, 4)) > 1e-3
    assert changed.tolist() == [False, True, True, False]


def test_later_blocks_weigh_more_in_the_loss() -> None:
    # Frames of zeros, made as 1, 2 and 4 everywhere: of their pyramids only what is left is not zero.
    # 0.8² * 1 + 0.8 * 2 + 4 = 6.24, for each of the 3 frames with two before them in each of 2 sequences.
    model, seen = small(), []

    def advance(before: torch.Tensor, last: torch.Tensor) -> list[torch.Tensor]:
        seen.append(before.shape)
        return [torch.full_like(last, value) for value in (1.0, 2.0, 4.0)]

    model.advance = advance
    forecast, terms = training_forward(model, torch.zeros(2, 3, 1, 16, 9), torch.zeros(2, 2, 1, 16, 9), 0.0)
    assert float(terms["pyramid_loss"]) == pytest.approx(6.24)
    assert seen == [(6, 1, 16, 16)]
    assert forecast.shape == (2, 2, 1, 16, 9)
    assert (forecast == 4).all()


def test_pyramid_distance_of_two_pixels() -> None:
    # a and b in a row: smoothed at the first (6a + 4b)/10 = s, which is all of the smaller frame, and s again for both.
    # |a - s| = 0.4 |a - b| and |b - s| = 0.6 |a - b|, on average half of |a - b|; nothing on the next levels; |s| is left.
    a, b = 1.0, -1.0
    found = pyramid_distance(torch.tensor([[[[a, b]]]]), torch.zeros(1, 1, 1, 2))
    assert float(found) == pytest.approx(0.5 * 2 + 0.2)


def test_pyramid_distance_of_a_fine_pattern_is_on_the_first_level() -> None:
    # Columns of ±1: smoothed away within, (1 - 4 + 6 - 4 + 1)/16 = 0; only the edges of 64 columns leave something.
    sign = torch.tensor([1.0, -1.0]).repeat(32).expand(1, 1, 64, 64)
    assert float(pyramid_distance(sign, torch.zeros_like(sign))) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("anchor", ["none", "persistence"])
def test_moved_frames_need_no_anchor(anchor: str) -> None:
    frame = torch.rand(1, 1, 1, 16, 16)
    model = PDR(still(small()), None, NoFusion(1), ANCHORS[anchor]).eval()
    with torch.no_grad():
        assert torch.allclose(model(Batch(frame.expand(-1, 3, -1, -1, -1), 2)).fused[:, 1:], frame, atol=1e-5)


def test_sequences_of_a_batch_do_not_mix() -> None:
    model, x = small().eval(), torch.rand(2, 3, 1, 16, 16)
    with torch.no_grad():
        assert torch.allclose(model(x, 3)[1:], model(x[1:], 3), atol=1e-5)


def test_parameters_are_as_many_as_published() -> None:
    # Of OpenSTL for TaxiBJ: blocks of 160, 80 and 44 channels, three of each.
    with torch.device("meta"):
        model = small(2, hid_s=32, hid_t=160, n_t=3)
    assert sum(p.numel() for p in model.parameters()) == 3_541_426
