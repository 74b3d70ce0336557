"""The compiled renderer on a CUDA device: what no CPU can show. Needs torch, pytest and a compiler, nothing else:

python -m pytest --noconftest tests/gpu/test_renderer.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from pdr_cli import splat
from pdr_cli.splat.graph import graphed

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

SAMPLINGS = ("lattice", "analytic")
NAMES = ("image", "coords", "scale", "rotation", "amplitudes")
Inputs = list[Tensor]


def gaussians(*batch: int, count: int = 60, channels: int = 1, device: str = "cuda") -> Inputs:
    """coords, scale, rotation and amplitudes of random Gaussians, float32, all needing gradients."""
    random = torch.Generator().manual_seed(0)
    ends = [((2,), -1.2, 1.2), ((2,), 0.1, 1.0), ((), -1.5, 1.5), ((channels,), -1.0, 1.0)]
    raw = [torch.rand(*batch, count, *shape, generator=random) * (high - low) + low for shape, low, high in ends]
    return [x.to(device).requires_grad_() for x in raw]


def draw(*inputs: Tensor, size: tuple[int, int] = (40, 33), kernel_size: int = 15, **options) -> Tensor:
    return splat.render(*inputs, size=size, kernel_size=kernel_size, **{"backend": "cuda", **options})


def weights(image: Tensor) -> Tensor:
    """What the tests multiply pixels by before they add them: the gradient of the image."""
    return torch.randn(image.shape, generator=torch.Generator().manual_seed(1)).to(image)


def results(render: Callable[..., Tensor], inputs: Inputs) -> list[Tensor]:
    """The image and the four gradients."""
    image = render(*inputs)
    return [image.detach(), *torch.autograd.grad(image, inputs, weights(image))]


def copies(inputs: Inputs, device: str, dtype: torch.dtype) -> Inputs:
    return [x.detach().to(device, dtype).requires_grad_() for x in inputs]


def check(inputs: Inputs, **options) -> None:
    """Compare with the reference in float64 on CPU and GPU, relative to each tensor's largest entry."""
    found = results(partial(draw, **options), inputs)
    reference = partial(draw, **options, backend="reference")
    rounded = results(reference, copies(inputs, "cpu", torch.float32))
    for device in ("cpu", "cuda"):
        expected = results(reference, copies(inputs, device, torch.float64))
        for name, a, b, c in zip(NAMES, found, expected, rounded, strict=True):
            if a.numel():
                # 0.3: gradients of Gaussians that show are about 1. Where plain torch in float32 rounds worse than
                # 1e-5, the kernels may too.
                largest = max(0.3, b.abs().max().item())
                error, unavoidable = ((x.cpu() - b.cpu()).abs().max().item() / largest for x in (a, c))
                assert error <= max(1e-5, 2 * unavoidable), f"{name} differs by {error:.1e} of its maximum on {device}"


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    for name, a, b in zip(NAMES, found, expected, strict=True):
        assert torch.equal(a, b), name


def test_auto_takes_it() -> None:
    assert splat.active_backend("cuda")[0] == "cuda"


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 8, 13, 16, 20])
def test_channels(channels: int, sampling: str) -> None:
    check(gaussians(2, channels=channels), sampling=sampling)


@pytest.mark.parametrize("kernel_size", [3, 15, 51])
@pytest.mark.parametrize("size", [(64, 64), (5, 70), (70, 5), (1, 1), (33, 31), (256, 256)])
def test_sizes_of_frame_and_kernel(size: tuple[int, int], kernel_size: int) -> None:
    check(gaussians(1, channels=2), size=size, kernel_size=kernel_size)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("count", [0, 1, 300, 1500])
def test_gaussians_on_one_tile(count: int, sampling: str) -> None:
    check(gaussians(2, count=count), size=(16, 16), kernel_size=9, sampling=sampling)


@pytest.mark.parametrize("batch", [(), (0,), (2, 0), (2, 3), (40,), (400,)])
def test_leading_dimensions(batch: tuple[int, ...]) -> None:
    """400 frames are enough for every Gaussian to have one warp, and a block eight or more Gaussians."""
    check(gaussians(*batch, count=40, channels=2), size=(20, 24), kernel_size=7)


def test_a_million_frames() -> None:
    inputs = gaussians(1, count=2)
    one = results(partial(draw, size=(3, 2), kernel_size=3), inputs)[0]
    with torch.no_grad():
        image = draw(*(x.expand(1_000_000, *x.shape[1:]) for x in inputs), size=(3, 2), kernel_size=3)
    assert torch.equal(image, one.expand_as(image))


@pytest.mark.parametrize("normalize", splat.NORMALIZATIONS)
def test_normalizations(normalize: str) -> None:
    check(gaussians(2), normalize=normalize)


