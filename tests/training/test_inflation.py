"""Members are inflated to the spread of their errors: the factors by numbers that follow from distributions."""

from __future__ import annotations

import pytest
import torch

from pdr_cli.training.inflation import LARGEST, factors, moments


def test_members_half_as_far_from_the_forecast_as_the_truth_are_inflated_to_twice_their_departure() -> None:
    """The truth departs from the forecast by N(0, 2²) at the first lead time and N(0, 1) at the second, members by N(0, 1)."""
    torch.manual_seed(0)
    shape = (64, 2, 1, 20, 20)
    direct = torch.randn(shape)
    members = direct + torch.randn(8, *shape)
    scale = torch.tensor([2.0, 1.0])[:, None, None, None]
    target = direct + scale * torch.randn(shape)
    found = factors(moments(members, direct, target, torch.ones_like(target)))
    # 25,600 values at a lead time: a standard deviation of theirs is known to 0.5 %.
    assert found.tolist() == pytest.approx([2, 1], rel=0.02)
    inflated = direct + found[:, None, None, None] * (members - direct)
    M = len(members)
    spread, error = inflated.var(0) * (M + 1) / M, (inflated.mean(0) - target) ** 2
    ratio = (spread.mean((0, 2, 3, 4)) / error.mean((0, 2, 3, 4))).sqrt()
    assert ratio.tolist() == pytest.approx([1, 1], abs=1e-4)


def test_what_is_not_known_counts_in_no_factor() -> None:
    direct, members = torch.zeros(2, 1, 1, 2, 2), torch.randn(8, 2, 1, 1, 2, 2)
    target, known = torch.ones_like(direct), torch.ones_like(direct)
    expected = factors(moments(members[:, :1], direct[:1], target[:1], known[:1]))
    target[1], known[1] = 1e3, 0
    assert torch.equal(factors(moments(members, direct, target, known)), expected)
    assert factors(torch.zeros(4, 3, dtype=torch.float64)).tolist() == [1, 1, 1], "nothing is known"


def test_members_without_spread_have_the_largest_factor() -> None:
    direct = torch.zeros(2, 1, 1, 2, 2)
    members = torch.ones(8, 2, 1, 1, 2, 2)  # all of them one beside the forecast
    assert factors(moments(members, direct, direct - 1, torch.ones_like(direct))).tolist() == [LARGEST]
