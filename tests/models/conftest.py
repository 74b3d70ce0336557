"""Builders shared by the model tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from pdr_cli.models.gaussians.predgs import PredGS
from pdr_cli.models.interfaces import Frames
from tests.models.builders import build_predictor, options


def build_small_tau(in_steps: int = 3, channels: int = 2, **changes: Any) -> nn.Module:
    sizes: dict[str, Any] = {"hid_s": 4, "hid_t": 16, "n_s": 2, "n_t": 2, "mlp_ratio": 2, "drop_path": 0.0}
    return build_predictor("tau", in_steps, channels, **sizes | changes)


def build_small_predgs(channels: int = 2, size: tuple[int, int] = (12, 20), **changes: Any) -> PredGS:
    return PredGS(Frames(3, channels, size), options(**changes))


@pytest.fixture
def small_tau() -> Callable[..., nn.Module]:
    """Called with what should differ from a tiny TAU of 3 frames and 2 channels."""
    return build_small_tau


@pytest.fixture
def small_predgs() -> Callable[..., PredGS]:
    """Called with what should differ from a tiny adapter of 2 channels on 12×20."""
    return build_small_predgs
