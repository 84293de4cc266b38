"""Logits equal those of the published networks for weights generated from tensor names."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fbnetv3.arch import aligned, get_arch
from fbnetv3.modeling import build_model

GOLDEN = Path(__file__).parent.parent / "golden"
PUBLISHED = {m["name"]: m for m in json.loads((GOLDEN / "published.json").read_text())}
KEYS = json.loads(gzip.decompress((GOLDEN / "published_keys.json.gz").read_bytes()))
WITH_LOGITS = [name for name, model in PUBLISHED.items() if "logits_first8" in model]

# Replacements that turn a tensor name of this package into the published one, in order.
RULES = (
    (r"^backbone\.stages\.(\d+)\.(\d+)\.", r"backbone.stages.xif\1_\2."),
    (r"\.se\.reduce\.", ".se.se.0.conv."),
    (r"\.se\.expand\.", ".se.se.1."),
    (r"^head\.fc\.", "head.conv."),
)


def published_name(name: str) -> str:
    for pattern, replacement in RULES:
        name = re.sub(pattern, replacement, name)
    return name


def golden_tensor(name: str, shape: list[int]) -> torch.Tensor:
    """Returns the tensor that the golden rules assign to a published name."""
    x = np.random.RandomState(zlib.crc32(name.encode())).randn(*shape)
    x = np.asarray(x, dtype=np.float32)
    rules: list[tuple[bool, Any]] = [
        (name.endswith("num_batches_tracked"), lambda: np.zeros((), np.int64)),
        (name.endswith("running_var"), lambda: 0.5 * np.abs(x) + 0.5),
        (name.endswith("running_mean"), lambda: 0.1 * x),
        (name == "head.conv.weight", lambda: x),
        (name == "head.conv.bias", lambda: 0.01 * x),
        (len(shape) == 4, lambda: x * np.sqrt(2 / np.prod(shape[1:]))),
        (name.endswith(".pwl.bn.weight"), lambda: 0.2 + 0.02 * x),
        (len(shape) == 1 and name.endswith("weight"), lambda: 1 + 0.1 * x),
        (True, lambda: 0.1 * x),
    ]
    return torch.from_numpy(np.asarray(next(make() for fits, make in rules if fits)))


def golden_state_dict(name: str, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    published = {key: golden_tensor(key, shape) for key, shape in KEYS[name]}
    return {
        key: published[published_name(key)].reshape(tensor.shape).to(tensor.dtype)
        for key, tensor in model.state_dict().items()
    }


def logits(name: str, model: torch.nn.Module) -> np.ndarray:
    size = PUBLISHED[name]["input_size"]
    images = np.random.RandomState(0).rand(2, 3, size, size).astype(np.float32)
    with torch.inference_mode():
        return model.eval()(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize("name", sorted(KEYS))
def test_names_and_shapes_of_tensors_are_the_published_ones(name: str) -> None:
    state = build_model(name.lower()).state_dict()
    renamed = {published_name(key): list(tensor.shape) for key, tensor in state.items()}
    published = dict(KEYS[name])
    published["head.conv.weight"] = published["head.conv.weight"][:2]  # published as a 1x1 conv
    assert renamed == published


@pytest.mark.parametrize("name", WITH_LOGITS)
def test_logits_equal_the_published_networks(name: str) -> None:
    golden = PUBLISHED[name]
    model = build_model(name.lower())
    model.load_state_dict(golden_state_dict(name, model))
    outputs = logits(name, model)
    difference = np.abs(outputs[:, :8] - np.array(golden["logits_first8"])).max()
    assert difference <= 1e-4 * golden["logits_abs_mean"]
    assert np.abs(outputs).mean() == pytest.approx(golden["logits_abs_mean"], rel=1e-4)
    assert outputs.argmax(1).tolist() == golden["argmax"]


def test_special_paddings_change_the_logits() -> None:
    golden = PUBLISHED["FBNetV3_A"]
    model = build_model(aligned(get_arch("fbnetv3_a")))
    model.load_state_dict(golden_state_dict("FBNetV3_A", model))
    difference = np.abs(logits("FBNetV3_A", model)[:, :8] - np.array(golden["logits_first8"])).max()
    assert difference > 1e-2 * golden["logits_abs_mean"]
