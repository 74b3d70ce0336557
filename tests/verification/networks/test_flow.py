import numpy as np
import pytest
import torch
from torch import Tensor

from pdr_cli.verification.networks import flow
from tests.drawing.scenes import cells, frame, inner_error, moved, texture


def uniform(u: float, v: float, H: int, W: int) -> Tensor:
    """The same motion everywhere: [1, 2, H, W]."""
    return torch.tensor([u, v], dtype=torch.float64)[None, :, None, None].expand(1, 2, H, W)


@pytest.mark.parametrize(("dx", "dy"), [(3.0, -2.0), (-0.5, 0.25), (8.0, 6.0)])
def test_a_shift_is_found(dx: float, dy: float) -> None:
    # Bilinear reading between cells costs some hundredths of a cell.
    assert inner_error(flow.classical(*moved(90, 101, dx, dy)), np.array([dx, dy])[:, None, None]) < 0.1


def test_units_do_not_matter() -> None:
    a, b = moved(64, 64, 2, -1)
    kelvin = flow.classical(250 + 50 * a.double(), 250 + 50 * b.double())
    assert torch.allclose(kelvin, flow.classical(a.double(), b.double()), atol=1e-6)


def test_mirrored_channels_move_together() -> None:
    a, b = moved(64, 64, 2, -1)
    opposed = flow.classical(torch.cat([a, -3 * a], dim=1), torch.cat([b, -3 * b], dim=1))
    assert inner_error(opposed, np.array([2, -1])[:, None, None]) < 0.1


def test_where_nothing_is_to_be_seen_nothing_moves() -> None:
    empty = torch.full((2, 3, 20, 30), 273.15)
    assert (flow.classical(empty, empty) == 0).all()
    assert (flow.classical(empty, torch.full_like(empty, torch.nan)) == 0).all()
    # Nor where only rounding is: the mean of many 0.1, which stands for missing cells, is not quite 0.1.
    tenth = torch.full((1, 1, 20, 30), 0.1, dtype=torch.float64)
    holes = torch.rand(2, 1, 1, 20, 30, generator=torch.Generator().manual_seed(0)) < 0.3
    assert (flow.classical(*torch.where(holes, torch.nan, tenth)) == 0).all()
    # One constant channel beside a moving one changes nothing.
    a, b = moved(64, 64, 2, -1)
    c = torch.ones_like(a)
    assert torch.allclose(flow.classical(torch.cat([a, c], 1), torch.cat([b, c], 1)), flow.classical(a, b), atol=1e-4)


def test_missing_cells_do_not_spread() -> None:
    a, b = moved(80, 80, 2, -1)
    a[..., :10, :10] = b[..., :10, :10] = torch.nan
    found = flow.classical(a, b)
    assert found.isfinite().all()
    assert inner_error(found[..., 20:, 20:], np.array([2, -1])[:, None, None], margin=8) < 0.1


def test_a_frame_of_two_cells_has_a_flow() -> None:
    assert flow.classical(torch.rand(1, 1, 2, 2), torch.rand(1, 1, 2, 2)).isfinite().all()


def test_warping_reads_where_the_flow_points() -> None:
    # Rows and columns as values: the flow (2, -1) brings what lies 2 to the right and 1 above.
    x, y = cells(6, 9)
    frames = torch.from_numpy(np.stack([x, y]))[None]
    out = flow.warp(frames, uniform(2, -1, 6, 9))[0].numpy()
    np.testing.assert_allclose(out[0], np.minimum(x + 2, 8), atol=1e-12)  # the border continues
    np.testing.assert_allclose(out[1], np.maximum(y - 1, 0), atol=1e-12)
    halves = flow.warp(frames, uniform(0.25, 0.5, 6, 9))[0].numpy()
    np.testing.assert_allclose(halves[:, 2, 3], [3.25, 2.5])


def test_warping_by_its_flow_gives_the_first_frame_back() -> None:
    a, b = moved(64, 64, 2.5, -1.5)
    back = flow.warp(b, flow.classical(a, b))
    assert (back - a)[..., 8:-8, 8:-8].abs().mean() < 0.1 * (b - a).abs().mean()


def test_no_flow_leaves_values_exactly() -> None:
    frames = torch.rand(2, 3, 17, 23)
    assert torch.equal(flow.warp(frames, torch.zeros(2, 2, 17, 23)), frames)


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
    monkeypatch.setattr(flow, "classical", lambda a, b: backward)
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


def test_sampling_has_nothing_beyond_the_border_if_so_asked() -> None:
    x = torch.tensor([[[-1.0, 0.0, 2.5]]])
    found = flow.sample(frame(np.ones((4, 3))), x, torch.ones_like(x), padding="zeros")
    # One cell beyond there is nothing; half a cell beyond the last column, half of it.
    assert found.flatten().tolist() == pytest.approx([0, 1, 0.5])
