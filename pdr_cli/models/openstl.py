"""Weights of the public OpenSTL toolbox: its SimVP family, and PFGNet and Met²Net, which descend from it.

They are recognised by their tensors alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pdr_cli.choices import PREDICTORS
from pdr_cli.errors import CheckpointError, did_you_mean
from pdr_cli.models.interfaces import Frames, OnePass
from pdr_cli.models.predictors.met2net import Met2Net
from pdr_cli.models.predictors.simvp import SimVP
from pdr_cli.models.predictors.translators.options import Grid, TranslatorOptions

# OpenSTL's names of the translators, in lower case, and ours.
MODEL_TYPES = {
    "incepu": "simvp",
    "gsta": "simvp2",
    "tau": "tau",
    "convnext": "convnext",
    "hornet": "hornet",
    "moga": "moganet",
    "moganet": "moganet",
    "vit": "vit",
    "swin": "swin",
    "uniformer": "uniformer",
    "poolformer": "poolformer",
    "van": "van",
    "mlp": "mlpmixer",
    "mlpmixer": "mlpmixer",
    "convmixer": "convmixer",
}
# Values of `method` in configurations of models that have no model_type, in lower case.
METHODS = {"pfg": "pfgnet", "its": "met2net"}
# Parts of tensor names that distinguish translators; the first match decides.
MARKS = (
    ("hid.cel.", "pfgnet"),
    ("hid.enc.0.layers.", "simvp"),
    ("spatial_gating_unit.fc.", "tau"),
    (".gnconv.", "hornet"),
    (".attn.sigma", "moganet"),
    (".relative_position_bias_table", "swin"),
    (".pos_embed.", "uniformer"),
    (".mlp_tokens.", "mlpmixer"),
    (".conv_pw.", "convmixer"),
    (".conv_dw.", "convnext"),
    (".attn.qkv.", "vit"),
    ("spatial_gating_unit.", "van or simvp2"),
    (".layer_scale_1", "poolformer"),
)
WITHOUT_MLP = ("simvp", "convmixer")
# Where frameworks put the state dict in a checkpoint: Lightning and timm, DeepSpeed and others, and plain training loops.
HOLDERS = ("state_dict", "model_state_dict", "model", "module", "net", "network")
WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.|_forward_module\.|model\.|net\.)*")  # DDP, compile, Fabric, Lightning
# Buffers that Swin saves beside its weights; they follow from the window.
DERIVED = (".relative_position_index", ".attn_mask")
VARIABLE = "enc_q_list."  # encoders of Met²Net, one for each variable
NORMS = ("norm1", "norm", "norm_1")  # of a block; every translator but IncepU has one of them
MLPS = ("enc.0.block.mlp.fc1", "enc.0.block.pwconv1", "enc.0.block.mlp_channels.fc1", "blocks.0.pw_in")


@dataclass(frozen=True)
class Architecture:
    """The hyperparameters that the shapes of a state dict imply, by the names of our presets."""

    backbone: str
    in_steps: int
    channels: int
    hid_s: int
    hid_t: int | None  # None where every block is as wide as the latent frames
    n_s: int
    n_t: int
    mlp_ratio: float | None  # None where there is no MLP
    kernels: tuple[int, int]

    def build(self, size: tuple[int, int], drop_path: float) -> OnePass:
        """A model of this architecture for frames of `size` (H, W)."""
        options = TranslatorOptions(
            self.in_steps * self.hid_s,
            hid_t=self.hid_t or 0,
            n_t=self.n_t,
            mlp_ratio=self.mlp_ratio or 0,
            drop_path=drop_path,
            grid=Grid(size, 2 ** (self.n_s // 2)),
        )
        frames = Frames(self.in_steps, self.channels, size)
        if self.backbone == "met2net":
            return Met2Net(frames, options, self.hid_s, self.n_s, self.kernels)
        return SimVP(frames, PREDICTORS.find(self.backbone)(options), self.hid_s, self.n_s, self.kernels)


def from_openstl(
    state_dict: Mapping[str, Any], in_shape: tuple[int, int, int, int], config: Mapping[str, Any] | None = None
) -> nn.Module:
    """The predictor of an OpenSTL state dict, with its weights, in evaluation mode.

    Args:
        state_dict: plain, or a Lightning checkpoint with the tensors under `state_dict`.
        in_shape: (T, C, H, W) of the frames it was trained on.
        config: OpenSTL's dictionary. All values but drop_path (default 0) follow from the shapes, and those in `config` must
            agree with them. A model_type of None is gSTA, as in OpenSTL; without model_type, the tensors decide.

    Raises:
        CheckpointError: weights of another family, shape or configuration, or incomplete ones.
        ConfigError: H and W do not fit the windows of Swin.
    """
    config = config or {}
    weights = tensors_of(state_dict)
    found = architecture_of(weights)
    T, C, H, W = in_shape
    if (found.in_steps, found.channels) != (T, C):
        raise CheckpointError(
            f"the weights are of {found.in_steps} frames of {found.channels} channels", f"{T} of {C}, as in in_shape"
        )
    check_config(found, config, weights)
    model = found.build((H, W), float(config.get("drop_path") or 0.0))
    load_strictly(model, weights, f"{found.backbone} for frames {T} x {C} x {H} x {W}")
    return model.eval()


def tensors_of(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """The model's own tensors: those under a key of `HOLDERS`, without the prefixes that wrappers put before names.

    Raises:
        CheckpointError: an entry is not a tensor.
    """
    inner = next((state_dict[key] for key in HOLDERS if isinstance(state_dict.get(key), Mapping)), None)
    entries = state_dict if inner is None else inner
    other = next((name for name, value in entries.items() if not isinstance(value, Tensor)), None)
    if other is not None:
        raise CheckpointError(f"{other!r} is a {type(entries[other]).__name__}", "a state dict of tensors only")
    bare = {WRAPPERS.sub("", name): value for name, value in entries.items()}
    return {name: value for name, value in bare.items() if not name.endswith(DERIVED)}


def architecture_of(weights: Mapping[str, Tensor]) -> Architecture:
    """The hyperparameters by the shapes of the tensors.

    Raises:
        CheckpointError: the tensors are not of a model of the SimVP family or one that descends from it.
    """
    if any(name.startswith(VARIABLE) for name in weights):
        return _met2net(weights)
    backbone = backbone_of(weights)
    first = _shape(weights, "enc.enc.0.conv.conv.weight")  # [hid_S, C, k, k]
    last = _shape(weights, "dec.dec.1.conv.conv.weight")  # [hid_S, hid_S, k, k]
    width, hid_t = _widths(weights, backbone)
    mlp_ratio = None
    if backbone not in WITHOUT_MLP:
        mlp_ratio = _shape_of_any(weights, "hid.", MLPS)[0] / width / (2 if backbone == "pfgnet" else 1)
    n_s, n_t = _count(weights, "enc.enc."), _count(weights, "hid.blocks." if backbone == "pfgnet" else "hid.enc.")
    kernels = (first[2], last[2])
    return Architecture(backbone, width // first[0], first[1], first[0], hid_t, n_s, n_t, mlp_ratio, kernels)


def _widths(weights: Mapping[str, Tensor], backbone: str) -> tuple[int, int | None]:
    """Channels of the first and of the middle blocks."""
    if backbone == "pfgnet":
        return _shape(weights, "hid.blocks.0.norm_dw.weight")[0], None
    if backbone == "simvp":
        return _shape(weights, "hid.enc.0.conv1.weight")[1], _shape(weights, "hid.enc.0.layers.0.conv.weight")[0]
    first, middle = (_shape_of_any(weights, f"hid.enc.{i}.block.", NORMS)[0] for i in (0, 1))
    return first, middle


def _met2net(weights: Mapping[str, Tensor]) -> Architecture:
    first = _shape(weights, f"{VARIABLE}0.enc.0.conv.conv.weight")  # [hid_S, 1, k, k]
    last = _shape(weights, "dec_q_list.0.dec.1.conv.conv.weight")  # [hid_S, hid_S, k, k]
    hid_t, width = _shape(weights, "hid_q.conv1.weight")[:2]
    return Architecture(
        "met2net",
        in_steps=width // first[0],
        channels=_count(weights, VARIABLE),
        hid_s=first[0],
        hid_t=hid_t,
        n_s=_count(weights, f"{VARIABLE}0.enc."),
        n_t=_count(weights, "hid_q.layers."),
        mlp_ratio=_shape(weights, "hid_q.layers.0.ff.ff1.mlp.fc1.weight")[0] / hid_t,
        kernels=(first[2], last[2]),
    )


def backbone_of(weights: Mapping[str, Tensor]) -> str:
    """Our name of the translator.

    Raises:
        CheckpointError: an unknown translator; names the first tensor.
    """
    translator = [name for name in weights if name.startswith("hid.")]
    found = next((backbone for mark, backbone in MARKS if any(mark in name for name in translator)), None)
    if found is None or not any(name.startswith("enc.enc.") for name in weights):
        raise CheckpointError(
            f"the weights are not of a model of OpenSTL's SimVP family, PFGNet or Met²Net: {_first(weights)}"
        )
    if found == "van or simvp2":
        inputs_and_outputs = _shape(weights, "hid.enc.0.block.attn.spatial_gating_unit.conv1.weight")[:2]
        return "van" if inputs_and_outputs[0] == inputs_and_outputs[1] else "simvp2"
    return found


def check_config(found: Architecture, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Refuse a configuration that contradicts the weights.

    Raises:
        CheckpointError: names the first entry that differs.
    """
    if found.backbone in METHODS.values():
        _check_method(found, config.get("method"))
    elif "model_type" in config:
        _check_model_type(found, config["model_type"] or "gSTA", weights)
    shapes = {
        "hid_S": found.hid_s,
        "hid_T": found.hid_t,
        "N_S": found.n_s,
        "N_T": found.n_t,
        "mlp_ratio": found.mlp_ratio,
        "spatio_kernel_enc": found.kernels[0],
        "spatio_kernel_dec": found.kernels[1],
    }
    for key, value in shapes.items():
        if value is not None and config.get(key) is not None and config[key] != value:
            raise CheckpointError(f"the config has {key} {config[key]}", f"{value:g}, as in the weights")


