"""The TAU predictor against the public toolbox: same numbers, same names, same size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pdr_cli.errors import ConfigError
from pdr_cli.models.registry import build_predictor
from pdr_cli.models.simvp import SimVP
from pdr_cli.models.translators.large_kernel import Attention
from pdr_cli.models.translators.metaformer import StochasticDepth

Build = Callable[..., Any]


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Any]:
    return torch.load(shared / "golden" / "tiny_tau.pt", weights_only=True)


def tau_of(golden: dict[str, Any]) -> SimVP:
    T, C, _, _ = golden["in_shape"]
    config = golden["config"]
    model = build_predictor(
        "tau",
        T,
        C,
        hid_s=config["hid_S"],
        hid_t=config["hid_T"],
        n_s=config["N_S"],
        n_t=config["N_T"],
        mlp_ratio=8,
        drop_path=config["drop_path"],
    )
    model.load_state_dict(golden["state_dict"])  # strict: every name and shape is the toolbox's
    assert isinstance(model, SimVP)
    return model


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.shared
def test_float64_forecast_equals_the_toolbox(golden: dict[str, Any]) -> None:
    model = tau_of(golden).double().eval()
    assert relative_error(model(golden["x"].double()), golden["y64"]) < 1e-12


@pytest.mark.shared
def test_float32_forecast_equals_the_toolbox(golden: dict[str, Any]) -> None:
    # 1e-6 of the largest value is eight roundings of single precision.
    assert relative_error(tau_of(golden).eval()(golden["x"]), golden["y"]) < 1e-6


@pytest.mark.shared
def test_gradients_in_training_equal_the_toolbox(golden: dict[str, Any]) -> None:
    model = tau_of(golden).train()
    for module in model.modules():
        if isinstance(module, StochasticDepth):
            module.p = 0.0
    forecast = model(golden["x"])
    loss = torch.nn.functional.mse_loss(forecast, golden["target"])
    loss.backward()
    assert relative_error(forecast, golden["y_train"]) < 3e-6  # batch statistics add roundings to those of eval
    assert loss.item() == pytest.approx(golden["loss_mse"], rel=1e-6)
    largest = max(golden["grad_norms"].values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.norm().item() == pytest.approx(
            golden["grad_norms"][name], rel=1e-4, abs=1e-6 * largest
        ), name


@pytest.mark.shared
def test_stochastic_depth_rises_from_one_per_cent(golden: dict[str, Any]) -> None:
    stages = tau_of(golden).hid.enc
    found = [stage.block.drop_path.p for stage in stages]
    assert found == pytest.approx(golden["droppath_probs"], abs=1e-7)


@pytest.mark.shared
def test_taxibj_names_and_shapes_are_those_of_released_weights(shared: Path) -> None:
    section = (shared / "golden" / "state_dict_keys.txt").read_text().split("#####")
    listing = next(part for part in section if part.startswith(" TAU "))
    expected = {}
    for line in filter(None, listing.splitlines()[1:]):
        name, shape = line.split(maxsplit=1)
        expected[name] = shape[: shape.index(")") + 1].replace(" ", "")
    model = build_predictor("tau", 4, 2, hid_s=32, hid_t=256, n_s=2, n_t=8, mlp_ratio=8, drop_path=0.1)
    found = {name: str(tuple(value.shape)).replace(" ", "") for name, value in model.state_dict().items()}
    assert found == expected


@pytest.mark.parametrize(
    ("in_steps", "channels", "hid_s", "hid_t", "n_s", "n_t", "count"),
    [
        pytest.param(4, 2, 32, 256, 2, 8, 9_545_442, id="taxibj"),
        pytest.param(12, 1, 32, 256, 2, 8, 12_219_553, id="weatherbench"),
        pytest.param(10, 1, 64, 256, 2, 6, 14_955_201, id="kth"),
        pytest.param(4, 3, 64, 512, 4, 8, 37_647_363, id="human"),
    ],
)
def test_published_parameter_counts(
    in_steps: int, channels: int, hid_s: int, hid_t: int, n_s: int, n_t: int, count: int
) -> None:
    with torch.device("meta"):
        model = build_predictor(
            "tau", in_steps, channels, hid_s=hid_s, hid_t=hid_t, n_s=n_s, n_t=n_t, mlp_ratio=8, drop_path=0.0
        )
    assert sum(p.numel() for p in model.parameters()) == count


def test_mlp_ratio_sets_the_width_of_the_mlp(small_tau: Build) -> None:
    block = small_tau(mlp_ratio=3).hid.enc[0].block
    assert block.mlp.fc1.out_channels == 3 * 12  # d = T·hid_S = 3·4


def test_attention_keeps_pytorch_init_and_the_mlp_does_not(small_tau: Build) -> None:
    torch.manual_seed(0)
    block = small_tau(in_steps=16, hid_t=64, mlp_ratio=8).hid.enc[0].block
    d = 64
    # Kaiming-uniform with a = √5 is uniform in ±1/√fan_in, std 1/√(3·fan_in); fan-out normal is √(2/out).
    assert isinstance(block.attn, Attention)
    assert block.attn.proj_1.weight.std().item() == pytest.approx((3 * d) ** -0.5, rel=0.1)
    assert block.mlp.fc1.weight.std().item() == pytest.approx((2 / (8 * d)) ** 0.5, rel=0.1)
    assert block.mlp.fc1.bias.abs().max() == 0
    assert torch.all(block.layer_scale_1 == 1e-2)


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    out = StochasticDepth(0.25)(torch.ones(4000, 2, 3, 3))
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert torch.equal(out.amax(dim=(1, 2, 3)), out.amin(dim=(1, 2, 3)))
    assert out.mean().item() == pytest.approx(1, abs=0.03)  # 3 standard errors: 3·√(0.25/0.75/4000)


def test_stochastic_depth_rests_outside_training() -> None:
    x = torch.ones(50, 1, 1, 1)
    assert torch.equal(StochasticDepth(0.9).eval()(x), x)


@pytest.mark.parametrize(
    "wrong", [{"n_s": 3}, {"n_s": 0}, {"hid_s": 5}, {"n_t": 1}, {"drop_path": 1.0}], ids=lambda w: next(iter(w))
)
def test_values_that_cannot_be_built_are_named(small_tau: Build, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        small_tau(**wrong)
