"""Where Gaussians start: on what a frame shows, anywhere, or nowhere in particular."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pdr_cli.errors import ConfigError
from pdr_cli.models.gaussians.initialization import (
    anywhere,
    brightest,
    centres_in,
    corners,
    even_grid,
    fill,
    salience,
)

Build = Callable[..., Any]


def pixels(centres: torch.Tensor, size: tuple[int, int]) -> list[tuple[int, int]]:
    """(row, column) of each centre, which must be a whole pixel."""
    H, W = size
    columns, rows = (centres[:, 0] + 1) * (W - 1) / 2, (centres[:, 1] + 1) * (H - 1) / 2
    assert torch.allclose(rows, rows.round(), atol=1e-9)
    assert torch.allclose(columns, columns.round(), atol=1e-9)
    return [(int(r), int(c)) for r, c in zip(rows.round(), columns.round(), strict=True)]


def square(H: int = 24, W: int = 30) -> torch.Tensor:
    """Dark, with a bright rectangle in rows 6 to 15 and columns 8 to 21. [1, H, W]."""
    frame = torch.zeros(1, H, W)
    frame[0, 6:16, 8:22] = 1
    return frame


def test_color_takes_the_brightest_pixels_in_order() -> None:
    frame = torch.zeros(5, 7)
    frame[4, 6], frame[0, 2], frame[3, 0] = 3.0, 5.0, 3.0
    # 5 at (0, 2); then the two 3s, row 3 before row 4; then the first zero.
    assert pixels(brightest(frame, 4), (5, 7)) == [(0, 2), (3, 0), (4, 6), (0, 0)]


def test_several_channels_count_by_their_mean_anomaly() -> None:
    frame = torch.zeros(2, 2, 2)
    frame[0] = torch.tensor([[1.0, 1.0], [1.0, 5.0]])  # mean 2: anomalies 1, 1, 1, 3
    frame[1] = torch.tensor([[4.0, 0.0], [0.0, 0.0]])  # mean 1: anomalies 3, 1, 1, 1
    assert torch.equal(salience(frame), torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    assert torch.equal(salience(frame[:1]), frame[0])


def test_corners_are_those_of_a_rectangle() -> None:
    found = pixels(corners(square()[0].double(), 4), (24, 30))
    assert len(found) == 4
    for corner in [(6, 8), (6, 21), (15, 8), (15, 21)]:
        assert min(max(abs(corner[0] - r), abs(corner[1] - c)) for r, c in found) <= 1


def test_a_frame_with_too_few_corners_is_filled_away_from_them() -> None:
    found = centres_in(corners, 40, square())
    assert found.shape == (40, 2)
    assert len(found.unique(dim=0)) == 40
    assert torch.equal(found[:4], corners(square()[0].double(), 4))
    # 40 places on 24x30 leave no point farther than about two spacings (8.5 px) from one.
    half = torch.tensor([14.5, 11.5], dtype=torch.float64)
    assert torch.cdist(even_grid(200, (24, 30)) * half, found * half).amin(dim=1).max() < 8.5


def test_a_flat_frame_and_one_of_few_pixels_still_give_as_many_as_asked() -> None:
    assert centres_in(corners, 12, torch.ones(1, 8, 8)).unique(dim=0).shape == (12, 2)
    assert centres_in(brightest, 12, torch.rand(1, 3, 3)).shape == (12, 2)


def test_filling_takes_the_farthest_place_first() -> None:
    # Of the four quarters' middles (±0.5, ±0.5), the one opposite the point that is there.
    filled = fill(torch.tensor([[-0.9, -0.8]], dtype=torch.float64), 4, (10, 10))
    assert filled[1].tolist() == [0.5, 0.5]


def test_random_centres_are_uniform_and_follow_the_seed() -> None:
    torch.manual_seed(3)
    first = anywhere(2000, (8, 8))
    torch.manual_seed(3)
    assert torch.equal(first, anywhere(2000, (8, 8)))
    assert first.abs().max() < 1
    assert first.mean(dim=0).abs().max() < 0.04  # 3 standard errors: 3 / √(3·2000)
    assert torch.allclose(first.std(dim=0), torch.full((2,), 3**-0.5, dtype=torch.float64), atol=0.03)


@pytest.mark.parametrize("coords", ["absolute", "offset"])
@pytest.mark.parametrize("init", ["grid", "corner", "color"])
def test_gaussians_start_where_init_says(small_predgs: Build, init: str, coords: str) -> None:
    adapter = small_predgs(init=init, coords=coords, gaussians=6)
    frame = torch.rand(2, 12, 20)
    adapter.initialize(frame)
    expected = (
        even_grid(6, (12, 20))
        if init == "grid"
        else centres_in({"corner": corners, "color": brightest}[init], 6, frame)
    )
    coarse = torch.randn(1, 2, 2, 12, 20)
    found = adapter.gaussians(coarse).coords
    # Absolute coordinates start up to 1e-3 inside the border.
    assert torch.allclose(found, expected.float().expand(1, 2, 6, 2), atol=1.1e-3)


def test_random_starts_anywhere_and_stays_there_whatever_the_data(small_predgs: Build) -> None:
    adapter, other = small_predgs(init="random", gaussians=50), small_predgs(init="random", gaussians=50)
    frame = torch.rand(2, 12, 20)
    before = adapter.gaussians(frame[None, None]).coords
    adapter.initialize(frame)
    assert torch.equal(adapter.gaussians(frame[None, None]).coords, before)
    assert before.abs().max() > 0.8
    assert not torch.allclose(before, other.gaussians(frame[None, None]).coords, atol=0.1)


def test_none_leaves_the_centres_to_the_initial_weights(small_predgs: Build) -> None:
    adapter = small_predgs(init="none", gaussians=200, hidden=256)
    adapter.initialize(torch.rand(2, 12, 20))
    coords = adapter.gaussians(torch.zeros(1, 1, 2, 12, 20)).coords
    # Biases of ±1/√256 and what the hidden layer adds: clustered about the middle, but not in one point.
    assert 0.01 < coords.abs().max() < 0.3
    assert adapter.mlp_coords.last.weight.abs().max() > 0


@pytest.mark.parametrize("init", ["corner", "color", "random"])
def test_a_loaded_model_knows_its_places_without_the_data(small_predgs: Build, init: str) -> None:
    trained = small_predgs(init=init, coords="offset")
    trained.initialize(torch.rand(2, 12, 20))
    loaded = small_predgs(init=init, coords="offset")
    loaded.load_state_dict(trained.state_dict())
    coarse = torch.rand(1, 1, 2, 12, 20)
    assert torch.equal(loaded.gaussians(coarse).coords, trained.gaussians(coarse).coords)


def test_the_grid_adds_nothing_to_the_model_files_of_before(small_predgs: Build) -> None:
    assert "anchors" not in small_predgs().state_dict()
    assert "anchors" in small_predgs(coords="offset").state_dict()


def test_misspelt_initialisation_gets_a_suggestion(small_predgs: Build) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'color'"):
        small_predgs(init="colour")


def test_offset_needs_a_place_to_start_from(small_predgs: Build) -> None:
    with pytest.raises(ConfigError, match=r"model\.init none gives them none"):
        small_predgs(init="none", coords="offset")
