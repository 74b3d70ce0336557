"""The adapter: where Gaussians start, what ranges they keep, and that they learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pdr_cli import config, splat
from pdr_cli.errors import ConfigError, GridError
from pdr_cli.models.gaussians.initialization import even_grid
from pdr_cli.models.gaussians.predgs import auto_downsample, auto_kernel_size, pooled_plane, pooling

Build = Callable[..., Any]


def coarse_like(adapter: Any, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.randn(2, 3, adapter.channels, *adapter.size)


@pytest.mark.parametrize(
    ("N", "size", "kernel_size"),
    [(300, (32, 32), 15), (400, (128, 128), 51), (300, (32, 64), 15)],
    ids=["taxibj", "kth", "weatherbench"],
)
def test_auto_kernel_size_is_the_papers(N: int, size: tuple[int, int], kernel_size: int) -> None:
    assert auto_kernel_size(N, size, sigma_min=0.3) == kernel_size


def test_auto_kernel_size_leaves_room_above_sigma_min() -> None:
    # Half of 8 pixels would be K = 3, whose largest σ is 0.2 px; 7 reaches 0.6 px.
    assert auto_kernel_size(32, (16, 8), sigma_min=0.3) == 7
    assert auto_kernel_size(32, (16, 8), sigma_min=0.0) == 3


@given(st.integers(1, 2000), st.integers(2, 300), st.integers(2, 300))
def test_auto_kernel_size_is_odd_and_at_most_half_a_side(N: int, H: int, W: int) -> None:
    K = auto_kernel_size(N, (H, W), sigma_min=0.0)
    assert K % 2 == 1
    assert 3 <= K <= max(min(H, W) / 2, 3)


@pytest.mark.parametrize(
    ("size", "rate"), [((32, 32), 2), ((128, 128), 8), ((256, 256), 16), ((32, 64), 2), ((16, 8), 1), ((25, 53), 2)]
)
def test_auto_downsample_comes_nearest_to_256_cells(size: tuple[int, int], rate: int) -> None:
    assert auto_downsample(size) == rate


def test_plane_of_an_indivisible_frame_is_rounded(small_predgs: Build) -> None:
    assert pooled_plane((25, 53), 2) == (12, 26)
    assert pooled_plane((3, 50), 16) == (1, 3)
    adapter = small_predgs(size=(25, 53), downsample=2.5)
    assert adapter.mlp_coords.first.in_features == 2 * 10 * 21
    assert adapter(coarse_like(adapter)).shape == (2, 3, 2, 25, 53)


@pytest.mark.parametrize(("length", "cells"), [(32, 16), (25, 12), (53, 26), (7, 7), (5, 1)])
def test_pooling_is_adaptive_average_pooling(length: int, cells: int) -> None:
    torch.manual_seed(0)
    x = torch.rand(3, length)
    assert torch.allclose(x @ pooling(length, cells).T, torch.nn.functional.adaptive_avg_pool1d(x, cells), atol=1e-6)


def test_gaussians_see_the_averaged_plane_channel_by_channel(small_predgs: Build) -> None:
    adapter = small_predgs(size=(25, 53))
    coarse = coarse_like(adapter)
    cells = torch.nn.functional.adaptive_avg_pool2d(coarse.flatten(0, 1), (12, 26)).flatten(1).view(2, 3, -1)
    expected = torch.tanh(adapter.mlp_amplitudes(cells))
    assert torch.allclose(adapter.gaussians(coarse).amplitudes, expected, atol=1e-6)


def test_grid_of_the_weather_setting_is_exact() -> None:
    grid = even_grid(300, (32, 64))  # 25 columns, 12 rows
    assert torch.allclose(grid[:, 0].unique(), (2 * torch.arange(25, dtype=torch.float64) + 1) / 25 - 1)
    assert torch.allclose(grid[:, 1].unique(), (2 * torch.arange(12, dtype=torch.float64) + 1) / 12 - 1)


def test_grid_of_the_traffic_setting_leaves_out_six_cells_evenly() -> None:
    grid = even_grid(300, (32, 32))  # 18·17 = 306 cells
    assert len(grid[:, 0].unique()) == 18
    assert len(grid[:, 1].unique()) == 17
    per_row = grid[:, 1].unique(return_counts=True)[1]
    assert per_row.min() == 17  # no row loses two


@given(st.integers(1, 600), st.integers(4, 260), st.integers(4, 260))
def test_grid_is_distinct_inside_and_balanced(N: int, H: int, W: int) -> None:
    grid = even_grid(N, (H, W))
    assert grid.shape == (N, 2)
    assert len(grid.unique(dim=0)) == N
    assert grid.abs().max() < 1
    n_x = math.ceil(math.sqrt(N * W / H))
    assert grid.mean(dim=0).abs().max() <= 1.5 / min(n_x, math.ceil(N / n_x)) + 1e-9


@pytest.mark.parametrize(("N", "size"), [(300, (32, 64)), (300, (32, 32)), (7, (9, 31)), (1, (8, 8))])
def test_gaussians_start_on_the_grid_whatever_the_forecast(small_predgs: Build, N: int, size: tuple[int, int]) -> None:
    adapter = small_predgs(size=size, gaussians=N)
    coords = adapter.gaussians(100 * coarse_like(adapter)).coords
    expected = even_grid(N, size).float().expand(2, 3, N, 2)
    assert torch.allclose(coords, expected, atol=1e-5)  # tanh of atanh in single precision


def test_outermost_centres_stay_clear_of_the_border(small_predgs: Build) -> None:
    # 3000 columns in one row: the outermost cell centre lies 1/3000 from the border, nearer than 1e-3.
    adapter = small_predgs(channels=1, size=(2, 6000), gaussians=3000, hidden=1)
    coords = torch.tanh(adapter.mlp_coords.last.bias.double())
    assert coords.abs().max().item() == pytest.approx(1 - 1e-3, abs=1e-6)


def test_scales_start_at_six_tenths_of_the_spacing_and_differ_slightly(small_predgs: Build) -> None:
    adapter = small_predgs(size=(32, 32), gaussians=300, kernel_size="auto")
    sigma = adapter.gaussians(torch.zeros(1, 1, 2, 32, 32)).scale * (adapter.kernel_size - 1) / 10
    assert sigma.mean().item() == pytest.approx(0.6 * math.sqrt(32 * 32 / 300), rel=0.01)
    ratio = (sigma[..., 0] / sigma[..., 1]).mean().item()
    assert 1.02 < ratio < 1.08


def test_scales_start_inside_the_open_range_when_the_kernel_is_small(small_predgs: Build) -> None:
    adapter = small_predgs(size=(256, 256), gaussians=300, kernel_size=51)  # 0.6 of the spacing is 8.9 px, over 5 px
    scale = adapter.gaussians(torch.zeros(1, 1, 2, 256, 256)).scale
    assert 0.85 < scale.min() < scale.max() < 0.95


def test_parameters_keep_their_ranges_under_any_weights(small_predgs: Build) -> None:
    adapter = small_predgs(kernel_size=21)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=5)
    torch.nn.init.constant_(adapter.amplitude_size, 2)
    g = adapter.gaussians(10 * coarse_like(adapter))
    sigma = g.scale * (21 - 1) / 10
    assert g.coords.abs().max() <= 1
    assert sigma.min() >= 0.3 - 1e-6
    assert sigma.max() <= 2 + 1e-6
    assert g.rotation.abs().max() <= math.pi / 2 + 1e-6
    assert 1 < g.amplitudes.abs().max() <= 2
    assert g.amplitudes.min() < 0
    assert sigma.std() > 0.1  # the bounds are met by values that move, not by constants


def test_sigmoid_amplitudes_are_the_papers(small_predgs: Build) -> None:
    adapter = small_predgs(amplitude="sigmoid")
    assert adapter.amplitude_size is None
    amplitudes = adapter.gaussians(coarse_like(adapter)).amplitudes
    assert amplitudes.mean().item() == pytest.approx(0.1, abs=0.005)
    adapter.mlp_amplitudes.last.bias.data.fill_(-50.0)
    assert adapter.gaussians(coarse_like(adapter)).amplitudes.min() >= 0


def test_linear_amplitudes_have_no_bounds(small_predgs: Build) -> None:
    adapter = small_predgs(amplitude="linear")
    coarse = coarse_like(adapter)
    assert adapter.amplitude_size is None
    assert adapter.gaussians(coarse).amplitudes.abs().max() < 0.1
    adapter.mlp_amplitudes.last.bias.data.fill_(-7.0)
    assert adapter.gaussians(coarse).amplitudes.mean().item() == pytest.approx(-7, abs=0.1)


@pytest.mark.parametrize("amplitude", ["auto", "tanh"])
def test_tanh_amplitudes_are_signed_and_of_learned_size(small_predgs: Build, amplitude: str) -> None:
    adapter = small_predgs(amplitude=amplitude)
    adapter.mlp_amplitudes.last.bias.data.fill_(-50.0)
    adapter.amplitude_size.data.copy_(torch.tensor([1.0, 3.0]))
    found = adapter.gaussians(coarse_like(adapter)).amplitudes
    assert torch.allclose(found, torch.tensor([-1.0, -3.0]).expand_as(found), atol=1e-5)


def test_absolute_coordinates_reach_the_whole_frame_and_offsets_stay_near(small_predgs: Build) -> None:
    for coords in ("absolute", "offset"):
        adapter = small_predgs(coords=coords, size=(21, 41), gaussians=15)
        adapter.mlp_coords.last.bias.data.fill_(50.0)
        found = adapter.gaussians(coarse_like(adapter)).coords
        # 1.5 times √(21·41/15) = 7.58 px, of the 20 and 10 px from the middle to the border.
        reach = 1.5 * (21 * 41 / 15) ** 0.5 / torch.tensor([20.0, 10.0])
        expected = torch.ones(15, 2) if coords == "absolute" else even_grid(15, (21, 41)).float() + reach
        assert torch.allclose(found, expected.expand_as(found), atol=1e-5)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_mlp_depth_is_the_number_of_hidden_layers(small_predgs: Build, depth: int) -> None:
    adapter = small_predgs(hidden=7, mlp_depth=depth)
    layers = [m for m in adapter.mlp_scale.modules() if isinstance(m, torch.nn.Linear)]
    assert [layer.out_features for layer in layers] == [7] * depth + [2 * 15]
    x = torch.randn(3, layers[0].in_features)
    expected = x
    for layer in layers[:-1]:
        expected = torch.nn.functional.gelu(layer(expected))
    assert torch.allclose(adapter.mlp_scale(x), layers[-1](expected).view(3, 15, 2))


def test_width_and_number_are_as_asked(small_predgs: Build) -> None:
    adapter = small_predgs(hidden=11, gaussians=22)
    assert adapter.mlp_coords.first.out_features == 11
    assert adapter.count((12, 20)) == adapter.gaussians(coarse_like(adapter)).rotation.shape[-1] == 22


def test_density_divides_by_the_area_of_a_gaussian(small_predgs: Build) -> None:
    torch.manual_seed(0)
    peak = small_predgs(kernel_size=21, gaussians=1)
    density = small_predgs(kernel_size=21, gaussians=1, normalize="density")
    density.load_state_dict(peak.state_dict())
    coarse = coarse_like(peak)[:1, :1]
    scale = peak.gaussians(coarse).scale
    expected = peak(coarse) / (2 * math.pi * scale.prod())
    assert torch.allclose(density(coarse), expected, rtol=1e-4, atol=1e-7)


def test_the_last_frame_is_pooled_beside_the_forecast(small_predgs: Build) -> None:
    adapter = small_predgs(adapter_input="coarse+last")
    coarse, observed = coarse_like(adapter), torch.rand(2, 4, 2, 12, 20)
    both = torch.cat([coarse, observed[:, -1:].expand(2, 3, 2, 12, 20)], dim=2)
    expected = torch.tanh(adapter.mlp_amplitudes(adapter.pool(both)))
    assert torch.allclose(adapter.gaussians(coarse, observed).amplitudes, expected, atol=1e-6)


def test_shapes_follow_the_paper(small_predgs: Build) -> None:
    adapter = small_predgs(channels=3, gaussians=15)
    g = adapter.gaussians(coarse_like(adapter))
    assert [tuple(part.shape) for part in g] == [(2, 3, 15, 2), (2, 3, 15, 2), (2, 3, 15), (2, 3, 15, 3)]
    assert adapter(coarse_like(adapter)).shape == (2, 3, 3, 12, 20)


def test_all_frames_share_the_weights(small_predgs: Build) -> None:
    adapter = small_predgs()
    coarse = coarse_like(adapter)
    one_by_one = torch.cat([adapter(coarse[:, t : t + 1]) for t in range(3)], dim=1)
    assert torch.allclose(adapter(coarse), one_by_one, atol=1e-6)


def test_first_layer_of_every_head_learns_after_two_steps(small_predgs: Build) -> None:
    adapter = small_predgs()
    coarse = coarse_like(adapter)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (adapter(coarse) - 1).square().mean().backward()
        optimizer.step()
    for head in (adapter.mlp_coords, adapter.mlp_scale, adapter.mlp_rotation, adapter.mlp_amplitudes):
        assert head.first.weight.grad.abs().max() > 0


def test_options_reach_the_renderer(small_predgs: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def record(*gaussians: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.update(options)
        return torch.zeros(())

    monkeypatch.setattr(splat, "render", record)
    adapter = small_predgs(kernel_size=9, normalize="density")
    adapter.backend = "reference"
    adapter(coarse_like(adapter))
    assert seen == {"size": (12, 20), "kernel_size": 9, "normalize": "density", "backend": "reference"}


def test_half_precision_does_not_reach_the_positions(small_predgs: Build) -> None:
    adapter = small_predgs(size=(12, 20))
    coarse = coarse_like(adapter)
    exact = adapter.gaussians(coarse).coords
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(adapter.gaussians(coarse).coords, exact)


def test_another_grid_is_refused(small_predgs: Build) -> None:
    with pytest.raises(GridError, match=r"2×12×21 .*expected 2×12×20"):
        small_predgs().gaussians(torch.rand(1, 1, 2, 12, 21))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gaussians": 0}, "gaussians is 0"),
        ({"kernel_size": 8}, "expected an odd number"),
        ({"kernel_size": 3}, "raise kernel_size"),
        ({"downsample": 0}, "downsample is 0"),
    ],
)
def test_what_cannot_be_rendered_is_refused(small_predgs: Build, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_predgs(**wrong)


@pytest.mark.parametrize("wrong", ["normalize=peek", "amplitude=sigmod", "coords=offsets", "adapter_input=last"])
def test_words_that_an_option_does_not_have_are_refused_by_the_preset(wrong: str) -> None:
    with pytest.raises(ConfigError, match=f"model.{wrong.split('=')[0]}"):
        config.load("demo", [f"model.{wrong}"])
