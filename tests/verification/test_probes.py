"""Linear probes: their regression, and the cells that they read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from pdr_cli.errors import UsageError
from pdr_cli.verification.probes import Probe, Regression, _parts


def test_a_regression_finds_an_affine_relation_of_features_of_any_unit() -> None:
    torch.manual_seed(0)
    features = torch.randn(2000, 3, dtype=torch.float64) * torch.tensor([1e-4, 1.0, 1e4]) + 5
    weights = torch.tensor([[1e4], [2.0], [-1e-4]], dtype=torch.float64)
    regression = Regression()
    for part in features.split(500):
        regression.add(part, part @ weights + 7)
    coefficients, offset = regression.solve()
    made = features @ coefficients + offset
    # The penalty is a thousandth of the variance, and so is what it costs.
    error = (made - features @ weights - 7).std() / (features @ weights).std()
    assert error < 2e-3
    assert float((made - features @ weights - 7).mean()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("size", [(8, 12), (25, 53)])
def test_pixels_of_cells_are_put_back_to_frames(size: tuple[int, int]) -> None:
    H, W = size
    probe = object.__new__(Probe)
    vae = SimpleNamespace(multiple=4, size=(-(-H // 4), -(-W // 4)), frames=SimpleNamespace(size=size, periodic=False))
    probe.vae = cast(Any, vae)
    frames = torch.randn(2, 3, H, W, dtype=torch.float64)
    rows = probe._unfolded(frames, 0)
    assert rows.shape == (2 * vae.size[0] * vae.size[1], 3 * 16)
    flow, following = probe._frames(rows, 2)
    assert torch.equal(torch.cat([flow, following], dim=1), frames)
    wide = probe._unfolded(frames, 1).unflatten(1, (3, 12, 12))
    assert torch.equal(wide[:, :, 4:8, 4:8].flatten(1), rows), "the cell itself is the middle of its 3 x 3 cells"


def test_halves_share_no_frame() -> None:
    windows: Any
    places = np.array([(series, start) for series in (1, 0) for start in range(20)])
    windows = SimpleNamespace(places=places, in_steps=4, out_steps=4, only=lambda keep: windows.places[keep])
    nothing: Any = None
    chosen: Any = SimpleNamespace(windows=windows, split="all")
    name, fitted, scored = _parts(nothing, chosen)
    assert name == "first half"
    # The first half in time: series 0, all of it; of series 1 nothing overlaps.
    assert fitted[:, 0].tolist() == [0] * 20
    assert scored[:, 0].tolist() == [1] * 20
    windows.places = places[:20]
    _, fitted, scored = _parts(nothing, chosen)
    assert fitted[:, 1].tolist() == list(range(10)), "10 of 20"
    assert scored[:, 1].tolist() == [17, 18, 19], "the last window of the first half covers frames 9 to 16"
    windows.places = places[:5]
    with pytest.raises(UsageError, match="second half overlaps the first"):
        _parts(nothing, chosen)
