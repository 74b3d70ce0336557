"""The detour of depth-wise convolutions is the convolution, in value and in every gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pdr_cli.models.predictors.translators import depthwise
from pdr_cli.models.predictors.translators.depthwise import DepthwiseConv

CHANNELS = 5


def laid_out(batch: int, height: int, width: int) -> torch.Tensor:
    """Channels-last frames that want a gradient."""
    x = torch.randn(batch, CHANNELS, height, width).to(memory_format=torch.channels_last)
    return x.requires_grad_()


def outcome(conv: nn.Conv2d, x: torch.Tensor, weights: torch.Tensor) -> list[torch.Tensor]:
    """Value, and gradients by input, kernel and bias."""
    out = nn.Conv2d.forward(conv, x) if x.dtype == torch.float64 else conv(x)
    assert conv.bias is not None
    return [out, *torch.autograd.grad(out, (x, conv.weight, conv.bias), weights.to(out))]


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [5, 7, 11])
@pytest.mark.parametrize("size", [(6, 6), (7, 5), (2, 16), (1, 1)], ids=str)  # multiples of 3, none, and tiny ones
def test_value_and_gradients_are_the_convolutions(
    kernel_size: int, dilation: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    calls = []
    detour = depthwise.split_phases
    monkeypatch.setattr(depthwise, "split_phases", lambda *a: calls.append(a) or detour(*a))
    conv, x = DepthwiseConv(CHANNELS, kernel_size, dilation), laid_out(2, *size)
    weights = torch.randn(2, CHANNELS, *size)
    found = outcome(conv, x, weights)
    assert len(calls) == 3  # of x, of the gradient, and of x again for the kernel's
    truth = outcome(conv.double(), x.detach().double().requires_grad_(), weights)
    for a, b in zip(found, truth, strict=True):
        # At most 121 products and 2·6·6 places are summed: a few hundred roundings of 6e-8, of which most cancel.
        torch.testing.assert_close(a.double(), b, rtol=0, atol=2e-6 * max(1.0, b.detach().abs().max().item()))


def test_second_derivatives_are_right_too() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(depthwise._Detour.apply, (x, weight, bias, 2))
    assert torch.autograd.gradgradcheck(depthwise._Detour.apply, (x, weight, bias, 2))


def test_the_gradient_may_come_expanded() -> None:
    conv, x = DepthwiseConv(CHANNELS, 5, dilation=2), laid_out(2, 6, 6)
    conv(x).sum().backward()
    assert conv.bias is not None
    assert conv.bias.grad is not None
    assert conv.bias.grad.tolist() == [72.0] * CHANNELS  # 2 frames of 36 places


@pytest.mark.parametrize("frozen", ["input", "weights"])
def test_what_wants_no_gradient_gets_none(frozen: str) -> None:
    conv, x = DepthwiseConv(CHANNELS, 5), laid_out(1, 6, 6)
    conv.requires_grad_(frozen != "weights")
    x = x.detach().requires_grad_(frozen != "input")
    conv(x).sum().backward()
    assert (x.grad is None) == (frozen == "input")
    assert (conv.weight.grad is None) == (frozen == "weights")


def test_which_convolutions_take_the_detour() -> None:
    weight = torch.zeros(CHANNELS, 1, 5, 5)
    x = torch.zeros(1, CHANNELS, 4, 4)
    last = x.to(memory_format=torch.channels_last)
    assert depthwise.takes_detour(last, weight)
    assert depthwise.takes_detour(last[:, 1:4], weight)  # a split of channels
    assert not depthwise.takes_detour(x, weight)
    assert not depthwise.takes_detour(last.double(), weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not depthwise.takes_detour(last, weight)  # its gradients are for float32
        with torch.inference_mode():
            assert depthwise.takes_detour(last, weight)
            assert depthwise.takes_detour(last.bfloat16(), weight)
            assert not depthwise.takes_detour(x, weight)


def test_the_detour_of_a_forecast_in_bf16_rounds_as_the_plain_convolution() -> None:
    conv, x = DepthwiseConv(CHANNELS, 5, dilation=2), laid_out(2, 9, 7)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        made, plain = conv(x), conv(x.contiguous())
    assert made.dtype == plain.dtype == torch.bfloat16
    # Both sum in float32 and round once; sums in another order may round to the neighbour, 2^-8 apart.
    assert torch.allclose(made.float(), plain.float(), rtol=2**-7, atol=2**-9)
