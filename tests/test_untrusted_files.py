"""Untrusted files of each kind: pipes, devices, folders, sparse giants and hostile yaml texts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fbnetv3 import plain_yaml
from fbnetv3.arch import get_arch
from fbnetv3.arch.latency import LatencyTable
from fbnetv3.config import get_cfg
from fbnetv3.data import build_dataset
from fbnetv3.engine.checkpoint import load_checkpoint
from fbnetv3.engine.metrics import read_metrics
from fbnetv3.errors import FBNetError, one_line
from fbnetv3.io import MAX_BYTES, read_file, read_text
from fbnetv3.plain_yaml import YamlError, parse_yaml
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.fbnet.space import FBNetSpace
from fbnetv3.search.storage.batch_log import BatchLog
from fbnetv3.search.storage.warm_start import read_warm_start
from fbnetv3.weights.files import read_tensors
from tests.search import problem


def _base(path: Path) -> None:
    (path.parent / "main.yaml").write_text(f"_BASE_: {path.name}\n")
    get_cfg().merge_from_file(str(path.parent / "main.yaml"))


def _coco(path: Path) -> None:
    pytest.importorskip("detectron2")
    from fbnetv3.detection.coco import read_coco

    read_coco("custom", path, path.parent)


def _pickle(path: Path) -> None:
    pytest.importorskip("detectron2")
    from fbnetv3.detection.resnet_weights import read_pickled_arrays

    read_pickled_arrays(path)


# Name of a file and its reader; a sparse file of 1 GiB is too large for those with True.
READERS: dict[str, tuple[str, Callable[[Path], Any], bool]] = {
    "config": ("x.yaml", lambda path: get_cfg().merge_from_file(str(path)), True),
    "base": ("x.yaml", _base, True),
    "architecture": ("x.yaml", lambda path: get_arch(str(path)), True),
    "space": ("x.yaml", lambda path: FBNetSpace.from_yaml(str(path)), True),
    "latency table": ("x.json", LatencyTable.load, True),
    "warm start": ("x.csv", lambda path: read_warm_start(problem.space(), path), True),
    "annotations": ("x.json", _coco, False),
    "weights": ("x.pth", read_tensors, False),
    "checkpoint": ("checkpoint_00000001.pt", load_checkpoint, False),
    "pickle": ("x.pkl", _pickle, False),
    "zip of images": ("x.zip", lambda path: build_dataset(str(path)), False),
    "winners": ("winners.json", lambda path: RunFolder(path.parent).winners(), True),
    "hashes": ("files.json", lambda path: RunFolder(path.parent).check_files({}), True),
    "log": ("batch_000.jsonl.gz", lambda path: BatchLog(path.parent).read(), True),
}


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _folder(path: Path) -> None:
    path.mkdir()


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


@pytest.mark.parametrize("make", [_pipe, _zero, _folder, _sparse])
@pytest.mark.parametrize("name", READERS)
def test_files_that_could_block_or_fill_the_memory(
    name: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    file, read, is_small = READERS[name]
    if make is _sparse and not is_small:
        pytest.skip("files of this kind may be large")
    make(tmp_path / file)
    began = time.monotonic()
    with pytest.raises(FBNetError) as caught:
        read(tmp_path / file)
    assert time.monotonic() - began < 10
    assert file in str(caught.value)


def test_files_of_unknown_kinds_are_errors_of_the_caller(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"a\r\nb\rc\xff")
    with pytest.raises(KeyError):
        read_file(tmp_path / "x", "other")
    with pytest.raises(UnicodeDecodeError):
        read_text(tmp_path / "x", "config")
    assert read_text(tmp_path / "x", "config", "replace") == "a\nb\nc\ufffd"


@pytest.mark.parametrize("make", [_pipe, _zero])
def test_metrics_that_are_no_file(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "metrics.json")
    with pytest.raises(FBNetError, match=r"metrics\.json.*not a regular file"):
        read_metrics(tmp_path / "metrics.json")


_TEXTS = {
    "base 60": "SEED: 1" + ":59" * 300_000,
    "base 60 float": "SEED: 1" + ":59" * 100_000 + ".5",
    "base 60 in 100 characters": "SEED: 1" + ":59" * 30,
    "decimal": "SEED: " + "9" * 6000,
    "hexadecimal": "SEED: 0x" + "f" * 6000,
    "octal": "SEED: 0" + "7" * 6000,
    "binary": "SEED: 0b" + "1" * 6000,
    "underscores": "SEED: 1" + "_" * 6000 + "0" * 30,
    "tagged": f"SEED: !!int '{'9' * 6000}'",
    "65 bits": "SEED: 0x1ffffffffffffffff",
    "in a text": f"SEED: '0x{'f' * 6000}'",
    "in a list in a text": f"DATASETS: {{TRAIN: '[0x{'f' * 6000}]'}}",
    "float": f"SEED: 0.{'1' * 6000}",
    "digits of a float tag": f"SEED: !!float '{'1' * 6000}'",
    "choices": f"SEED: [{'0, ' * 100_000}]",
    "block": "SEED:\n" + "- 0\n" * 100_000,
    "pairs": "SEED: {" + ", ".join(f"k{i}: 1" for i in range(30_000)) + "}",
    "lists": "SEED: " + "[" * 50_000,
    "maps": "SEED: " + "{a: " * 50_000,
    "indents": "\n".join(" " * i + "a:" for i in range(1_000)),
    "dashes": "SEED: \n" + "- " * 20_000 + "1",
    "merges": "a0: &a0 {x: 1}\n"
    + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40)),
    "anchors": "SEED: [" + ", ".join(f"&a{i} 1" for i in range(60_000)) + "]",
    "size": "SEED: 1 #" + "x" * (1 << 20),
    "arithmetic": f"SEED: !!python/object/apply:eval ['[0x{'f' * 900}]']",
}


@pytest.mark.parametrize("name", _TEXTS)
def test_hostile_yaml_is_refused_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name != "choices":  # one text shows how long the limit takes, which is seconds
        monkeypatch.setattr(plain_yaml, "_MAX_NODES", 2_000)
    (tmp_path / "x.yaml").write_text(_TEXTS[name])
    for read in (
        lambda: get_cfg().merge_from_file(str(tmp_path / "x.yaml")),
        lambda: get_arch(str(tmp_path / "x.yaml")),
        lambda: FBNetSpace.from_yaml(str(tmp_path / "x.yaml")),
    ):
        began = time.monotonic()
        with pytest.raises(FBNetError) as caught:
            read()
        assert time.monotonic() - began < 20
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 5_000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("0x7fffffffffffffff", 2**63 - 1),
        ("0b1010", 10),
        ("1:30", 90),
        ("1:30.5", 90.5),
        ("1_000.5", 1000.5),
        ("0.1000000000000000055511151231257827", 0.1),
    ],
)
def test_numbers_in_range_are_read_as_before(text: str, value: float) -> None:
    assert parse_yaml(text) == value


def test_the_length_of_a_text_is_limited() -> None:
    with pytest.raises(YamlError, match="characters; allowed"):
        parse_yaml(" " * (MAX_BYTES["config"] + 1))


@pytest.mark.parametrize(
    "change",
    [
        {"n": 10**9},
        {"n": 2**62},
        {"n": 1e9},
        {"c": 10**18},
        {"s": 10**18},
        {"k": 10**18 + 1},
        {"e": 1e300},
        {"stage": 10**18},
    ],
)
def test_huge_rows_of_an_architecture(change: dict[str, Any], tmp_path: Path) -> None:
    table = get_arch("fbnetv3_nano_a").to_dict()
    table["rows"][1] |= change
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(table))
    began = time.monotonic()
    with pytest.raises(FBNetError, match=next(iter(change))):
        get_arch(str(tmp_path / "x.yaml"))
    assert time.monotonic() - began < 5


def test_many_layers_in_many_rows(tmp_path: Path) -> None:
    arch = get_arch("fbnetv3_nano_a")
    row = arch.blocks[1].replace(n=9_999, s=1)
    with pytest.raises(FBNetError, match="too many layers"):
        arch.replace(blocks=(arch.blocks[0], row, row, *arch.blocks[2:]))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Käse 猫", "Käse 猫"),
        ("a\nb\r\nc\td", r"a\nb\r\nc\td"),
        ("\x1b]52;c;eA==\x07\u202e\udcff\x85\u2028", r"\x1b]52;c;eA==\x07\u202e\udcff\x85\u2028"),
    ],
)
def test_messages_are_one_line(text: str, line: str) -> None:
    assert one_line(text) == line
    assert str(FBNetError(f"bad name {text}; choose another")) == (
        f"bad name {line}; choose another"
    )
    assert one_line(line) == line


def test_long_messages_keep_their_ends() -> None:
    message = str(FBNetError(f"SEED: {'x' * 10**6}; allowed: integers"))
    assert len(message) < 5_000
    assert message.startswith("SEED: x")
    assert message.endswith("; allowed: integers")
