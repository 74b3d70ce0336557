"""Motion between frames: flow, warping, advection."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pdr_cli.models import motion
from tests.drawing.scenes import cells, frame, inner_error, moved, texture, uniform


@pytest.mark.parametrize(("dx", "dy"), [(3.0, -2.0), (-0.5, 0.25), (8.0, 6.0)])
def test_a_shift_is_found(dx: float, dy: float) -> None:
    # Bilinear reading between cells costs some hundredths of a cell.
    assert inner_error(motion.flow_between(*moved(90, 101, dx, dy)), np.array([dx, dy])[:, None, None]) < 0.1


def test_units_do_not_matter() -> None:
    a, b = moved(64, 64, 2, -1)
    kelvin = motion.flow_between(250 + 50 * a.double(), 250 + 50 * b.double())
    assert torch.allclose(kelvin, motion.flow_between(a.double(), b.double()), atol=1e-6)


def test_mirrored_channels_move_together() -> None:
    a, b = moved(64, 64, 2, -1)
    opposed = motion.flow_between(torch.cat([a, -3 * a], dim=1), torch.cat([b, -3 * b], dim=1))
    assert inner_error(opposed, np.array([2, -1])[:, None, None]) < 0.1


def test_where_nothing_is_to_be_seen_nothing_moves() -> None:
    empty = torch.full((2, 3, 20, 30), 273.15)
    assert (motion.flow_between(empty, empty) == 0).all()
    assert (motion.flow_between(empty, torch.full_like(empty, torch.nan)) == 0).all()
    # Nor where only rounding is: the mean of many 0.1, which stands for missing cells, is not quite 0.1.
    tenth = torch.full((1, 1, 20, 30), 0.1, dtype=torch.float64)
    holes = torch.rand(2, 1, 1, 20, 30, generator=torch.Generator().manual_seed(0)) < 0.3
    assert (motion.flow_between(*torch.where(holes, torch.nan, tenth)) == 0).all()
    # One constant channel beside a moving one changes nothing.
    a, b = moved(64, 64, 2, -1)
    c = torch.ones_like(a)
    assert torch.allclose(
        motion.flow_between(torch.cat([a, c], 1), torch.cat([b, c], 1)), motion.flow_between(a, b), atol=1e-4
    )


def test_missing_cells_do_not_spread() -> None:
    a, b = moved(80, 80, 2, -1)
    a[..., :10, :10] = b[..., :10, :10] = torch.nan
    found = motion.flow_between(a, b)
    assert found.isfinite().all()
    assert inner_error(found[..., 20:, 20:], np.array([2, -1])[:, None, None], margin=8) < 0.1


def test_a_frame_of_two_cells_has_a_flow() -> None:
    assert motion.flow_between(torch.rand(1, 1, 2, 2), torch.rand(1, 1, 2, 2)).isfinite().all()


def test_warping_reads_where_the_flow_points() -> None:
    # Rows and columns as values: the flow (2, -1) brings what lies 2 to the right and 1 above.
    x, y = cells(6, 9)
    frames = torch.from_numpy(np.stack([x, y]))[None]
    out = motion.warp(frames, uniform(2, -1, 6, 9))[0].numpy()
    np.testing.assert_allclose(out[0], np.minimum(x + 2, 8), atol=1e-12)  # the border continues
    np.testing.assert_allclose(out[1], np.maximum(y - 1, 0), atol=1e-12)
    halves = motion.warp(frames, uniform(0.25, 0.5, 6, 9))[0].numpy()
    np.testing.assert_allclose(halves[:, 2, 3], [3.25, 2.5])


def test_warping_by_its_flow_gives_the_first_frame_back() -> None:
    a, b = moved(64, 64, 2.5, -1.5)
    back = motion.warp(b, motion.flow_between(a, b))
    assert (back - a)[..., 8:-8, 8:-8].abs().mean() < 0.1 * (b - a).abs().mean()


def test_no_flow_leaves_values_exactly() -> None:
    frames = torch.rand(2, 3, 17, 23)
    assert torch.equal(motion.warp(frames, torch.zeros(2, 2, 17, 23)), frames)


def test_sampling_has_nothing_beyond_the_border_if_so_asked() -> None:
    x = torch.tensor([[[-1.0, 0.0, 2.5]]])
    found = motion.sample(frame(np.ones((4, 3))), x, torch.ones_like(x), padding="zeros")
    # One cell beyond there is nothing; half a cell beyond the last column, half of it.
    assert found.flatten().tolist() == pytest.approx([0, 1, 0.5])


@pytest.mark.parametrize(("H", "W"), [(128, 128), (50, 71), (24, 20)])
def test_the_flow_is_that_of_scikit_image(H: int, W: int) -> None:
    from skimage.registration import optical_flow_ilk

    x, y = cells(H, W)
    a, b = texture(x, y), texture(1.05 * x - 2, 0.97 * y + 1)
    options = {"radius": motion.RADIUS, "num_warp": motion.WARPS, "gaussian": True}
    down, right = optical_flow_ilk((a - a.mean()) / a.std(), (b - a.mean()) / a.std(), **options)
    found = motion.flow_between(frame(a), frame(b))[0].numpy()
    # A hundredth of a cell: coarse grids are mirrored at their borders in another way.
    assert np.abs(found - np.stack([right, down]))[:, 4:-4, 4:-4].mean() < 0.01


def test_pairs_of_a_batch_do_not_see_each_other() -> None:
    a, b = (torch.cat(frames) for frames in zip(moved(40, 44, 1, 2), moved(40, 44, -2, 0.5, seed=1), strict=True))
    both = motion.flow_between(a, b)
    alone = torch.cat([motion.flow_between(a[i : i + 1], b[i : i + 1]) for i in range(2)])
    assert torch.allclose(both, alone, atol=1e-5)
    assert torch.equal(both, motion.flow_between(a, b))


def test_a_single_row_moves_along_itself() -> None:
    x, _ = cells(1, 60)
    found = motion.flow_between(frame(texture(x, 0 * x)), frame(texture(x - 1, 0 * x)))
    assert found.isfinite().all()
    assert (found[:, 1] == 0).all()


def test_half_precision_does_not_reach_the_flow() -> None:
    a, b = moved(40, 44, 1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(motion.flow_between(a, b), motion.flow_between(a, b).float())
        inside = motion.flow_between(a, b)
    assert torch.equal(inside, motion.flow_between(a, b))


def test_a_gaussian_filter_as_a_matrix_mirrors_at_the_ends() -> None:
    from scipy.ndimage import gaussian_filter1d

    for length in (1, 2, 5, 40):
        values = np.random.default_rng(0).random(length)
        found = motion.gaussian_filter(length, 3.75) @ values
        np.testing.assert_allclose(found, gaussian_filter1d(values, 3.75, mode="mirror"), atol=1e-12)


def test_advection_slows_down() -> None:
    x, y = cells(20, 60)
    frames, backward = torch.from_numpy(np.stack([x, y]))[None], uniform(-2.0, 0, 20, 60)
    found = motion.advect(frames, backward, [1, 2, 3], damping=0.5)[0, :, 0, 10, 30]
    # In frame t the speed is 2 e^{-(t - 1/2) / 2}: 1.558, 0.945 and 0.573 cells.
    gone = np.cumsum([2 * math.exp(-0.5 * (t - 0.5)) for t in (1, 2, 3)])
    np.testing.assert_allclose(found, 30 - gone, atol=1e-9)
    still = motion.advect(frames, backward, [1, 5], damping=math.inf)
    assert torch.equal(still, frames[:, None].expand(-1, 2, -1, -1, -1))


def test_advection_reaches_times_between_frames() -> None:
    x, y = cells(20, 60)
    frames, backward = torch.from_numpy(np.stack([x, y]))[None], uniform(-2.0, 1.0, 20, 60)
    found = motion.advect(frames, backward, [0, 0.5, 2, 2.25])[0, :, :, 10, 30]
    np.testing.assert_allclose(found, [[30, 10], [29, 10.5], [26, 12], [25.5, 12.25]], atol=1e-9)


def test_each_cell_can_slow_down_at_its_own_rate() -> None:
    x, y = cells(20, 60)
    frames, backward = torch.from_numpy(np.stack([x, y]))[None], uniform(-2.0, 0, 20, 60)
    damping = torch.zeros(1, 1, 20, 60, dtype=torch.float64)
    damping[..., 10:, :] = math.inf
    found = motion.advect(frames, backward, [3], damping)[0, 0, 0, :, 30]
    np.testing.assert_allclose(found[:9], 24, atol=1e-9)
    np.testing.assert_allclose(found[11:], 30, atol=1e-9)


class CarriedOn(nn.Module):
    def forward(self, observed: Tensor) -> Tensor:
        return motion.carried_on(observed, 3, torch.tensor(0.1))


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_forecasts_by_motion_run_in_onnx(tmp_path: Path, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(motion, "WARPS", 2)  # a graph of five takes longer to write
    onnxruntime = pytest.importorskip("onnxruntime")
    x, y = cells(24, 27)
    frames = np.stack(
        [[texture(x - t * (1 + i), y, seed=c) for c in range(channels)] for t in (0, 1) for i in range(3)]
    )
    observed = torch.from_numpy(frames.reshape(2, 3, channels, 24, 27).astype(np.float32)).transpose(0, 1)
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    program = torch.onnx.export(
        CarriedOn().eval(), (observed[:2],), dynamo=True, input_names=["x"], dynamic_shapes=shapes, verbose=False
    )
    program.save(str(tmp_path / "m.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": observed.numpy()})[0]
    np.testing.assert_allclose(found, CarriedOn()(observed).numpy(), atol=1e-4)
