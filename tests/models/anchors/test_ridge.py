"""The forms of the ridge anchor, with coefficients chosen by hand."""

from __future__ import annotations

import pytest
import torch

from pdr_cli.models.anchors.ridge import Inputs, Ridge, around, pooled_features
from pdr_cli.models.interfaces import Context, Frames

FRAMES = Frames(2, 2, (4, 5), out_steps=3)


def context(batch: int, normal: float = 0.0, earlier: torch.Tensor | None = None) -> Context:
    return Context(torch.full((batch, 5, 2, 4, 5), normal), earlier)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_without_forms_it_is_damped_persistence_of_the_departure() -> None:
    ridge = Ridge(FRAMES)
    ridge.share.copy_(torch.tensor([[1.0, 0.5], [0.5, 0.5], [0.0, 0.5]]))
    x = random(3, 2, 2, 4, 5)
    made = ridge(x, 3, context(3, 10.0))
    assert torch.allclose(made[:, 0, 0], x[:, -1, 0])
    assert torch.allclose(made[:, 1, 0], 10 + 0.5 * (x[:, -1, 0] - 10))
    assert (made[:, 2, 0] == 10).all()


def test_local_coefficients_can_move_a_field() -> None:
    frames = Frames(1, 1, (4, 6), periodic=True, out_steps=1)
    ridge = Ridge(frames)
    left = 3  # of the 3 x 3 cells around one, row by row
    ridge.local = torch.zeros(1, 24, 9, 1, dtype=torch.float16)
    ridge.local[:, :, left] = 1
    ridge.weights[:, 1] = 1
    x = random(2, 1, 1, 4, 6)
    made = ridge(x, 1, Context(torch.zeros(2, 2, 1, 4, 6)))
    assert torch.allclose(made[:, 0, 0], x[:, 0, 0].roll(1, -1), atol=1e-6)


def test_beyond_the_border_its_values_are_repeated() -> None:
    field = torch.arange(6.0).view(1, 2, 3, 1, 1)
    cells = around(field, 1, periodic=False)[0, ..., 0, 0]
    assert cells[0, 0].tolist() == [0, 0, 1, 0, 0, 1, 3, 3, 4]
    assert around(field, 1, periodic=True)[0, 0, 0, :, 0, 0].tolist() == [2, 0, 1, 2, 0, 1, 5, 3, 4]
    assert torch.equal(around(field, 0, periodic=False)[:, :, :, 0], field)


def test_patterns_change_by_their_coefficients_and_the_rest_persists() -> None:
    ridge = Ridge(FRAMES)
    pattern = torch.nn.functional.normalize(random(1, 40), dim=1)
    ridge.share.fill_(1)
    ridge.patterns, ridge.scores = pattern.half(), torch.zeros(2, 3)
    ridge.scores[1, 2] = -1.0  # the amplitude of the last frame is taken away at the third lead
    ridge.weights[:, 2] = 1
    x = random(2, 2, 2, 4, 5)
    made = ridge(x, 3, context(2)).flatten(2)
    last = x[:, -1].flatten(1)
    assert torch.allclose(made[:, 0], last, atol=1e-5)
    assert torch.allclose(made[:, 2], last - (last @ pattern.T) @ pattern, atol=5e-3)  # patterns in half precision


def test_pooled_features_are_frames_means_other_channels_and_earlier_cycles() -> None:
    x, earlier = random(1, 2, 2, 4, 5), random(1, 1, 3, 2, 4, 5)
    inputs = Inputs(x, earlier, None, torch.zeros(1, 3, 2, 4, 5), torch.ones(1, 3, 2, 4, 5))
    features = pooled_features(inputs)
    assert len(features) == 3
    assert features[0].shape == (1, 2, 2 + 2 + 2 + 1 + 1, 4, 5)
    own, neighbours, mean, other, before = features[1][0, 0].split([2, 2, 2, 1, 1])
    assert torch.equal(own, x[0, :, 0])
    assert float(neighbours[1, 1, 1]) == pytest.approx(float(x[0, 1, 0, :3, :3].mean()), abs=1e-6)
    assert torch.allclose(mean[0], x[0, 0, 0].mean().expand(4, 5))
    assert torch.equal(other[0], x[0, 1, 1])
    assert torch.equal(before[0], earlier[0, 0, 1, 0])


def test_a_missing_earlier_frame_is_no_departure() -> None:
    ridge = Ridge(Frames(2, 2, (4, 5), out_steps=3, lags=1))
    ridge.pooled = torch.zeros(3, 2, 8)
    ridge.pooled[..., -1] = 1
    ridge.weights[:, 0] = 1
    earlier = torch.full((1, 1, 3, 2, 4, 5), 12.0)
    earlier[:, :, 1] = torch.nan
    made = ridge(torch.full((1, 2, 2, 4, 5), 10.0), 3, context(1, 10.0, earlier))
    assert made[0, :, 0, 0, 0].tolist() == [12, 10, 12]


def test_counts_depart_in_units_of_the_root_of_their_climatology() -> None:
    ridge = Ridge(FRAMES)
    ridge.zero, ridge.spread = torch.zeros(2), torch.full((2, 1, 1), 0.1)  # ten counts are 1
    normal = torch.tensor([0.0, 0.1, 1.6, 40.0]).view(4, 1, 1, 1, 1).expand(4, 5, 2, 4, 5)
    unit = ridge.unit(normal)[:, 0, 0, 0, 0]
    assert torch.allclose(unit, torch.tensor([0.1, 0.1, 0.4, 2.0]))  # the roots of 1 (at least), 1, 16 and 400 counts


def test_its_numbers_are_loaded_with_the_sizes_they_were_saved_with() -> None:
    fitted, loaded = Ridge(FRAMES), Ridge(FRAMES)
    fitted.pooled, fitted.patterns, fitted.scores = random(3, 2, 8), random(5, 40).half(), random(10, 15)
    loaded.load_state_dict(fitted.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(fitted.buffers(), loaded.buffers(), strict=True))