def test_centres_on_the_border_and_far_away() -> None:
    places = torch.tensor([(-1.0, -1.0), (1.0, 1.0), (1.0, 0.3), (0.0, 0.0), (1e9, 0.0), (0.0, -1e30), (3e38, 1.0)])
    _, *others = gaussians(count=len(places))
    check([places.cuda().requires_grad_(), *others], size=(33, 17))


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("scale", [(1e-8, 0.5), (-1.0, 0.3), (0.02, 1.0), (30.0, 4.0), (1e30, 0.2)])
def test_extreme_scales(scale: tuple[float, float], sampling: str) -> None:
    coords, _, rotation, amplitudes = gaussians(count=5)
    scales = torch.tensor([scale] * 5).cuda().requires_grad_()
    check([coords, scales, rotation, amplitudes], kernel_size=31, sampling=sampling)


def test_large_rotations() -> None:
    inputs = gaussians()
    inputs[2] = (inputs[2].detach() * 1e6).requires_grad_()
    check(inputs)


def test_a_parameter_that_is_not_finite_shows() -> None:
    inputs = gaussians(3)
    with torch.no_grad():
        inputs[0][0, 7, 1] = float("nan")
        inputs[1][1, 7, 0] = float("inf")
    image, *gradients = results(draw, inputs)
    assert image[:2].isnan().all()
    assert image[2].isfinite().all()
    for gradient in gradients:
        assert gradient[:2, 7].isnan().all()
        assert gradient[:, :7].isfinite().all()


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("frames", [1, 300])
def test_results_repeat_bit_by_bit_in_deterministic_mode(frames: int, sampling: str) -> None:
    inputs = gaussians(frames, count=100, channels=3)
    torch.use_deterministic_algorithms(True)
    try:
        first, *others = (results(partial(draw, sampling=sampling), inputs) for _ in range(5))
    finally:
        torch.use_deterministic_algorithms(False)
    for other in others:
        assert_equal(other, first)


def test_strided_expanded_and_misaligned_inputs() -> None:
    plain = gaussians(3, channels=2)
    expected = results(draw, plain)
    strided = [torch.stack([x.detach(), x.detach()], -1)[..., 0].requires_grad_() for x in plain]
    assert not any(x.is_contiguous() for x in strided)
    assert_equal(results(draw, strided), expected)

    one = [x[:1].detach() for x in plain]
    expanded = [x.expand(3, *x.shape[1:]) for x in one]
    assert torch.equal(draw(*expanded), draw(*one).expand(3, -1, -1, -1))

    misaligned = [torch.cat([x.detach().new_zeros(1), x.detach().flatten()])[1:].view_as(x) for x in plain]
    assert all(x.is_contiguous() and x.data_ptr() % 8 == 4 for x in misaligned)
    assert_equal(results(draw, [x.requires_grad_() for x in misaligned]), expected)


def test_expanded_gradient() -> None:
    inputs = gaussians(2)
    summed = torch.autograd.grad(draw(*inputs).sum(), inputs)  # sends an expanded 1
    image = draw(*inputs)
    for a, b in zip(summed, torch.autograd.grad(image, inputs, torch.ones_like(image)), strict=True):
        assert torch.equal(a, b)


def test_a_stream_that_is_not_the_default() -> None:
    inputs = gaussians(4, count=300)
    expected = results(draw, inputs)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # whatever runs on the default stream would be done before this
        late = [(x.detach() * 1.0).requires_grad_() for x in inputs]
        found = results(draw, late)
    stream.synchronize()
    assert_equal(found, expected)


def test_a_cuda_graph_replays_with_new_numbers() -> None:
    inputs = gaussians(2, channels=3)
    fresh = [x.detach().flip(0).clone() for x in inputs]
    static = [x.detach().clone().requires_grad_() for x in inputs]
    grad = weights(draw(*static).detach())

    def step() -> list[Tensor]:
        image = draw(*static)
        return [image, *torch.autograd.grad(image, static, grad)]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for numbers in (inputs, fresh):
        with torch.no_grad():
            for x, new in zip(static, numbers, strict=True):
                x.copy_(new)
        graph.replay()
        torch.cuda.synchronize()
        expected = results(draw, [x.detach().clone().requires_grad_() for x in numbers])
        assert_equal([x.detach() for x in captured], expected)


@pytest.mark.parametrize("normalize", splat.NORMALIZATIONS)
@pytest.mark.parametrize("batch", [(), (64,)])
def test_a_captured_render_has_the_values_and_gradients_of_a_call(batch: tuple[int, ...], normalize: str) -> None:
    options = {"size": (64, 64), "kernel_size": 15, "normalize": normalize}
    captured = graphed(*gaussians(*batch, count=300, channels=2), **options)
    for factor in (1.0, 0.5):
        inputs = [(x.detach() * factor).requires_grad_() for x in gaussians(*batch, count=300, channels=2)]
        found = [x.clone() for x in results(captured, inputs)]
        assert_equal(found, results(partial(draw, **options), inputs))


