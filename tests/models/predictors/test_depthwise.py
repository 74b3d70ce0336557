"""Both ways of a depth-wise convolution are the convolution, in value and in every gradient, and each has its place."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pdr_cli.models.predictors.simvp import RoundConv2d
from pdr_cli.models.predictors.translators import depthwise
from pdr_cli.models.predictors.translators.depthwise import DepthwiseConv
from pdr_cli.splat import native

CHANNELS = 5
WAYS = ["kernel", "detour"]


@pytest.fixture
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Leave one way open; without a compiled library, the kernel's is skipped."""
    if request.param == "kernel" and native.unavailable("cpu"):
        pytest.skip(native.unavailable("cpu"))
    if request.param == "detour":
        monkeypatch.setenv("PREDGSPLAT_BACKEND", "reference")
    return request.param


both = pytest.mark.parametrize("way", WAYS, indirect=True)
only = {name: pytest.mark.parametrize("way", [name], indirect=True) for name in WAYS}


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
@both
def test_value_and_gradients_are_the_convolutions(
    way: str, kernel_size: int, dilation: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    calls = []
    detour = depthwise.split_phases
    monkeypatch.setattr(depthwise, "split_phases", lambda *a: calls.append(a) or detour(*a))
    conv, x = DepthwiseConv(CHANNELS, kernel_size, dilation), laid_out(2, *size)
    weights = torch.randn(2, CHANNELS, *size)
    found = outcome(conv, x, weights)
    # Of x, of the gradient, and of x again for the kernel's; one pixel has the layout of every plane.
    assert len(calls) == (3 if way == "detour" else 0)
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


@both
def test_the_gradient_may_come_expanded(way: str) -> None:
    conv, x = DepthwiseConv(CHANNELS, 5, dilation=2), laid_out(2, 6, 6)
    conv(x).sum().backward()
    assert conv.bias is not None
    assert conv.bias.grad is not None
    assert conv.bias.grad.tolist() == [72.0] * CHANNELS  # 2 frames of 36 places


@both
@pytest.mark.parametrize("frozen", ["input", "weights"])
def test_what_wants_no_gradient_gets_none(way: str, frozen: str) -> None:
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


@only["kernel"]
def test_the_kernel_takes_channels_last_frames(way: str) -> None:
    weight = torch.zeros(CHANNELS, 1, 5, 5)
    x = torch.zeros(1, CHANNELS, 4, 4)
    last = x.to(memory_format=torch.channels_last)
    assert depthwise.takes_kernel(last, weight)
    assert depthwise.takes_kernel(last.bfloat16(), weight)
    assert not depthwise.takes_kernel(x, weight)
    assert not depthwise.takes_kernel(last.double(), weight.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert depthwise.takes_kernel(last, weight)
    with torch.autocast("cpu", torch.float16):
        assert not depthwise.takes_kernel(last, weight)


@only["kernel"]
@pytest.mark.parametrize(("kernel_size", "dilation"), [(3, 1), (5, 1), (7, 3)])
def test_autocast_gives_bfloat16_and_gradients_of_full_precision(way: str, kernel_size: int, dilation: int) -> None:
    torch.manual_seed(0)
    conv, x = DepthwiseConv(16, kernel_size, dilation), torch.randn(2, 16, 9, 9).to(memory_format=torch.channels_last)
    assert conv.bias is not None
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(x)
    truth = nn.Conv2d.forward(conv, x)
    weights = torch.randn(truth.shape)
    wanted = torch.autograd.grad(truth, (conv.weight, conv.bias), weights)
    found = torch.autograd.grad(out, (conv.weight, conv.bias), weights.bfloat16())
    assert out.dtype == torch.bfloat16
    assert all(g.dtype == torch.float32 for g in found)
    for a, b in zip([out, *found], [truth, *wanted], strict=True):
        assert (a.float() - b).abs().max() <= 2**-6 * b.abs().max()  # frames and weights of eight bits


@only["kernel"]
def test_graphs_for_elsewhere_hold_plain_convolutions(way: str) -> None:
    conv, x = DepthwiseConv(CHANNELS, 5, dilation=2), laid_out(1, 6, 7).detach()
    exported = torch.export.export(conv, (x,))
    calls = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert calls == ["aten.conv2d.default"]
    graphs = []
    compiled = torch.compile(conv, fullgraph=True, backend=lambda graph, _: graphs.append(graph) or graph.forward)
    torch.testing.assert_close(compiled(x), conv(x))
    assert "predgsplat" not in graphs[0].code
    assert "conv2d" in graphs[0].code


@only["kernel"]
def test_a_periodic_convolution_takes_the_kernel_too(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    conv, x = RoundConv2d.of(DepthwiseConv(CHANNELS, 7, dilation=3)), laid_out(2, 6, 8)
    weights = torch.randn(2, CHANNELS, 6, 8)
    found = [out := conv(x), *torch.autograd.grad(out, (x, conv.weight), weights)]
    monkeypatch.setenv("PREDGSPLAT_BACKEND", "reference")
    taken = []
    monkeypatch.setattr(depthwise.kernel, "depthwise", lambda *a: taken.append(a))
    expected = [out := conv(x), *torch.autograd.grad(out, (x, conv.weight), weights)]
    assert not taken
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-6 * b.abs().max().item())


@only["detour"]
def test_the_detour_of_a_forecast_in_bf16_rounds_as_the_plain_convolution(way: str) -> None:
    conv, x = DepthwiseConv(CHANNELS, 5, dilation=2), laid_out(2, 9, 7)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        made, plain = conv(x), conv(x.contiguous())
    assert made.dtype == plain.dtype == torch.bfloat16
    # Both sum in float32 and round once; sums in another order may round to the neighbour, 2^-8 apart.
    assert torch.allclose(made.float(), plain.float(), rtol=2**-7, atol=2**-9)
