"""The CUDA kernels that read and write half precision, run on a CPU, against those for float32 on converted inputs.

Both are compiled from one source, and compute in float32 alone: images and gradients are equal bit by bit, rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from tests.splat.conftest import random_gaussians
from tests.splat.on_cpu import TYPES, call, header

HALF = (torch.float16, torch.bfloat16)
NAMES = ("image", "coords", "scale", "rotation", "amplitudes")


class Drawn(NamedTuple):
    """An image, and the gradients of a random weighting of its pixels."""

    image: Tensor
    gradients: list[Tensor]


@pytest.fixture
def draw(program) -> Callable[..., Drawn]:
    """The kernels for the types of the inputs; without a dtype of the image, those for float32 alone."""

    def draw(inputs: Sequence[Tensor], size, kernel_size=9, sampling="lattice", dtype=None, **options: int) -> Drawn:
        P, N, C = inputs[3].shape
        kinds = [x.dtype for x in (*inputs, torch.empty(0, dtype=dtype))]
        types = [TYPES.index(kind) for kind in kinds] if dtype else [-1] * 5
        numbers = header((P, N, C), size, kernel_size, sampling == "analytic", types, **options)
        (image,) = call(program, "forward", numbers, inputs, [(P, C, *size)], kinds[4:])
        grad = torch.randn(P, C, *size, generator=torch.Generator().manual_seed(1))
        shapes = [tuple(x.shape) for x in inputs]
        return Drawn(image, call(program, "backward", numbers, [*inputs, grad], shapes, kinds[:4]))

    return draw


@pytest.fixture
def compare(draw) -> Callable[..., None]:
    """Compare the kernels for other types with those for float32, bit by bit."""

    def compare(inputs, dtype, size=(20, 18), kernel_size=9, sampling="lattice", offset=0, **options) -> None:
        expected = draw([x.float() for x in inputs], size, kernel_size, sampling, **options)
        found = draw(inputs, size, kernel_size, sampling, dtype, offset=offset, **options)
        rounded = [expected.image.to(dtype), *(d.to(x.dtype) for d, x in zip(expected.gradients, inputs, strict=True))]
        for name, a, b in zip(NAMES, [found.image, *found.gradients], rounded, strict=True):
            assert a.dtype == b.dtype, name
            assert torch.equal(a.isnan(), b.isnan()), name
            assert torch.equal(a.nan_to_num(0), b.nan_to_num(0)), name

    return compare


def some(types: torch.dtype | Sequence[torch.dtype], *batch: int, **options: int) -> list[Tensor]:
    """The inputs of random Gaussians, in a type or in one each."""
    each = [types] * 4 if isinstance(types, torch.dtype) else types
    return [x.detach().to(dtype) for x, dtype in zip(random_gaussians(batch, **options), each, strict=True)]


@pytest.mark.parametrize("sampling", ["lattice", "analytic"])
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("channels", [1, 3, 8, 16, pytest.param(70, marks=pytest.mark.slow)])
def test_channels(compare, channels, dtype, sampling):
    compare(some(dtype, 2, gaussians=12, channels=channels), dtype, (23, 37), 15, sampling)


@pytest.mark.parametrize("image", TYPES)
@pytest.mark.parametrize(
    "types",
    [TYPES[:1] * 4, (*HALF, *HALF), (torch.float32, torch.bfloat16, torch.float32, torch.float16), (*HALF, *TYPES[:2])],
)
def test_types_may_differ(compare, types, image):
    compare(some(types, 2, channels=2), image)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("size", [(16, 16), (5, 70), (1, 1), (33, 31)])
@pytest.mark.parametrize(("frames", "count"), [(0, 5), (1, 0), (1, 1), (3, 7)])
def test_empty_and_odd_sizes(compare, frames, count, size, dtype):
    compare(some(dtype, frames, gaussians=count, channels=2), dtype, size)


@pytest.mark.parametrize("dtype", HALF)
def test_no_channels(compare, dtype):
    compare(some(dtype, 2, channels=0), dtype)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("offset", [1, 3])
def test_numbers_that_are_aligned_to_themselves_alone(compare, offset, dtype):
    compare(some((dtype, dtype, dtype, torch.float32), 2, channels=3), dtype, offset=offset)
    compare(some(dtype, 2, channels=3), dtype, offset=offset)


@pytest.mark.parametrize("once", [0, 1])
@pytest.mark.parametrize("tile", [16, 8])
def test_however_the_work_is_divided(compare, tile, once):
    compare(some(torch.float16, 2, gaussians=140, channels=1), torch.bfloat16, (20, 40), tile=tile, once=once)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_stay(draw, compare, bad, dtype):
    inputs = some(dtype, 7, channels=2)
    coords, scale, rotation, amplitudes = inputs
    coords[0, 4, 0] = coords[1, 4, 1] = scale[2, 4, 0] = scale[3, 4, 1] = rotation[4, 4] = amplitudes[5, 4, 1] = bad
    compare(inputs, dtype)
    image, gradients = draw(inputs, (20, 18), dtype=dtype)
    assert image[:5].isnan().all()
    assert not image[5, 0].isnan().any()
    assert not image[5, 1].isfinite().all()
    assert image[6].isfinite().all()
    assert all(gradient[:5, 4].isnan().all() and gradient[6].isfinite().all() for gradient in gradients)


def test_what_exceeds_float16_is_infinite(compare, draw):
    coords, scale, rotation, amplitudes = some(torch.float32, 1, gaussians=3)
    inputs = [coords * 0, scale * 0 + 1, rotation, amplitudes * 0 + 40_000]
    image = draw(inputs, (9, 9), dtype=torch.float16).image
    assert image.isinf().any()
    compare(inputs, torch.float16, (9, 9))


@pytest.mark.parametrize("dtype", HALF)
def test_numbers_are_rounded_to_the_nearest_and_ties_to_even(program, dtype):
    """Floats with every sign, exponent and first seven digits, each with digits at and beside a tie of either type."""
    digits = torch.tensor([0, 1, 0xFFF, 0x1000, 0x1001, 0x2FFF, 0x3000, 0x3001, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
    bits = (torch.arange(1 << 16)[:, None] << 16) + digits
    floats = bits.to(torch.int32).view(torch.float32).flatten()
    numbers = header((1, len(floats), 1), (1, 1), 3, False, [TYPES.index(dtype)] * 5)
    shape = tuple(floats.shape)
    rounded, read = call(program, "convert", numbers, [floats], [shape, shape], [dtype, torch.float32])
    expected = floats.to(dtype)
    known = ~expected.isnan()
    assert torch.equal(rounded.view(torch.int16)[known], expected.view(torch.int16)[known])
    assert torch.equal(read.view(torch.int32)[known], expected.float().view(torch.int32)[known])
    assert rounded[~known].isnan().all()
    assert read[~known].isnan().all()
