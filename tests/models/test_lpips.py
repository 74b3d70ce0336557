from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pdr_cli.errors import CheckpointError, GridError, InputNotFoundError, UsageError
from pdr_cli.models.lpips import LPIPS
from tests.drawing.scenes import cells, frame, texture


@pytest.fixture(scope="module")
def trained(shared: Path) -> LPIPS:
    path = shared / "weights" / "lpips_alex_v0.1.safetensors"
    if not path.is_file():
        pytest.skip(f"no LPIPS weights: {path}")
    return LPIPS.load(path)


def picture(channels: int = 3, size: int = 64) -> Tensor:
    x, y = cells(size, size)
    return torch.cat([frame(texture(x, y, seed)) for seed in range(channels)], dim=1)


def noisy(x: Tensor, amount: float) -> Tensor:
    return x + amount * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


def by_hand(network: LPIPS, a: np.ndarray, b: np.ndarray) -> float:
    """LPIPS of two frames [3, H, W] as the paper writes it, with sums instead of layers."""
    weights = {k: v.double().numpy() for k, v in network.state_dict().items()}
    total = 0.0
    x, y = ((2 * f - 1 - np.array([-0.030, -0.088, -0.188])[:, None, None]) for f in (a, b))
    x, y = (f / np.array([0.458, 0.448, 0.450])[:, None, None] for f in (x, y))
    for level, (layer, stride, padding) in enumerate([(0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)]):
        if level in (1, 2):
            x, y = pooled(x), pooled(y)
        w, bias = weights[f"features.{layer}.weight"], weights[f"features.{layer}.bias"]
        x, y = (np.maximum(convolved(f, w, stride, padding) + bias[:, None, None], 0) for f in (x, y))
        gap = (x / (np.linalg.norm(x, axis=0) + 1e-10) - y / (np.linalg.norm(y, axis=0) + 1e-10)) ** 2
        total += np.tensordot(weights[f"lin{level}.model.1.weight"][0, :, 0, 0], gap, axes=1).mean()
    return total


def windows(x: np.ndarray, size: int, stride: int) -> np.ndarray:
    """[c, H, W] → [c, h, w, size, size]."""
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]


def convolved(x: np.ndarray, w: np.ndarray, stride: int, padding: int) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    return np.einsum("chwij,ocij->ohw", windows(padded, w.shape[-1], stride), w, optimize=True)


def pooled(x: np.ndarray) -> np.ndarray:
    return windows(x, 3, 2).max(axis=(-2, -1))


def test_distance_is_what_the_paper_writes() -> None:
    torch.manual_seed(0)
    network = LPIPS().eval()
    a, b = picture(), noisy(picture(), 0.2)
    expected = by_hand(network, a[0].double().numpy(), b[0].double().numpy())
    assert network.distance(a, b).item() == pytest.approx(expected, rel=1e-4)  # float32 against float64


def test_equal_frames_have_no_distance_and_a_batch_keeps_its_order(trained: LPIPS) -> None:
    a = picture()
    b = torch.cat([a, noisy(a, 0.02), noisy(a, 0.2)])
    distances = trained.distance(a.repeat(3, 1, 1, 1), b)
    assert distances[0] == 0
    assert 0 < distances[1] < distances[2] < 2
    assert torch.allclose(trained.distance(b, a.repeat(3, 1, 1, 1)), distances)


def test_blur_is_a_distance_that_grows(trained: LPIPS) -> None:
    sharp = noisy(picture(), 0.1)
    blurred = [torch.nn.functional.avg_pool2d(sharp, n, 1, n // 2) for n in (3, 7)]
    assert 0 < trained.distance(sharp, blurred[0]).item() < trained.distance(sharp, blurred[1]).item()


def test_grey_is_three_equal_channels(trained: LPIPS) -> None:
    a = picture(channels=1)
    b = noisy(a, 0.1)
    as_rgb = trained.distance(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1))
    assert torch.allclose(trained.distance(a, b), as_rgb, rtol=1e-5)


def test_the_order_of_colours_matters(trained: LPIPS) -> None:
    a = picture()
    b = noisy(a, 0.1)
    assert trained.distance(a, b).item() != pytest.approx(trained.distance(a.flip(1), b.flip(1)).item(), rel=1e-3)


def test_many_frames_at_once_are_as_one_by_one(trained: LPIPS) -> None:
    a = torch.rand(18, 1, 40, 33, generator=torch.Generator().manual_seed(1))
    single = torch.cat([trained.distance(x[None], y[None]) for x, y in zip(a, a.flip(0), strict=True)])
    assert torch.allclose(trained.distance(a, a.flip(0)), single, rtol=1e-5)


def test_it_has_a_finite_gradient_even_where_frames_are_equal_and_black() -> None:
    torch.manual_seed(0)
    network = LPIPS().eval()
    for parameter in network.parameters():
        if parameter.dim() == 1:
            torch.nn.init.zeros_(parameter)  # so that black has no features at all
    black = torch.full((1, 3, 40, 40), 0.0) + (torch.tensor([-0.030, -0.088, -0.188])[:, None, None] + 1) / 2
    for a, b in ((black, black), (black, picture(size=40)), (picture(size=40), noisy(picture(size=40), 0.1))):
        a = a.clone().requires_grad_()
        network(a, b).sum().backward()
        assert a.grad is not None
        assert a.grad.isfinite().all()
    assert a.grad.abs().max() > 0
    with torch.autocast("cpu", torch.bfloat16):
        assert network(a, b).item() == pytest.approx(network.distance(a, b).item(), rel=1e-4)


def test_31_pixels_are_the_least() -> None:
    network, frames = LPIPS(), torch.rand(1, 1, 31, 31)
    assert network.distance(frames, frames).shape == (1,)
    with pytest.raises(GridError, match="frames are 64 x 30; expected 31 x 31 pixels or more"):
        network.distance(torch.rand(1, 3, 64, 30), torch.rand(1, 3, 64, 30))


def test_two_channels_have_no_lpips() -> None:
    with pytest.raises(UsageError, match="frames have 2 channels"):
        LPIPS().distance(torch.rand(1, 2, 64, 64), torch.rand(1, 2, 64, 64))


def test_a_wrong_file_is_named_with_its_first_fault(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(InputNotFoundError, match=r"weights\.safetensors: no such file"):
        LPIPS.load(path)
    path.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        LPIPS.load(path)
    good = {k: v.contiguous() for k, v in LPIPS().state_dict().items()}
    damaged = good["features.3.bias"].clone()
    damaged[5] = torch.nan
    faults = {
        r"lacks lin2\.model\.1\.weight": {k: v for k, v in good.items() if k != "lin2.model.1.weight"},
        r"features\.0\.bias is \[3\]; expected \[64\], as LPIPS on AlexNet has it": {
            **good,
            "features.0.bias": torch.ones(3),
        },
        r"features\.3\.bias holds NaN": {**good, "features.3.bias": damaged},
        r"has classifier\.1\.bias; expected only the weights": {**good, "classifier.1.bias": torch.ones(3)},
    }
    for message, tensors in faults.items():
        save_file(tensors, path)
        with pytest.raises(CheckpointError, match=message):
            LPIPS.load(path)


def test_loaded_weights_are_the_files(tmp_path: Path) -> None:
    made = {k: v.contiguous() for k, v in LPIPS().state_dict().items()}
    save_file(made, tmp_path / "w.safetensors")
    loaded = LPIPS.load(tmp_path / "w.safetensors").state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in load_file(tmp_path / "w.safetensors").items())
    assert set(loaded) == set(made)
