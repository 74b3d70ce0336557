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
