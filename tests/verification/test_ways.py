"""Ways of moving Gaussians, counted by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from pdr_cli.verification.ways import Ways


def test_moving_and_still_places_are_counted_apart_and_untrusted_ones_not_at_all() -> None:
    """Two lead times of four places: one moves by 3 and 5 cells, one by less than half a cell, one cannot be trusted."""
    ways = Ways(cast(Any, None), cast(Any, SimpleNamespace(windows=SimpleNamespace(out_steps=2, __len__=lambda: 0))))
    track = torch.zeros(1, 2, 3, 2)
    track[0, :, 0, 0] = torch.tensor([3.0, 5.0])
    track[0, :, 1, 1] = 0.4
    track[0, :, 2, 0] = 100.0
    way = torch.zeros_like(track)
    way[0, 1, 0] = torch.tensor([5.0, 4.0])  # 4 cells beside its end
    way[0, 0, 1, 1] = 1.0  # 0.6 too far
    trust = torch.tensor([1.0, 1.0, 0.0]).expand(1, 2, 3)
    ways._count(way, track, trust)
    ways.faint, ways.gaussians = 1, 4
    ways.task.windows = range(0)  # type: ignore[assignment]  # everything is counted
    found = ways.section()
    assert found.error.lead == [3.0, 4.0]
    assert found.error.overall == 3.5
    assert found.standing_still.lead == [3.0, 5.0]
    assert found.error_of_still.lead == pytest.approx([0.6, 0.4])
    assert (found.moving, found.pruned) == (0.5, 0.25)
