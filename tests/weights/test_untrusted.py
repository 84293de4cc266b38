"""Untrusted weights and checkpoints run no code, fill no memory and open no other file."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fbnetv3.arch import get_arch
from fbnetv3.engine.checkpoint import FORMAT_VERSION, Checkpointer, load_checkpoint
from fbnetv3.errors import FBNetError
from fbnetv3.weights.files import read_tensors
from fbnetv3.weights.load import load_weights
from fbnetv3.zoo.classifier import from_file

READERS: list[Callable[[Path], Any]] = [
    read_tensors,
    load_checkpoint,
    from_file,
    lambda path: load_weights(torch.nn.Linear(1, 1), path),
]


class Attack:
    """Creates a file when it is unpickled."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.touched), "w"))


def _state(value: Any) -> dict[str, Any]:
    return {"format_version": FORMAT_VERSION, "iteration": 1, "model": value}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", ["x.pt", "x.pth", "x.safetensors", "checkpoint_00000001.pt"])
@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_pickles_that_run_code(
    read: Callable[[Path], Any], name: str, form: str, tmp_path: Path
) -> None:
    touched, path = tmp_path / "touched", tmp_path / name
    state = _state({"w": Attack(touched)})
    if form == "bare":
        path.write_bytes(pickle.dumps(state, protocol=2))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(FBNetError) as caught:
        read(path)
    assert not touched.exists()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    if form == "bare":  # the attack itself works
        pickle.loads(path.read_bytes())["model"]["w"].close()
        assert touched.exists()


def _pack(path: Path) -> None:
    """Compresses an archive of torch.save, which torch can still read."""
    with zipfile.ZipFile(path) as archive:
        contents = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("read", READERS)
def test_a_compressed_archive_is_refused(read: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    torch.save(_state({"w": torch.zeros(1 << 22)}), path)
    assert load_checkpoint(path)
    _pack(path)
    assert path.stat().st_size < 1 << 18
    assert torch.load(path, weights_only=True)  # torch itself accepts it
    with pytest.raises(FBNetError, match="unpacks to"):
        read(path)


def test_resuming_skips_a_compressed_archive(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpointer = Checkpointer(tmp_path)
    good = checkpointer.save({"model": {"w": torch.zeros(1 << 16)}}, 1)
    bomb = checkpointer.save({"model": {"w": torch.zeros(1 << 16)}}, 2)
    _pack(bomb)
    assert checkpointer.latest() == good
    assert "unpacks to" in caplog.text


def test_metadata_names_no_file(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(get_arch("fbnetv3_a0").to_yaml())
    path = tmp_path / "x.safetensors"
    save_file({"head.fc.bias": torch.zeros(2)}, path, {"arch": str(other)})
    with pytest.raises(FBNetError, match="names the file"):
        from_file(path)


@pytest.mark.parametrize(
    ("arch", "says"),
    [
        ("name: !!python/object/apply:os.getcwd []\nrows: []", "!!python/object/apply:os.getcwd"),
        (get_arch("fbnetv3_a0").to_yaml().replace("op: mbconv", "op: eval"), "eval"),
        ("torchvision/../x", "torchvision"),
    ],
)
def test_metadata_is_an_architecture(arch: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"head.fc.bias": torch.zeros(2)}, path, {"arch": arch})
    with pytest.raises(FBNetError, match=says):
        from_file(path)
