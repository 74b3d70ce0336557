"""Scores of latent spaces against numbers that follow from the latents."""

from __future__ import annotations

import torch

from pdr_cli.verification.latents import ridge


def test_a_ridge_finds_a_linear_relation() -> None:
    features = torch.randn(500, 4, dtype=torch.float64)
    weights = torch.randn(4, 2, dtype=torch.float64)
    # The penalty is a thousandth of the features' variance.
    torch.testing.assert_close(ridge(features, features @ weights), weights, rtol=0.01, atol=0.01)
