"""The compiled GroupNorm with SiLU against PyTorch's, in value and in every gradient, and what it promises as an operator."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pdr_cli.splat import build, native
from pdr_cli.splat.norm_silu import norm_silu, reference
from tests.splat.test_native import OTHER_LEVELS, in_a_new_process, strided

pytestmark = pytest.mark.skipif(bool(native.unavailable("cpu")), reason=native.unavailable("cpu"))

OPERATORS = torch.ops.predgsplat
EPS = 1e-5
SINGLE = 1e-6  # of the largest entry
LAYOUTS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}
Function = Callable[..., Tensor]


def problem(shape: tuple[int, int, int, int], layout: str, level: float = 0.0, seed: int = 0) -> tuple[Tensor, ...]:
    """Frames around `level`, weights and bias, all of which need gradients."""
    random = torch.Generator().manual_seed(seed)
    x = (level + 2 * torch.randn(shape, generator=random)).to(memory_format=LAYOUTS[layout])
    weight, bias = (torch.randn(shape[1], generator=random) for _ in range(2))
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def outcome(function: Function, inputs: tuple[Tensor, ...], groups: int) -> list[Tensor]:
    """The output, and the gradients of a random weighting of it."""
    out = function(*inputs, groups, EPS)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float32)
    return [out, *torch.autograd.grad(out, inputs, weights.to(out.dtype))]


def compare(inputs: tuple[Tensor, ...], groups: int) -> None:
    """Against the specification in float64, of the same numbers."""
    found = outcome(norm_silu, inputs, groups)
    expected = outcome(reference, tuple(x.detach().double().requires_grad_() for x in inputs), groups)
    places = found[0][:, :1].numel()
    for name, a, b in zip(("output", "x", "weight", "bias"), found, expected, strict=True):
        assert a.shape == b.shape
        # The sums over all places may cancel in each of a few channels; of random signs, they have this size. Where a group
        # has a few numbers, the gradient by x is what is left of numbers of size 1.
        usual = places**0.5 if name in ("weight", "bias") else 1.0
        error = (a.double() - b).abs().max() / b.abs().max().clamp(min=usual)
        assert error <= SINGLE, f"{name} is off by {error:.1e} of its maximum"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(28, 56), (7, 5), (1, 1), (1, 9), (40, 3), (70, 130)], ids=str)  # and several pieces
def test_equals_the_specification_in_value_and_every_gradient(size, layout):
    compare(problem((2, 20, *size), layout), 4)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (3, 3), (16, 4), (48, 4), (65, 5), (300, 2), (5000, 4)])
def test_any_number_of_channels(channels, groups, layout):
    compare(problem((3, channels, 5, 6), layout), groups)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    groups=st.integers(1, 5),
    each=st.integers(1, 20),
    layout=st.sampled_from(sorted(LAYOUTS)),
    seed=st.integers(0, 10**6),
)
@example(height=33, width=33, groups=1, each=2, layout="channels-last", seed=1000000)  # many numbers in one lane's sum
def test_any_shape(height, width, groups, each, layout, seed):
    shape = (2, groups * each, height, width)
    if each * height * width > 2:  # the norm of two numbers is a step between them, steep where they are near
        compare(problem(shape, layout, seed=seed), groups)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_level_far_from_zero_costs_no_digits_of_the_variance(layout):
    inputs = problem((1, 8, 64, 65), layout, level=2000.0)
    found = norm_silu(*inputs, 4, EPS)
    expected = reference(*(x.double() for x in inputs), 4, EPS)
    # The mean is a float32, which near 2000 are 1.2e-4 apart: off by at most 3e-5 of the standard deviation, times a weight of
    # up to 2. The mean of squares less the square of the mean would be off by 0.1.
    torch.testing.assert_close(found.double(), expected, atol=7e-5, rtol=1e-5)


def test_keeps_the_layout_and_takes_any():
    x, weight, bias = problem((2, 12, 9, 10), "channels-last")
    expected = outcome(norm_silu, (x, weight, bias), 4)
    assert expected[0].is_contiguous(memory_format=torch.channels_last)
    assert expected[1].is_contiguous(memory_format=torch.channels_last)
    wide = torch.cat([x, x], dim=1).detach().to(memory_format=torch.channels_last)[:, 12:]  # a split of channels
    for other in (x.detach().contiguous(), strided(x.detach()), wide):
        found = outcome(norm_silu, (other.requires_grad_(), weight, bias), 4)
        assert found[0].is_contiguous()
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_the_gradient_may_come_expanded_and_in_another_layout():
    inputs = problem((2, 6, 6, 7), "channels-last")
    for weights in (torch.ones(()).expand(2, 6, 6, 7), torch.randn(2, 6, 6, 7)):
        found = torch.autograd.grad(norm_silu(*inputs, 2, EPS), inputs, weights)
        expected = torch.autograd.grad(reference(*inputs, 2, EPS), inputs, weights)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("batch", "size"), [(1, (90, 80)), (2, (70, 20)), (9, (16, 16))])
def test_bitwise_the_same_on_any_number_of_threads_and_in_any_batch(batch, size, layout):
    inputs = problem((batch, 40, *size), layout)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            results.append(outcome(norm_silu, inputs, 4))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(other, results[0], strict=True))
    last = inputs[0].detach()[-1:]
    assert torch.equal(norm_silu(last, *inputs[1:], 4, EPS)[0], results[0][0][-1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_deterministic_algorithms_allow_it_and_poison_no_result(layout):
    inputs = problem((3, 20, 17, 19), layout)
    expected = outcome(norm_silu, inputs, 4)
    torch.use_deterministic_algorithms(True)  # fills what is newly allocated with NaN
    try:
        found = outcome(norm_silu, inputs, 4)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_numbers_that_are_not_finite_spoil_their_group_and_no_other(layout):
    x, weight, bias = (t.detach() for t in problem((2, 12, 9, 9), layout))
    for odd in (torch.nan, torch.inf, -torch.inf):
        x[0, 4, 3, 3] = odd
        spoilt = norm_silu(x, weight, bias, 3, EPS).isnan()
        assert spoilt[0, 4:8].all()
        assert spoilt.sum() == 4 * 81


def test_large_numbers_overflow_nowhere():
    x = torch.tensor([-1.0, 1.0]).repeat(8).view(1, 1, 4, 4)
    found = norm_silu(x, torch.tensor([1e4]), torch.zeros(1), 1, EPS)
    torch.testing.assert_close(found, torch.tensor([0.0, 1e4]).repeat(8).view(1, 1, 4, 4), rtol=1e-5, atol=1e-30)


def test_second_derivatives_are_right_too():
    inputs = problem((2, 6, 8, 9), "channels-last")
    second = []
    for function in (norm_silu, reference):
        out = function(*inputs, 2, EPS)
        gradients = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
        second.append(torch.autograd.grad(sum(g.square().sum() for g in gradients), inputs))
    for a, b in zip(*second, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 * b.abs().max().item(), rtol=0)


def test_gradients_of_some_inputs_only():
    x, weight, bias = problem((2, 6, 8, 9), "channels-last")
    (expected,) = torch.autograd.grad(norm_silu(x, weight, bias, 2, EPS).square().sum(), [weight])
    frozen = norm_silu(x.detach(), weight, bias.detach(), 2, EPS).square().sum()
    (first,) = torch.autograd.grad(frozen, [weight], create_graph=True)
    torch.testing.assert_close(first, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_frames(layout):
    found = outcome(norm_silu, problem((0, 4, 5, 6), layout), 2)
    assert [tuple(x.shape) for x in found] == [(0, 4, 5, 6), (0, 4, 5, 6), (4,), (4,)]
    assert not any(x.any() for x in found)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck_finds_nothing(layout):
    x, weight, bias = problem((2, 6, 5, 7), layout)
    torch.library.opcheck(OPERATORS.norm_silu.default, (x, weight, bias, 3, EPS))
    _, mean, inverse = OPERATORS.norm_silu.default(x, weight, bias, 3, EPS)
    given = tuple(t.detach() for t in (torch.randn_like(x), x, weight, bias, mean, inverse))
    torch.library.opcheck(OPERATORS.norm_silu_backward.default, given)


def test_refuses_what_it_cannot_compute():
    x, weight, bias = (t.detach() for t in problem((2, 6, 5, 7), "contiguous"))
    with pytest.raises(RuntimeError, match="groups that divide the channels"):
        OPERATORS.norm_silu(x, weight, bias, 4, EPS)
    with pytest.raises(RuntimeError, match=r"weight and bias \[C\]"):
        OPERATORS.norm_silu(x, weight[:3], bias, 3, EPS)
    with pytest.raises(RuntimeError, match=r"\[B, C, H, W\] in float32"):
        OPERATORS.norm_silu(x.double(), weight, bias, 3, EPS)
    with pytest.raises(RuntimeError, match=r"\[B, C, H, W\] in float32"):
        OPERATORS.norm_silu(x[0], weight, bias, 3, EPS)
    with pytest.raises(RuntimeError, match="the gradient of the output"):
        OPERATORS.norm_silu_backward(x[:1], x, weight, bias, torch.zeros(2, 3), torch.ones(2, 3))


@pytest.mark.skipif(not build.cpu_level().startswith("x86-64"), reason="levels of x86 processors")
@pytest.mark.parametrize("capability", OTHER_LEVELS)
def test_lesser_processors_and_used_memory_change_nothing(capability):
    # glibc fills what it hands out with 0xfe, as floats -1.7e38.
    in_a_new_process(
        """
        from tests.splat.test_norm_silu import LAYOUTS, compare, problem
        for layout in LAYOUTS:
            for channels in (4, 20, 32):
                compare(problem((2, channels, 16, 13), layout), 4)
        """,
        ATEN_CPU_CAPABILITY=capability,
        MALLOC_PERTURB_="1",
    )
