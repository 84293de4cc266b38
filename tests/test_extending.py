"""The examples of docs/extending.md, each run as a file of ``--import``."""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fbnetv3 import registries
from fbnetv3.cli import predict, run_main, search, train
from fbnetv3.data import ImageStream, build_dataset
from fbnetv3.data.pack import PackOptions, pack
from fbnetv3.registry import Registry
from fbnetv3.weights.files import read_tensors
from tests.cli.search_command import SMALL
from tests.runs import assert_same_run

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```python\n# (my_\w+)\.py: [^\n]*\n(.*?)```", PAGE, flags=re.DOTALL))
OF_TRAINING = ("net", "data", "transform", "optimizer", "schedule", "loss", "hook", "writer")
OF_SEARCH = ("space", "statistic", "evaluator", "executor", "writer")


@pytest.fixture
def imports(tmp_path: Path) -> Callable[..., list[str]]:
    """Returns a function that writes examples to files, and returns their options."""

    def write(*names: str) -> list[str]:
        for name in names:
            (tmp_path / f"my_{name}.py").write_text(BLOCKS[f"my_{name}"])
        return [x for name in names for x in ("--import", str(tmp_path / f"my_{name}.py"))]

    return write


def test_every_kind_has_a_short_example_and_a_row() -> None:
    kinds = [v for v in vars(registries).values() if isinstance(v, Registry)]
    decorators = [n for n in vars(registries) if n.startswith("register_")]
    assert len(decorators) == len(kinds) == 12
    for name in [*decorators, "register_op"]:
        assert f"| `{name}` |" in PAGE, name
        assert sum(f"@{name}(" in block for block in BLOCKS.values()) == 1, name
    for block in BLOCKS.values():
        code = [line for line in block.splitlines() if line]
        assert len(code) <= 12, block
    assert {f"my_{name}" for name in (*OF_TRAINING, *OF_SEARCH, "op")} == set(BLOCKS)


def _command(options: dict[str, object], tmp_path: Path, *flags: str) -> list[str]:
    config = tmp_path / "run.yaml"
    config.write_text("VERSION: 2\n")
    values = [str(x) for pair in options.items() for x in pair]
    return ["--config-file", str(config), *flags, *values]