def test_a_captured_render_without_gradients() -> None:
    inputs = [x.detach() for x in gaussians(3)]
    captured = graphed(*inputs, size=(40, 33), kernel_size=15, gradients=False)
    fresh = [x.flip(0) for x in inputs]
    assert torch.equal(captured(*fresh), draw(*fresh))
    with pytest.raises(ValueError, match="captured for"):
        captured(*(x[:2] for x in fresh))
    with pytest.raises(ValueError, match="captured without gradients"):
        captured(*gaussians(3))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_is_that_of_its_frames(channels: int) -> None:
    """One frame is drawn in tiles of 8x8; 64 frames in tiles of 16x16, of Gaussians that are prepared once."""
    frames = 64
    inputs = [x.detach() for x in gaussians(frames, count=1500, channels=channels)]
    image = draw(*inputs, size=(64, 64))
    single = torch.cat([draw(*(x[i : i + 1] for x in inputs), size=(64, 64)) for i in range(frames)])
    assert (image - single).abs().max() <= 1e-5 * single.abs().max()


def test_chunks_of_gaussians_that_tiles_skip() -> None:
    """Sorted along x, a tile needs a few of them; shuffled, most."""
    inputs = [x.detach() for x in gaussians(4, count=20_000, channels=2)]
    in_order = inputs[0][..., :1].argsort(1)
    ordered = [x.gather(1, in_order.view(4, -1, *[1] * (x.dim() - 2)).expand_as(x)) for x in inputs]
    options = {"size": (200, 300), "kernel_size": 31}
    expected = draw(*(x.cpu() for x in inputs), **options, backend="cpu")
    for given in (inputs, ordered):
        assert (draw(*given, **options).cpu() - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_preparing_gaussians_once_changes_no_bit() -> None:
    """81 tiles of 16x16 of 12,000 Gaussians are below 2^20 preparations; of two frames they are above."""
    inputs = [x.detach() for x in gaussians(2, count=12_000, channels=1)]
    both = draw(*inputs, size=(144, 144))
    apart = [draw(*(x[k : k + 1] for x in inputs), size=(144, 144)) for k in range(2)]
    assert torch.equal(both, torch.cat(apart))


def test_a_number_that_is_not_finite_shows_where_chunks_are_skipped() -> None:
    inputs = [x.detach() for x in gaussians(2, count=20_000)]
    inputs[0][1, 7_000, 1] = float("nan")
    image = draw(*inputs, size=(200, 300))
    assert image[1].isnan().all()
    assert image[0].isfinite().all()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_the_second_device() -> None:
    expected = results(draw, gaussians(2))
    assert torch.cuda.current_device() == 0
    found = results(draw, gaussians(2, device="cuda:1"))
    assert all(x.device.index == 1 for x in found)
    assert_equal([x.to("cuda:0") for x in found], expected)


def test_autocast_and_half_precision() -> None:
    inputs = gaussians(2)
    expected = results(draw, inputs)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert_equal(results(draw, inputs), expected)
    half = [x.detach().bfloat16() for x in inputs]
    assert torch.equal(draw(*half), draw(*(x.float() for x in half)))


def check_half(types: Sequence[torch.dtype], *batch: int, dtype: torch.dtype | None = None, **options) -> None:
    """Compare half precision with float32 of the same numbers: the image, rounded once, and each gradient in its input's type."""
    shape = {name: options.pop(name) for name in ("count", "channels") if name in options}
    inputs = [x.detach().to(t).requires_grad_() for x, t in zip(gaussians(*batch, **shape), types, strict=True)]
    image, *found = results(partial(draw, dtype=dtype, **options), inputs)
    single = copies(inputs, "cuda", torch.float32)
    expected_image, *expected = results(lambda *x: draw(*x, **options).to(dtype or torch.float32), single)
    assert image.dtype == expected_image.dtype
    assert torch.equal(image, expected_image)
    for name, x, a, b in zip(NAMES[1:], inputs, found, expected, strict=True):
        assert a.dtype == x.dtype, name
        # Float32 in its last digit where the compiler fuses other operations: then a digit more or less of the half type.
        error = (a.float() - b.to(x.dtype).float()).abs()
        assert (error <= torch.finfo(x.dtype).eps * b.abs() + 1e-6 * (b.abs().max() if b.numel() else 0)).all(), name


HALF = (torch.float16, torch.bfloat16)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 8, 16, 70])
def test_half_precision_by_channels(channels: int, dtype: torch.dtype, sampling: str) -> None:
    for image in (None, dtype):
        check_half([dtype] * 4, 2, channels=channels, dtype=image, sampling=sampling)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(
    ("batch", "count", "size"),
    [((0,), 5, (9, 9)), ((2,), 0, (9, 9)), ((1,), 1, (1, 1)), ((3,), 61, (5, 70)), ((64,), 1500, (64, 64)), ((), 9000, (33, 31))],
)  # fmt: skip
def test_half_precision_by_sizes(batch: tuple[int, ...], count: int, size: tuple[int, int], dtype: torch.dtype) -> None:
    """64 frames of 1,500 are prepared once; 9,000 have a warp each in the backward pass."""
    check_half([dtype] * 4, *batch, count=count, channels=2, size=size, dtype=dtype)


