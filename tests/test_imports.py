"""Imports go one way: cli -> engine, detection, config -> modeling, zoo, data -> arch, recipe.

Read by ``ast``, so that a wrong import is named with file and line even where it would work.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fbnetv3"

# A room imports its own floor and those below. `__init__` (lazy names) imports no room at all.
FLOOR = {
    "errors": 0,
    "io": 0,
    "plain_yaml": 0,
    "resources": 0,
    "arch": 1,
    "recipe": 1,
    "modeling": 2,
    "zoo": 2,
    "data": 2,
    "search": 2,
    "config": 3,
    "engine": 3,
    "detection": 3,
    "search.evaluator": 3,
    "cli": 4,
}
# Neither at the top nor inside a function.
NEVER = {
    "arch": ("torch", "torchvision", "timm", "detectron2"),
    "recipe": ("torch", "torchvision", "detectron2"),
    "modeling": ("detectron2",),
    "zoo": ("detectron2",),
    "data": ("detectron2",),
    "search": ("detectron2", "torchvision", "PIL"),
}
# The search knows nothing of FBNet or images but in these two files.
SEARCH_MAY = ("search", "errors", "io", "plain_yaml", "resources")
SEARCH_EXCEPT = ("search.evaluator", "search.fbnet_space")


class Import(NamedTuple):
    """One imported module: where, what, and whether at module level (so when first imported)."""

    path: Path
    line: int
    name: str
    at_top: bool

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.name}"


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: relative imports are not used here"
        module = node.module or ""
        return [f"{module}.{alias.name}" for alias in node.names]
    return []


def _walk(node: ast.AST, path: Path, at_top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if _is_type_checking(child):
            continue
        for name in _names(child):
            yield Import(path, getattr(child, "lineno", 0), name, at_top)
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _walk(child, path, at_top and not inside)


def imports_of(path: Path) -> list[Import]:
    """Lists the imports of one file, those for type checkers left out."""
    return list(_walk(ast.parse(path.read_text(encoding="utf-8")), path, True))


def room_of(dotted: str) -> str:
    """Returns the room of a module below ``fbnetv3``: its first part, or a named exception."""
    parts = dotted.split(".")
    two = ".".join(parts[:2])
    return two if two in FLOOR else parts[0]


def module_of(path: Path, package: Path) -> str:
    """Returns the dotted name below the package, such as ``arch.spec``."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _wrong_floor(item: Import, room: str, target: str) -> bool:
    if target not in FLOOR or not item.at_top:
        return False
    return room == "__init__" or FLOOR[target] > FLOOR[room]


def _wrong_for_search(module: str, target: str) -> bool:
    if not module.startswith("search") or module in SEARCH_EXCEPT or target not in FLOOR:
        return False
    return target not in SEARCH_MAY


def violations(package: Path) -> list[str]:
    """Lists every import of the package at ``package`` that goes the wrong way."""
    found = []
    for path in sorted(package.rglob("*.py")):
        module = module_of(path, package)
        room = room_of(module)
        for item in imports_of(path):
            target = room_of(item.name.removeprefix("fbnetv3."))
            if not item.name.startswith("fbnetv3."):
                wrong = item.name.split(".")[0] in NEVER.get(room, ())
            else:
                wrong = _wrong_floor(item, room, target) or _wrong_for_search(module, target)
            if wrong:
                found.append(str(item))
    return found


def room_cycles(package: Path) -> list[str]:
    """Lists rooms that import each other, directly or through others, at module level."""
    edges: dict[str, set[str]] = defaultdict(set)
    for path in sorted(package.rglob("*.py")):
        room = room_of(module_of(path, package))
        for item in imports_of(path):
            target = room_of(item.name.removeprefix("fbnetv3."))
            if item.at_top and item.name.startswith("fbnetv3.") and target in FLOOR:
                edges[room].add(target)
    reached = {room: _reachable(room, edges) for room in edges}
    return sorted(room for room, rooms in reached.items() if room in rooms)


def _reachable(start: str, edges: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    todo = [room for room in edges[start] if room != start]
    while todo:
        room = todo.pop()
        if room not in seen:
            seen.add(room)
            todo.extend(edges.get(room, set()) - {room})
    return seen


def test_imports_go_one_way() -> None:
    assert violations(PACKAGE) == []


def test_rooms_form_no_cycle() -> None:
    assert room_cycles(PACKAGE) == []


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(module_of(path, PACKAGE)) for path in PACKAGE.rglob("*.py")}
    assert rooms - {"__init__", *FLOOR} == set()


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("arch/spec.py", "import torch"),
        ("arch/spec.py", "def f():\n    from torch import nn"),
        ("arch/spec.py", "from fbnetv3.modeling import blocks"),
        ("modeling/blocks.py", "from detectron2.config import get_cfg"),
        ("data/loaders.py", "from fbnetv3.engine.ema import ModelEMA"),
        ("search/coarse.py", "from fbnetv3.arch import Arch"),
        ("search/coarse.py", "def f():\n    import fbnetv3.modeling.blocks"),
        ("__init__.py", "from fbnetv3.arch import Arch"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, file: str, line: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(line + "\n")
    assert len(violations(tmp_path)) == 1


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("arch/spec.py", "import numpy\nfrom fbnetv3.errors import FBNetError"),
        ("zoo/api.py", "def f():\n    from fbnetv3.detection import build"),
        (
            "modeling/x.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import detectron2",
        ),
        ("engine/hooks.py", "from detectron2.engine import HookBase"),
        ("search/fbnet_space.py", "from fbnetv3.arch import Arch"),
        ("search/evaluator.py", "from fbnetv3.engine.train import train"),
    ],
)
def test_a_right_import_is_left_alone(tmp_path: Path, file: str, line: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(line + "\n")
    assert violations(tmp_path) == []


def test_a_cycle_is_found(tmp_path: Path) -> None:
    for room, other in (("zoo", "modeling"), ("modeling", "data"), ("data", "zoo")):
        (tmp_path / room).mkdir()
        (tmp_path / room / "x.py").write_text(f"import fbnetv3.{other}.x\n")
    assert room_cycles(tmp_path) == ["data", "modeling", "zoo"]


def _run(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_arch_loads_no_torch() -> None:
    code = (
        "import sys, fbnetv3.arch as a; a.count_cost('fbnetv3_a0'); print('torch' in sys.modules)"
    )
    assert _run(code) == "False"


@pytest.mark.parametrize(
    "tool", ["train", "search", "predict", "zoo", "benchmark", "demo", "install_detectron2"]
)
def test_help_loads_no_torch(tool: str) -> None:
    code = (
        f"import sys; from fbnetv3.cli import {tool} as tool; sys.argv[1:] = ['--help']\n"
        "try: tool.cli()\nexcept SystemExit: print('torch' in sys.modules)"
    )
    assert _run(code).splitlines()[-1] == "False"


def test_build_model_needs_no_detectron2() -> None:
    code = (
        "import sys; sys.modules['detectron2'] = None; import fbnetv3; "
        "print(type(fbnetv3.build_model('fbnetv3_a0')).__name__)"
    )
    assert _run(code) == "FBNetClassifier"
