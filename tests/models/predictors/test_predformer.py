"""PredFormer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pdr_cli.errors import ConfigError
from pdr_cli.models.predictors.predformer import GatedTransformer, PredFormer, over_time, positions
from tests.models.builders import build_predictor


def small(**changes: Any) -> PredFormer:
    torch.manual_seed(0)
    options: dict[str, Any] = {"hid_s": 4, "hid_t": 16, "n_s": 2, "n_t": 2, "mlp_ratio": 2, "drop_path": 0.0}
    built = build_predictor("predformer", 3, 2, **options | changes)
    assert isinstance(built, PredFormer)
    return built


def test_frames_have_the_shape_of_the_input_on_any_grid() -> None:
    for shape in ((2, 3, 2, 9, 10), (1, 5, 2, 8, 4)):
        assert small()(torch.rand(shape)).shape == shape


def test_every_frame_depends_on_every_place_and_frame() -> None:
    x = torch.rand(1, 3, 2, 8, 8, requires_grad=True)
    small().eval()(x)[0, 0, 0, 0, 0].backward()
    assert (x.grad.abs().sum(dim=2) > 0).all()


def test_every_parameter_learns() -> None:
    model = small().train()
    model(torch.rand(2, 3, 2, 8, 8)).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_two_sequences_are_learnt_in_a_few_steps() -> None:
    torch.manual_seed(0)
    model, x, y = small().train(), torch.rand(2, 3, 2, 8, 8), torch.rand(2, 3, 2, 8, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        losses.append(torch.nn.functional.mse_loss(model(x), y))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 2


def test_blocks_go_over_time_then_space_twice_then_time() -> None:
    seen: list[tuple[int, ...]] = []
    model = small(n_t=1).eval()
    for block in model.layers[0]:
        block.register_forward_hook(lambda module, args, out: seen.append(tuple(args[0].shape)))
    model(torch.rand(2, 3, 2, 8, 4))  # 4 x 2 patches
    assert seen == [(16, 3, 16), (6, 8, 16), (6, 8, 16), (16, 3, 16)]


def test_attention_over_time_stays_at_its_place() -> None:
    block, tokens = GatedTransformer(16, 32, 0.0).eval(), torch.rand(1, 3, 5, 16)
    other = tokens.clone()
    other[:, 1, 2] += torch.rand(16)
    moved = (over_time(block, other) - over_time(block, tokens)).abs().amax(dim=(0, 3)) > 1e-6
    assert moved[:, 2].all()
    assert not moved[:, [0, 1, 3, 4]].any()


def test_positions_are_sines_and_cosines() -> None:
    # Width 4: rates 1 and 10000^(-2/4) = 0.01; at place 3 the angles are 3 and 0.03.
    expected = [math.sin(3), math.cos(3), math.sin(0.03), math.cos(0.03)]
    assert positions(5, 4)[3].tolist() == pytest.approx(expected, abs=1e-6)


def test_parameters_are_counted_by_hand() -> None:
    # TaxiBJ: d = 256, inside 1024, patches of 4 x 4 x 2 = 32 values, 2 layers of 4 blocks.
    d, m, p = 256, 1024, 32
    block = 3 * 2 * d + 3 * d * d + (d * d + d) + 2 * (d * m + m) + (m * d + d)
    expected = 8 * block + (p * d + d) + 2 * d + (d * p + p)
    model = small(hid_t=256, n_s=4, mlp_ratio=4)
    assert sum(q.numel() for q in model.parameters()) == expected


def test_heads_must_fit() -> None:
    with pytest.raises(ConfigError, match="hid_t is 12"):
        small(hid_t=12)
