"""Deformable: Gaussians with an identity, which paint the change of a frame; and the control whose Gaussians stand still."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pdr_cli.models import registry
from pdr_cli.models.interfaces import Batch, Frames
from pdr_cli.models.predictors.deformable import FASTEST, ChangePredictor
from tests.models.builders import build_predictor, options, training_forward
from tests.models.learning import losses_of

NAMES = ("deformable", "deformable-still")
every = pytest.mark.parametrize("name", NAMES)


def small(name: str, channels: int = 1, **changes: Any) -> ChangePredictor:
    torch.manual_seed(0)
    built = build_predictor(name, 3, channels, **{"hid_t": 8, "n_s": 4, "n_t": 2} | changes)
    assert isinstance(built, ChangePredictor)
    torch.nn.init.normal_(built.head.weight, std=0.2)
    return built


def frames(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_the_control_has_the_same_size() -> None:
    sizes = [sum(p.numel() for p in small(name, hid_t=32, n_t=4).parameters()) for name in NAMES]
    assert max(sizes) <= 1.01 * min(sizes)


@every
def test_the_forecast_begins_with_the_last_observed_frame(name: str) -> None:
    model, x = small(name, 2), frames(2, 3, 2, 17, 22)
    with torch.no_grad():
        torch.testing.assert_close(model.at(x, [0.0])[:, 0], x[:, -1], atol=1e-5, rtol=0)
        assert (model.at(x, [1.0])[:, 0] - x[:, -1]).abs().max() > 0.05


@every
def test_any_horizon_begins_as_a_shorter_one_and_any_time_can_be_forecast(name: str) -> None:
    model, x = small(name), frames(2, 3, 1, 17, 22)
    with torch.no_grad():
        assert model(x).shape == x.shape, "T frames by default"
        torch.testing.assert_close(model(x, 9)[:, :2], model(x, 2), atol=1e-6, rtol=0)
        between = model.at(x, [1.0, 1.5, 2.0])
        torch.testing.assert_close(between[:, ::2], model(x, 2), atol=1e-6, rtol=0)


@every
def test_the_change_is_added_to_the_frames_of_an_anchor(name: str) -> None:
    torch.manual_seed(0)
    table = options(backbone=name, anchor="flow", fusion="none", hid_t=8, n_s=4, n_t=2)
    network, x = registry.build(table, Frames(3, 1, (17, 22))), frames(1, 3, 1, 17, 22)
    with torch.no_grad():
        anchored, flow = network(Batch(x, 4)).fused, network(Batch(x, 4), "anchor").fused
        torch.testing.assert_close(anchored - flow, network.predictor(x, 4) - x[:, -1:], atol=1e-5, rtol=0)
        half = network(Batch(x, 2, times=(0.5,))).fused
    assert half.shape == (1, 1, 1, 17, 22)


def test_gaussians_move_in_straight_lines_no_faster_than_their_limit() -> None:
    """One Gaussian of 5 x 9 cells of 4 pixels, told to be faster than any may be: what appears has left where it was."""
    model = small("deformable", hid_t=8)
    raw = torch.zeros(1, 45, 5)
    numbers = torch.zeros(1, 45, 6)  # velocity 2, turn, amplitude and its growth 3
    numbers[0, 20, 0], numbers[0, 20, 3] = 100.0, 1.0  # third row, third column: its middle is at (9.5, 9.5)
    shapes = type(shape := model.cells.shapes(raw, (5, 9)))(*(t[:, None] for t in shape))
    with torch.no_grad():
        drawn = model.change(shapes, numbers, [3.0, 4.0], (20, 36))[0, :, 0].clamp(min=0)
    columns = (drawn.sum(dim=1) * torch.arange(36.0)).sum(dim=-1) / drawn.sum(dim=(1, 2))
    rows = (drawn.sum(dim=2) * torch.arange(20.0)).sum(dim=-1) / drawn.sum(dim=(1, 2))
    # What was there at the start still takes a little from the left flank after three frames.
    torch.testing.assert_close(columns, 9.5 + FASTEST * torch.tensor([3.0, 4.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(rows, torch.tensor([9.5, 9.5]), atol=0.01, rtol=0)


@every
@pytest.mark.parametrize("shape", [(2, 3, 3, 17, 30), (1, 3, 1, 40, 21)])
def test_any_grid_has_finite_gradients(name: str, shape: tuple[int, ...]) -> None:
    model, x = small(name, shape[2]), frames(*shape)
    forecast, terms = training_forward(model, x, x.flip(1)[:, :2])
    assert forecast.shape == (shape[0], 2, *shape[2:])
    assert not terms
    (forecast - x.flip(1)[:, :2]).square().mean().backward()
    gradients = {n: p.grad for n, p in model.named_parameters()}
    assert all(g is not None and g.isfinite().all() and g.any() for g in gradients.values()), gradients


@every
def test_it_learns(name: str) -> None:
    x = frames(2, 3, 1, 16, 16)
    y = (x[:, -1:] + torch.linspace(0.1, 0.4, 4)[:, None, None, None]).expand(-1, 4, -1, -1, -1)
    losses = losses_of(small(name), x, y, steps=25, rate=1e-2, progress=0.0)
    assert losses[-1] < 0.5 * losses[0]
