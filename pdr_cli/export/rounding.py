"""Weights of an ONNX program in fewer bits, which operators of the program turn into float32 again as it starts or runs.

The arithmetic stays float32, so that every network can be rounded. Only what convolutions and products of matrices multiply by
is rounded: scaling and climatology are in the units of the data, and the anchor holds most of the forecast's accuracy.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pdr_cli.errors import UsageError

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
KEPT = "network.anchor."
LEAST = 512  # values of a tensor; smaller ones take no room
INT8 = 127


def round_weights(program: onnx.ModelProto, precision: str) -> None:
    """Round the weights of a program in place, to "fp16", or to "int8" with a scale for each entry of the first dimension.

    Raises:
        UsageError: no weights that take room, or weights beyond the range of fp16.
    """
    graph, nodes = program.graph, []
    factors = {name for node in graph.node if node.op_type in PRODUCTS for name in node.input[:2]}
    chosen = [tensor for tensor in graph.initializer if tensor.name in factors and _is_large(tensor)]
    if not chosen:
        raise UsageError(f"--precision {precision}: the network has no weights that take room", way_out="leave it out")
    for tensor in chosen:
        values = numpy_helper.to_array(tensor)
        graph.initializer.remove(tensor)
        stored, node = (_in_16 if precision == "fp16" else _in_8)(tensor.name, values)
        graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in stored.items())
        nodes.append(node)
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


def _is_large(tensor: onnx.TensorProto) -> bool:
    """True for a tensor that takes room and may be rounded."""
    large = len(tensor.dims) > 1 and np.prod(tensor.dims) >= LEAST
    return large and tensor.data_type == onnx.TensorProto.FLOAT and not tensor.name.startswith(KEPT)


def _in_16(name: str, values: np.ndarray) -> tuple[dict[str, np.ndarray], onnx.NodeProto]:
    """Tensors to store and the node that makes the weights of them."""
    if not np.abs(values).max() < np.finfo(np.float16).max:
        raise UsageError(f"--precision fp16: {name} has weights beyond its range", way_out="take fp32 or int8")
    stored = f"{name}.fp16"
    return {stored: values.astype(np.float16)}, helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT)


def _in_8(name: str, values: np.ndarray) -> tuple[dict[str, np.ndarray], onnx.NodeProto]:
    """As `_in_16`."""
    largest = np.abs(values.reshape(len(values), -1)).max(axis=1)
    scale = (np.where(largest > 0, largest, 1) / INT8).astype(np.float32)
    rounded = np.round(values / scale.reshape(-1, *[1] * (values.ndim - 1)))
    stored: dict[str, np.ndarray] = {
        f"{name}.int8": np.clip(rounded, -INT8, INT8).astype(np.int8),
        f"{name}.scale": scale,
    }
    return stored, helper.make_node("DequantizeLinear", list(stored), [name], axis=0)
