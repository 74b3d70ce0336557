import math

import numpy as np
import pytest
import torch

from pdr_cli.models.interfaces import Batch
from pdr_cli.training.anchors import flow
from tests.drawing.scenes import cells, texture

STEPS = 4


def window(damping: float, seed: int = 0) -> Batch:
    """A texture that moved 2 cells in the last observed frame, and then loses speed."""
    x, y = cells(48, 64)
    gone = np.cumsum([2 * math.exp(-damping * (t - 0.5)) for t in range(1, STEPS + 1)])
    frames = np.stack([texture(x - dx, y, seed) for dx in (-2, 0, *gone)]).astype(np.float32)
    both = torch.from_numpy(frames)[None, :, None]
    return Batch(both[:, :2], STEPS, both[:, 2:])


@pytest.mark.parametrize("damping", [0.0, 0.2, 0.5, math.inf])
def test_the_damping_of_the_windows_is_found(damping: float) -> None:
    assert flow.fit([window(damping), window(damping, seed=1)]) == pytest.approx(damping, abs=0.051)


def test_missing_values_do_not_count() -> None:
    moving, still = window(0.0), window(math.inf)
    # Of a target that stays, all is missing: what is left moves.
    lacking = still._replace(known=torch.zeros(1, 2 + STEPS, 1, 48, 64, dtype=torch.bool))
    assert flow.fit([moving, lacking]) == pytest.approx(0.0, abs=0.051)


def test_without_windows_nothing_moves() -> None:
    assert flow.fit([]) == math.inf
