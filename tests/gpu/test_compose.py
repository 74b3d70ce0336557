"""The compiled compositing on a CUDA device: what no CPU can show. Without the other tests of this folder:

python -m pytest --noconftest tests/gpu/test_compose.py
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from pdr_cli.splat.camera import Camera
from pdr_cli.splat.compose import Gaussians, compose, view
from tests.splat.conftest import value_and_gradients
from tests.splat.projected import NAMES, Inputs, check, projected

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

SIZE = (40, 33)


def draw(*inputs: Tensor, size: tuple[int, int] = SIZE) -> Tensor:
    """On the GPU, from and to the CPU."""
    return compose(*(x.cuda() for x in inputs), size=size, backend="cuda").cpu()


def on_gpu(inputs: Inputs) -> list[Tensor]:
    return [x.detach().cuda().requires_grad_() for x in inputs]


def results(inputs: list[Tensor], size: tuple[int, int] = SIZE) -> list[Tensor]:
    """The image and the four gradients, on the GPU."""
    image = compose(*inputs, size=size, backend="cuda")
    return [image.detach(), *torch.autograd.grad(image.square().sum(), inputs)]


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    for name, a, b in zip(NAMES, found, expected, strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("channels", [0, 1, 2, 3, 4, 5, 8, 13])
def test_channels(channels: int) -> None:
    check(draw, projected(2, 60, channels, SIZE), SIZE)


@pytest.mark.parametrize("size", [(64, 64), (5, 70), (70, 5), (1, 1), (33, 31), (130, 130)])
def test_sizes_of_the_frame(size: tuple[int, int]) -> None:
    check(partial(draw, size=size), projected(1, 60, 3, size), size)


@pytest.mark.parametrize("count", [1, 300, 5000])
def test_gaussians_on_one_tile(count: int) -> None:
    check(partial(draw, size=(16, 16)), projected(2, count, 3, (16, 16), opacity=(0, 0.3)), (16, 16))


@pytest.mark.parametrize("opacity", [(0.99, 1.5), (3.0, 9.0)])
def test_opaque_gaussians(opacity: tuple[float, float]) -> None:
    centre, conic, covering, features = projected(1, 300, 2, (9, 9), opacity=opacity)
    check(partial(draw, size=(9, 9)), (centre * 0.1 + 4, conic, covering, features), (9, 9))


@pytest.mark.parametrize("frames", [0, 1, 6, 400])
def test_leading_dimensions(frames: int) -> None:
    inputs = [x.detach()[:1].expand(frames, *x.shape[1:]) for x in projected(1, 40, 2, (20, 24))]
    image = draw(*inputs, size=(20, 24))
    assert image.shape == (frames, 3, 20, 24)
    assert torch.equal(image, image[:1].expand_as(image))


def test_more_work_than_scratch_memory_holds() -> None:
    """512² pixels are 1,024 tiles; for 20,000 Gaussians their sums are 737 MB, nearly three times the scratch memory."""
    size = (512, 512)
    inputs = projected(2, 20_000, 3, size)
    found = results(on_gpu(inputs), size)
    image = compose(*inputs, size=size, backend="cpu")
    expected = [image.detach(), *torch.autograd.grad(image.square().sum(), inputs)]
    for name, a, b in zip(NAMES, found, expected, strict=True):
        assert (a.cpu() - b).abs().max() <= 1e-4 * b.abs().max(), name


def test_results_repeat_bit_by_bit_in_deterministic_mode() -> None:
    inputs = on_gpu(projected(3, 300, 3, SIZE))
    torch.use_deterministic_algorithms(True)
    try:
        first, *others = (results(inputs) for _ in range(5))
    finally:
        torch.use_deterministic_algorithms(False)
    for other in others:
        assert_equal(other, first)


def test_a_number_that_is_not_finite_shows() -> None:
    inputs = on_gpu(projected(3, 20, 2, SIZE))
    with torch.no_grad():
        inputs[0][0, 7, 1] = float("nan")
        inputs[1][1, 7, 0] = float("inf")
    image, *gradients = results(inputs)
    assert image[:2].isnan().all()
    assert image[2].isfinite().all()
    assert all(x[:2, 7].isnan().all() and x[2].isfinite().all() for x in gradients)


def test_strided_and_misaligned_inputs() -> None:
    plain = on_gpu(projected(3, 60, 2, SIZE))
    expected = results(plain)
    strided = [torch.stack([x.detach(), x.detach()], -1)[..., 0].requires_grad_() for x in plain]
    assert not any(x.is_contiguous() for x in strided)
    assert_equal(results(strided), expected)
    misaligned = [torch.cat([x.detach().new_zeros(1), x.detach().flatten()])[1:].view_as(x) for x in plain]
    assert all(x.is_contiguous() and x.data_ptr() % 8 == 4 for x in misaligned)
    assert_equal(results([x.requires_grad_() for x in misaligned]), expected)


def test_a_stream_that_is_not_the_default() -> None:
    inputs = on_gpu(projected(4, 300, 3, SIZE))
    expected = results(inputs)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # whatever runs on the default stream would be done before this
        found = results([(x.detach() * 1.0).requires_grad_() for x in inputs])
    stream.synchronize()
    assert_equal(found, expected)


def test_a_cuda_graph_replays_with_new_numbers() -> None:
    inputs = on_gpu(projected(2, 60, 3, SIZE))
    fresh = [x.detach().flip(0).clone() for x in inputs]
    static = [x.detach().clone().requires_grad_() for x in inputs]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            results(static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = results(static)
    for numbers in (inputs, fresh):
        with torch.no_grad():
            for x, new in zip(static, numbers, strict=True):
                x.copy_(new)
        graph.replay()
        torch.cuda.synchronize()
        assert_equal(captured, results([x.detach().clone().requires_grad_() for x in numbers]))


def test_opcheck() -> None:
    inputs = on_gpu(projected(2, 5, 3, (20, 22)))
    compose(*inputs, size=(20, 22))  # loads the library
    torch.library.opcheck(torch.ops.predgsplat.compose.default, (*inputs, 20, 22))


def test_a_view_is_that_of_the_cpu() -> None:
    random = torch.Generator().manual_seed(0)
    mean = (torch.rand(500, 3, generator=random) - 0.5) * 4 + torch.tensor([0, 0, 4.0])
    others = (torch.rand(500, n, generator=random) for n in (3, 4, 1, 2))
    scale, quaternion, opacity, features = others
    leaves = (mean, scale * 0.2 + 0.02, quaternion - 0.5, opacity[:, 0], features)
    seen = {}
    for device in ("cpu", "cuda"):
        gaussians = Gaussians(*(x.to(device) for x in leaves))
        seen[device] = view(gaussians, Camera(torch.eye(4, device=device), 1.2), size=(40, 48))
    for a, b in zip(seen["cpu"], seen["cuda"], strict=True):
        # α jumps at 1/255: where rounding puts a pixel on the other side, it differs by as much, and nowhere else.
        differs = (a - b.cpu()).abs() > 1e-4 * a.abs().max()
        assert differs.float().mean() < 1e-3


def test_gradients_are_those_of_the_reference_on_the_gpu() -> None:
    inputs = projected(2, 60, 3, SIZE)
    found = value_and_gradients(draw, inputs)
    reference = partial(compose, size=SIZE, backend="reference")
    expected = value_and_gradients(lambda *x: reference(*(t.cuda() for t in x)).cpu(), inputs)
    for name, a, b in zip(NAMES, found, expected, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max(), name
