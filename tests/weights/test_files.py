"""Reading weights files: formats, wrappers, and files that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fbnetv3.weights.errors import WeightsFileError
from fbnetv3.weights.files import read_tensors

TENSORS = {"a.weight": torch.arange(4.0), "a.count": torch.tensor(3)}


def _same(tensors: dict[str, torch.Tensor]) -> bool:
    return set(tensors) == set(TENSORS) and all(
        torch.equal(tensors[k], TENSORS[k]) for k in TENSORS
    )


def test_safetensors_with_metadata(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(TENSORS, path, {"classes": json.dumps(["cat", "dog"]), "arch": "name: x\nrows: []"})
    tensors, metadata = read_tensors(path)
    assert _same(tensors)
    assert metadata == {"classes": ["cat", "dog"], "arch": "name: x\nrows: []"}


@pytest.mark.parametrize(
    "wrapped",
    [
        TENSORS,
        {"state_dict": TENSORS, "epoch": 3},
        {"model": TENSORS},
        {"model": {"state_dict": TENSORS}},
        {f"module.{key}": value for key, value in TENSORS.items()},
    ],
    ids=["bare", "state_dict", "model", "nested", "parallel"],
)
def test_torch_wrappers(tmp_path: Path, wrapped: dict[str, Any]) -> None:
    path = tmp_path / "w.pth"
    torch.save(wrapped, path)
    assert _same(read_tensors(path)[0])


def test_a_checkpoint_gives_its_average(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_00000007.pt"
    raw = {key: torch.zeros_like(value) for key, value in TENSORS.items()}
    averages = {**TENSORS, "not.saved": torch.zeros(1)}
    state = {"model": raw, "ema": {"decay": 0.9, "num_updates": 7, "tensors": averages}}
    torch.save({**state, "classes": ["x"], "iteration": 7}, path)
    tensors, metadata = read_tensors(path)
    assert _same(tensors)
    assert metadata["weights"] == "ema"
    assert metadata["classes"] == ["x"]
    torch.save({**state, "ema": None}, path)
    tensors, metadata = read_tensors(path)
    assert not tensors["a.weight"].any()
    assert metadata["weights"] == "model"


def test_names_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    save_file(TENSORS, path)
    assert _same(read_tensors(path)[0])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"<html></html>", "web page"),
        (b"PK\x03\x04 half a zip", "truncated"),
        (b"hello", "cannot read"),
        (b"junk", "cannot read"),
        (bytes(range(256)) * 4, "cannot read"),
        ((10**6).to_bytes(8, "little") + b"{", "truncated"),
    ],
    ids=["empty", "html", "zip", "text", "half an opcode", "noise", "safetensors"],
)
def test_files_that_are_no_weights(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsFileError, match=words) as caught:
        read_tensors(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsFileError, match="No such file"):
        read_tensors(tmp_path / "none.pth")
    with pytest.raises(WeightsFileError, match="directory"):
        read_tensors(tmp_path)


def test_a_file_without_tensors(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"epoch": 3}, path)
    with pytest.raises(WeightsFileError, match=r"contains no weights.*epoch"):
        read_tensors(path)
    save_file({}, path)
    with pytest.raises(WeightsFileError, match="contains no weights"):
        read_tensors(path)


def test_a_header_whose_length_looks_like_html(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    length = int.from_bytes(b" <\0\0\0\0\0\0", "little")
    save_file(TENSORS, path, metadata={"note": ""})
    empty = int.from_bytes(path.read_bytes()[:8], "little")
    save_file(TENSORS, path, metadata={"note": "x" * (length - empty)})
    assert path.read_bytes()[:2] == b" <"
    assert _same(read_tensors(path)[0])
