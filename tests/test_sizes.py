"""Files have at most 400 lines and functions at most 40, as CONTRIBUTING.md says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES, MAX_LINES_OF_A_FUNCTION = 400, 40


def long_parts(text: str, *, functions: bool = True) -> Iterator[str]:
    """Yields what is too long in a file; the arguments of constructors do not count."""
    count = len(text.splitlines())
    if count > MAX_LINES:
        yield f"{count} lines"
    for node in ast.walk(ast.parse(text)):
        if functions and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0].lineno if node.name == "__init__" else node.lineno
            lines = (node.end_lineno or first) - first + 1
            if lines > MAX_LINES_OF_A_FUNCTION:
                yield f"{node.name} has {lines} lines"


@pytest.mark.parametrize("folder", ["fbnetv3", "tests", "tools", "projects"])
def test_files_and_functions_are_short(folder: str) -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / folder).rglob("*.py")}
    is_package = folder == "fbnetv3"
    too_long = {
        str(path.relative_to(ROOT)): parts
        for path, text in texts.items()
        if (parts := list(long_parts(text, functions=is_package)))
    }
    assert not too_long


def test_long_parts_are_named() -> None:
    body = "    x = 1\n" * 40
    assert list(long_parts(f"def f():\n{body}")) == ["f has 41 lines"]
    constructor = "def __init__(\n    self,\n):\n"
    assert list(long_parts(constructor + body)) == []
    assert list(long_parts(constructor + body + "    y = 1\n")) == ["__init__ has 41 lines"]
    assert list(long_parts("x = 1\n" * 401)) == ["401 lines"]
