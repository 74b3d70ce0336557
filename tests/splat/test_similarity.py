"""The compiled SSIM against the one in plain torch, in value and gradient, and what it promises as an operator."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pdr_cli.models import similarity
from pdr_cli.splat import build, native
from pdr_cli.training.losses import LossOptions, build_loss
from tests.splat.test_native import OTHER_LEVELS, in_a_new_process, strided

pytestmark = pytest.mark.skipif(bool(native.unavailable("cpu")), reason=native.unavailable("cpu"))

SIZES = [(32, 64), (11, 11), (23, 22), (40, 37), (5, 40), (3, 3), (4, 6), (70, 21)]  # windows of 1, 3, 5, ... 11 pixels


def frames(
    size: tuple[int, int], channels: int = 3, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Forecast, truth and the span of each channel."""
    random = torch.Generator().manual_seed(0)
    target = torch.rand(2, 2, channels, *size, generator=random)
    pred = (target + 0.2 * torch.randn(target.shape, generator=random)).to(dtype)
    return pred.requires_grad_(), target, 0.5 + torch.rand(channels, generator=random)


def weights(shape: torch.Size) -> Tensor:
    """Rows of different weight, and some cells of none."""
    random = torch.Generator().manual_seed(1)
    weight = torch.rand(shape[-2], 1, generator=random).expand(shape).clone()
    weight[torch.rand(shape, generator=random) < 0.01] = 0
    return weight


def by_specification(pred: Tensor, target: Tensor, span: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """The sums of the operator from `ssim_map`."""
    similar = similarity.ssim_map(pred, target, span)
    each = torch.ones_like(similar)
    if weight is not None:
        weight = weight.to(similar)
        each = similarity.window_means(weight) * (similarity.window_means((weight == 0).to(weight)) == 0)
    return (similar * each).sum(dim=(-2, -1)), each.sum(dim=(-2, -1))


def compare(pred: Tensor, target: Tensor, span: Tensor, weight: Tensor | None) -> None:
    """Against the specification in float64, of the same numbers."""
    found = similarity.sums(pred, target, span, weight)
    double = pred.detach().double().requires_grad_()
    expected = by_specification(double, target.double(), span.double(), weight)
    factors = torch.rand(found[0].shape, generator=torch.Generator().manual_seed(2))
    (grad,) = torch.autograd.grad((found[0] * factors).sum(), pred)
    (expected_grad,) = torch.autograd.grad((expected[0] * factors).sum(), double)
    limit = 1e-5 if pred.dtype == torch.float32 else 2**-8
    for name, a, b in zip(("sums", "weights", "grad"), (*found, grad), (*expected, expected_grad), strict=True):
        # Variances are differences of means, and float32 keeps 1e-6 of one near 1e-2.
        error = (a - b).abs().max() / b.abs().max().clamp(min=1e-3)
        assert error <= (limit if name == "grad" else 1e-5), f"{name} is off by {error:.1e} of its maximum"


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_the_specification(size, weighted):
    pred, target, span = frames(size)
    compare(pred, target, span, weights(pred.shape) if weighted else None)


def test_a_forecast_in_bfloat16_has_a_gradient_of_its_type():
    compare(*frames((24, 30), dtype=torch.bfloat16), None)


def test_frames_need_not_be_contiguous():
    pred, target, span = frames((20, 30))
    apart = strided(pred.detach()).requires_grad_()
    sums = [similarity.sums(x, strided(target), span, None)[0].sum() for x in (pred, apart)]
    assert torch.equal(*sums)
    assert torch.equal(torch.autograd.grad(sums[0], pred)[0], torch.autograd.grad(sums[1], apart)[0])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("periodic", [False, True])
def test_the_loss_is_the_same_without_the_kernel(weighted, periodic, monkeypatch):
    pred, target, span = frames((20, 30))
    loss = build_loss("l1ssim", LossOptions(0.3, span, periodic))
    weight = weights(pred.shape) if weighted else None
    found = []
    for backend in ("auto", "reference"):
        monkeypatch.setenv("PREDGSPLAT_BACKEND", backend)
        assert similarity.takes_kernel(pred, target, weight) == (backend == "auto")
        value, _ = loss(pred, target, weight)
        found.append((value, *torch.autograd.grad(value, pred)))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * b.abs().max().item())


def test_without_any_known_window_the_similarity_is_one():
    pred, target, span = frames((20, 30))
    value, terms = build_loss("ssim", LossOptions(0.0, span))(pred, target, torch.zeros(pred.shape))
    assert terms["ssim"] == 1
    assert not torch.autograd.grad(value, pred)[0].any()


def test_only_the_training_of_a_forecast_takes_the_kernel():
    pred, target, _ = frames((20, 30))
    assert similarity.takes_kernel(pred, target, None)
    assert not similarity.takes_kernel(pred.detach(), target, None)
    assert not similarity.takes_kernel(pred, target.clone().requires_grad_(), None)
    assert not similarity.takes_kernel(pred, target.double(), None)
    with torch.no_grad():
        assert not similarity.takes_kernel(pred, target, None)


def test_bitwise_the_same_on_any_number_of_threads():
    pred, target, span = frames((40, 37), channels=40)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            value = similarity.sums(pred, target, span, None)[0]
            results.append((value, *torch.autograd.grad(value.sum(), pred)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(other, results[0], strict=True))


def test_opcheck_finds_nothing():
    pred, target, span = frames((20, 30))
    window = similarity.gaussian_window(9).float()
    planes = (pred.detach().flatten(0, 2), target.flatten(0, 2))
    for gradient in (False, True):
        torch.library.opcheck(torch.ops.predgsplat.similarity.default, (*planes, None, span, window, gradient))


def test_a_second_derivative_is_refused():
    pred, target, span = frames((20, 30))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(similarity.sums(pred, target, span, None)[0].sum(), pred, create_graph=True)


@pytest.mark.skipif(not build.cpu_level().startswith("x86-64"), reason="levels of x86 processors")
@pytest.mark.parametrize("capability", OTHER_LEVELS)
def test_lesser_processors_and_used_memory_change_nothing(capability):
    # glibc fills what it hands out with 0xfe, as floats -1.7e38.
    in_a_new_process(
        """
        from tests.splat.test_similarity import SIZES, compare, frames, weights
        for size in SIZES:
            pred, target, span = frames(size)
            compare(pred, target, span, None)
            compare(pred, target, span, weights(pred.shape))
        """,
        ATEN_CPU_CAPABILITY=capability,
        MALLOC_PERTURB_="1",
    )
