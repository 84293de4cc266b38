"""Checkpoints: kills, full disks, damage, files of other programs, code; exported weights."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from fbnetv3.engine.checkpoint import (
    FORMAT_VERSION,
    MIGRATIONS,
    Checkpointer,
    CheckpointError,
    export_weights,
    load_checkpoint,
)
from fbnetv3.engine.ema import ModelEMA
from fbnetv3.engine.rng import capture_rng, restore_rng
from fbnetv3.errors import FBNetError
from fbnetv3.io import WriteError
from fbnetv3.weights.files import read_tensors
from tests.runs import one_line


def make_state(value: float = 1.0) -> dict:
    return {"model": {"w": torch.full((64, 64), value)}, "ema": None, "task": {"count": 0.5}}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_round_trip(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    model(torch.ones(1, 1, 4, 4)).sum().backward()
    optimizer.step()
    state = {
        "model": model.state_dict(),
        "ema": ModelEMA(model, 0.9).state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": capture_rng(),
        "recipe": {"lr": 0.1, "ema": True},
        "classes": ["a", "b"],
        "best": {"val/top1": 12.5, "none": None},
    }
    keeper = Checkpointer(tmp_path / "new" / "folder")
    path = keeper.save(state, 12)
    assert path == tmp_path / "new" / "folder" / "checkpoint_00000012.pt"
    assert keeper.latest() == path
    loaded = keeper.load(path)
    assert (loaded["format_version"], loaded["iteration"]) == (FORMAT_VERSION, 12)
    assert set(loaded) == {*state, "format_version", "iteration"}
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded["model"][name], tensor)
        assert loaded["model"][name].stride() == tensor.stride()
    other = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    ModelEMA(other, 0.5).load_state_dict(loaded["ema"])
    torch.optim.SGD(other.parameters(), 0.2, 0.9).load_state_dict(loaded["optimizer"])
    assert loaded["classes"] == ["a", "b"]
    assert loaded["best"] == state["best"]
    assert "format_version" not in state  # the caller's dict is left alone


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_keeps_the_newest(tmp_path: Path, keep: int) -> None:
    keeper = Checkpointer(tmp_path, keep=keep)
    for iteration in (5, 20, 100, 100_000_000_0, 7):
        keeper.save(make_state(), iteration)
        assert keeper.load(tmp_path / f"checkpoint_{iteration:08d}.pt")["iteration"] == iteration
    kept = [f"checkpoint_{i:08d}.pt" for i in (5, 20, 100, 1_000_000_000)[-keep:]]
    assert names(tmp_path) == sorted([*kept, "checkpoint_00000007.pt"])[-keep - 1 :]
    assert keeper.latest() == tmp_path / "checkpoint_1000000000.pt"
    with pytest.raises(CheckpointError, match="keep=0"):
        Checkpointer(tmp_path, keep=0)


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert Checkpointer(tmp_path / "none").latest() is None
    (tmp_path / "checkpoint_best.pt").write_bytes(b"other")
    (tmp_path / ".checkpoint_00000001.pt.abc").write_bytes(b"torn")
    assert Checkpointer(tmp_path).latest() is None


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    start = content.index(torch.full((16,), 1.0).numpy().tobytes())
    content[start + 40] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_short, flip_a_bit, empty])
def test_a_damaged_file_is_skipped_and_named(tmp_path: Path, damage, caplog) -> None:
    keeper = Checkpointer(tmp_path, keep=1)
    good = Checkpointer(tmp_path, keep=2).save(make_state(), 10)
    bad = Checkpointer(tmp_path, keep=2).save(make_state(), 20)
    damage(bad)
    with caplog.at_level(logging.WARNING):
        assert keeper.latest() == good
    assert "checkpoint_00000020.pt" in caplog.text
    with pytest.raises(CheckpointError, match="checkpoint_00000020"):
        keeper.load(bad)
    newer = keeper.save(make_state(), 15)  # the run goes on from 10
    assert names(tmp_path) == [newer.name]
    assert keeper.latest() == newer


def test_every_truncation_is_detected(tmp_path: Path) -> None:
    keeper = Checkpointer(tmp_path)
    path = keeper.save({"model": {"w": torch.arange(8)}}, 1)
    content = path.read_bytes()
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        assert keeper.latest() is None, length
        with pytest.raises(CheckpointError):
            keeper.load(path)


def test_a_flipped_bit_anywhere_is_detected_or_harmless(tmp_path: Path, caplog) -> None:
    keeper = Checkpointer(tmp_path)
    earlier = keeper.save({"model": {"w": torch.arange(8.0)}}, 1)
    path = keeper.save({"model": {"w": torch.arange(8.0)}}, 2)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        directory = archive.start_dir
    # the directory at the end has no checksum; Python's reader and torch's are strict in other ways
    positions = [*range(0, directory, 17), *range(directory, len(content), 2)]
    detected = 0
    for position in positions:
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        caplog.clear()
        latest = keeper.latest()
        if latest == earlier:
            detected += 1
            assert path.name in caplog.text, position
        else:
            assert torch.equal(keeper.load(path)["model"]["w"], torch.arange(8.0)), position
    assert detected > len(positions) / 3


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_a_checkpoint_that_is_no_file_is_skipped(tmp_path: Path, make, caplog) -> None:
    make(tmp_path / "checkpoint_00000009.pt")
    assert Checkpointer(tmp_path).latest() is None
    assert "checkpoint_00000009.pt: it cannot be read (not a regular file)" in caplog.text


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


def test_code_is_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    zipped, legacy = tmp_path / "zipped.pt", tmp_path / "legacy.pt"
    torch.save({"format_version": 1, "model": Bomb(mark)}, zipped)
    legacy.write_bytes(pickle.dumps({"format_version": 1, "model": Bomb(mark)}))
    with pytest.raises(CheckpointError, match="perhaps code") as error:
        load_checkpoint(zipped)
    one_line(error)
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load_checkpoint(legacy)
    assert not mark.exists()
    pickle.loads(legacy.read_bytes())
    assert mark.exists()  # the bomb is live


def test_files_of_other_programs(tmp_path: Path) -> None:
    weights, archive = tmp_path / "weights.pt", tmp_path / "images.pt"
    torch.save({"w": torch.ones(1)}, weights)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "text")
    expected = {
        weights: "no format_version",
        archive: "was not written by torch.save",
        tmp_path / "none.pt": "does not exist",
        tmp_path: "cannot be read",
    }
    for path, message in expected.items():
        with pytest.raises(CheckpointError, match=message) as error:
            load_checkpoint(path)
        assert str(path) in one_line(error)


def test_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "v.pt"
    torch.save({"format_version": FORMAT_VERSION + 1}, path)
    with pytest.raises(CheckpointError, match="newer than this program's 1; update"):
        load_checkpoint(path)
    torch.save({"format_version": -1, "weights": 3}, path)
    with pytest.raises(
        CheckpointError, match="older than this program's 1, and cannot be migrated"
    ):
        load_checkpoint(path)
    monkeypatch.setitem(MIGRATIONS, -1, lambda state: {"net": state["weights"]})
    monkeypatch.setitem(MIGRATIONS, 0, lambda state: {"model": state["net"]})
    loaded = Checkpointer(tmp_path).load(path)
    assert loaded == {"format_version": FORMAT_VERSION, "model": 3}


@pytest.mark.parametrize(
    ("value", "named"),
    [(np.float64(1), "numpy.float64"), ({1, 2}, "set"), (lambda: 1, "function"), (Path(), "Path")],
)
def test_objects_that_would_not_load_are_not_saved(
    tmp_path: Path, value: object, named: str
) -> None:
    keeper = Checkpointer(tmp_path, keep=1)
    keeper.save(make_state(), 1)
    with pytest.raises(CheckpointError, match=rf"state\['task'\]\[1\] is a .*{named}") as error:
        keeper.save({"task": [1.0, value]}, 2)
    one_line(error)
    assert names(tmp_path) == ["checkpoint_00000001.pt"]


@pytest.mark.parametrize("where", ["save", "fsync"])
def test_a_simulated_full_disk(tmp_path: Path, monkeypatch, where: str) -> None:
    keeper = Checkpointer(tmp_path, keep=1)
    first = keeper.save(make_state(), 1)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*{"save": (torch, "save"), "fsync": (os, "fsync")}[where], full)
        with pytest.raises(WriteError, match="No space left on device; free space") as error:
            keeper.save(make_state(2.0), 2)
    assert "checkpoint_00000002.pt" in one_line(error)
    assert names(tmp_path) == [first.name]
    assert keeper.load(first)["model"]["w"][0, 0] == 1.0


@pytest.mark.parametrize("limit", [10, 700, 9000, 17000])
def test_a_real_write_failure_at_any_position(tmp_path: Path, limit: int) -> None:
    """A limit on the file size fails the write inside torch's own writer, as a full disk does."""
    keeper = Checkpointer(tmp_path, keep=1)
    first = keeper.save(make_state(), 1)
    assert first.stat().st_size > limit
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        with pytest.raises(WriteError) as error:
            keeper.save(make_state(2.0), 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert "checkpoint_00000002.pt" in one_line(error)
    assert names(tmp_path) == [first.name]
    assert keeper.latest() == first


_WRITER = """
import sys, torch
from fbnetv3.engine.checkpoint import Checkpointer
keeper = Checkpointer(sys.argv[1], keep=2)
for i in range(1, 10_000):
    keeper.save({"model": {"w": torch.full((200_000,), float(i))}}, i)
    print(i, flush=True)
"""


def test_sigkill_while_saving_loses_nothing(tmp_path: Path) -> None:
    seed = random.randrange(2**31)
    print(f"seed {seed}")  # shown by pytest where the test fails
    draw = random.Random(seed)
    command = [sys.executable, "-c", _WRITER, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        done = [int(process.stdout.readline()) for _ in range(draw.randrange(2, 12))]
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(draw.random() * 0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
    done += [int(line) for line in rest.split("\n")[:-1]]
    keeper = Checkpointer(tmp_path)
    newest = keeper.latest()
    assert newest is not None
    state = keeper.load(newest)
    assert state["iteration"] in (done[-1], done[-1] + 1)
    assert torch.equal(state["model"]["w"], torch.full((200_000,), float(state["iteration"])))
    (tmp_path / ".checkpoint_00000001.pt.torn").write_bytes(b"")
    last = keeper.save(make_state(), 20_000)
    assert keeper.latest() == last
    assert [n for n in names(tmp_path) if n.startswith(".")] == []  # what the kill left is gone


def draws() -> tuple:
    from_numpy = np.random.normal()  # noqa: NPY002
    return random.random(), random.gauss(0, 1), from_numpy, torch.rand(3).tolist()


def test_random_state_through_a_checkpoint(tmp_path: Path) -> None:
    random.gauss(0, 1)  # leaves a second value in wait, which is part of the state
    np.random.normal()  # noqa: NPY002
    keeper = Checkpointer(tmp_path)
    keeper.save({"rng": capture_rng()}, 1)
    expected = [draws() for _ in range(3)]
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    assert draws() != expected[0]
    restore_rng(keeper.load(tmp_path / "checkpoint_00000001.pt")["rng"])
    assert [draws() for _ in range(3)] == expected


def test_incomplete_random_state() -> None:
    state = {k: v for k, v in capture_rng().items() if k != "numpy"}
    with pytest.raises(FBNetError, match="lacks 'numpy'"):
        restore_rng(state)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3)
        self.twin = nn.Conv2d(2, 2, 3)
        self.twin.weight = self.conv.weight
        self.norm = nn.BatchNorm2d(2)


def test_weights_round_trip(tmp_path: Path) -> None:
    model = Tied().to(memory_format=torch.channels_last)
    path = tmp_path / "net.safetensors"
    export_weights(model.state_dict(), path, {"arch": "name: x", "classes": json.dumps(["a"])})
    assert names(tmp_path) == ["net.safetensors"]
    weights, metadata = read_tensors(path)
    assert metadata["format"] == "fbnetv3"
    assert metadata["format_version"] == 1
    assert metadata["arch"] == "name: x"
    assert metadata["classes"] == ["a"]
    for loaded in (weights, safetensors.torch.load_file(path)):
        assert set(loaded) == set(model.state_dict())
        for name, tensor in model.state_dict().items():
            assert torch.equal(loaded[name], tensor)
            assert loaded[name].dtype == tensor.dtype


def test_metadata_of_weights_must_be_text(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="metadata 'classes' is a list"):
        export_weights({}, tmp_path / "x.safetensors", {"classes": ["a"]})  # type: ignore[dict-item]
    assert names(tmp_path) == []