def test_half_precision_of_some_inputs_and_of_the_density() -> None:
    check_half([torch.float32, torch.bfloat16, torch.float16, torch.float32], 3, channels=3, dtype=torch.float16)
    check_half([torch.float32] * 4, 3, dtype=torch.bfloat16)
    check_half([torch.bfloat16] * 4, 3, normalize="density")


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_converts_every_number_as_torch_does(dtype: torch.dtype) -> None:
    """One flat Gaussian in each frame of one pixel, whose value is its amplitude."""

    def drawn(amplitudes: Tensor, image: torch.dtype | None) -> Tensor:
        frames = len(amplitudes)
        ones = amplitudes.new_ones(frames, 1, 2)
        inputs = (ones * 0, ones, ones[..., 0] * 0, amplitudes[:, None, None])
        return draw(*inputs, size=(1, 1), kernel_size=3, dtype=image).flatten()

    stored = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(dtype).cuda()
    stored = stored[stored.isfinite()]
    assert torch.equal(drawn(stored, None), stored.float())
    digits = torch.tensor([0, 0xFFF, 0x1000, 0x1001, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
    bits = (torch.arange(-(1 << 15), 1 << 15)[:, None] << 16) + digits
    floats = bits.to(torch.int32).view(torch.float32).flatten().cuda()
    floats = floats[floats.isfinite() & ~((floats != 0) & (floats.abs() < 2.0**-126))]
    assert torch.equal(drawn(floats, dtype), floats.to(dtype))


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_keeps_nan_and_infinity_and_needs_no_alignment(dtype: torch.dtype) -> None:
    inputs = [x.detach().to(dtype) for x in gaussians(3, channels=2)]
    misaligned = [torch.cat([x.new_zeros(1), x.flatten()])[1:].view_as(x) for x in inputs]
    assert all(x.data_ptr() % 4 == 2 for x in misaligned)
    assert torch.equal(draw(*misaligned, dtype=dtype), draw(*inputs, dtype=dtype))
    inputs[0][0, 7, 1] = inputs[1][1, 7, 0] = float("nan")
    image = draw(*inputs, dtype=dtype)
    assert image[:2].isnan().all()
    assert image[2].isfinite().all()
    inputs[3][2] = torch.finfo(dtype).max
    assert draw(*inputs, dtype=torch.float16)[2].isinf().any()


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_in_graphs(dtype: torch.dtype) -> None:
    """Of torch.compile and of CUDA; and what torch is told of the operators."""
    inputs = [x.detach().to(dtype).requires_grad_() for x in gaussians(2, channels=2)]
    options = {"size": (40, 33), "kernel_size": 15, "dtype": dtype}
    expected = results(partial(draw, dtype=dtype), inputs)
    compiled = torch.compile(partial(draw, dtype=dtype), fullgraph=True, backend="aot_eager")
    assert_equal(results(compiled, inputs), expected)
    assert_equal([x.clone() for x in results(graphed(*inputs, **options), inputs)], expected)
    torch.library.opcheck(torch.ops.predgsplat.render.default, (*inputs, 20, 22, 7.0, False, dtype))
    arguments = (torch.randn(2, 2, 20, 22, device="cuda"), *(x.detach() for x in inputs), 7.0, False)
    torch.library.opcheck(torch.ops.predgsplat.render_backward.default, arguments)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_torch_compile(backend: str) -> None:
    inputs = gaussians(2)
    compiled = torch.compile(lambda *x: draw(*x) * 2, fullgraph=True, backend=backend)
    expected = results(lambda *x: draw(*x) * 2, inputs)
    for a, b in zip(results(compiled, inputs), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_opcheck() -> None:
    inputs = gaussians(2, count=5)
    draw(*inputs)  # loads the library
    torch.library.opcheck(torch.ops.predgsplat.render.default, (*inputs, 20, 22, 7.0, False))
