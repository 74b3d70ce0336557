"""What is TAU's own; tests/models/test_released.py holds it against the public toolbox."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pdr_cli.models.predictors.translators.large_kernel import Attention

Build = Callable[..., Any]


def test_mlp_ratio_sets_the_width_of_the_mlp(small_tau: Build) -> None:
    block = small_tau(mlp_ratio=3).hid.enc[0].block
    assert block.mlp.fc1.out_channels == 3 * 12  # d = T·hid_S = 3·4


def test_attention_keeps_pytorch_init_and_the_mlp_does_not(small_tau: Build) -> None:
    torch.manual_seed(0)
    block = small_tau(in_steps=16, hid_t=64, mlp_ratio=8).hid.enc[0].block
    d = 64
    # Kaiming-uniform with a = √5 is uniform in ±1/√fan_in, std 1/√(3·fan_in); fan-out normal is √(2/out).
    assert isinstance(block.attn, Attention)
    assert block.attn.proj_1.weight.std().item() == pytest.approx((3 * d) ** -0.5, rel=0.1)
    assert block.mlp.fc1.weight.std().item() == pytest.approx((2 / (8 * d)) ** 0.5, rel=0.1)
    assert block.mlp.fc1.bias.abs().max() == 0
    assert torch.all(block.layer_scale_1 == 1e-2)
