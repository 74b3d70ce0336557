"""The controls: as large as what they stand beside, seeing the same, painting without Gaussians."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pdr_cli import config
from pdr_cli.errors import ConfigError, GridError
from pdr_cli.models.gaussians.base import GaussianAdapter
from pdr_cli.models.gaussians.control import (
    ConvControl,
    MLPControl,
    interpolation,
    mlp_parameters,
    nearest,
    parameters_of,
)
from pdr_cli.models.gaussians.predgs import MLP
from pdr_cli.models.interfaces import Adapter, Frames
from pdr_cli.models.registry import build_adapter

# Channels and size of the data of each preset.
DATA = {
    "taxibj": (2, (32, 32)),
    "weatherbench": (1, (32, 64)),
    "kth": (1, (128, 128)),
    "human36m": (3, (256, 256)),
    "weather-small": (1, (25, 53)),
    "traffic-small": (2, (16, 8)),
}


def adapter_of(preset: str, name: str, *, size: tuple[int, int] | None = None, **changes: Any) -> Adapter:
    channels, usual = DATA[preset]
    options = config.load(preset).model.model_copy(update={"adapter": name} | changes)
    torch.manual_seed(0)
    return build_adapter(options, Frames(4, channels, size or usual))


@pytest.mark.parametrize("adapter_input", ["coarse", "coarse+last"])
@pytest.mark.parametrize(("control", "twin"), [("mlp", "flatten"), ("conv", "local")])
@pytest.mark.parametrize("preset", sorted(DATA))
def test_control_has_its_twins_parameters_within_five_per_cent(
    preset: str, control: str, twin: str, adapter_input: str
) -> None:
    with torch.device("meta"):
        counts = [parameters_of(adapter_of(preset, name, adapter_input=adapter_input)) for name in (control, twin)]
    assert counts[0] == pytest.approx(counts[1], rel=0.05)


@pytest.mark.parametrize("changes", [{"mlp_depth": 3}, {"hidden": 64}, {"gaussians": 40}, {"downsample": 4.0}])
def test_mlp_follows_the_size_of_the_network_it_stands_beside(changes: dict[str, Any]) -> None:
    counts = [parameters_of(adapter_of("taxibj", name, **changes)) for name in ("mlp", "flatten", "mlp")]
    assert counts[0] == pytest.approx(counts[1], rel=0.05)
    assert parameters_of(adapter_of("taxibj", "mlp")) != pytest.approx(counts[0], rel=0.05)


@pytest.mark.parametrize("changes", [{"conv_width": 48}, {"conv_depth": 2}, {"cell_stride": 8}, {"per_cell": 9}])
def test_conv_follows_the_size_of_the_network_it_stands_beside(changes: dict[str, Any]) -> None:
    counts = [parameters_of(adapter_of("taxibj", name, **changes)) for name in ("conv", "local")]
    assert counts[0] == pytest.approx(counts[1], rel=0.05)
    assert parameters_of(adapter_of("taxibj", "conv")) != counts[0]


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_control_starts_as_a_layer_that_hardly_shows_and_learns(name: str) -> None:
    adapter = adapter_of("taxibj", name, adapter_input="coarse+last", hidden=8, conv_width=8)
    coarse, observed = torch.rand(2, 3, 2, 32, 32), torch.rand(2, 4, 2, 32, 32)
    layer = adapter(coarse, observed)
    assert layer.shape == coarse.shape
    assert 0 < layer.abs().max() < 0.1
    (layer - 1).square().mean().backward()
    assert all(p.grad.any() for p in adapter.parameters())
    assert not isinstance(adapter, GaussianAdapter)


@pytest.mark.parametrize("name", ["flatten", "mlp", "local", "conv"])
def test_input_is_the_coarse_forecast_or_the_last_frame_too(name: str) -> None:
    coarse, observed = torch.rand(1, 2, 2, 32, 32), torch.rand(1, 4, 2, 32, 32)
    changed = torch.cat([observed[:, :-1], observed[:, -1:] + 1], dim=1)
    seen = {"coarse": False, "coarse+last": True, "auto": name in ("local", "conv")}
    for adapter_input, uses_last in seen.items():
        adapter = adapter_of("taxibj", name, adapter_input=adapter_input, hidden=8, conv_width=8)
        same = torch.equal(adapter(coarse, observed), adapter(coarse, changed))
        assert same != uses_last, adapter_input
    with pytest.raises(ValueError, match=r"called with \(coarse, observed\)"):
        adapter_of("taxibj", name, adapter_input="coarse+last")(coarse)


def test_mlp_paints_every_pixel_where_it_can_and_interpolates_where_not() -> None:
    fine, coarser = adapter_of("taxibj", "mlp"), adapter_of("human36m", "mlp")
    assert isinstance(fine, MLPControl)
    assert isinstance(coarser, MLPControl)
    assert fine.mlp.shape == (2, 32, 32)
    assert coarser.mlp.shape == (3, 128, 128)
    assert coarser.mlp.first.out_features >= 26  # a tenth of PredGS's 256
    frame = torch.rand(1, 1, 2, 32, 32)
    assert torch.allclose(fine(frame), fine.mlp(fine.pool(frame)))


def test_interpolation_is_linear_between_the_middles_of_cells() -> None:
    assert torch.equal(interpolation(5, 5), torch.eye(5))
    # 2 cells to 4 pixels: middles of cells at 0.5 and 2.5, so 0, 1/4, 3/4, 1 of the way; the ends are constant.
    assert (interpolation(2, 4) @ torch.tensor([0.0, 1.0])).tolist() == [0, 0.25, 0.75, 1]


@pytest.mark.parametrize("size", [(32, 40), (33, 41)])
def test_conv_paints_any_grid_and_each_cell_its_own_pixels(size: tuple[int, int]) -> None:
    adapter = adapter_of("taxibj", "conv", adapter_input="coarse", conv_width=8, conv_depth=0)
    assert isinstance(adapter, ConvControl)
    coarse = torch.rand(1, 1, 2, *size)
    changed = coarse.clone()
    changed[..., 20:22, 20:22] += 1
    differs = (adapter(coarse) != adapter(changed)).any(dim=2)[0, 0]
    # One 3x3 convolution with stride 2: rows 2i-1 to 2i+1 make cell i, so rows 20 and 21 show in cells 10 and 11.
    assert differs.nonzero().amin(dim=0).tolist() == [20, 20]
    assert differs.nonzero().amax(dim=0).tolist() == [23, 23]


def test_mlp_refuses_another_grid() -> None:
    with pytest.raises(GridError, match=r"2×32×33 .*expected 2×32×32"):
        adapter_of("taxibj", "mlp")(torch.rand(1, 1, 2, 32, 33))


def test_parameters_are_counted_as_the_mlp_has_them() -> None:
    for depth in (1, 3):
        assert mlp_parameters(7, 5, depth, 6) == parameters_of(MLP(7, 5, (2, 3), depth))


@pytest.mark.parametrize(("wanted", "width"), [(1, 1), (10, 1), (24, 2), (26, 3), (30, 3)])
def test_nearest_width(wanted: int, width: int) -> None:
    assert nearest(lambda width: 10 * width, wanted) == width  # 10, 20, 30, ...


def test_misspelt_adapter_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'flatten'"):
        adapter_of("taxibj", "flaten")
