"""Every block of the pages is checked, or a table says why it is not.

Commands are parsed by the parsers of their programs, and the config keys that they give are set in
a config. Blocks of Python and yaml are in the table ``BLOCKS`` with the test that runs them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("detectron2")

from fbnetv3.cli import benchmark, data, evaluate, export, predict, search, train, zoo
from fbnetv3.config import CfgNode, get_cfg
from fbnetv3.plain_yaml import parse_yaml
from fbnetv3.resources import find_config
from fbnetv3.search.fbnet import get_search_cfg
from projects.scale import simulate
from tests.conftest import ROOT
from tests.packaging.page_blocks import PAGES, Block, Command, blocks_of, commands_of
from tests.packaging.test_makefile import targets
from tests.packaging.test_setup import METADATA

ALL = [block for page in PAGES for block in blocks_of(page)]
COMMANDS = [c for block in ALL if block.kind == "commands" for c in commands_of(block)]
RUN, YAML = "run", "yaml"  # checked by tests below
# Page, words of the block, and what checks it: RUN, YAML, the test that runs it, or a reason
BLOCKS = (
    ("README.md", "", "tests/packaging/test_readme.py"),
    ("docs/index.md", "count_cost", RUN),
    (
        "docs/data.md",
        "path,labels",
        "reason: a csv; tests/data/test_tables.py reads such lines",
    ),
    ("docs/detection.md", "detector_from_file", "reason: reads weights that the reader trained"),
    ("docs/detection.md", "STRIDE_IN_1X1", YAML),
    ("docs/export.md", "import onnxruntime", "tests/export/test_page.py"),
    ("docs/extending.md", "_BASE_: model_zoo/digits.yaml", YAML),
    ("docs/extending.md", "# my_", "tests/test_extending.py"),
    ("docs/extending.md", "result = fbnetv3.train", "tests/projects/test_own_parts.py"),
    ("docs/extending.md", "import webdataset as wds", "tests/test_extending.py"),
    ("docs/recipes.md", "recipe:", YAML),
    ("docs/results.md", "find_images", RUN),
    ("docs/search.md", "candidates:", YAML),
    ("docs/search.md", "name: small", YAML),
    ("docs/search.md", "- stage: 2", YAML),
    ("docs/search.md", "network: timm/vit_tiny", YAML),
    ("docs/search.md", '"timm/resnet18?low_resolution=true"', RUN),
    ("docs/search.md", "import", "tests/packaging/test_search_page.py"),
    ("docs/zoo.md", "encoder", "tests/packaging/test_zoo_page.py"),
    ("docs/zoo.md", "pretrained=True)   # downloads", "reason: downloads weights of ImageNet"),
    ("docs/zoo.md", "scale_to_macs", RUN),
    ("docs/zoo.md", '"hf://OWNER/flowers"', "tests/zoo/test_repositories.py"),
    ("docs/zoo.md", "HubClassifier", "tests/zoo/test_hub.py"),
    ("docs/zoo.md", "docker build", "reason: needs Docker; tests/packaging/test_dockerfile.py"),
)
# First word of a command of another program -> why it is not run
OTHERS = {
    "cd": "a folder of the reader",
    "export": "sets variables of the shell",
    "fbnetv3-install-detectron2": "has no arguments; tests/packaging/test_install_detectron2.py",
    "hf": "uploads to Hugging Face's hub",
    "ray": "needs a Ray cluster",
    "sleep": "waits",
    "srun": "needs Slurm",
    "trap": "is of the shell",
    "wait": "is of the shell",
    ".venv/bin/pre-commit": "changes the reader's checkout",
}
PROGRAMS: dict[str, Callable[[Sequence[str]], object]] = {
    "benchmark": benchmark.parse,
    "data": data.parse,
    "evaluate": evaluate.parse,
    "export": export.parse,
    "predict": predict.parse,
    "search": search.make_parser().parse_intermixed_args,
    "train": train.make_parser().parse_intermixed_args,
    "zoo": zoo.parse,
    "projects.scale.simulate": simulate.make_parser().parse_args,
}
_PROGRAM = re.compile(r"fbnetv3-(\w+)|tools/(\w+)\.py|(projects\.scale\.simulate)")
_TOOLS = {"train_net": "train", "jointnas_search": "search"}


def row_of(block: Block) -> str:
    """Returns what checks a block, by the first row that fits it."""
    rows = (how for page, words, how in BLOCKS if page == block.page and words in block.text)
    return next(rows, "")


def ours(words: Sequence[str]) -> tuple[str, Sequence[str]] | None:
    """Returns this project's program in a command, and its arguments; None if it has none."""
    for i, word in enumerate(words):
        if match := re.fullmatch(
            r"fbnetv3-(\w+)|tools/(\w+)\.py|(projects\.scale\.simulate)", word
        ):
            name = match[1] or match[2] or match[3]
            stops = [k for k, w in enumerate(words) if k > i and w in ("&", "|", ">")]
            arguments = words[i + 1 : stops[0] if stops else None]
            return _TOOLS.get(name, name), [re.sub(r"\$\w+", "1", word) for word in arguments]
        if "fbnetv3-" in word and " " in word:  # quoted, for a shell on another machine
            return ours(word.split())
    return None


@pytest.mark.parametrize("block", [b for b in ALL if b.kind != "commands"], ids=str)
def test_a_block_has_its_check(block: Block) -> None:
    how = row_of(block)
    assert how, f"add a row to BLOCKS for {block}:\n{block.text}"
    if how.startswith("tests/"):
        assert (ROOT / how).is_file()
    elif how == YAML:
        assert parse_yaml(block.text)


@pytest.mark.parametrize("row", BLOCKS, ids=lambda row: f"{row[0]} {row[1]}")
def test_a_row_has_its_block(row: tuple[str, str, str]) -> None:
    page, words, _ = row
    assert [b for b in ALL if b.page == page and words in b.text and b.kind != "commands"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: f"{c.block} {' '.join(c.words[:3])}")
def test_a_command_is_valid(command: Command) -> None:
    program = ours(command.words)
    first = command.words[0]
    if program and program[0] in PROGRAMS:
        _check_keys(program[0], PROGRAMS[program[0]](program[1]))
    elif first == "make":
        assert {word for word in command.words[1:] if "=" not in word} <= targets()
    elif first == "pip":
        extras = set(re.findall(r"[\[,](\w+)", command.words[-1]))
        assert extras <= METADATA["optional-dependencies"].keys()
    elif first in ("python", "torchrun"):
        assert (ROOT / command.words[1]).exists()
    else:
        assert first in OTHERS or re.match(r"\w+=", first), f"{command.block}: {command.words}"


def _check_keys(program: str, arguments: object) -> None:
    options = list(getattr(arguments, "opts", []))
    file = getattr(arguments, "config_file", None)
    if file and str(file).startswith("model_zoo/"):
        assert find_config(file).is_file()
    cfg: CfgNode = get_search_cfg() if program in ("search", "benchmark") else get_cfg()
    cfg.merge_from_list(options)


@pytest.mark.slow
@pytest.mark.parametrize("block", [b for b in ALL if row_of(b) == RUN], ids=str)
def test_a_block_runs(block: Block, tmp_path: Path) -> None:
    (tmp_path / "model_zoo").symlink_to(ROOT / "model_zoo")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (64, 48), (235, 225, 215)).save(tmp_path / "photos" / "1.png")
    code = block.text if "import fbnetv3" in block.text else f"import fbnetv3\n{block.text}"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
