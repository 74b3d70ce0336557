"""OpenSTL's weights: what they say of themselves, loaded as they are, refused with the reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pdr_cli import models
from pdr_cli.errors import CheckpointError
from pdr_cli.models.openstl import architecture_of, from_openstl, tensors_of
from pdr_cli.runs.openstl import load_openstl
from tests.models.builders import build_predictor
from tests.models.openstl_layouts import Shapes, met2net_shapes, pfgnet_shapes, state_of
from tests.models.published import NAMES
from tests.models.test_released import listed

State = dict[str, Tensor]
SHAPE = (4, 2, 16, 32)
SMALL: dict[str, Any] = {"hid_s": 4, "hid_t": 32, "n_s": 4, "n_t": 3, "mlp_ratio": 3, "drop_path": 0.0}
# The same in OpenSTL's words.
SMALL_CONFIG = {"hid_S": 4, "hid_T": 32, "N_S": 4, "N_T": 3, "mlp_ratio": 3}


def small_state(name: str) -> State:
    torch.manual_seed(0)
    T, C, H, W = SHAPE
    return build_predictor(name, T, C, **SMALL, size=(H, W)).state_dict()


@pytest.mark.parametrize("name", NAMES)
def test_weights_alone_say_which_model_they_are_of(name: str) -> None:
    state = small_state(name)
    model = from_openstl(state, SHAPE)
    x = torch.rand(1, *SHAPE)
    same = build_predictor(name, 4, 2, **SMALL, size=SHAPE[2:]).eval()
    same.load_state_dict(state)
    assert torch.equal(model(x), same(x))
    assert not model.training


DESCENDANTS = {
    "pfgnet": pfgnet_shapes(channels=2, hid_s=4, n_t=3),
    "met2net": met2net_shapes(channels=2, hid_s=4, hid_t=16, n_t=3),
}
descendants = pytest.mark.parametrize(("name", "shapes"), DESCENDANTS.items(), ids=DESCENDANTS)


@descendants
def test_models_that_descend_from_the_toolbox_are_recognised(name: str, shapes: Shapes) -> None:
    state = state_of(shapes)
    model = from_openstl({"state_dict": {f"model.{k}": v for k, v in state.items()}}, SHAPE)
    found = architecture_of(state)
    assert (found.backbone, found.hid_t) == (name, {"pfgnet": None, "met2net": 16}[name])
    assert (found.in_steps, found.channels, found.hid_s, found.n_s, found.n_t, found.mlp_ratio) == (4, 2, 4, 2, 3, 4)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert model(torch.rand(1, *SHAPE)).shape == (1, *SHAPE)


@pytest.mark.parametrize("name", ["pfgnet", "met2net"])
def test_their_configurations_name_the_method(name: str) -> None:
    state = state_of(DESCENDANTS[name])
    method, other = {"pfgnet": ("PFG", "its"), "met2net": ("its", "SimVP")}[name]
    # PFGNet's configurations say 'None', Met²Net's 'TAU', and neither has an effect.
    assert from_openstl(state, SHAPE, {"method": method, "model_type": "None", "hid_S": 4, "N_T": 3})
    with pytest.raises(CheckpointError, match=f"method {other}; expected {method.upper()}"):
        from_openstl(state, SHAPE, {"method": other})
    with pytest.raises(CheckpointError, match="config has N_T 8; expected 3"):
        from_openstl(state, SHAPE, {"N_T": 8})


@pytest.mark.parametrize(
    ("name", "lost"), [("pfgnet", "hid.blocks.2.tm.gate_head.bias"), ("met2net", "hid_k.conv2.bias")]
)
def test_their_missing_tensors_are_named(name: str, lost: str) -> None:
    state = state_of(DESCENDANTS[name])
    del state[lost]
    with pytest.raises(CheckpointError, match=f"lack {lost}"):
        from_openstl(state, SHAPE)


@pytest.mark.shared
@pytest.mark.parametrize("name", NAMES)
def test_published_listings_are_recognised(shared: Path, name: str) -> None:
    with torch.device("meta"):
        weights = tensors_of({k: torch.empty(shape) for k, shape in listed(shared, name).items()})
    found = architecture_of(weights)
    assert (found.backbone, found.in_steps, found.channels) == (name, 4, 2)
    assert (found.hid_s, found.hid_t, found.n_s, found.n_t, found.kernels) == (32, 256, 2, 8, (3, 3))
    assert found.mlp_ratio in (None, 8)
    with torch.device("meta"):
        assert found.build((32, 32), 0.1).state_dict().keys() == weights.keys()


@pytest.mark.shared
@pytest.mark.parametrize("file", ["tiny_tau.pt", "tiny_simvp_incepu.pt"])
def test_toolbox_model_with_its_config_forecasts_the_same(shared: Path, file: str) -> None:
    golden = torch.load(shared / "golden" / file, weights_only=True)
    model = from_openstl(golden["state_dict"], golden["in_shape"], golden["config"])
    torch.testing.assert_close(model(golden["x"]), golden["y"], rtol=0, atol=1e-6 * golden["y"].abs().max().item())


def test_swin_buffers_beside_the_weights_are_left_out() -> None:
    state = small_state("swin")
    state["hid.enc.1.block.attn_mask"] = torch.zeros(2, 16, 16)
    state["hid.enc.1.block.attn.relative_position_index"] = torch.zeros(16, 16, dtype=torch.long)
    assert from_openstl(state, SHAPE, {"model_type": "Swin"}).state_dict().keys() == small_state("swin").keys()


@pytest.mark.parametrize(
    ("name", "spelt"),
    [
        ("simvp", "IncepU"),
        ("simvp2", "gSTA"),
        ("simvp2", None),
        ("mlpmixer", "MLPMixer"),
        ("mlpmixer", "mlp"),
        ("moganet", "Moga"),
        ("van", "VAN"),
        ("tau", "TAU"),
    ],
)
def test_config_is_spelt_as_in_the_toolbox(name: str, spelt: str | None) -> None:
    config = SMALL_CONFIG | {"model_type": spelt, "lr": 1e-3, "drop_path": 0.2}
    assert from_openstl(small_state(name), SHAPE, config)


def test_drop_path_is_taken_from_the_config() -> None:
    model = from_openstl(small_state("van"), SHAPE, {"drop_path": 0.2})
    assert model.hid.enc[2].block.drop_path.p == pytest.approx(0.2)


def test_lightning_and_parallel_names_are_understood() -> None:
    state = small_state("tau")
    lightning = {"epoch": 3, "state_dict": {f"model.{k}": v for k, v in state.items()}}
    parallel = {f"module.{k}": v for k, v in state.items()}
    for wrapped in (lightning, parallel):
        assert from_openstl(wrapped, SHAPE).state_dict().keys() == state.keys()


def test_larger_kernels_are_found_and_keep_the_size() -> None:
    state = small_state("van")
    for name, tensor in state.items():
        if tensor.ndim == 4 and name.startswith("enc.") and tensor.shape[-1] == 3:
            state[name] = torch.zeros(*tensor.shape[:2], 5, 5)
    model = from_openstl(state, SHAPE, {"spatio_kernel_enc": 5, "spatio_kernel_dec": 3})
    assert model(torch.rand(1, *SHAPE)).shape == (1, *SHAPE)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"hid_S": 8}, "config has hid_S 8; expected 4"),
        ({"N_T": 8}, "config has N_T 8; expected 3"),
        ({"mlp_ratio": 8.0}, "config has mlp_ratio 8.0; expected 3"),
        (
            {"model_type": "gSTA"},
            r"expected tau, because the weights hold hid.enc.0.block.attn.spatial_gating_unit.fc.0.weight \[4, 16\]",
        ),
        ({"model_type": None}, "model_type gSTA, which is simvp2; expected tau"),
        ({"model_type": "TUA"}, "Did you mean 'tau'"),
    ],
)
def test_config_of_another_model_is_refused(config: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        from_openstl(small_state("tau"), SHAPE, config)


def test_other_frames_are_refused() -> None:
    with pytest.raises(CheckpointError, match="of 4 frames of 2 channels; expected 10 of 1"):
        from_openstl(small_state("tau"), (10, 1, 16, 32))


def test_another_grid_is_refused_where_the_weights_depend_on_it() -> None:
    with pytest.raises(
        CheckpointError, match=r"mlp_tokens.fc1.weight is \[8, 32\] in the weights; expected \[8, 64\], as in a"
    ):
        from_openstl(small_state("mlpmixer"), (4, 2, 32, 32))


def test_missing_tensor_is_named() -> None:
    state = small_state("tau")
    state["hid.enc.1.block.mlp.fc2.wieght"] = state.pop("hid.enc.1.block.mlp.fc2.weight")
    with pytest.raises(CheckpointError, match=r"lack hid.enc.1.block.mlp.fc2.weight \[32, 96, 1, 1\].*fc2.wieght"):
        from_openstl(state, SHAPE)


def test_unexpected_tensor_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"hold dec.extra \[2, 3\], which a tau for frames 4 x 2 x 16 x 32"):
        from_openstl(small_state("tau") | {"dec.extra": torch.zeros(2, 3)}, SHAPE)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (
            {"cell_list.0.conv_x.0.weight": torch.zeros(8, 3, 5, 5)},
            r"first tensor is cell_list.0.conv_x.0.weight \[8, 3",
        ),
        ({}, "they hold no tensor"),
        ({"epoch": 3, "optimizer": {}}, "'epoch' is a int"),
    ],
)
def test_another_family_is_refused(state: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        from_openstl(state, SHAPE)


def test_truncated_state_says_what_every_model_has() -> None:
    state = small_state("tau")
    del state["enc.enc.0.conv.conv.weight"]
    with pytest.raises(CheckpointError, match=r"lack enc.enc.0.conv.conv.weight, which every model"):
        from_openstl(state, SHAPE)


def test_the_package_offers_it_and_imports_torch_only_then() -> None:
    script = "import sys, pdr_cli.models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    assert models.from_openstl is from_openstl
    assert models.load_openstl is load_openstl
    with pytest.raises(AttributeError, match="no attribute 'from_opensl'"):
        models.from_opensl  # noqa: B018
