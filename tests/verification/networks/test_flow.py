import numpy as np
import pytest
import torch

from pdr_cli.verification.networks import flow
from tests.drawing.scenes import cells, texture, uniform


def test_flows_agree_where_they_lead_back_and_inside() -> None:
    forward, backward = uniform(3, 0, 10, 12), uniform(-3, 0, 10, 12)
    # Three columns come from beyond the left border.
    expected = torch.ones(1, 10, 12, dtype=torch.bool)
    expected[..., :3] = False
    assert torch.equal(flow.consistent(forward, backward), expected)
    # 3 there and 2 back leaves 1 cell; allowed is 0.01 (9 + 4) + 0.5 = 0.63 squared cells.
    assert not flow.consistent(uniform(2, 0, 10, 12), backward).any()
    # 3 there and 2.5 back leaves 0.25 of the allowed 0.01 (9 + 6.25) + 0.5 = 0.65 squared cells.
    assert torch.equal(flow.consistent(uniform(2.5, 0, 10, 12), backward), expected)


def test_long_flows_may_disagree_by_more() -> None:
    # 9 there and 10 back leaves 1 of the allowed 0.01 (81 + 100) + 0.5 = 2.3 squared cells.
    found = flow.consistent(uniform(9, 0, 5, 30), uniform(-10, 0, 5, 30))
    assert found[..., 10:].all()
    assert not found[..., :10].any()


def test_extrapolation_carries_a_shift_on() -> None:
    x, y = cells(64, 72)
    frames = np.stack([texture(x - 1.5 * t, y + t) for t in range(7)]).astype(np.float32)[None, :, None]
    forecast = flow.extrapolate(frames[:, :3], 4)
    assert forecast.shape == (1, 4, 1, 64, 72)
    assert forecast.dtype == np.float32
    inner = (..., slice(12, -12), slice(12, -12))
    error = np.abs(forecast - frames[:, 3:])[inner].mean()
    assert error < 0.1 * np.abs(frames[:, 2:3] - frames[:, 3:])[inner].mean()


def test_extrapolation_keeps_circles_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = cells(41, 41)
    turn = 2 * np.pi / 24
    backward = torch.from_numpy(turn * np.stack([y - 20, 20 - x]))[None]
    monkeypatch.setattr("pdr_cli.models.motion.flow_between", lambda a, b: backward)
    spot = np.exp(-((x - 30) ** 2 + (y - 20) ** 2) / 8)[None, None, None]
    after = flow.extrapolate(np.repeat(spot, 2, axis=1), 24)[0, -1, 0]
    # After a whole turn the spot, 10 cells off the axis, is back. Going straight for each step would move it outward
    # by a factor √(1 + turn²) a step: 10 → 22 cells.
    row, column = np.unravel_index(after.argmax(), after.shape)
    assert abs(column - 30) <= 1
    assert abs(row - 20) <= 1


def test_extrapolation_of_what_does_not_move_is_persistence() -> None:
    constant = np.full((2, 4, 3, 9, 11), 280.1, np.float32)
    assert (flow.extrapolate(constant, 5) == constant[:, :1]).all()
    only = np.random.default_rng(0).random((2, 1, 1, 9, 11), np.float32)
    assert (flow.extrapolate(only, 3) == only).all()


def test_extrapolation_leaves_missing_cells_where_they_are() -> None:
    x, y = cells(40, 40)
    frames = np.stack([texture(x - 2 * t, y) for t in range(2)])[None, :, None]
    frames[..., 10:20, 10:20] = np.nan
    forecast = flow.extrapolate(frames, 3)
    assert np.array_equal(np.isnan(forecast), np.isnan(np.repeat(frames[:, -1:], 3, axis=1)))


def test_a_damped_motion_slows_down_by_the_same_share_each_frame() -> None:
    x, y = cells(64, 72)
    # A motion of 2 cells a frame that loses a tenth of its speed has gone 2 (1 - 0.9⁴) / -ln 0.9 = 6.5 cells after four.
    gone = 2 * (1 - 0.9**4) / -np.log(0.9)
    pictures = [texture(x - dx, y).astype(np.float32)[None] for dx in (-2, 0, gone)]
    forecast = flow.extrapolate(np.stack(pictures[:2])[None], 4, damping=-np.log(0.9))
    inner = (slice(12, -12), slice(16, -16))
    error = np.abs(forecast[0, -1, 0] - pictures[2][0])[inner].mean()
    assert error < 0.1 * np.abs(pictures[1] - pictures[2])[0][inner].mean()
