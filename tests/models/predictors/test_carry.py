"""Carry and its twins: the damped flow, and what they correct of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pdr_cli.errors import ConfigError
from pdr_cli.models.fusion import NoFusion
from pdr_cli.models.gaussians.moving import DAMPING
from pdr_cli.models.interfaces import Batch
from pdr_cli.models.motion import carried_on
from pdr_cli.models.pdr import PDR
from pdr_cli.models.predictors.carry import MotionPredictor
from tests.drawing.scenes import cells, texture
from tests.models.builders import build_predictor, training_forward
from tests.models.learning import losses_of

NAMES = ("carry", "carry-dense", "carry-grid")
every = pytest.mark.parametrize("name", NAMES)


def small(name: str, channels: int = 1, **changes: Any) -> MotionPredictor:
    torch.manual_seed(0)
    options: dict[str, Any] = {"anchor": "none", "hid_s": 4, "hid_t": 8, "n_s": 4, "n_t": 2}
    built = build_predictor(name, 3, channels, **options | changes)
    assert isinstance(built, MotionPredictor)
    return built


def unlearnt(model: MotionPredictor) -> MotionPredictor:
    """The same, with a head that gives 0."""
    torch.nn.init.zeros_(model.head.weight)
    return model


def sliding(steps: int, *, channels: int = 1, H: int = 49, W: int = 58) -> torch.Tensor:
    """A texture that moves 1.5 cells to the right and 0.75 up in each frame: [1, steps, channels, H, W]."""
    x, y = cells(H, W)
    frames = [[texture(x - 1.5 * t, y + 0.75 * t, seed) for seed in range(channels)] for t in range(steps)]
    return torch.from_numpy(np.array(frames, np.float32))[None]


@pytest.mark.parametrize("changes", [{}, {"hid_t": 32, "n_t": 4}, {"n_s": 2}, {"channels": 3}])
def test_twins_have_the_same_size(changes: dict[str, Any]) -> None:
    sizes = [sum(p.numel() for p in small(name, **changes).parameters()) for name in NAMES]
    assert max(sizes) <= 1.03 * min(sizes)


@every
def test_without_learning_the_forecast_is_the_damped_flow(name: str) -> None:
    x = sliding(3)
    with torch.no_grad():
        made, flow = unlearnt(small(name))(x, 6), carried_on(x, 6, DAMPING)
    # Gaussians leave the border that they come from; elsewhere they carry the flow's own displacement.
    inner = (..., slice(12, -12), slice(12, -12))
    moved = (flow - x[:, -1:])[inner].abs().mean()
    assert (made - flow)[inner].abs().mean() < 0.02 * moved


@every
def test_a_moving_texture_is_moved(name: str) -> None:
    frames = sliding(6)
    with torch.no_grad():
        made = small(name)(frames[:, :3], 3)
    inner = (..., slice(10, -10), slice(10, -10))
    stays = (frames[:, 2:3] - frames[:, 3:])[inner].abs().mean()
    # A tenth of the speed is lost in each frame: 0.05, 0.19 and 0.41 of 1.5 cells are missing.
    assert (made - frames[:, 3:])[inner].abs().mean() < 0.25 * stays


@every
def test_any_time_can_be_forecast(name: str) -> None:
    model, x = small(name).eval(), sliding(3, channels=1)
    with torch.no_grad():
        assert model(x).shape == x.shape, "T frames by default"
        torch.testing.assert_close(model(x, 12)[:, :2], model(x, 2), atol=1e-6, rtol=0)
        motion = torch.zeros(1, 2, 49, 58)
        motion[:, 0] = -1.5
        between = model.moved(x, motion, [0.0, 0.5, 1.0])
        assert torch.allclose(between[:, 0], x[:, -1], atol=1e-5)
        # Halfway in time lies halfway between both frames, up to the damping and the curvature of the picture.
        halves = (between[:, 0] + between[:, 2]) / 2
        assert (between[:, 1] - halves).abs().mean() < 0.1 * (between[:, 2] - between[:, 0]).abs().mean()


@every
def test_frames_between_steps_need_none_of_the_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = PDR(small(name), None, NoFusion(1)).eval(), sliding(3)
    with torch.no_grad():
        whole = network(Batch(x, 2)).fused
        monkeypatch.setattr(network, "_coarse", None)
        made = network(Batch(x, 2, times=(0.5, 1.0, 1.5, 2.0))).fused
    torch.testing.assert_close(made[:, 1::2], whole, atol=1e-6, rtol=0)


@every
@pytest.mark.parametrize("shape", [(2, 3, 3, 17, 30), (1, 3, 1, 40, 21)])
def test_any_grid_has_finite_gradients(name: str, shape: tuple[int, ...]) -> None:
    model, x = small(name, shape[2]), torch.rand(shape, generator=torch.Generator().manual_seed(0))
    forecast, terms = training_forward(model, x, x.flip(1)[:, :2])
    assert forecast.shape == (shape[0], 2, *shape[2:])
    assert not terms
    (forecast - x.flip(1)[:, :2]).square().mean().backward()
    gradients = {n: p.grad for n, p in model.named_parameters()}
    assert all(g is not None and g.isfinite().all() and g.any() for g in gradients.values()), gradients


@every
def test_it_learns_what_the_flow_does_not_see(name: str) -> None:
    frames = sliding(6)
    losses = losses_of(small(name), frames[:, :3], frames[:, 3:] + 0.1, steps=12, rate=1e-2, progress=0.0)
    assert losses[-1] < 0.5 * losses[0]


@every
def test_training_takes_the_flow_that_the_batch_has(name: str) -> None:
    model, x = unlearnt(small(name)), sliding(3)
    still = Batch(x, 2, x[:, :2], flow=torch.zeros(1, 2, 49, 58))
    frames, _ = model.training_forward(still)
    torch.testing.assert_close(frames, x[:, -1:].expand(-1, 2, -1, -1, -1), atol=1e-5, rtol=0)
    assert torch.equal(model.training_forward(still._replace(flow=None))[0], model(x, 2))


@every
def test_half_precision_is_of_the_convolutions_alone(name: str) -> None:
    model, x = small(name).eval(), sliding(3)
    with torch.no_grad():
        exact = model(x, 4)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(x, 4)
    assert half.dtype == torch.float32
    assert (half - exact).abs().max() < 0.01


@pytest.mark.parametrize("anchor", ["climatology", "flow"])
def test_an_anchor_that_moved_frames_do_not_need_is_refused(anchor: str) -> None:
    with pytest.raises(ConfigError, match="take --anchor none"):
        small("carry", anchor=anchor)
    small("carry", anchor="persistence")


@pytest.mark.slow
@every
def test_it_runs_in_onnx(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = PDR(small(name), None, NoFusion(1)).eval()

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return network(Batch(x, 2)).fused

    x = sliding(3, H=22, W=25)
    x = torch.cat([x, x.flip(1), x.flip(-1)])
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    program = torch.onnx.export(
        Graph().eval(), (x[:2],), dynamo=True, input_names=["x"], dynamic_shapes=shapes, verbose=False
    )
    program.save(str(tmp_path / "m.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], network(Batch(x, 2)).fused, atol=1e-4)
