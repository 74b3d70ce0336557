"""The source of the CUDA kernels, run on a CPU under sanitizers, against the reference.

`cuda_on_cpu.h` plays the GPU: it runs the threads of a block in an order that a seed decides, starts shared memory as
NaN, and stops at a barrier that some threads miss. What only a GPU shows is in tests/gpu.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pdr_cli.splat import reference
from tests.splat.on_cpu import SEED, build, call, header

NAMES = ("image", "coords", "scale", "rotation", "amplitudes")


class OnCpu(torch.autograd.Function):
    """One call of the kernels each way: coords, scale [P, N, 2], rotation [P, N], amplitudes [P, N, C], all float32.

    once: whether Gaussians are prepared once (1), by each tile (0), or as the kernels decide (-1). tile: 16 or 8 pixels, or
    as they decide. unread: a chunk of Gaussians that no tile may read.
    """

    @staticmethod
    def forward(ctx, program, size, kernel_size, analytic, seed, once, tile, unread, *inputs):
        P, N, C = inputs[3].shape
        ctx.save_for_backward(*inputs)
        ctx.program = program
        ctx.header = header((P, N, C), size, kernel_size, analytic, seed=seed, once=once, tile=tile, unread=unread)
        (image,) = call(program, "forward", ctx.header, inputs, [(P, C, *size)])
        return image

    @staticmethod
    def backward(ctx, grad):
        inputs = ctx.saved_tensors
        shapes = [tuple(x.shape) for x in inputs]
        return *[None] * 8, *call(ctx.program, "backward", ctx.header, [*inputs, grad], shapes)


def analytic(coords, scale, rotation, amplitudes, size, kernel_size):
    """The Gaussians at the pixels themselves, on a lattice of no end: the second mode of the kernels."""
    x, y = (
        (coords[..., axis] * half + half)[..., None] for axis, half in ((0, (size[1] - 1) / 2), (1, (size[0] - 1) / 2))
    )
    u = (torch.arange(size[1]) - x)[..., None, :] * (10 / (kernel_size - 1))
    v = (torch.arange(size[0]) - y)[..., :, None] * (10 / (kernel_size - 1))
    cos, sin = torch.cos(rotation)[..., None, None], torch.sin(rotation)[..., None, None]
    s1, s2 = scale.clamp(min=1e-3)[..., None, None].unbind(-3)
    values = torch.exp(-0.5 * (((cos * u + sin * v) / s1).square() + ((cos * v - sin * u) / s2).square()))
    return torch.einsum("pnc,pnhw->pchw", amplitudes, values)


ORACLES = {"lattice": reference.render, "analytic": analytic}


@pytest.fixture
def draw(program) -> Callable[..., Callable[..., Tensor]]:
    """The kernels for frames of a size, as a function of the four inputs."""

    def draw(size, kernel_size, sampling="lattice", seed=SEED, once=-1, tile=-1, unread=-1):
        return partial(OnCpu.apply, program, size, kernel_size, sampling == "analytic", seed, once, tile, unread)

    return draw


@pytest.fixture
def compare(draw, evaluate) -> Callable[..., None]:
    """Compare the kernels with the oracle in float64, in value and all gradients, for P frames of float32 inputs."""

    def compare(inputs, size, kernel_size, sampling="lattice"):
        single = [x.detach().float().requires_grad_() for x in inputs]
        double = [x.detach().double().requires_grad_() for x in single]
        oracle = partial(ORACLES[sampling], size=size, kernel_size=kernel_size)
        expected = evaluate(oracle, double)
        rounded = evaluate(oracle, single)
        found = [*evaluate(draw(size, kernel_size, sampling, once=0, tile=16), single)]
        if single[3].shape[2] <= 4:
            found += [draw(size, kernel_size, sampling, once=0, tile=8)(*single)]
        for tile, image in zip((16, 8), found[::5], strict=False):
            assert torch.equal(draw(size, kernel_size, sampling, once=1, tile=tile)(*single), image)
        names, expected, rounded = ([*x, x[0]] for x in (NAMES, expected, rounded))
        for name, a, b, c in zip(names, found, expected, rounded, strict=False):
            if a.numel():
                # Of the largest entry, which is about 1 where Gaussians show. What float32 rounds worse in plain torch,
                # such as the place of a very thin Gaussian, may be as bad here.
                largest = max(0.3, b.abs().max().item())
                error, unavoidable = ((x - b).abs().max().item() / largest for x in (a, c))
                tolerance = max(1e-5, 2 * unavoidable)
                assert error <= tolerance, f"{name} differs by {error:.1e} of its maximum, of {tolerance:.1e} allowed"

    return compare


@pytest.mark.parametrize("sampling", ORACLES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7, 12, 19])
def test_channels(gaussians, compare, channels, sampling):
    compare(gaussians(batch=(2,), gaussians=12, channels=channels), (23, 37), 15, sampling)


@pytest.mark.parametrize("sampling", ORACLES)
@pytest.mark.parametrize("count", [0, 1, 300, pytest.param(1100, marks=pytest.mark.slow)])
def test_gaussians_on_one_tile(gaussians, compare, count, sampling):
    compare(gaussians(batch=(1,), gaussians=count, channels=2), (16, 16), 9, sampling)


@pytest.mark.parametrize("sampling", ORACLES)
@pytest.mark.parametrize("frames", [0, 1, 3])
def test_frames(gaussians, compare, frames, sampling):
    compare(gaussians(batch=(frames,), channels=2), (20, 18), 7, sampling)


@pytest.mark.slow
def test_so_many_gaussians_that_each_has_one_warp(gaussians, compare):
    compare(gaussians(batch=(1,), gaussians=8192 + 3), (5, 6), 5)


def test_no_channels(gaussians, draw):
    inputs = [x.detach().float().requires_grad_() for x in gaussians(batch=(2,), channels=0)]
    image = draw((5, 6), 7)(*inputs)
    assert image.shape == (2, 0, 5, 6)
    assert not any(x.any() for x in torch.autograd.grad(image.sum(), inputs))


@pytest.mark.parametrize("kernel_size", [3, 15, 51])
@pytest.mark.parametrize("size", [(16, 16), (5, 70), (70, 5), (1, 1), (33, 31), (1, 40)])
def test_sizes_of_frame_and_kernel(gaussians, compare, size, kernel_size):
    compare(gaussians(batch=(1,), channels=1 + (kernel_size == 15)), size, kernel_size)


@pytest.mark.parametrize("sampling", ORACLES)
def test_centres_on_the_border_and_far_away(gaussians, compare, sampling):
    _, *others = gaussians(batch=(1,), gaussians=12, channels=2)
    places = [(-1, -1), (1, 1), (-1, 1), (1, 0.3), (0, 0), (1.4, -1.5), (-1.05, 0), (0.2, 1.01)]
    far = [(1e9, 0), (0, -1e9), (1e30, -1e30), (3e38, 0.1)]
    compare([torch.tensor([places + far]), *others], (33, 17), 9, sampling)


@pytest.mark.parametrize("sampling", ORACLES)
@pytest.mark.parametrize("scale", [(1e-8, 0.5), (1e-8, 1e-8), (-1.0, 0.3), (1e-3, 1.0), (30.0, 4.0), (1e30, 0.2)])
def test_extreme_scales(gaussians, compare, scale, sampling):
    coords, _, rotation, amplitudes = gaussians(batch=(1,), gaussians=4, channels=2)
    compare([coords, torch.tensor([[scale] * 4]), rotation, amplitudes], (20, 22), 31, sampling)


@pytest.mark.parametrize("sampling", ORACLES)
def test_long_thin_and_oblique(gaussians, compare, sampling):
    coords, _, _, amplitudes = gaussians(batch=(1,), gaussians=12, channels=2)
    scale = torch.tensor([0.95, 0.04]).expand(1, 12, 2)
    compare([coords, scale, torch.linspace(-3, 3, 12)[None], amplitudes], (64, 60), 51, sampling)


@pytest.mark.parametrize("rotation", [100.0, -1e6, 1e9])
def test_large_rotations(gaussians, compare, rotation):
    coords, scale, small, amplitudes = gaussians(batch=(1,))
    compare([coords, scale, rotation + small, amplitudes], (20, 22), 15)


@pytest.mark.parametrize("tile", [16, 8])
@pytest.mark.parametrize(("channels", "sampling"), [(1, "lattice"), (6, "lattice"), (16, "lattice"), (3, "analytic")])
def test_results_repeat_bit_by_bit_in_whatever_order_threads_run(gaussians, draw, evaluate, channels, sampling, tile):
    inputs = gaussians(batch=(1,), gaussians=40, channels=channels, dtype=torch.float32)
    renderers = (draw((20, 18), 15, sampling, seed, once, tile) for seed, once in enumerate((0, 1, 1)))
    first, *others = (evaluate(render, inputs) for render in renderers)
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("sampling", ORACLES)
@pytest.mark.parametrize("once", [0, 1])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_parameter_that_is_not_finite_shows(gaussians, draw, evaluate, bad, sampling, once):
    inputs = gaussians(batch=(6,), dtype=torch.float32)
    coords, scale, rotation, _ = (x.detach() for x in inputs)
    coords[0, 4, 0] = coords[1, 4, 1] = scale[2, 4, 0] = scale[3, 4, 1] = rotation[4, 4] = bad
    image, *gradients = evaluate(draw((35, 20), 9, sampling, 0, once), inputs)
    assert image[:5].isnan().all()
    assert image[5].isfinite().all()
    for gradient in gradients:
        assert gradient[:5, 4].isnan().all()
        assert gradient[5].isfinite().all()
        assert gradient[:5, :4].isfinite().all()


def test_the_floor_of_a_centre_is_that_of_the_reference(gaussians, draw, evaluate):
    """Beside a whole pixel a fused multiplication and addition may round to the other side, where the slope differs."""
    width = 38
    half = (width - 1) / 2
    near = torch.arange(1, width - 1).float()[:, None] / half - 1 + torch.arange(-8, 9) * 2.0**-24
    near = near.float().flatten()
    fused = (near.double() * half + half).float().floor()
    places = near[reference.whole_and_fraction(near, width)[0] != fused]
    assert len(places) >= 10
    _, scale, rotation, amplitudes = gaussians(batch=(1,), gaussians=len(places), dtype=torch.float32)
    coords = torch.stack([places, places], -1)[None].requires_grad_()
    inputs = (coords, scale, rotation, amplitudes)
    found = evaluate(draw((width, width), 9), inputs)[1]
    expected = evaluate(partial(reference.render, size=(width, width), kernel_size=9), inputs)[1]
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


@pytest.fixture
def sorted_gaussians(gaussians) -> list[Tensor]:
    """Two frames of four chunks, the last one incomplete, each over a few columns; the second chunk lies far outside."""
    coords, *others = (x.detach().float() for x in gaussians(batch=(2,), gaussians=3 * 128 + 5, channels=2))
    coords = coords.gather(1, coords[..., :1].argsort(1).expand_as(coords))
    coords[:, 128:256] += 9
    coords[1, 300:] = float("inf")
    return [coords, *others]


@pytest.mark.parametrize("sampling", ORACLES)
@pytest.mark.parametrize("kernel_size", [5, pytest.param(31, marks=pytest.mark.slow)])
def test_chunks_that_tiles_skip_would_have_drawn_nothing(sorted_gaussians, draw, compare, kernel_size, sampling):
    size = (20, 150)
    apart = draw(size, kernel_size, sampling, once=0)(*sorted_gaussians)
    assert torch.equal(draw(size, kernel_size, sampling, once=1)(*sorted_gaussians)[:1], apart[:1])
    compare([x[:1] for x in sorted_gaussians], size, kernel_size, sampling)
    assert draw(size, kernel_size, sampling, once=1)(*sorted_gaussians)[1].isnan().all()


@pytest.mark.parametrize("tile", [16, pytest.param(8, marks=pytest.mark.slow)])
def test_boxes_reach_the_last_pixel(draw, tile):
    """In each frame one flat Gaussian, a pixel further on: its lattice of 7 x 7 ends at the border of a tile in some."""
    size, frames = (48, 48), 47
    place = (torch.arange(frames) + 0.5) / 23.5 - 1
    shape = (frames, 1, 2)
    inputs = (
        place[:, None, None].expand(shape),
        torch.full(shape, 9.0),
        torch.zeros(shape[:2]),
        torch.ones(frames, 1, 1),
    )
    image = draw(size, 7, once=1, tile=tile)(*inputs)
    assert torch.equal(image, draw(size, 7, once=0, tile=tile)(*inputs))
    covered = (image > 0).sum((-2, -1)).flatten()
    within = torch.tensor([min(k + 4, 47) - max(k - 3, 0) + 1 for k in range(frames)])
    assert torch.equal(covered, within.square())


def test_an_image_does_not_depend_on_gaussians_elsewhere(gaussians, draw):
    """More chunks than threads, and an odd number of them, so that shared memory fills up at other places."""
    near = [x.detach().float() for x in gaussians(batch=(1,), gaussians=700)]
    far = [x[:, :1].expand(1, 257 * 128, *x.shape[2:]) for x in near]
    far[0] = far[0] + 50
    image = draw((9, 9), 7, once=0)(*near)
    for order, once in (((far, near), 0), ((far, near), 1), ((near, far), 1)):
        inputs = [torch.cat(pair, 1) for pair in zip(*order, strict=True)]
        assert torch.equal(draw((9, 9), 7, once=once)(*inputs), image)


def test_a_chunk_that_reaches_no_tile_is_not_read(sorted_gaussians, draw):
    draw((20, 150), 9, once=1, unread=1)(*sorted_gaussians)
    with pytest.raises(AssertionError, match="use-after-poison"):
        draw((20, 150), 9, once=1, unread=2)(*sorted_gaussians)


@pytest.mark.parametrize(
    ("frames", "size", "channels", "count", "tile", "once"),
    [
        pytest.param(1, (32, 32), 1, 300, 8, 0, id="one frame of 32"),
        pytest.param(16, (32, 32), 3, 300, 8, 0, id="64 tiles of 16"),
        pytest.param(17, (32, 32), 3, 300, 16, 0, id="68 tiles of 16"),
        pytest.param(1, (64, 64), 5, 300, 16, 0, id="more than four channels"),
        pytest.param(4, (64, 64), 1, 4096, 8, 0, id="as many preparations as may be repeated"),
        pytest.param(4, (64, 64), 1, 4097, 8, 1, id="one more"),
        pytest.param(320, (128, 128), 1, 400, 16, 1, id="a batch of 320 frames"),
        pytest.param(1, (721, 1440), 1, 260_000, 16, 1, id="a global field"),
        pytest.param(1, (64, 64), 1, 0, 8, 0, id="no Gaussians"),
        pytest.param(0, (64, 64), 1, 300, 8, 0, id="no frames"),
    ],
)
def test_how_the_forward_pass_divides_its_work(program, frames, size, channels, count, tile, once):
    """8x8 pixels a block up to 64 tiles of 16x16 and four channels; Gaussians prepared once from 2^20 times on."""
    numbers = header((frames, count, channels), size, 15, False)
    result = subprocess.run([str(program), "plan"], input=numbers, capture_output=True, check=True)
    assert result.stdout.split() == [b"%d" % tile, b"%d" % once]


MISUSE = """
__global__ void kernel(int what, float* out) {
  __shared__ float shared[64];
  const int t = threadIdx.x;
  if (what == 0 && t == 40) return;
  if (what == 1 && t % 2) __shfl_xor_sync(~0u, 1.0f, 1);
  if (what == 6 && t % 2) __syncthreads();
  if (what == 2) out[t] = shared[63 - t];
  shared[t] = t;
  if (what != 3)
    __syncthreads();
  out[t] = what == 4 ? shared[t + 1] : shared[63 - t] + (what == 2 ? out[t] : 0.0f);
}

