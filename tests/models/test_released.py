"""Predictors against the public toolbox: same numbers, same names, same drop probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pdr_cli.models.predictors.simvp import SimVP
from pdr_cli.models.predictors.translators.metaformer import MetaFormer, StochasticDepth
from tests.models.builders import build_predictor
from tests.models.published import LISTED, NAMES, build_published

pytestmark = pytest.mark.shared
# Buffers that the toolbox saves and that follow from the window alone.
DERIVED = ("relative_position_index", "attn_mask")


@pytest.fixture(
    scope="module", params=[("tau", "tiny_tau.pt"), ("simvp", "tiny_simvp_incepu.pt")], ids=["tau", "simvp"]
)
def golden(request: pytest.FixtureRequest, shared: Path) -> dict[str, Any]:
    name, file = request.param
    return torch.load(shared / "golden" / file, weights_only=True) | {"name": name}


def released(golden: dict[str, Any]) -> SimVP:
    T, C, _, _ = golden["in_shape"]
    config = golden["config"]
    model = build_predictor(
        golden["name"],
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


def test_float64_forecast_equals_the_toolbox(golden: dict[str, Any]) -> None:
    model = released(golden).double().eval()
    assert relative_error(model(golden["x"].double()), golden["y64"]) < 1e-12


def test_float32_forecast_equals_the_toolbox(golden: dict[str, Any]) -> None:
    # 1e-6 of the largest value is eight roundings of single precision.
    assert relative_error(released(golden).eval()(golden["x"]), golden["y"]) < 1e-6


def test_gradients_in_training_equal_the_toolbox(golden: dict[str, Any]) -> None:
    model = released(golden).train()
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


def test_stochastic_depth_rises_from_one_per_cent(golden: dict[str, Any]) -> None:
    translator = released(golden).hid
    if not isinstance(translator, MetaFormer):
        pytest.skip("it has no stochastic depth")
    found = [stage.block.drop_path.p for stage in translator.enc]
    assert found == pytest.approx(golden["droppath_probs"], abs=1e-7)


def listed(shared: Path, name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a released TaxiBJ model."""
    sections = (shared / "golden" / "state_dict_keys.txt").read_text().split("#####")
    listing = next(part for part in sections if part.startswith(f" {LISTED[name]} "))
    shapes = {}
    for line in filter(None, listing.splitlines()[1:]):
        tensor, rest = line.split(maxsplit=1)
        sides = rest[1 : rest.index(")")].split(",")
        shapes[tensor] = tuple(int(side) for side in sides if side.strip())
    return shapes


@pytest.mark.parametrize("name", NAMES)
def test_taxibj_names_and_shapes_are_those_of_released_weights(shared: Path, name: str) -> None:
    expected = {k: v for k, v in listed(shared, name).items() if not k.endswith(DERIVED)}
    found = {k: tuple(v.shape) for k, v in build_published(name, "taxibj").state_dict().items()}
    assert found == expected
