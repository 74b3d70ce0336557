"""The local adapter: Gaussians that belong to a cell and follow what is there."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pdr_cli.errors import ConfigError
from pdr_cli.models.gaussians.control import parameters_of
from pdr_cli.models.gaussians.local import LocalGS
from pdr_cli.models.interfaces import Frames
from tests.models.builders import options


def small_local(channels: int = 2, **changes: Any) -> LocalGS:
    table = options(adapter_input="coarse", conv_width=6, kernel_size="auto").model_copy(update=changes)
    torch.manual_seed(0)
    return LocalGS(Frames(3, channels, (12, 20)), table)


def awake(adapter: LocalGS) -> LocalGS:
    """With a head whose Gaussians move, turn, stretch and show."""
    torch.nn.init.normal_(adapter.head.weight, std=1.0)
    return adapter


@pytest.mark.parametrize(("cell_stride", "per_cell"), [(2, 1), (4, 1), (8, 4)])
@pytest.mark.parametrize("size", [(12, 20), (13, 18), (31, 9)])
def test_any_grid_has_its_gaussians_in_every_cell(cell_stride: int, per_cell: int, size: tuple[int, int]) -> None:
    adapter = small_local(cell_stride=cell_stride, per_cell=per_cell)
    coarse = torch.rand(2, 3, 2, *size)
    found = adapter.gaussians(coarse)
    N = per_cell * math.ceil(size[0] / cell_stride) * math.ceil(size[1] / cell_stride)
    assert adapter.count(size) == N
    assert [tuple(part.shape) for part in found] == [(2, 3, N, 2), (2, 3, N, 2), (2, 3, N), (2, 3, N, 2)]
    assert adapter(coarse).shape == coarse.shape


def test_gaussians_start_in_the_middle_of_their_cells() -> None:
    adapter = small_local(cell_stride=4)
    torch.nn.init.zeros_(adapter.head.weight)
    coords = adapter.gaussians(torch.rand(1, 1, 2, 8, 12)).coords[0, 0]
    # Cells of 4 pixels: middles at 1.5, 5.5, 9.5 of columns 0 to 11, and at 1.5, 5.5 of rows 0 to 7.
    assert ((coords[:, 0] + 1) * 11 / 2).tolist() == pytest.approx([1.5, 5.5, 9.5] * 2, abs=1e-5)
    assert ((coords[:, 1] + 1) * 7 / 2).tolist() == pytest.approx([1.5] * 3 + [5.5] * 3, abs=1e-5)


def test_several_share_their_cell_evenly() -> None:
    adapter = small_local(cell_stride=4, per_cell=4)
    torch.nn.init.zeros_(adapter.head.weight)
    coords = adapter.gaussians(torch.rand(1, 1, 2, 4, 8)).coords[0, 0]
    # Quarters of 2 pixels: middles at 0.5 and 2.5; the second cell is 4 further on.
    assert ((coords[:, 0] + 1) * 7 / 2).tolist() == pytest.approx([0.5, 2.5, 0.5, 2.5, 4.5, 6.5, 4.5, 6.5], abs=1e-5)
    assert ((coords[:, 1] + 1) * 3 / 2).tolist() == pytest.approx([0.5, 0.5, 2.5, 2.5] * 2, abs=1e-5)


@pytest.mark.parametrize(("stride", "per_cell", "kernel_size"), [(2, 1, 17), (4, 1, 33), (4, 4, 17), (8, 1, 65)])
def test_auto_kernel_size_goes_by_the_cell(stride: int, per_cell: int, kernel_size: int) -> None:
    # 8 times the spacing stride/√per_cell, the odd number above: 16 → 17, 32 → 33, 64 → 65.
    assert small_local(cell_stride=stride, per_cell=per_cell).kernel_size == kernel_size


def test_scales_start_at_six_tenths_of_the_spacing() -> None:
    adapter = small_local(cell_stride=4)
    sigma = adapter.gaussians(torch.rand(1, 1, 2, 8, 8)).scale * (adapter.kernel_size - 1) / 10
    assert sigma.mean().item() == pytest.approx(0.6 * 4, rel=0.02)


@pytest.mark.parametrize("stride", [2, 4])
def test_a_field_moved_by_whole_cells_moves_the_layer(stride: int) -> None:
    adapter = awake(small_local(cell_stride=stride, conv_depth=1, adapter_input="coarse+last", kernel_size=17))
    coarse, observed = torch.rand(1, 2, 2, 64, 72), torch.rand(1, 4, 2, 64, 72)
    shift = (stride, 3 * stride)
    moved = adapter(coarse.roll(shift, dims=(-2, -1)), observed.roll(shift, dims=(-2, -1)))
    layer = adapter(coarse, observed).roll(shift, dims=(-2, -1))
    # A pixel knows 3 cells about it, moved Gaussians 1.5 cells on, half a kernel (9) beyond: at stride 4 27 pixels,
    # and the roll brought 12 columns and 4 rows of the other side.
    inner = (..., slice(30, -27), slice(30, -27))
    assert layer[inner].std() > 0.1
    # Centres are in [-1, 1]: single precision places them to 1e-5 of a pixel.
    assert torch.allclose(moved[inner], layer[inner], atol=1e-3)
    assert not torch.allclose(moved[inner], adapter(coarse, observed)[inner], atol=0.1)


def test_a_gaussian_follows_its_surroundings_alone() -> None:
    adapter = awake(small_local(conv_depth=1))
    coarse = torch.rand(1, 1, 2, 40, 40)
    changed = coarse.clone()
    changed[..., 30:, 30:] += 1
    before, after = adapter.gaussians(coarse), adapter.gaussians(changed)
    near = torch.zeros(20, 20, dtype=torch.bool)
    near[13:, 13:] = True  # the first changed pixel is in cell 15; two 3x3 convolutions reach two cells further
    for one, other in zip(before, after, strict=True):
        differs = (one != other).view(20, 20, -1).any(dim=-1)
        assert not differs[~near].any()
        assert differs[16:, 16:].all()


def test_parameters_keep_their_ranges_under_any_weights() -> None:
    adapter = small_local(cell_stride=4)
    torch.nn.init.normal_(adapter.head.weight, std=20)
    found = adapter.gaussians(10 * torch.randn(2, 2, 2, 24, 32))
    anchors = small_local(cell_stride=4)._anchors(6, 8)
    pixels = (found.coords + 1) * torch.tensor([31, 23]) / 2
    sigma = found.scale * (adapter.kernel_size - 1) / 10
    assert 5 < (pixels - anchors).abs().max() <= 6 + 1e-4  # 1.5 cells of 4 pixels
    assert sigma.min() >= 0.3 - 1e-6
    assert sigma.max() <= (adapter.kernel_size - 1) / 10 + 1e-6
    assert found.rotation.abs().max() <= math.pi / 2 + 1e-6


def test_width_and_depth_are_those_of_the_convolutions() -> None:
    adapter = small_local(cell_stride=8, conv_width=10, conv_depth=3)
    assert [layer.stride for layer in adapter.features.down] == [(2, 2)] * 3
    assert len(adapter.features.convs) == 3
    assert adapter.head.in_channels == 10


def test_it_has_about_a_twentieth_of_the_papers_parameters() -> None:
    local = LocalGS(
        Frames(4, 2, (32, 32)), options(adapter_input="coarse+last", conv_width=32, conv_depth=4, kernel_size="auto")
    )
    # TaxiBJ's: four MLPs 512 → 256 → 300·(2, 2, 1, 2), biases and two amplitude sizes.
    paper = 4 * (512 + 1) * 256 + (256 + 1) * 300 * 7 + 2
    assert paper / 30 < parameters_of(local) < paper / 15


def test_every_parameter_learns_at_once() -> None:
    adapter = small_local(adapter_input="coarse+last")
    (adapter(torch.rand(1, 2, 2, 12, 16), torch.rand(1, 4, 2, 12, 16)) - 1).square().mean().backward()
    first_step = [name for name, p in adapter.named_parameters() if not p.grad.any()]
    assert first_step == ["amplitude_size"] or first_step == []


def test_half_precision_does_not_reach_the_positions() -> None:
    adapter = small_local(channels=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coords = adapter.gaussians(torch.rand(1, 1, 1, 256, 256)).coords
    assert coords.dtype == torch.float32
    # Neighbours start 2 pixels apart, which bfloat16 would round to 0, 1 or 2 of them at this size.
    step = coords.view(128, 128, 2)[:, :, 0].diff(dim=1) * 255 / 2
    assert (step - 2).abs().max() < 0.1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cell_stride": 3}, "cell_stride is 3"),
        ({"per_cell": 0}, "per_cell is 0"),
        ({"kernel_size": 8}, "expected an odd number"),
        ({"kernel_size": 3}, "raise kernel_size"),
    ],
)
def test_what_cannot_be_rendered_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_local(**wrong)
