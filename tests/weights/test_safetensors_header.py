"""Exported weights of one state are the same bytes, and are read as before."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from fbnetv3.engine.checkpoint import export_weights
from fbnetv3.weights.safetensors_header import sorted_header

TEXTS: dict[str, dict[str, str]] = {
    "many": {f"key {i}": str(i) for i in range(20)},
    "names": {"classes": '["cat", "Käse", "犬"]', 'a " b\n': "c\t\\u0041", "": "empty"},
    "none": {},
}
TENSORS = {
    "b": torch.arange(3.0),
    "a": torch.ones(2, 3, dtype=torch.float16),
    "empty": torch.zeros(0),
    "count": torch.tensor(7),
}


@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS.keys())
def test_the_same_bytes(texts: dict[str, str], tmp_path: Path) -> None:
    files = set()
    for number in range(8):
        path = tmp_path / f"{number}.safetensors"
        shuffled = dict(reversed(texts.items())) if number % 2 else texts
        export_weights(TENSORS, path, shuffled)
        files.add(path.read_bytes())
    assert len(files) == 1
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata == {**texts, "format": "fbnetv3", "format_version": "1"}
    tensors = safetensors.torch.load(files.pop())
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[key], value) for key, value in TENSORS.items())
    assert all(tensors[key].dtype == value.dtype for key, value in TENSORS.items())


def test_tensors_are_aligned_and_unchanged() -> None:
    content = safetensors.torch.save(TENSORS, {"b": "1", "a": "2"})
    ordered = sorted_header(content)
    ends = [8 + int.from_bytes(x[:8], "little") for x in (content, ordered)]
    assert ends[1] % 8 == 0
    assert content[ends[0] :] == ordered[ends[1] :]
