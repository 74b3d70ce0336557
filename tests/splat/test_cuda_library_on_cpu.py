"""The CUDA library, compiled for a CPU: its operators, and `render` on them, in half precision. tests/gpu runs it on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from pdr_cli import splat
from pdr_cli.splat import derivatives, native, node
from tests.splat.conftest import random_gaussians, value_and_gradients
from tests.splat.on_cpu import build_library

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu has the library itself")

HALF = (torch.float16, torch.bfloat16)
SIZE, KERNEL_SIZE = (20, 18), 9
CUDA = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)


@pytest.fixture(scope="module")
def operators(tmp_path_factory: pytest.TempPathFactory) -> tuple[Callable[..., Tensor], ...]:
    """`render` and `render_backward` of the CUDA library, for tensors of the CPU."""
    assert not native.load("cpu").reason
    torch.ops.load_library(str(build_library(tmp_path_factory.mktemp("cuda_library"))))
    return tuple(partial(operator.redispatch, CUDA) for operator in derivatives._operators())


@pytest.fixture(autouse=True)
def on_gpu(operators, monkeypatch: pytest.MonkeyPatch) -> None:
    """`splat.render` as for tensors on a GPU."""
    monkeypatch.setattr(derivatives, "_operators", lambda: operators)
    monkeypatch.setitem(native.TYPES, "cpu", native.TYPES["cuda"])
    monkeypatch.setattr(node, "direct", None)


def draw(*inputs: Tensor, **options) -> Tensor:
    return splat.render(*inputs, **{"size": SIZE, "kernel_size": KERNEL_SIZE, "backend": "cpu", **options})


def some(dtype: torch.dtype, *batch: int, channels: int = 2) -> tuple[Tensor, ...]:
    return tuple(x.detach().to(dtype).requires_grad_() for x in random_gaussians(batch, channels=channels))


def single(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.detach().float().requires_grad_() for x in inputs)


def assert_rounded(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], dtypes: list[torch.dtype]) -> None:
    """Whether all of `found` have their dtype, and are what is expected, rounded once."""
    assert [x.dtype for x in found] == dtypes
    assert all(torch.equal(a, b.to(a.dtype)) for a, b in zip(found, expected, strict=True))


def test_float32_is_that_of_the_reference(same):
    inputs = some(torch.float32, 2)
    same(value_and_gradients(draw, inputs), value_and_gradients(partial(draw, backend="reference"), inputs), 1e-5)


@pytest.mark.parametrize("normalize", splat.NORMALIZATIONS)
@pytest.mark.parametrize("image", [None, torch.float32, *HALF])
@pytest.mark.parametrize("dtype", [*HALF, torch.float32])
def test_half_precision(dtype, image, normalize):
    """The image is float32 unless its type is named, and each gradient has the type of its input."""
    inputs, options = some(dtype, 2), {"normalize": normalize}

    def in_single(*inputs: Tensor) -> Tensor:
        # Weights of pixels are rounded to the type of the image.
        return draw(*inputs, **options).to(image or torch.float32)

    found = value_and_gradients(partial(draw, dtype=image, **options), inputs)
    expected = value_and_gradients(in_single, single(inputs))
    assert_rounded(found, expected, [image or torch.float32, *[dtype] * 4])


def test_each_input_may_have_a_type_of_its_own():
    coords, scale, rotation, amplitudes = some(torch.float32, 3)
    inputs = (coords, scale.bfloat16(), rotation.half(), amplitudes)
    leaves = tuple(x.detach().requires_grad_() for x in inputs)
    expected = value_and_gradients(draw, single(inputs))
    assert_rounded(value_and_gradients(draw, leaves), expected, [torch.float32, *(x.dtype for x in inputs)])
    whole = torch.ones_like(rotation, dtype=torch.int64)
    assert torch.equal(draw(*inputs[:2], whole, amplitudes), draw(*inputs[:2], whole.float(), amplitudes))


def test_strided_and_expanded_inputs():
    inputs = [x.detach() for x in some(torch.float16, 3)]
    strided = [torch.stack([x, x], -1)[..., 0] for x in inputs]
    assert torch.equal(draw(*strided, dtype=torch.float16), draw(*inputs, dtype=torch.float16))
    one = [x[:1] for x in inputs]
    assert torch.equal(draw(*(x.expand(3, *x.shape[1:]) for x in one)), draw(*one).expand(3, -1, -1, -1))


def test_gaussians_that_are_prepared_once_are_prepared_in_float32():
    """64 tiles of 8x8 pixels and 17,000 Gaussians are more than 2^20 preparations; all but 100 lie far outside."""
    coords, *others = (x.detach()[:1].expand(17_000, *x.shape[1:]) for x in some(torch.float16))
    coords = coords.clone()
    coords[100:] = 9
    found = draw(coords, *others, size=(64, 64))
    assert torch.equal(found, draw(coords[:100], *(x[:100] for x in others), size=(64, 64)))


@pytest.mark.parametrize("dtype", HALF)
def test_transforms_and_second_derivatives(dtype):
    inputs = some(dtype, 3)
    batch = vmap(partial(draw, dtype=dtype))(*inputs)
    assert batch.dtype == dtype
    assert torch.equal(batch, draw(*inputs, dtype=dtype))

    def energy(coords: Tensor, *others: Tensor, **options) -> Tensor:
        return draw(coords, *others, **options).float().square().sum()

    first = [vmap(grad(partial(energy, dtype=dtype, backend=b)))(*inputs) for b in ("auto", "reference")]
    second = []
    for backend in ("auto", "reference"):
        (slope,) = torch.autograd.grad(energy(*inputs, backend=backend), inputs[0], create_graph=True)
        second.append(torch.autograd.grad(slope.float().square().sum(), inputs[0])[0])
    for a, b in (first, second):
        assert a.dtype == b.dtype == dtype
        # Both round to half precision at the end, the second derivative also between: by 2^-8 of each step.
        assert (a.float() - b.float()).abs().max() <= 2**-6 * b.float().abs().max()


def test_what_the_operators_do_not_take(operators):
    render, render_backward = operators
    inputs = [x.detach() for x in some(torch.float16)]
    with pytest.raises(RuntimeError, match="expected float32, float16 or bfloat16"):
        render(*(x.double() for x in inputs), *SIZE, KERNEL_SIZE, False)
    with pytest.raises(RuntimeError, match="expected float32, float16 or bfloat16"):
        render(*inputs, *SIZE, KERNEL_SIZE, False, torch.float64)
    with pytest.raises(RuntimeError, match="expected float32 tensors"):
        render_backward(torch.ones(2, *SIZE, dtype=torch.float16), *inputs, KERNEL_SIZE, False)
