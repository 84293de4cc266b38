"""Hard sigmoids of quantised ONNX files, computed with 8-bit integers.

Hard swish, and squeeze-and-excitation with the gate ``hsigmoid``, use
HardSigmoid(x) = clip(a x + b, 0, 1), which ONNX Runtime computes in float32 only. Converting 8-bit
tensors to float32 and back takes longer than the convolutions gain from 8-bit integers. ONNX
Runtime can add with 8-bit integers, and rounding the sum to 8 bits clips it: with a scale of
1 / (255 a) and a zero point of 0, QuantizeLinear turns x + b / a into the integer of
clip(x + b / a, 0, 1 / a). DequantizeLinear with a scale of 1 / 255 turns this integer into
HardSigmoid(x), rounded to 8 bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto

_MAX_UINT8 = 255  # largest 8-bit integer
_ALPHA, _BETA = 0.2, 0.5  # ONNX's defaults of a and b, for nodes that do not state them


def split_hard_swishes(model: ModelProto) -> None:
    """Replaces each hard swish of a model in float32 by x times the hard sigmoid of x, in place."""
    from onnx import helper

    nodes = []
    for node in model.graph.node:
        if node.op_type != "HardSwish":
            nodes.append(node)
            continue
        (x,), name = node.input, node.name or node.output[0]
        gate = f"{node.output[0]}_hard_sigmoid"
        sigmoid = helper.make_node(
            "HardSigmoid", [x], [gate], f"{name}_gate", alpha=1 / 6, beta=0.5
        )
        nodes += [sigmoid, helper.make_node("Mul", [x, gate], list(node.output), name)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def replace_hard_sigmoids(model: ModelProto) -> int:
    """Replaces the hard sigmoids between 8-bit tensors, in place.

    Args:
        model: Quantised ONNX model in the form of QuantizeLinear and DequantizeLinear nodes.

    Returns:
        Number of hard sigmoids that were replaced. Hard sigmoids whose input or output is float32
        stay.
    """
    edit = _Edit(model.graph)
    nodes = [new for node in model.graph.node for new in edit.replaced(node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _remove_unused_constants(model.graph)
    return edit.count


class _Edit:
    """Changes the nodes of a graph one by one, in their order."""

    def __init__(self, graph: Any) -> None:
        self._graph, self.count = graph, 0
        self._producers = {name: node for node in graph.node for name in node.output}
        self._consumers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self._consumers.setdefault(name, []).append(node)

    def replaced(self, node: Any) -> list[Any]:
        """Returns the nodes that replace a node, and sets the scales of its neighbours."""
        from onnx import helper

        quantize = self._quantize_after(node)
        if quantize is None:
            return [node]
        values = {a.name: a.f for a in node.attribute}
        alpha, beta = values.get("alpha", _ALPHA), values.get("beta", _BETA)
        name = f"{node.output[0]}_gate"
        zero = self._constant(f"{name}_zero", np.uint8(0))
        sum_scale = self._constant(f"{name}_sum_scale", np.float32(1 / (_MAX_UINT8 * alpha)))
        gate_scale = self._constant(f"{name}_output_scale", np.float32(1 / _MAX_UINT8))
        # beta / alpha as an 8-bit tensor: its largest integer times a scale
        largest = self._constant(f"{name}_largest", np.uint8(_MAX_UINT8))
        shift_scale = self._constant(f"{name}_shift_scale", np.float32(beta / alpha / _MAX_UINT8))
        quantize.input[1:] = [sum_scale, zero]
        for reader in self._consumers[quantize.output[0]]:
            reader.input[1:] = [gate_scale, zero]
        self.count += 1
        shifted = f"{name}_shifted"
        return [
            helper.make_node("DequantizeLinear", [largest, shift_scale, zero], [shifted], shifted),
            helper.make_node("Add", [node.input[0], shifted], list(node.output), f"{name}_add"),
        ]

    def _quantize_after(self, node: Any) -> Any:
        """Returns the QuantizeLinear after a hard sigmoid.

        None: the node is no hard sigmoid, or not all of its neighbours are 8-bit.
        """
        if node.op_type != "HardSigmoid":
            return None
        before = self._producers.get(node.input[0])
        after = self._consumers.get(node.output[0], [])
        if before is None or before.op_type != "DequantizeLinear" or len(after) != 1:
            return None
        quantize = after[0]
        readers = self._consumers.get(quantize.output[0], [])
        if quantize.op_type != "QuantizeLinear" or not readers:
            return None
        return quantize if all(n.op_type == "DequantizeLinear" for n in readers) else None

    def _constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def _remove_unused_constants(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [constant for constant in graph.initializer if constant.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
