"""Tracks: where the places of a frame go, and where that can be trusted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pdr_cli.models.tracking import tracks
from tests.drawing.scenes import cells, texture


def sliding(steps: int, right: float, up: float, H: int = 49, W: int = 58, scale: float = 1.0) -> torch.Tensor:
    """A texture that moves so many cells in each frame, [1, steps, 1, H, W]; `scale`: of its waves."""
    x, y = cells(H, W)
    moved = [texture((x - right * t) / scale, (y + up * t) / scale, 0) for t in range(steps)]
    return torch.from_numpy(np.array(moved, np.float32))[None, :, None]


def test_places_are_followed_through_all_frames() -> None:
    frames = sliding(5, 1.5, 0.75)
    found = tracks(frames[:, 0], frames[:, 1:])
    assert found.shape == (1, 4, 3, 49, 58)
    inner = (..., slice(10, -10), slice(10, -10))
    for lead in range(4):
        assert found[:, lead, 2][inner].mean() > 0.95
        error = found[0, lead, :2] - torch.tensor([1.5, -0.75])[:, None, None] * (lead + 1)
        assert error[inner].norm(dim=0).mean() < 0.15


def test_large_frames_are_tracked_on_a_coarser_grid_in_their_own_pixels() -> None:
    frames = sliding(3, 3.0, 0.0, H=130, W=140, scale=2.0)
    found = tracks(frames[:, 0], frames[:, 1:])
    assert found.shape[-2:] == (33, 35)
    inner = (..., slice(6, -6), slice(6, -6))
    assert found[:, -1, 0][inner].mean() == pytest.approx(6.0, abs=0.5)


def test_what_has_no_texture_is_not_trusted() -> None:
    frames = sliding(2, 1.0, 0.0)
    frames[..., 29:] = 0.5
    found = tracks(frames[:, 0], frames[:, 1:])
    assert not found[:, :, 2, :, 45:].any()
    assert found[:, :, 2, 10:-10, 10:18].mean() > 0.9
    constant = torch.full((1, 2, 1, 20, 20), 3.0)
    assert not tracks(constant[:, 0], constant[:, 1:])[:, :, 2].any()


def test_what_changes_without_moving_is_not_trusted() -> None:
    drawn = torch.rand(1, 2, 1, 49, 58, generator=torch.Generator().manual_seed(0))
    assert tracks(drawn[:, 0], drawn[:, 1:])[:, :, 2].mean() < 0.3


def test_missing_values_are_not_trusted_where_the_place_was_or_is() -> None:
    frames = sliding(3, 2.0, 0.0)
    known = torch.ones(1, 3, 1, 49, 58, dtype=torch.bool)
    known[:, 0, :, 20:24, 20:24] = False
    known[:, 2, :, 30:34, 34:38] = False
    found = tracks(frames[:, 0], frames[:, 1:], known)
    whole = tracks(frames[:, 0], frames[:, 1:])
    assert not found[:, :, 2, 20:24, 20:24].any()
    # A place 4 columns to the left arrives at the missing values of the second frame.
    assert not found[:, 1, 2, 31:33, 31:33].any()
    assert torch.equal(found[:, 0, 2, 31:33, 31:33], whole[:, 0, 2, 31:33, 31:33])


def test_tracks_have_no_gradient_and_take_half_precision() -> None:
    frames = sliding(2, 1.0, 0.0).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = tracks(frames[:, 0], frames[:, 1:])
    assert found.dtype == torch.float32
    assert not found.requires_grad
