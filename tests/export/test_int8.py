"""Files with 8-bit integers whose activations have unusual values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fbnetv3.export.calibration import MIN_IMAGES
from fbnetv3.export.int8 import PERCENTILE, write_quantized

BATCH = np.random.default_rng(0).random((MIN_IMAGES, 3, 8, 8), np.float32)


def write_convolution(path: Path, scale: float, bias: float) -> None:
    """Writes a 1x1 convolution with random weights, whose largest possible value is ``scale``."""
    weights = np.random.default_rng(1).uniform(-scale / 3, scale / 3, (4, 3, 1, 1))
    tensors = [
        numpy_helper.from_array(weights.astype(np.float32), "w"),
        numpy_helper.from_array(np.full(4, bias, np.float32), "b"),
    ]
    image, logits = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, 8, 8])
        for name, channels in (("images", 3), ("logits", 4))
    )
    node = helper.make_node("Conv", ["images", "w", "b"], ["logits"], name="conv")
    graph = helper.make_graph([node], "conv", [image], [logits], tensors)
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), str(path))


@pytest.mark.parametrize(
    ("scale", "bias", "percentile", "ranges"),
    [
        (1.0, 0.5, PERCENTILE, f"percentile {PERCENTILE}"),
        (1.0, 0.5, None, "largest value"),
        (0.0, 0.5, PERCENTILE, f"percentile {PERCENTILE}"),  # constant
        (1e-5, 0.5, PERCENTILE, "largest value"),  # constant but for rounding
        (1e-3, -100.0, PERCENTILE, "largest value"),
    ],
)
def test_activations_of_any_range(
    scale: float, bias: float, percentile: float | None, ranges: str, tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    write_quantized(
        lambda plain: write_convolution(plain, scale, bias),
        path,
        [BATCH],
        {},
        percentile=percentile,
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["activation_ranges"] == ranges
    (logits,) = session.run(None, {"images": BATCH})
    assert np.abs(logits - bias).max() < 1.1 * scale + 0.01 * abs(bias)
