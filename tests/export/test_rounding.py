"""Weights of ONNX programs in fewer bits: how far they are from what they were, and which keep their bits."""

from __future__ import annotations

import numpy as np
import pytest

from pdr_cli.errors import UsageError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

WEIGHTS = (
    np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32) * 10.0 ** np.arange(-2, 2).repeat(8)[:, None]
)
ADDED = np.full((32, 32), 273.15, np.float32)


def program(weights: np.ndarray, name: str = "network.w") -> onnx.ModelProto:
    """x W + b."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node("MatMul", ["x", name], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    x, y = (helper.make_tensor_value_info(n, kind, [32, 32]) for n in "xy")
    tensors = [onnx.numpy_helper.from_array(v, n) for n, v in ((name, weights.astype(np.float32)), ("b", ADDED))]
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def product(made: onnx.ModelProto) -> np.ndarray:
    """The weights, as the program multiplies by them."""
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.eye(32, dtype=np.float32)})
    return np.asarray(found)


@pytest.mark.parametrize(
    ("precision", "share"),
    [("fp16", 2**-11), ("int8", 1 / 254)],  # half a unit in the last place; half a step of 127 to the row's largest
)
def test_weights_are_rounded_by_half_a_step_at_most(precision: str, share: float) -> None:
    from pdr_cli.export import rounding

    made = program(WEIGHTS)
    rounding.round_weights(made, precision)
    onnx.checker.check_model(made)
    error = np.abs(product(made) - ADDED - WEIGHTS)
    spacing = 2**-15  # of float32 at 273, to which the sum rounds
    largest = np.abs(WEIGHTS).max(axis=1, keepdims=True)
    assert error.max() > 0
    assert (error <= share * largest + spacing).all()
    assert len(made.SerializeToString()) < len(program(WEIGHTS).SerializeToString()) - 1024


def test_the_anchor_keeps_its_bits_and_a_network_without_weights_is_refused() -> None:
    from pdr_cli.export import rounding

    with pytest.raises(UsageError, match="no weights that take room"):
        rounding.round_weights(program(WEIGHTS, "network.anchor.w"), "int8")


def test_weights_beyond_the_range_of_fp16_are_refused() -> None:
    from pdr_cli.export import rounding

    with pytest.raises(UsageError, match="beyond its range"):
        rounding.round_weights(program(1e4 * WEIGHTS), "fp16")
