"""docs/architecture.md and the tables of CONTRIBUTING.md are true.

Their files and names exist, no walkthrough visits a file twice, and every layer is described, in
order.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.test_imports import LAYERS

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
WALKTHROUGHS = dict(
    re.findall(r"^### (Walkthrough .*?)\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)
)
# 1. `fbnetv3/training.py`, `train` and `prepare`: what happens there.
STEP = re.compile(r"^\d+\. `(?P<file>[\w/]+\.py)`, (?P<names>[^:]+): .+", re.MULTILINE)
MAX_FILES = 9  # one, and at most eight others


def _names(path: Path) -> set[str]:
    """Returns the functions and classes of a file, and ``Class.method``."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (item for item in node.body if isinstance(item, ast.FunctionDef))
            names |= {f"{node.name}.{method.name}" for method in methods}
    return names


def test_there_are_three_walkthroughs() -> None:
    assert len(WALKTHROUGHS) == 3


@pytest.mark.parametrize("walkthrough", WALKTHROUGHS)
def test_a_walkthrough_names_few_files_and_none_twice(walkthrough: str) -> None:
    files = [step["file"] for step in STEP.finditer(WALKTHROUGHS[walkthrough])]
    assert 3 <= len(files) <= MAX_FILES
    assert len(set(files)) == len(files)


@pytest.mark.parametrize("walkthrough", WALKTHROUGHS)
def test_every_file_and_name_of_a_walkthrough_exists(walkthrough: str) -> None:
    for step in STEP.finditer(WALKTHROUGHS[walkthrough]):
        path = ROOT / step["file"]
        assert path.is_file(), step["file"]
        names = re.findall(r"`([\w.]+)`", step["names"])
        assert names, step[0]
        assert set(names) <= _names(path), step[0]


@pytest.mark.parametrize("text", [TEXT, CONTRIBUTING], ids=["architecture.md", "CONTRIBUTING.md"])
def test_every_path_in_a_page_exists(text: str) -> None:
    paths = re.findall(r"`((?:fbnetv3|tests|tools|docs|model_zoo|projects)/[\w./-]+)`", text)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_page_describes_every_room() -> None:
    table = CONTRIBUTING.partition("## Layers")[2].partition("## Where to add")[0]
    rows = re.findall(r"^\| `([\w/]+?)(?:\.py)?/?` \|", table, re.MULTILINE)
    assert rows == [layer.replace(".", "/") for layer in LAYERS]
