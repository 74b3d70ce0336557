"""WaST, its wavelets and its frequency loss."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pdr_cli.errors import DataError
from pdr_cli.models.anchors.simple import Persistence
from pdr_cli.models.fusion import NoFusion
from pdr_cli.models.interfaces import Batch, Frames
from pdr_cli.models.layers import drop_branch
from pdr_cli.models.pdr import PDR
from pdr_cli.models.predictors import wast
from pdr_cli.models.predictors.wast import WaST, bands, frequency_loss, from_bands
from tests.models.builders import build_predictor, training_batch, training_forward
from tests.models.learning import losses_of

ANCHORS = {"none": None, "persistence": Persistence(Frames(4, 1, (8, 8)))}


def small(in_steps: int = 4, **changes: Any) -> WaST:
    torch.manual_seed(0)
    options: dict[str, Any] = {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 4, "mlp_ratio": 2, "drop_path": 0.0}
    built = build_predictor("wast", in_steps, 2, **options | changes)
    assert isinstance(built, WaST)
    return built


@pytest.mark.parametrize("shape", [(2, 4, 2, 8, 6), (1, 3, 2, 9, 7), (2, 1, 2, 5, 4)])
def test_frames_have_the_shape_of_the_input(shape: tuple[int, ...]) -> None:
    assert small(shape[1])(torch.rand(shape)).shape == shape


def test_other_numbers_of_frames_are_refused() -> None:
    with pytest.raises(DataError, match="has 5 frames; expected 4"):
        small()(torch.rand(1, 5, 2, 8, 8))


def test_any_horizon_by_feeding_back() -> None:
    model = PDR(small(3).eval(), None, NoFusion(1)).eval()
    x = torch.rand(2, 3, 2, 8, 8)
    with torch.no_grad():
        longest = model(Batch(x, 7)).fused
        assert longest.shape == (2, 7, 2, 8, 8)
        assert torch.allclose(model(Batch(x, 2)).fused, longest[:, :2], atol=1e-5)
        assert torch.allclose(model(Batch(longest[:, :3], 3)).fused, longest[:, 3:6], atol=1e-5)


def test_every_frame_counts_in_every_frame() -> None:
    x = torch.rand(1, 3, 2, 8, 8, requires_grad=True)
    for t in range(3):
        (gradient,) = torch.autograd.grad(small(3).eval()(x)[0, t].square().sum(), x)
        assert (gradient.abs().amax(dim=(0, 2, 3, 4)) > 0).all()


def test_every_parameter_learns() -> None:
    # In evaluation, because a bias before a norm over the batch is without effect.
    model = small().eval()
    model(torch.rand(2, 4, 2, 8, 8)).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_two_sequences_are_learnt_in_a_few_steps() -> None:
    model = small().train()
    x, y = torch.rand(2, 4, 2, 8, 8), torch.rand(2, 4, 2, 8, 8)
    losses = losses_of(model, x, y, steps=25, rate=1e-2, progress=0.5)
    assert losses[-1] < losses[0] / 2


def test_wavelets_of_two_by_two_by_two_are_its_sums_and_differences() -> None:
    # Values 0 to 7 in the order time, row, column: their sum 28 over √2³; between columns 1, rows 2 and times 4, for
    # four pairs each, the earlier minus the later. All products of differences vanish, because the values are linear.
    x = torch.arange(8.0).view(1, 1, 2, 2, 2)
    (ll, ll_t), (lh, lh_t), (hl, hl_t), (hh, hh_t) = bands(x)
    found = [float(band) * 2 * math.sqrt(2) for band in (ll, ll_t, lh, lh_t, hl, hl_t, hh, hh_t)]
    assert found == pytest.approx([28, -16, -4, 0, -8, 0, 0, 0], abs=1e-5)


def test_wavelets_keep_the_energy_and_come_back() -> None:
    x = torch.rand(2, 3, 4, 6, 10, dtype=torch.float64)
    parts = bands(x)
    assert all(part.shape == (2, 3, 2, 3, 5) for pair in parts for part in pair)
    energy = sum(part.square().sum() for pair in parts for part in pair)
    assert float(energy) == pytest.approx(float(x.square().sum()), rel=1e-12)
    assert torch.allclose(from_bands(parts), x, atol=1e-12)


def stripes(amplitude: float, rows: bool = False) -> torch.Tensor:
    """[1, 1, 1, 16, 16]: ±amplitude in turn for every two columns, with `rows` for every two rows as well."""
    sign = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(4)
    return amplitude * (sign[:, None] * sign if rows else sign.expand(16, 16))[None, None, None]


def test_frequency_loss_of_one_frequency() -> None:
    # The averages of 2 x 2 pixels, over 2, are ±2a on 8 x 8; their spectrum has one entry, 64 * 2a / 8 = 16a, of weight 1
    # because it is the largest: (16a)² over 64 entries.
    assert float(frequency_loss(stripes(0.5), torch.zeros(1, 1, 1, 16, 16))) == pytest.approx(256 * 0.25 / 64, rel=1e-4)


def test_frequency_loss_weighs_by_the_logarithm_of_the_error() -> None:
    # Two entries, 16a and 16b; the smaller one has the weight log(1 + 16b) / log(1 + 16a).
    a, b = 0.5, 0.125
    weight = math.log(1 + 16 * b) / math.log(1 + 16 * a)
    found = frequency_loss(stripes(a) + stripes(b, rows=True), torch.zeros(1, 1, 1, 16, 16))
    assert float(found) == pytest.approx(256 * (a**2 + weight * b**2) / 64, rel=1e-4)


def test_frequency_loss_overlooks_low_frequencies() -> None:
    target = torch.rand(1, 2, 2, 16, 16)
    assert float(frequency_loss(target + 3, target)) == pytest.approx(0, abs=1e-8)
    assert float(frequency_loss(target, target)) == 0
    # 64 x 32: a radius of 6.4 around the corners at (0 or 63, 0 or 31).
    kept = wast.high_frequencies(64, 32)
    assert not any(kept[at] for at in ((0, 0), (0, 6), (4, 4), (63, 31), (57, 0), (0, 25), (59, 27)))
    assert all(kept[at] for at in ((0, 7), (5, 5), (4, 5), (56, 0), (0, 24), (32, 16)))


def test_frequency_loss_is_minimised_beside_the_frames() -> None:
    model = small().train()
    forecast, terms = training_forward(model, torch.rand(2, 4, 2, 8, 8), target := torch.rand(2, 5, 2, 8, 8), 0.5)
    assert forecast.shape == target.shape
    expected = 0.001 * float(frequency_loss(forecast.detach(), target))
    assert float(terms["frequency_loss"].detach()) == pytest.approx(expected)
    terms["frequency_loss"].backward()
    assert model.readout[2].weight.grad.any()


def test_frequency_loss_does_not_see_what_is_unknown() -> None:
    model, x, target = small().train(), torch.rand(2, 4, 2, 8, 8), torch.rand(2, 5, 2, 8, 8)
    known = torch.ones(2, 9, 2, 8, 8, dtype=torch.bool)
    known[..., :3] = False
    forecast, terms = training_forward(model, x, target, 0.5, known=known)
    (gradient,) = torch.autograd.grad(terms["frequency_loss"], forecast)
    assert not gradient[..., :3].any()
    assert gradient[..., 3:].any()


@pytest.mark.parametrize("anchor", ["none", "persistence"])
def test_training_makes_the_same_forecast(anchor: str) -> None:
    model = PDR(small(), None, NoFusion(1), ANCHORS[anchor])
    model.train()
    model.predictor.eval()  # norms as in a forecast
    x, y = torch.rand(2, 4, 2, 8, 8), torch.rand(2, 6, 2, 8, 8)
    assert torch.allclose(model(training_batch(x, y, 0.5), "train").fused, model(Batch(x, 6)).fused, atol=1e-6)


def test_stochastic_depth_grows_to_the_last_block() -> None:
    model = small(drop_path=0.25)  # 1, 4 and 1 blocks
    drops = [block.drop_path for part in (model.before, model.inner, model.after) for block in part]
    assert drops == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.25])


def test_stochastic_depth_leaves_a_branch_out_or_scales_it() -> None:
    torch.manual_seed(0)
    branch = torch.ones(4000, 1, 1, 1)
    dropped = drop_branch(branch, 0.25, training=True)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert float(dropped.mean()) == pytest.approx(1, abs=0.04)  # a standard deviation is 0.009
    assert drop_branch(branch, 0.25, training=False) is branch


def test_parameters_are_as_many_as_published() -> None:
    with torch.device("meta"):
        model = small(hid_s=20, n_t=8, mlp_ratio=4, drop_path=0.25)
    assert sum(p.numel() for p in model.parameters()) == 5_132_822
