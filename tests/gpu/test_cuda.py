"""What only a CUDA device can show. Run with `make gpu-check`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import pdr_cli
from pdr_cli import splat
from tests.builders import field
from tests.cli import pdr
from tests.conftest import tiny_settings

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
weather_files = pytest.mark.skipif(find_spec("netCDF4") is None, reason="no netCDF4")


def gaussians(device: str) -> list[torch.Tensor]:
    """Random parameters of 300 Gaussians in 2 frames with 3 channels, requiring gradients."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 300, 2), (2, 300, 2), (2, 300), (2, 300, 3))
    raw = [torch.randn(shape, generator=generator) for shape in shapes]
    values = [raw[0].tanh(), raw[1].sigmoid(), raw[2], raw[3]]
    return [v.to(device).requires_grad_() for v in values]


def test_rendering_and_its_gradients_are_those_of_the_cpu() -> None:
    results = []
    for device in ("cpu", "cuda"):
        inputs = gaussians(device)
        image = splat.render(*inputs, size=(64, 48), kernel_size=15)
        image.square().sum().backward()
        results.append([image.detach().cpu(), *(x.grad.cpu() for x in inputs if x.grad is not None)])
    assert len(results[0]) == 5
    for on_cpu, on_gpu in zip(*results, strict=True):
        assert torch.allclose(on_cpu, on_gpu, rtol=1e-4, atol=1e-5 * float(on_cpu.abs().max()))


@weather_files
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_trained_on_the_gpu_predicts_the_same_on_the_cpu(
    weather: Path, tmp_path: Path, precision: str, make_run: Callable[..., Path]
) -> None:
    run = make_run(weather, "--device", "cuda", "--precision", precision)
    assert pdr("evaluate", weather, "-m", run, "--device", "cuda", "-q").code == 0
    window = field(20, 13, 15)[None, :4, None]
    on_gpu, on_cpu = (pdr_cli.load(run, device).loaded.run(window).fused for device in ("cuda", "cpu"))
    assert np.abs(on_gpu - on_cpu).max() < 0.05  # kelvin; TF32 convolutions keep three digits


@weather_files
def test_resuming_on_the_gpu_goes_on(weather: Path, tmp_path: Path) -> None:
    base = [
        "train",
        "--preset",
        "demo",
        "--data",
        str(weather),
        "-o",
        "run",
        "-q",
        "--device",
        "cuda",
        *tiny_settings(),
    ]
    assert pdr(*base, "--steps", "4").code == 0
    assert pdr(*base, "--steps", "8", "--resume").code == 0