int main(int, char** arguments) {
  std::vector<float> out(64);
  cudaLaunchConfig_t config = {1, 64, nullptr};
  cudaLaunchKernelEx(&config, kernel, atoi(arguments[1]), out.data());
  for (int t = 0; t < 64; ++t)
    if (out[t] != 63 - t) return 1;
  return 0;
}
"""


@pytest.fixture(scope="module")
def misuse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("misuse") / "misuse.cu"
    source.write_text(MISUSE)
    return build(source.parent, source)


@pytest.mark.parametrize(
    ("what", "code", "message"),
    [
        pytest.param(0, 3, "threads wait here for others that never come", id="a thread returns before a barrier"),
        pytest.param(1, 3, "threads wait here for others that never come", id="half a warp shuffles"),
        pytest.param(6, 3, "a thread arrives here while others wait at another line", id="barriers at two places"),
        pytest.param(2, 1, "", id="shared memory is read first"),
        pytest.param(3, 1, "", id="a barrier is missing"),
        pytest.param(4, 1, "out of bounds", id="beyond the end"),
        pytest.param(5, 0, "", id="nothing is wrong"),
    ],
)
def test_the_cpu_notices_misuse(misuse, what, code, message):
    result = subprocess.run([str(misuse), str(what)], capture_output=True, text=True)
    assert (result.returncode, message in result.stderr) == (code, True), result.stderr
