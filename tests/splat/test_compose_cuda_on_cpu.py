"""The source of compose's CUDA kernels, run on a CPU under sanitizers, against the reference.

As `test_cuda_on_cpu` does for the renderer; scratch memory, like shared memory, starts as NaN.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.splat.conftest import value_and_gradients
from tests.splat.on_cpu import HERE, KERNELS, SEED, build, call
from tests.splat.projected import check, projected

SOURCES = (KERNELS / "compose_forward.cu", KERNELS / "compose_backward.cu")
PLENTY = 1 << 26  # floats of scratch memory, as on a GPU


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("compose_on_cpu"), *SOURCES, HERE / "compose_on_cpu.cpp")


class OnCpu(torch.autograd.Function):
    """One call of the kernels each way: centre, conic, opacity and features of P frames, all float32."""

    @staticmethod
    def forward(ctx, program, size, seed, most, *inputs):
        P, N, C = inputs[3].shape
        ctx.program = program
        ctx.header = struct.pack("7q", P, N, C, *size, seed, most)
        image, state = call(program, "forward", ctx.header, inputs, [(P, C + 1, *size), (P, 2, *size)])
        ctx.save_for_backward(*inputs, state)
        return image

    @staticmethod
    def backward(ctx, grad):
        *inputs, state = ctx.saved_tensors
        shapes = [tuple(x.shape) for x in inputs]
        return None, None, None, None, *call(ctx.program, "backward", ctx.header, [*inputs, state, grad], shapes)


@pytest.fixture
def draw(program) -> Callable[..., Callable[..., Tensor]]:
    return lambda size, seed=SEED, most=PLENTY: partial(OnCpu.apply, program, size, seed, most)


@pytest.fixture
def compare(draw) -> Callable[..., None]:
    """Compare the kernels with the reference in float64, in value and all gradients."""
    return lambda inputs, size, **options: check(draw(size, **options), inputs, size)


@pytest.mark.parametrize("channels", [0, 1, 2, 3, 4, 7, 9])
def test_channels(compare, channels):
    compare(projected(2, 14, channels, (23, 37)), (23, 37))


@pytest.mark.parametrize("count", [1, 256, 257, 600])
def test_gaussians_on_one_tile(compare, count):
    compare(projected(1, count, 2, (16, 16), opacity=(0, 0.5)), (16, 16))


@pytest.mark.parametrize("size", [(16, 16), (5, 70), (70, 5), (1, 1), (33, 31), (1, 40)])
def test_sizes_of_the_frame(compare, size):
    compare(projected(1, 40, 3, size), size)


@pytest.mark.parametrize("frames", [0, 1, 3])
def test_frames(compare, frames):
    inputs = tuple(x.detach()[:frames].requires_grad_() for x in projected(3, 20, 2, (20, 18)))
    compare(inputs, (20, 18))


@pytest.mark.parametrize("opacity", [(0.99, 1.5), (3.0, 9.0)])
def test_opaque_gaussians(compare, opacity):
    centre, conic, covering, features = projected(1, 120, 2, (9, 9), opacity=opacity)
    compare((centre * 0.1 + 4, conic, covering, features), (9, 9))


@pytest.mark.parametrize("widths", [(0.5, 12.0), (20.0, 300.0)])
def test_wide_gaussians(compare, widths):
    compare(projected(1, 20, 2, (33, 31), opacity=(0.1, 0.5), widths=widths), (33, 31))


def test_nothing_shows(draw):
    centre, conic, opacity, features = projected(2, 20, 2, (20, 18))
    with torch.no_grad():
        opacity[0] = 0
        centre[1] += 3e38
    image, *gradients = value_and_gradients(draw((20, 18)), (centre, conic, opacity, features))
    assert not image.any()
    assert not any(x.any() for x in gradients)


@pytest.mark.parametrize("channels", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_little_scratch_memory_divides_the_work_and_changes_nothing(draw, channels):
    size, frames, count = (17, 20), 3, 300  # 4 tiles
    inputs = projected(frames, count, channels, size, widths=(0.5, 1.5))
    whole = value_and_gradients(draw(size), inputs)
    per_frame = 4 * count * (6 + channels)
    for most in (2 * per_frame, per_frame, 1):  # two frames and one, one by one, and 256 Gaussians and 44 of each
        found = value_and_gradients(draw(size, most=most), inputs)
        assert all(torch.equal(a, b) for a, b in zip(found, whole, strict=True))
    check(draw(size, most=1), inputs, size)


@pytest.mark.parametrize("channels", [1, 6])
def test_results_repeat_bit_by_bit_in_whatever_order_threads_run(draw, channels):
    inputs = projected(1, 40, channels, (20, 18))
    first, *others = (value_and_gradients(draw((20, 18), seed=seed), inputs) for seed in range(3))
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_shows(draw, bad):
    centre, conic, opacity, features = (x.detach().clone() for x in projected(4, 6, 2, (35, 20)))
    centre[0, 4, 0] = conic[1, 4, 1] = opacity[2, 4] = bad
    leaves = tuple(x.requires_grad_() for x in (centre, conic, opacity, features))
    image, *gradients = value_and_gradients(draw((35, 20)), leaves)
    assert image[:3].isnan().all()
    assert image[3].isfinite().all()
    for gradient in gradients:
        assert gradient[:3, 4].isnan().all()
        assert gradient[3].isfinite().all()
        assert gradient[:3, :4].isfinite().all()