def _check_method(found: Architecture, method: str | None) -> None:
    """The configurations of these models have no model_type, or one without effect."""
    if method is not None and METHODS.get(method.lower()) != found.backbone:
        expected = next(name for name, backbone in METHODS.items() if backbone == found.backbone)
        raise CheckpointError(f"the config has method {method}", f"{expected.upper()}, as in the weights")


def _check_model_type(found: Architecture, model_type: str, weights: Mapping[str, Tensor]) -> None:
    named = MODEL_TYPES.get(model_type.lower())
    if named is None:
        near = did_you_mean(model_type.lower(), MODEL_TYPES)
        raise CheckpointError(f"model_type {model_type!r} is not known.{near}", f"one of {', '.join(MODEL_TYPES)}")
    if named != found.backbone:
        marks = [mark for mark, backbone in MARKS if found.backbone in backbone]
        telling = next(name for name in weights if any(mark in name for mark in marks))
        raise CheckpointError(
            f"the config has model_type {model_type}, which is {named}",
            f"{found.backbone}, because the weights hold {_described(telling, weights[telling])}",
        )


def load_strictly(module: nn.Module, weights: Mapping[str, Tensor], of: str) -> None:
    """Load all tensors of a module, none missing and none left over; `of` names the module in messages.

    Raises:
        CheckpointError: names the first tensor that is missing, of another shape, or unexpected.
    """
    expected = module.state_dict()
    for name, tensor in expected.items():
        if name not in weights:
            near = did_you_mean(name, weights.keys() - expected)
            raise CheckpointError(f"the weights lack {_described(name, tensor)} of a {of}.{near}")
        if weights[name].shape != tensor.shape:
            raise CheckpointError(
                f"{name} is {list(weights[name].shape)} in the weights", f"{list(tensor.shape)}, as in a {of}"
            )
    extra = next((name for name in weights if name not in expected), None)
    if extra is not None:
        raise CheckpointError(f"the weights hold {_described(extra, weights[extra])}, which a {of} does not have")
    module.load_state_dict(dict(weights))


def _shape(weights: Mapping[str, Tensor], name: str) -> torch.Size:
    if name not in weights:
        raise CheckpointError(f"the weights lack {name}, which every model of its family has")
    return weights[name].shape


def _shape_of_any(weights: Mapping[str, Tensor], prefix: str, layers: Iterable[str]) -> torch.Size:
    """The shape of the first of these layers that the weights have."""
    names = [f"{prefix}{layer}.weight" for layer in layers]
    return _shape(weights, next((name for name in names if name in weights), names[0]))


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    """Number of units below a prefix such as `hid.enc.`."""
    return len({name.removeprefix(prefix).split(".")[0] for name in weights if name.startswith(prefix)})


def _first(weights: Mapping[str, Tensor]) -> str:
    name = next(iter(weights), None)
    return "they hold no tensor" if name is None else f"their first tensor is {_described(name, weights[name])}"


def _described(name: str, tensor: Tensor) -> str:
    return f"{name} {list(tensor.shape)}"
