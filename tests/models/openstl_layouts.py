"""Tensors of published models that descend from OpenSTL, names and shapes written down from their authors' code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]

TAXIBJ: dict[str, Any] = {"hid_s": 32, "hid_t": 256, "n_s": 2, "n_t": 8}


def state_of(shapes: Shapes) -> dict[str, Tensor]:
    """A state dict of random numbers."""
    torch.manual_seed(0)
    return {name: torch.rand(shape) if shape else torch.tensor(1) for name, shape in shapes.items()}


def unit(prefix: str, inputs: int, outputs: int, conv: str = "conv") -> Shapes:
    """A convolution 3 × 3 with its norm; an upsampling one has four times the outputs, and its name is `conv.0`."""
    made = 4 * outputs if conv.endswith("0") else outputs
    return {
        f"{prefix}.conv.{conv}.weight": (made, inputs, 3, 3),
        f"{prefix}.conv.{conv}.bias": (made,),
        f"{prefix}.conv.norm.weight": (outputs,),
        f"{prefix}.conv.norm.bias": (outputs,),
    }


def encoder(prefix: str, channels: int, hid_s: int) -> Shapes:
    """An encoder of two units."""
    return unit(f"{prefix}.enc.0", channels, hid_s) | unit(f"{prefix}.enc.1", hid_s, hid_s)


def decoder(prefix: str, channels: int, hid_s: int) -> Shapes:
    """A decoder of two units."""
    units = unit(f"{prefix}.dec.0", hid_s, hid_s, "conv.0") | unit(f"{prefix}.dec.1", hid_s, hid_s)
    return units | {f"{prefix}.readout.weight": (channels, hid_s, 1, 1), f"{prefix}.readout.bias": (channels,)}


def pfgnet_shapes(T: int = 4, channels: int = 2, hid_s: int = 32, n_t: int = 8) -> Shapes:
    """PFGNet (configs/taxibj/PFG.py): two encoder units, an MLP of ratio 4."""
    d = T * hid_s
    shapes = encoder("enc", channels, hid_s)
    for i, kernel in enumerate((3, 5, 7)):
        shapes |= _entry(f"hid.cel.branches.{i}", d, d // 3, kernel)
    if d % 3:
        shapes |= _entry("hid.cel.tail", d, d % 3, 3)
    shapes |= {"hid.cel.norm.weight": (d,), "hid.cel.norm.bias": (d,)}
    for i in range(n_t):
        shapes |= _pfg_block(f"hid.blocks.{i}", d)
    return shapes | decoder("dec", channels, hid_s)


def _entry(prefix: str, d: int, outputs: int, kernel: int) -> Shapes:
    sides = {"dw_h": (1, kernel), "dw_v": (kernel, 1), "dw_s": (3, 3), "dw_i": (1, 1)}
    convolutions = {f"{prefix}.0.{name}.weight": (d, 1, *side) for name, side in sides.items()}
    return convolutions | {f"{prefix}.1.weight": (outputs, d, 1, 1)}


def _pfg_block(prefix: str, d: int) -> Shapes:
    shapes: Shapes = {f"{prefix}.gamma_dw": (d,), f"{prefix}.gamma_pw": (d,)}
    for norm in ("norm_dw", "norm_pw"):
        shapes |= {f"{prefix}.{norm}.weight": (d,), f"{prefix}.{norm}.bias": (d,)}
    for i, kernel in enumerate((9, 15, 31)):
        branch = f"{prefix}.tm.branches.{i}"
        shapes |= {f"{branch}.beta": (1, d, 1, 1), f"{branch}.dw_c.weight": (d, 1, 3, 3)}
        shapes |= {f"{branch}.dw_h.weight": (d, 1, 1, kernel), f"{branch}.dw_v.weight": (d, 1, kernel, 1)}
    shapes |= {f"{prefix}.tm.gate_head.weight": (3, 3, 1, 1), f"{prefix}.tm.gate_head.bias": (3,)}
    for norm in ("grn_dw", "grn_pw"):
        shapes |= {f"{prefix}.{norm}.gamma": (1, d, 1, 1), f"{prefix}.{norm}.beta": (1, d, 1, 1)}
    shapes |= {f"{prefix}.pw_in.weight": (8 * d, d, 1, 1), f"{prefix}.pw_in.bias": (8 * d,)}
    shapes |= {f"{prefix}.dw_v.weight": (4 * d, 1, 3, 3)}
    return shapes | {f"{prefix}.pw_out.weight": (d, 4 * d, 1, 1), f"{prefix}.pw_out.bias": (d,)}


def met2net_shapes(T: int = 4, channels: int = 2, hid_s: int = 32, hid_t: int = 256, n_t: int = 8) -> Shapes:
    """Met²Net (class `med_ciatt_mutinums`): two encoder units; its TAU blocks have an MLP of ratio 4."""
    shapes: Shapes = {}
    for copy in ("q", "k"):
        for i in range(channels):
            shapes |= encoder(f"enc_{copy}_list.{i}", 1, hid_s) | decoder(f"dec_{copy}_list.{i}", 1, hid_s)
        hid = f"hid_{copy}"
        shapes |= {f"{hid}.conv1.weight": (hid_t, T * hid_s, 1, 1), f"{hid}.conv1.bias": (hid_t,)}
        for i in range(n_t):
            shapes |= _ciatt_layer(f"{hid}.layers.{i}", hid_t)
        shapes |= {f"{hid}.conv2.weight": (T * hid_s, hid_t, 1, 1), f"{hid}.conv2.bias": (T * hid_s,)}
    return shapes


def _ciatt_layer(prefix: str, d: int) -> Shapes:
    shapes: Shapes = {}
    for part in ("q_Conv", "k_Conv", "v_Conv", "v_post_f"):
        shapes |= {f"{prefix}.attn_1.{part}.0.weight": (d, d, 1, 1)} | _norm(f"{prefix}.attn_1.{part}.1", d)
    return shapes | _norm(f"{prefix}.norm_1", d) | _norm(f"{prefix}.norm_2", d) | _tau_block(f"{prefix}.ff.ff1", d)


def _norm(prefix: str, d: int) -> Shapes:
    return {f"{prefix}.weight": (d,), f"{prefix}.bias": (d,)}


def _tau_block(prefix: str, d: int) -> Shapes:
    shapes: Shapes = {f"{prefix}.layer_scale_1": (d,), f"{prefix}.layer_scale_2": (d,)}
    for norm in (f"{prefix}.norm1", f"{prefix}.norm2"):
        statistics = {f"{norm}.running_mean": (d,), f"{norm}.running_var": (d,), f"{norm}.num_batches_tracked": ()}
        shapes |= _norm(norm, d) | statistics
    convolutions = {
        "attn.proj_1": (d, d, 1, 1),
        "attn.spatial_gating_unit.conv0": (d, 1, 5, 5),
        "attn.spatial_gating_unit.conv_spatial": (d, 1, 7, 7),
        "attn.spatial_gating_unit.conv1": (d, d, 1, 1),
        "attn.proj_2": (d, d, 1, 1),
        "mlp.fc1": (4 * d, d, 1, 1),
        "mlp.dwconv.dwconv": (4 * d, 1, 3, 3),
        "mlp.fc2": (d, 4 * d, 1, 1),
    }
    for name, shape in convolutions.items():
        shapes |= {f"{prefix}.{name}.weight": shape, f"{prefix}.{name}.bias": shape[:1]}
    gate, squeezed = f"{prefix}.attn.spatial_gating_unit.fc", d // max(d // 16, 4)
    return shapes | {f"{gate}.0.weight": (squeezed, d), f"{gate}.2.weight": (d, squeezed)}