def test_the_examples_of_a_training(options, imports, tmp_path, capsys) -> None:
    flags = imports(*OF_TRAINING)
    keys = {
        "MODEL__ARCH": "my/net?width=8",
        "INPUT__RESOLUTION": 16,
        "DATASETS__TRAIN": "('my_squares',)",
        "DATASETS__TEST": "('my_squares',)",
        "MODEL__DROP_PATH_RATE": 0.0,
        "INPUT__TRANSFORMS": "['my_blur?radius=2']",
        "SOLVER__OPTIMIZER": "my_adamw",
        "SOLVER__LR_SCHEDULER_NAME": "my_linear",
        "SOLVER__LOSS": "my_bce",
        "HOOKS": "['my_norm']",
        "WRITERS": "['csv', 'my_lines']",
    }
    command = _command(options(**keys), tmp_path, *flags)
    assert run_main(train.main, command) == 0
    out = tmp_path / "out"
    metrics = (out / "metrics.json").read_text()
    assert '"weight_norm"' in metrics
    assert "weight_norm" in (out / "lines.txt").read_text()
    rows = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert {"loss", "lr", "weight_norm", "val/top1_ema"} <= {row["name"] for row in rows}
    assert not list(out.glob("events*"))
    assert len(json.loads((out / "imports.json").read_text())) == len(OF_TRAINING)
    assert read_tensors(out / "model_ema.safetensors")[1]["arch"] == "my/net?width=8"
    image = tmp_path / "image.png"
    _save_image(image)
    capsys.readouterr()
    assert run_main(predict.main, [*flags, "--weights", str(out), str(image)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert run_main(train.main, [*command, "--eval-only"]) == 0


def _save_image(path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (16, 16), "gray").save(path)


def test_a_training_with_imports_resumes_and_names_missing_code(
    tiny, options, imports, tmp_path, capsys
) -> None:
    flags = imports("optimizer", "hook", "writer")
    keys = {"SOLVER__OPTIMIZER": "my_adamw", "HOOKS": "['my_norm']", "WRITERS": "['my_lines']"}
    whole, parts = ({"OUTPUT_DIR": str(tmp_path / name), **keys} for name in ("a", "b"))
    assert run_main(train.main, _command(options(**whole), tmp_path, *flags)) == 0
    from fbnetv3.training import train as train_until

    cfg = tiny(**{**parts, "HOOKS": ["my_norm"], "WRITERS": ["my_lines"]})
    train_until(cfg, stop_after=1)
    changed = tmp_path / "my_hook.py"
    changed.write_text(changed.read_text() + "\n# changed\n")
    command = _command(options(**parts), tmp_path, *flags, "--resume")
    capsys.readouterr()
    assert run_main(train.main, command) == 0
    assert "the imported code differs from that of the resumed run: my_hook.py has changed" in (
        capsys.readouterr().err
    )
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_the_example_of_an_op(options, imports, tmp_path) -> None:
    arch = tmp_path / "mine.yaml"
    arch.write_text(
        "name: mine\nresolution: 16\nnum_classes: 10\nrows:\n"
        "  - {stage: 0, op: conv, k: 3, c: 8, n: 1, s: 2, act: relu}\n"
        "  - {stage: 1, op: plain, k: 3, c: 16, n: 1, s: 1}\n"
        "  - {stage: 2, op: mbpool, e: 2, c: 16, n: 1, s: 1, act: relu}\n"
    )
    keys = {"MODEL__ARCH": str(arch), "MODEL__DROP_PATH_RATE": 0.0, "SOLVER__MAX_EPOCHS": 1.0}
    assert run_main(train.main, _command(options(**keys), tmp_path, *imports("op"))) == 0
    assert "op: plain" in read_tensors(tmp_path / "out" / "model.safetensors")[1]["arch"]


@pytest.mark.slow
def test_the_examples_of_a_search(imports, tmp_path, capsys) -> None:
    flags = imports(*OF_SEARCH)
    folder = tmp_path / "search"
    command = [
        *(*flags, *SMALL[:2], "OUTPUT_DIR", str(folder)),
        *("SEARCH.SPACE", "my_space", "SEARCH.FIX", "[]", "SEARCH.EVALUATOR", "my_guess"),
        *("SEARCH.CONSTRAINTS", "['my_widest <= 24']", "SEARCH.EXECUTOR", "my_workers"),
        *("SEARCH.POOL_SIZE", "60", "SEARCH.BATCH_SIZE", "6", "SEARCH.ITERATIONS", "1"),
        *("SEARCH.FINALISTS", "1", "WRITERS", "['csv', 'my_lines']"),
    ]
    assert run_main(search.main, command) == 0
    printed = capsys.readouterr().out
    assert "my_widest: the space reaches 8 to 32" in printed
    assert f"--import {tmp_path}/my_space.py" in printed
    best = ast.literal_eval(
        re.findall(
            r"INPUT:\n.*?RESOLUTION: (\d+)", (folder / "best.yaml").read_text(), flags=re.DOTALL
        )[0]
    )
    assert best == 16
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    assert [r["iteration"] for r in rows if r["name"] == "search/score"] == list("1234567")
    assert max(float(r["value"]) for r in rows if r["name"] == "search/my_widest") <= 24
    other = tmp_path / "my_space.py"
    other.write_text(other.read_text() + "\n# changed\n")
    assert run_main(search.main, command) == 2
    error = capsys.readouterr().err
    assert "the imported code is not that of the search: my_space.py has changed" in error


def _shards_of_the_page() -> Any:
    """Returns the class of the page's example of a WebDataset."""
    (block,) = re.findall(r"```python\n(import webdataset.*?)```", PAGE, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    return names["Shards"]


@pytest.fixture
def shards(tmp_path: Path) -> Callable[[], ImageStream]:
    """Returns a function that opens a WebDataset of three shards with 40 JPEG images anew."""
    from PIL import Image

    for number in range(40):
        file = tmp_path / "images" / f"class{number % 2}" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (6 * number,) * 3).save(file)
    size = sum(file.stat().st_size for file in (tmp_path / "images").rglob("*.jpg"))
    options = PackOptions(shard_bytes=size // 3)
    assert pack(build_dataset(str(tmp_path / "images")), tmp_path / "shards", options) >= 3
    urls = sorted(map(str, (tmp_path / "shards").glob("*.tar")))
    return lambda: ImageStream(_shards_of_the_page()(urls), 40, ["class0", "class1"])


@pytest.mark.parametrize(("epoch", "start"), [(0, 0), (1, 0), (1, 7), (3, 39)])
def test_a_web_dataset_that_is_opened_again_goes_on_with_the_same_images(
    shards: Callable[[], ImageStream], epoch: int, start: int
) -> None:
    pytest.importorskip("webdataset")
    stream = shards()
    items = [list(stream.items(number)) for number in range(epoch + 1)]
    assert list(shards().items(epoch, start)) == items[epoch][start:]
    assert len(set(items[epoch])) == 40
    assert all(items[epoch] != earlier for earlier in items[:epoch])


def test_a_training_on_a_web_dataset_resumes_bit_for_bit(shards, tiny, tmp_path) -> None:
    pytest.importorskip("webdataset")
    from fbnetv3.own_training import train as train_own

    for name, stops in (("a", (None,)), ("b", (1.0, None))):
        for stop in stops:
            cfg = tiny(OUTPUT_DIR=str(tmp_path / name), SOLVER__MAX_EPOCHS=2.0)
            train_own(cfg, None, shards(), shards(), resume=True, stop_after=stop)
    assert_same_run(tmp_path / "a", tmp_path / "b")
