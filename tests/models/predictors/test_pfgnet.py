"""PFGNet: the authors' tensors, the ring-shaped kernels, and the gate that chooses among them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pdr_cli.models.predictors.simvp import SimVP
from pdr_cli.models.predictors.translators.metaformer import StochasticDepth
from pdr_cli.models.predictors.translators.pfg import (
    PeripheralGate,
    RepDepthwise,
    ResponseNorm,
    Ring,
    group_norm,
    texture,
)
from tests.models.builders import build_predictor
from tests.models.openstl_layouts import TAXIBJ, pfgnet_shapes

SMALL: dict[str, Any] = {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 3, "mlp_ratio": 2, "drop_path": 0.0}


def small(size: tuple[int, int] = (16, 24), periodic: bool = False, **changes: Any) -> SimVP:
    torch.manual_seed(0)
    built = build_predictor("pfgnet", 4, 2, **SMALL | changes, size=size, periodic=periodic)
    assert isinstance(built, SimVP)
    return built


def started(model: nn.Module) -> nn.Module:
    """The model with branches that show: their factors start at 1e-6, and the centres are not subtracted at all."""
    for name, parameter in model.named_parameters():
        if "gamma" in name or "beta" in name:
            nn.init.normal_(parameter)
    return model


def test_names_and_shapes_are_the_authors() -> None:
    with torch.device("meta"):
        model = build_predictor("pfgnet", 4, 2, **TAXIBJ, mlp_ratio=4, drop_path=0.1, size=(32, 32))
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == pfgnet_shapes()
    assert sum(p.numel() for p in model.parameters()) == 1_855_426  # the paper has 1.9 M


@pytest.mark.parametrize("size", [(16, 24), (15, 23), (3, 5)])
@pytest.mark.parametrize("steps", [1, 4, 9])
def test_any_grid_and_horizon(size: tuple[int, int], steps: int) -> None:
    with torch.no_grad():
        assert small(size).eval()(torch.rand(1, 4, 2, *size), steps).shape == (1, steps, 2, *size)


def test_every_parameter_learns() -> None:
    model = started(small()).train()
    model(torch.rand(2, 4, 2, 16, 24)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_forecast_is_the_same_for_each_sample_alone() -> None:
    model, x = started(small(drop_path=0.9)).eval(), torch.rand(2, 4, 2, 16, 24)
    with torch.no_grad():
        torch.testing.assert_close(torch.cat([model(x[:1]), model(x[1:])]), model(x), rtol=1e-4, atol=1e-5)


def test_longitudes_go_round_in_the_gate_too() -> None:
    model = started(small((12, 24), periodic=True)).double().eval()
    x = torch.rand(1, 4, 2, 12, 24, dtype=torch.float64)
    # Sums of a norm go in another order: equal up to the rounding of float64.
    assert torch.allclose(model(x.roll(4, -1)), model(x).roll(4, -1), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("drop_path", "expected"), [(0.0, [0, 0, 0]), (0.1, [0.01, 0.055, 0.1])])
def test_stochastic_depth_rises_from_one_per_cent_or_is_off(drop_path: float, expected: list[float]) -> None:
    found = [m.p for m in small(drop_path=drop_path).modules() if isinstance(m, StochasticDepth)]
    assert found == pytest.approx(expected)


def test_texture_is_that_of_sobel_laplace_and_variance() -> None:
    x = torch.rand(2, 3, 5, 6, dtype=torch.float64)

    def filtered(kernel: list[list[float]], of: Tensor = x) -> Tensor:
        weight = torch.tensor(kernel, dtype=torch.float64).expand(3, 1, 3, 3)
        return nn.functional.conv2d(of, weight, padding=1, groups=3)

    ninths = [[1 / 9] * 3] * 3
    across, down = filtered([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]), filtered([[-1, -2, -1], [0, 0, 0], [1, 2, 1]])
    expected = [
        (across**2 + down**2 + 1e-6).sqrt(),
        filtered([[0, 1, 0], [1, -4, 1], [0, 1, 0]]).abs(),
        filtered(ninths, x**2) - filtered(ninths) ** 2,
    ]
    torch.testing.assert_close(texture(x, False), torch.stack([f.mean(dim=1) for f in expected], dim=1))


def test_the_centre_is_subtracted_by_a_learned_share() -> None:
    ring, x = Ring(2, 9), torch.rand(1, 2, 6, 7)
    wide = ring(x)  # β starts at 0
    torch.testing.assert_close(wide, ring.dw_v(ring.dw_h(x)))
    nn.init.constant_(ring.beta, 0.5)
    torch.testing.assert_close(ring(x), wide - torch.tensor(0.5).tanh() * ring.dw_c(x))


def test_cells_take_the_kernel_that_their_texture_asks_for() -> None:
    gate, x = PeripheralGate(2, False), torch.zeros(1, 2, 8, 8)
    x[..., 4:] = 10.0  # an edge: rough from column 3 to 4, smooth elsewhere, and at the border against the zeros beyond
    nn.init.zeros_(gate.gate_head.weight)
    gate.gate_head.weight.data[1, 0] = 100.0  # the second kernel asks for gradients
    gate.gate_head.bias.data = torch.tensor([50.0, 0.0, 0.0])
    out = gate(x)
    torch.testing.assert_close(out[..., 1], gate.branches[0](x)[..., 1])
    torch.testing.assert_close(out[..., 3], gate.branches[1](x)[..., 3])


def test_the_entry_starts_with_the_identity_of_every_channel() -> None:
    entry, x = RepDepthwise(3, 5), torch.rand(1, 3, 4, 4)
    for conv in (entry.dw_v, entry.dw_s):
        nn.init.zeros_(conv.weight)
    assert torch.equal(entry(x), x)


def test_response_is_normalised_over_the_grid() -> None:
    x = torch.tensor([3.0, 4.0]).view(1, 1, 1, 2)  # norm 5
    assert ResponseNorm(1)(x).flatten().tolist() == pytest.approx([3.6, 4.8])


@pytest.mark.parametrize(("width", "groups"), [(128, 32), (16, 16), (24, 24), (40, 8), (48, 16)])
def test_groups_are_the_authors_wherever_theirs_divide_the_channels(width: int, groups: int) -> None:
    assert group_norm(width).num_groups == groups
