"""Scores of latent spaces against numbers that follow from the latents."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pdr_cli.verification.latents import fair_crps, ridge


def test_the_crps_of_members_from_the_truths_distribution() -> None:
    rng = np.random.default_rng(0)
    members, truth = rng.standard_normal((8, 40_000)), rng.standard_normal(40_000)
    # Of a standard normal E|X - y| - E|X - X'| / 2 is 2/√π - 1/√π, however many members are drawn.
    assert fair_crps(members, truth).mean() == pytest.approx(1 / np.sqrt(np.pi), rel=0.01)


def test_the_crps_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(1)
    members, truth = rng.standard_normal((4, 3)), rng.standard_normal(3)
    pairs = [np.abs(members[i] - members[j]) for i in range(4) for j in range(4) if i != j]
    np.testing.assert_allclose(fair_crps(members, truth), np.abs(members - truth).mean(0) - np.mean(pairs, 0) / 2)


def test_a_ridge_finds_a_linear_relation() -> None:
    features = torch.randn(500, 4, dtype=torch.float64)
    weights = torch.randn(4, 2, dtype=torch.float64)
    # The penalty is a thousandth of the features' variance.
    torch.testing.assert_close(ridge(features, features @ weights), weights, rtol=0.01, atol=0.01)
