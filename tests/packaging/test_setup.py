"""setup.py states what the package needs, ships and offers; the version stands in one place."""

from __future__ import annotations

import ast
import fnmatch
import importlib.metadata
import itertools
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import fbnetv3

ROOT = Path(__file__).resolve().parents[2]
# import name -> name on the package index, where they differ
DISTRIBUTION = {
    "PIL": "pillow",
    "faster_coco_eval": "faster-coco-eval",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
# brought by its own installer, not by setup.py
APART = {"detectron2"}


def constant(name: str) -> Any:
    """Reads a literal of setup.py without running it."""
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"setup.py has no {name}")


def imported_names() -> set[str]:
    names = set()
    for path in (ROOT / "fbnetv3").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").split(".")[0])
    return names - set(sys.stdlib_module_names) - {"fbnetv3"}


def test_every_import_is_stated() -> None:
    stated = [*constant("REQUIRES"), *itertools.chain(*constant("EXTRAS").values())]
    known = {Requirement(need).name.lower() for need in stated}
    needed = {DISTRIBUTION.get(name, name) for name in imported_names() - APART}
    assert needed - known == set()


@pytest.mark.parametrize("need", constant("REQUIRES"))
def test_the_ranges_hold_here(need: str) -> None:
    requirement = Requirement(need)
    installed = importlib.metadata.version(requirement.name)
    assert requirement.specifier.contains(installed, prereleases=True)


def test_setup_imports_no_torch() -> None:
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert not re.search(r"^\s*(import|from) torch", text, re.MULTILINE)


@pytest.mark.parametrize("folder", ["fbnetv3", "model_zoo"])
def test_every_data_file_is_shipped(folder: str) -> None:
    patterns = [*constant("DATA"), "*.py", "*.pyc", "py.typed", "*.md"]
    files = (path for path in (ROOT / folder).rglob("*") if path.is_file())
    unknown = [
        p for p in files if not any(fnmatch.fnmatch(p.name, pattern) for pattern in patterns)
    ]
    assert unknown == [], "neither packed by setup.py's DATA nor documentation"


@pytest.mark.parametrize(("command", "module"), constant("COMMANDS").items())
def test_a_command_has_its_module(command: str, module: str) -> None:
    tree = ast.parse((ROOT / "fbnetv3" / "cli" / f"{module}.py").read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {"main", "cli"} <= functions


def test_the_version_is_one() -> None:
    assert importlib.metadata.version("fbnetv3") == fbnetv3.__version__


def test_the_changelog_has_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{fbnetv3.__version__}]" in text


def test_the_licence_is_apache() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
