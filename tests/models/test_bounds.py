"""Bounds inside the network: the last step, the frames that are fed back, and the gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pdr_cli.models.bounds import Bounds
from pdr_cli.models.fusion import NoFusion
from pdr_cli.models.interfaces import Batch
from pdr_cli.models.layers import rollout
from pdr_cli.models.pdr import PDR
from tests.models.builders import build_predictor

INFINITE = torch.tensor([float("inf"), float("inf")])


def bounds() -> Bounds:
    """Channel 0 from 0 to 1, channel 1 without a lower end up to 5."""
    return Bounds(torch.tensor([0.0, -float("inf")]), torch.tensor([1.0, 5.0]))


class Falling(nn.Module):
    """Each frame is 1 less than the last one before it, from pass to pass."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, -1:] - 1


def test_each_channel_has_its_own_ends() -> None:
    frames = torch.tensor([-2.0, 0.5, 9.0]).repeat(1, 2, 1, 1)
    expected = torch.tensor([[0, 0.5, 1], [-2, 0.5, 5]])[None, :, None]
    assert torch.equal(bounds()(frames), expected)


def test_the_pixels_of_folded_frames_have_the_ends_of_their_channel() -> None:
    frames = torch.randn(1, 2, 4, 4) * 5
    folded = bounds()(nn.functional.pixel_unshuffle(frames, 2))
    assert torch.equal(nn.functional.pixel_shuffle(folded, 2), bounds()(frames))


def test_only_values_within_their_bounds_have_a_gradient() -> None:
    x = torch.tensor([-2.0, 0.0, 0.5, 9.0]).repeat(1, 2, 1, 1).requires_grad_()
    bounds()(x).sum().backward()
    assert x.grad is not None
    assert x.grad[0, :, 0].tolist() == [[0, 1, 1, 0], [1, 1, 1, 0]]


def test_the_coarse_forecast_has_a_gradient_wherever_it_lies() -> None:
    x = torch.full((1, 1, 1, 1, 1), -5.0, requires_grad=True)
    network = PDR(Falling(), None, NoFusion(1))
    network.bound(torch.zeros(1), torch.ones(1))
    made = network(Batch(x, 1, x.detach()), "train")
    (made.fused + made.coarse).sum().backward()
    assert x.grad is not None
    assert x.grad.item() == 1


def test_a_bounded_forecast_is_within_and_its_weights_have_no_bounds() -> None:
    x = torch.zeros(1, 2, 2, 3, 3)
    free, bounded = (PDR(Falling(), None, NoFusion(2)).eval() for _ in range(2))
    bounded.bound(torch.tensor([0.0, -1.5]), INFINITE)
    made = bounded(Batch(x, 2))
    assert made.fused[0, :, :, 0, 0].tolist() == [[0, -1], [0, -1.5]]
    assert made.coarse.min() < -1  # with a gradient wherever it lies
    assert bounded.state_dict().keys() == free.state_dict().keys()


def test_bounded_frames_are_fed_back() -> None:
    def floor(frames: Tensor) -> Tensor:
        return frames.clamp(min=-1)

    def one_pass(seen: Tensor, first: int) -> Tensor:
        return Falling()(seen)

    x = torch.zeros(1, 1, 1, 1, 1)
    assert rollout(one_pass, x, 4).flatten().tolist() == [-1, -2, -3, -4]
    assert rollout(one_pass, x, 4, bounded=floor).flatten().tolist() == [-1, -2, -2, -2]


@pytest.mark.parametrize("name", ["predrnn", "wast", "dmvfn"])
def test_predictors_that_unroll_by_themselves_feed_back_bounded_frames(name: str) -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 2, 16, 16)
    network = PDR(build_predictor(name, 3, 2), None, NoFusion(2)).eval()
    free = network(Batch(x, 6)).fused
    network.bound(free.mean().expand(2), INFINITE)
    bounded = network(Batch(x, 6))
    assert (bounded.fused >= free.mean()).all()
    first = 3 if name == "wast" else 1  # frames of a pass
    assert torch.equal(bounded.coarse[:, :first], free[:, :first])
    assert not torch.equal(bounded.coarse[:, first:], free[:, first:])
