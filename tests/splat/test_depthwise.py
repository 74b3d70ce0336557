"""The compiled depth-wise convolution against PyTorch's, in value and in every gradient, and what it promises as an operator."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pdr_cli.splat import build, native
from pdr_cli.splat.depthwise import depthwise, reference
from tests.splat.test_native import OTHER_LEVELS, in_a_new_process, strided

pytestmark = pytest.mark.skipif(bool(native.unavailable("cpu")), reason=native.unavailable("cpu"))

OPERATORS = torch.ops.predgsplat
# Of the largest entry. Float32 sums of up to 121 products, and of the places of all frames, lose a few times 6e-8.
SINGLE = 1e-6
HALF = 2**-8  # bfloat16 keeps eight bits

Convolution = Callable[..., Tensor]


def problem(
    shape: tuple[int, int, int, int],
    kernel: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Channels-last frames, weights and bias, all of which need gradients."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=random).to(dtype).to(memory_format=torch.channels_last)
    weight, bias = torch.randn(shape[1], 1, *kernel, generator=random), torch.randn(shape[1], generator=random)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def same(kernel: tuple[int, int], dilation: int) -> tuple[int, int]:
    return dilation * (kernel[0] // 2), dilation * (kernel[1] // 2)


def outcome(
    convolution: Convolution, inputs: tuple[Tensor, ...], padding: tuple[int, int], dilation: int
) -> list[Tensor]:
    """The output, and the gradients of a random weighting of it, in numbers that bfloat16 has."""
    out = convolution(*inputs, padding, dilation)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    return [out, *torch.autograd.grad(out, inputs, weights.to(out.dtype))]


def compare(inputs: tuple[Tensor, ...], padding: tuple[int, int], dilation: int) -> None:
    """Against the specification in float64, of the same numbers."""
    found = outcome(depthwise, inputs, padding, dilation)
    expected = outcome(reference, tuple(x.detach().double().requires_grad_() for x in inputs), padding, dilation)
    places = found[0][:, :1].numel()
    for name, a, b in zip(("output", "x", "weight", "bias"), found, expected, strict=True):
        assert a.shape == b.shape
        # The sums over all places may cancel in each of a few channels; of random signs, they have this size.
        usual = places**0.5 if name in ("weight", "bias") else 1.0
        error = (a.double() - b).abs().max() / b.abs().max().clamp(min=usual) if b.numel() else torch.zeros(())
        limit = HALF if a.dtype == torch.bfloat16 else SINGLE
        assert error <= limit, f"{name} is off by {error:.1e} of its maximum"


SIZES = [(16, 16), (7, 5), (2, 16), (1, 1), (1, 9), (40, 3), (70, 33)]  # also less than the kernel, and several bands
KERNELS = [((5, 5), 1), ((7, 7), 3), ((3, 3), 1), ((11, 11), 2), ((1, 9), 1), ((9, 1), 4), ((3, 21), 1), ((1, 1), 1)]


@pytest.mark.parametrize(("kernel", "dilation"), KERNELS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_the_specification_in_value_and_every_gradient(size, kernel, dilation):
    compare(problem((2, 20, *size), kernel), same(kernel, dilation), dilation)


@pytest.mark.parametrize("channels", [1, 3, 16, 48, 65, 300])  # vectors partly filled, several groups of them
def test_any_number_of_channels(channels):
    compare(problem((3, channels, 9, 10), (5, 5)), (2, 2), 1)


@pytest.mark.parametrize(("kernel", "dilation"), [((5, 5), 1), ((7, 7), 3)])
@pytest.mark.parametrize("channels", [20, 32])
def test_bfloat16_frames_are_rounded_once(kernel, dilation, channels):
    compare(problem((2, channels, 16, 17), kernel, torch.bfloat16), same(kernel, dilation), dilation)


@pytest.mark.parametrize("padding", list(itertools.product((0, 3, 6), (0, 2, 12))))
def test_any_padding_up_to_the_reach(padding):
    compare(problem((2, 17, 14, 15), (4, 7)), padding, 2)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    rows=st.integers(0, 5).map(lambda n: 2 * n + 1),
    columns=st.integers(0, 5).map(lambda n: 2 * n + 1),
    dilation=st.integers(1, 4),
    channels=st.integers(1, 40),
    seed=st.integers(0, 10**6),
)
def test_any_shape(height, width, rows, columns, dilation, channels, seed):
    kernel = (rows, columns)
    compare(problem((2, channels, height, width), kernel, seed=seed), same(kernel, dilation), dilation)


@pytest.mark.parametrize("shape", [(0, 5, 6, 7), (2, 0, 6, 7)])
def test_no_frames_and_no_channels(shape):
    inputs = problem(shape, (5, 5))
    out, *gradients = outcome(depthwise, inputs, (2, 2), 1)
    assert out.shape == shape
    assert all(g.shape == x.shape and not g.any() for g, x in zip(gradients, inputs, strict=True))


def test_without_a_bias():
    x, weight, _ = problem((2, 8, 6, 7), (5, 5))
    torch.testing.assert_close(depthwise(x, weight, None, (2, 2), 1), reference(x, weight, None, (2, 2), 1))


def test_frames_may_have_any_layout():
    x, weight, bias = problem((2, 36, 9, 10), (5, 5))
    expected = outcome(depthwise, (x, weight, bias), (2, 2), 1)
    wide = torch.cat([x, x], dim=1).detach().to(memory_format=torch.channels_last)[:, 36:]  # a split of channels
    for other in (x.detach().contiguous(), strided(x.detach()), wide):
        found = outcome(depthwise, (other.requires_grad_(), weight, bias), (2, 2), 1)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_gradient_may_come_expanded():
    x, weight, bias = problem((2, 5, 6, 6), (5, 5))
    depthwise(x, weight, bias, (2, 2), 1).sum().backward()
    assert bias.grad is not None
    assert bias.grad.tolist() == [72.0] * 5  # 2 frames of 36 places


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("batch", "size"), [(1, (16, 16)), (5, (70, 20)), (90, (4, 4))])
def test_bitwise_the_same_on_any_number_of_threads(batch, size, dtype):
    inputs = problem((batch, 40, *size), (7, 7), dtype)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            results.append(outcome(depthwise, inputs, (9, 9), 3))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(other, results[0], strict=True))


def test_deterministic_algorithms_allow_it_and_poison_no_result():
    inputs = problem((3, 20, 17, 19), (7, 7))
    expected = outcome(depthwise, inputs, (9, 9), 3)
    torch.use_deterministic_algorithms(True)  # fills what is newly allocated with NaN
    try:
        found = outcome(depthwise, inputs, (9, 9), 3)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_numbers_that_are_not_finite_stay_where_they_are_seen():
    x, weight, bias = (t.detach() for t in problem((1, 16, 9, 9), (3, 3)))
    x[0, 2, 4, 4] = torch.nan
    for dtype in (torch.float32, torch.bfloat16):
        seen = depthwise(x.to(dtype), weight, bias, (1, 1), 1).isnan()
        assert seen[0, 2, 3:6, 3:6].all()
        assert seen.sum() == 9


def test_second_derivatives_are_right_too():
    inputs = problem((2, 6, 8, 9), (5, 3))
    second = []
    for convolution in (depthwise, reference):
        out = convolution(*inputs, (4, 2), 2)
        gradients = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
        second.append(torch.autograd.grad(sum(g.square().sum() for g in gradients), inputs))
    for a, b in zip(*second, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 * b.abs().max().item(), rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck_finds_nothing(dtype):
    x, weight, bias = problem((2, 5, 6, 7), (5, 3), dtype)
    torch.library.opcheck(OPERATORS.depthwise.default, (x, weight, bias, 4, 1, 2))
    torch.library.opcheck(OPERATORS.depthwise.default, (x, weight, None, 3, 2, 2))
    grad = torch.randn(2, 5, 6, 5).to(dtype)
    torch.library.opcheck(OPERATORS.depthwise_weights.default, (grad, x, weight, 4, 1, 2))


@pytest.mark.parametrize(
    ("padding", "dilation", "message"),
    [
        ((5, 2), 1, "padding from 0 to the reach"),
        ((2, 2), 0, "at least 1"),
        ((0, 0), 3, "larger than the padded frame"),
    ],
)
def test_refuses_what_is_no_convolution(padding, dilation, message):
    x, weight, bias = problem((1, 4, 6, 7), (5, 5))
    with pytest.raises(RuntimeError, match=message):
        OPERATORS.depthwise(x, weight, bias, *padding, dilation)
    with pytest.raises(RuntimeError, match=r"weight \[C, 1, rows, columns\]"):
        OPERATORS.depthwise(x, weight[:3], bias, 2, 2, 1)
    with pytest.raises(RuntimeError, match="float32 or bfloat16"):
        OPERATORS.depthwise(x.double(), weight, bias, 2, 2, 1)


def test_available_where_the_kernel_can_run(monkeypatch):
    assert native.usable_on_cpu()
    found = []
    torch.func.vmap(lambda x: found.append(native.usable_on_cpu()) or x)(torch.zeros(2))
    torch.func.jvp(lambda x: found.append(native.usable_on_cpu()) or x, (torch.zeros(2),), (torch.zeros(2),))
    torch.jit.trace(lambda x: found.append(native.usable_on_cpu()) or x, torch.zeros(2), check_trace=False)
    monkeypatch.setenv("PREDGSPLAT_BACKEND", "reference")
    assert [*found, native.usable_on_cpu()] == [False] * 4


@pytest.mark.skipif(not build.cpu_level().startswith("x86-64"), reason="levels of x86 processors")
@pytest.mark.parametrize("capability", OTHER_LEVELS)
def test_lesser_processors_and_used_memory_change_nothing(capability):
    # glibc fills what it hands out with 0xfe, as floats -1.7e38.
    in_a_new_process(
        """
        from tests.splat.test_depthwise import KERNELS, SIZES, compare, problem, same
        import torch
        for kernel, dilation in KERNELS:
            for dtype in (torch.float32, torch.bfloat16):
                compare(problem((2, 20, 16, 13), kernel, dtype), same(kernel, dilation), dilation)
        """,
        ATEN_CPU_CAPABILITY=capability,
        MALLOC_PERTURB_="1",
    )
