"""Hard sigmoids with 8-bit integers: values against ONNX Runtime in float32, and what stays."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fbnetv3.export.integer_gates import replace_hard_sigmoids, split_hard_swishes

STEP = 1 / 32  # of the 8-bit input
X = np.linspace(-5, 5, 999, dtype=np.float32)


def model(nodes: list[onnx.NodeProto], **constants: object) -> onnx.ModelProto:
    """Returns a model from x to y, both of float32 and any length."""
    tensors = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n"]) for n in "xy")
    graph = helper.make_graph(nodes, "test", [x], [y], tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(made)
    return made


def run(made: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(["y"], {"x": X})[0])


def quantized(**attributes: float) -> onnx.ModelProto:
    """Returns a hard sigmoid between 8-bit tensors, as ONNX Runtime's quantiser writes it."""
    constants = {"step": np.float32(STEP), "zero": np.uint8(128)}
    gate = {"gate_step": np.float32(1 / 255), "gate_zero": np.uint8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "step", "zero"], ["xd"]),
        helper.make_node("HardSigmoid", ["xd"], ["s"], **attributes),
        helper.make_node("QuantizeLinear", ["s", "gate_step", "gate_zero"], ["sq"]),
        helper.make_node("DequantizeLinear", ["sq", "gate_step", "gate_zero"], ["y"]),
    ]
    return model(nodes, **constants, **gate)


@pytest.mark.parametrize(
    "attributes", [{}, {"alpha": 1 / 6, "beta": 0.5}, {"alpha": 0.3, "beta": 0.1}]
)
def test_values_are_those_of_float32_to_one_step(attributes: dict[str, float]) -> None:
    made = quantized(**attributes)
    before = run(made)
    assert replace_hard_sigmoids(made) == 1
    onnx.checker.check_model(made)
    assert "HardSigmoid" not in {node.op_type for node in made.graph.node}
    after = run(made)
    assert np.abs(after - before).max() <= 1.01 / 255
    assert (after.min(), after.max()) == (0.0, pytest.approx(before.max(), abs=1e-6))


def test_constants_that_nothing_reads_are_removed() -> None:
    made = quantized()
    replace_hard_sigmoids(made)
    used = {name for node in made.graph.node for name in node.input}
    assert {constant.name for constant in made.graph.initializer} <= used


def test_hard_sigmoids_of_float32_stay() -> None:
    made = model([helper.make_node("HardSigmoid", ["x"], ["y"])])
    before = made.SerializeToString()
    assert replace_hard_sigmoids(made) == 0
    assert made.SerializeToString() == before


def test_a_hard_swish_is_a_product() -> None:
    made = model([helper.make_node("HardSwish", ["x"], ["y"])])
    before = run(made)
    split_hard_swishes(made)
    assert [node.op_type for node in made.graph.node] == ["HardSigmoid", "Mul"]
    np.testing.assert_allclose(run(made), before, atol=1e-6)
