"""Longitudes that go round: the network must not know where the map was cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pdr_cli.models.predictors.simvp import RoundConv2d, go_round
from tests.models.builders import build_predictor

Build = Callable[..., Any]
OPTIONS: dict[str, Any] = {"hid_s": 4, "hid_t": 32, "n_s": 4, "n_t": 3, "mlp_ratio": 2, "drop_path": 0.0}


def build(name: str, periodic: bool, **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_predictor(name, 4, 2, **OPTIONS | changes, size=(12, 24), periodic=periodic).double().eval()


@pytest.mark.parametrize("name", ["tau", "simvp", "simvp2", "convnext", "hornet", "moganet", "van", "convmixer"])
def test_a_map_cut_elsewhere_gives_the_same_forecast_cut_there(name: str) -> None:
    model = build(name, True)
    x = torch.rand(1, 4, 2, 12, 24, dtype=torch.float64)
    whole_cells = 2 * 4  # n_s = 4 halves the grid twice
    # Sums of a norm go in another order: equal up to the rounding of float64.
    assert torch.allclose(model(x.roll(whole_cells, -1)), model(x).roll(whole_cells, -1), rtol=0, atol=1e-12)
    assert not torch.allclose(model(x.roll(whole_cells, -2)), model(x).roll(whole_cells, -2), atol=1e-6), "no poles"


def test_without_it_the_cut_shows() -> None:
    x = torch.rand(1, 4, 2, 12, 24, dtype=torch.float64)
    model = build("tau", False)
    assert not torch.allclose(model(x.roll(8, -1)), model(x).roll(8, -1), atol=1e-6)


@pytest.mark.parametrize("name", ["tau", "simvp"])
def test_names_and_first_weights_are_the_same(name: str) -> None:
    plain, around = build(name, False).state_dict(), build(name, True).state_dict()
    assert list(plain) == list(around)
    assert all(torch.equal(plain[key], around[key]) for key in plain)


def test_a_wider_kernel_than_the_frame_goes_round_more_than_once() -> None:
    conv = nn.Conv2d(1, 1, (1, 7), padding=(0, 9), dilation=3, bias=False)
    nn.init.ones_(conv.weight)
    frame = torch.tensor([1.0, 10.0, 100.0, 1000.0]).view(1, 1, 1, 4)
    # Columns x - 9, x - 6, ... x + 9 modulo 4 are x + 3, x + 2, x + 1, x, x + 3, x + 2, x + 1: all twice but x itself.
    out = RoundConv2d.of(conv)(frame).flatten()
    assert out.tolist() == [2221.0, 2212.0, 2122.0, 1222.0]


def test_an_odd_width_is_grown_by_its_own_beginning() -> None:
    model = build("tau", True, n_s=2)
    x = torch.rand(1, 4, 2, 12, 23, dtype=torch.float64)
    grown = torch.cat([x, x[..., :1]], dim=-1)
    assert torch.equal(model(x), model(grown)[..., :23])


def test_convolutions_that_pad_nothing_are_left_alone() -> None:
    module = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 3, padding=1))
    go_round(module)
    assert [type(layer) for layer in module] == [nn.Conv2d, RoundConv2d]
