"""Half precision of inputs and images: converted on a CPU; on a GPU, by the kernels, as `test_half_on_cpu` has it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pdr_cli import splat
from pdr_cli.splat import native
from tests.splat.conftest import random_gaussians, value_and_gradients

pytestmark = pytest.mark.skipif(bool(native.unavailable("cpu")), reason=native.unavailable("cpu"))

HALF = (torch.float16, torch.bfloat16)


def test_half_precision_inputs_have_gradients_of_their_own_type():
    inputs = random_gaussians((), 9, 2, torch.bfloat16)
    image = splat.render(*inputs, size=(12, 14), kernel_size=7)
    assert image.dtype == torch.float32
    assert all(g.dtype == torch.bfloat16 for g in torch.autograd.grad(image.sum(), inputs))


@pytest.mark.parametrize("normalize", splat.NORMALIZATIONS)
@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("dtype", [*HALF, torch.float32, torch.float64])
def test_the_image_is_rounded_to_the_type_that_is_named(each_path, dtype, backend, normalize):
    inputs = random_gaussians((2,), 9, 2, torch.float32)
    options = {"size": (12, 14), "kernel_size": 7, "backend": backend, "normalize": normalize}
    found = value_and_gradients(lambda *x: splat.render(*x, **options, dtype=dtype), inputs)
    expected = value_and_gradients(lambda *x: splat.render(*x, **options).to(dtype), inputs)
    assert found[0].dtype == dtype
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_type_of_the_image_that_is_refused(each_path):
    inputs = random_gaussians((), 5, 1, torch.float32)
    for dtype in (torch.int32, torch.complex64):
        with pytest.raises(ValueError, match=f"dtype is {dtype}; expected one of real numbers"):
            splat.render(*inputs, size=(12, 14), kernel_size=7, dtype=dtype)


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_on_a_gpu_as_the_operators_are_described(dtype):
    """Types and shapes of what a GPU would return, from fake tensors; a graph of torch.compile relies on them."""
    native.load("cpu")
    with FakeTensorMode():
        inputs = [torch.empty(3, 5, *tail, dtype=dtype, device="cuda") for tail in ((2,), (2,), (), (2,))]
        image = torch.ops.predgsplat.render.default(*inputs, 10, 12, 7.0, False)
        named = torch.ops.predgsplat.render.default(*inputs, 10, 12, 7.0, False, dtype)
        gradients = torch.ops.predgsplat.render_backward.default(image, *inputs, 7.0, False)
        rendered = native.render(*inputs, (10, 12), 7, False, dtype)
        assert all(a is b for a, b in zip(native.readable(*inputs), inputs, strict=True))
        assert all(x.dtype == torch.float32 for x in native.readable(*(x.cpu() for x in inputs)))
    assert (image.dtype, named.dtype, rendered.dtype) == (torch.float32, dtype, dtype)
    assert image.shape == named.shape == rendered.shape == (3, 2, 10, 12)
    assert [(x.shape, x.dtype) for x in gradients] == [(x.shape, dtype) for x in inputs]


def test_a_cpu_takes_no_half_precision(gaussians):
    inputs = [x.detach().float() for x in gaussians()]
    with pytest.raises(RuntimeError, match="expected float32 tensors"):
        torch.ops.predgsplat.render.default(*(x.half() for x in inputs), 10, 12, 7.0, False)
    with pytest.raises(RuntimeError, match="renders in float32 on a CPU"):
        torch.ops.predgsplat.render.default(*inputs, 10, 12, 7.0, False, torch.float16)


def test_the_operator_rounds_within_a_transform():
    coords, scale, rotation, amplitudes = (x.detach() for x in random_gaussians((), 9, 2, torch.float32))

    def energy(render, amplitudes):
        image = render(coords, scale, rotation, amplitudes)
        assert image.dtype == torch.float16
        return image.float().square().sum()

    def operator(*inputs):
        return torch.ops.predgsplat.render.default(*inputs, 12, 14, 7.0, False, torch.float16)

    def reference(*inputs):
        return splat.render(*inputs, size=(12, 14), kernel_size=7, backend="reference").half()

    found, expected = (torch.func.grad(partial(energy, f))(amplitudes) for f in (operator, reference))
    assert torch.equal(found, expected)


def test_half_precision_compiles_without_a_break():
    inputs = random_gaussians((2,), 9, 2, torch.bfloat16)

    def draw(*x):
        return splat.render(*x, size=(12, 14), kernel_size=7, dtype=torch.bfloat16)

    found = value_and_gradients(torch.compile(draw, fullgraph=True, backend="aot_eager"), inputs)
    assert all(torch.equal(a, b) for a, b in zip(found, value_and_gradients(draw, inputs), strict=True))
