"""Noise depends on a window's seed and the number of the draw alone."""

import torch

from pdr_cli.models import noise


def test_a_window_draws_the_same_in_any_batch() -> None:
    seeds = torch.tensor([3, -5, 2**62])
    together = noise.normal(seeds, 1, 4, 2)
    alone = torch.cat([noise.normal(seed[None], 1, 4, 2) for seed in seeds])
    assert torch.equal(together, alone)
    assert together.shape == (3, 4, 2)
    assert together.dtype == torch.float32


def test_draws_and_seeds_differ() -> None:
    seeds = torch.arange(1000)
    first, second = noise.normal(seeds, 0, 5), noise.normal(seeds, 1, 5)
    assert len({*first.flatten().tolist(), *second.flatten().tolist()}) > 9_990
    assert abs(float(first.mean())) < 0.05
    assert abs(float(first.std()) - 1) < 0.05
    assert abs(float((first * second).mean())) < 0.05
