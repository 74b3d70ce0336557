"""Operations that predictors share, against PyTorch's where it has them."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from pdr_cli.models.layers import NormedSiLU, mean_around, window_sums
from pdr_cli.models.noise import NormNoise
from pdr_cli.splat import native, norm_silu


@pytest.mark.parametrize(("size", "reach"), [((25, 53), 7), ((25, 53), 1), ((3, 4), 7), ((1, 1), 2), ((6, 9), 0)])
def test_mean_around_is_the_average_of_as_many_cells_as_there_are(size, reach):
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    found = mean_around(mean_around(x, reach, dim=-2), reach, dim=-1)
    window = nn.functional.unfold(nn.functional.pad(x.detach(), [reach] * 4, value=torch.nan), 2 * reach + 1)
    expected = window.unflatten(1, (3, -1)).nanmean(2).view_as(x)
    torch.testing.assert_close(found, expected)
    assert torch.autograd.gradcheck(lambda v: mean_around(v, reach, dim=-1), (x[:1, :1, :2],))


@pytest.mark.parametrize("size", range(1, 18))
def test_window_sums_are_the_sums_of_neighbours(size):
    x = torch.randn(2, 17, 5, dtype=torch.float64)
    torch.testing.assert_close(window_sums(x, size, dim=-2), size * avg_pool2d(x, (size, 1), 1))


def unit(groups: int = 2) -> NormedSiLU:
    torch.manual_seed(0)
    return NormedSiLU(OrderedDict(conv=nn.Conv2d(3, 4, 3, padding=1), norm=nn.GroupNorm(groups, 4), act=nn.SiLU()))


@pytest.fixture
def calls(monkeypatch):
    """One entry for each call of the kernel."""
    found, kernel = [], norm_silu.norm_silu
    monkeypatch.setattr(norm_silu, "norm_silu", lambda *inputs: found.append(1) or kernel(*inputs))
    return found


@pytest.mark.skipif(bool(native.unavailable("cpu")), reason=native.unavailable("cpu"))
def test_norm_and_silu_are_one_kernel_and_as_in_any_sequence(calls):
    one = unit()
    plain = nn.Sequential(OrderedDict(one.named_children()))
    assert one.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(2, 3, 6, 7)
    results = []
    for module in (one, plain):
        module.zero_grad()
        out = module(x)
        out.square().sum().backward()
        results.append([out, *(p.grad.clone() for p in module.parameters())])
    assert len(calls) == 1
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6 * b.abs().max().item(), rtol=0)


def test_the_kernel_is_left_out_where_it_may_not_replace_the_modules(calls, monkeypatch):
    x = torch.randn(2, 3, 6, 7)
    one = unit()
    expected = nn.Sequential(*one)(x)
    with torch.autocast("cpu", torch.bfloat16):
        one(x)
    one.compiled = False
    torch.testing.assert_close(one(x), expected)
    one.compiled = True
    torch.testing.assert_close(one.double()(x.double()).float(), expected)
    torch.testing.assert_close(torch.export.export(one.float(), (x,)).module()(x), expected)
    monkeypatch.setenv("PREDGSPLAT_BACKEND", "reference")
    torch.testing.assert_close(one(x), expected)
    monkeypatch.delenv("PREDGSPLAT_BACKEND")
    seen = []
    handle = one.norm.register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(one(x), expected)
    handle.remove()
    assert (seen, calls) == ([1], [])


def test_noise_enters_by_the_norm_as_before(calls):
    one = unit()
    noise = NormNoise(one, 4)
    x = torch.randn(2, 3, 6, 7)
    without = one(x)
    assert torch.equal(without, unit()(x))
    before = len(calls)
    noise.draw(torch.tensor([1, 2]), 0)
    assert not torch.allclose(one(x), without, atol=1e-3)
    assert len(calls) == before
