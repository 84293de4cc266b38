"""pyproject.toml states what the package needs, ships and offers, and its version."""

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
from packaging.version import Version
from setuptools import find_packages

import fbnetv3
from fbnetv3.requires import EXTRA_OF

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it for Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
METADATA: dict[str, Any] = PROJECT["project"]
SETUPTOOLS: dict[str, Any] = PROJECT["tool"]["setuptools"]
# import name -> name on the package index, where they differ
DISTRIBUTION = {
    "PIL": "pillow",
    "ai_edge_litert": "ai-edge-litert",
    "faster_coco_eval": "faster-coco-eval",
    "huggingface_hub": "huggingface-hub",
    "hydra": "hydra-core",
    "litert_torch": "litert-torch",
    "patch_ng": "patch-ng",
    "sklearn": "scikit-learn",
    "typing_extensions": "typing-extensions",
    "yaml": "pyyaml",
}
# installed by `fbnetv3-install-detectron2`, not by pip
WITHOUT_PACKAGE = {"detectron2"}
# what builds detectron2; every pip environment that builds has newer ones
BUILD_TOOLS = {"setuptools", "wheel"}


def imported_names() -> set[str]:
    """Returns the top-level modules that the package imports, at any depth."""
    names = set()
    for path in (ROOT / "fbnetv3").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").split(".")[0])
    return names - set(sys.stdlib_module_names) - {"fbnetv3"}


def test_every_import_is_stated() -> None:
    stated = [
        *METADATA["dependencies"],
        *itertools.chain(*METADATA["optional-dependencies"].values()),
    ]
    known = {Requirement(need).name.lower() for need in stated}
    needed = {DISTRIBUTION.get(name, name) for name in imported_names() - WITHOUT_PACKAGE}
    assert needed - known == set()


def test_a_missing_package_names_an_extra_that_installs_it() -> None:
    extras = METADATA["optional-dependencies"]
    for module, extra in EXTRA_OF.items():
        needs = {Requirement(need).name.lower() for need in extras[extra]}
        assert DISTRIBUTION.get(module, module) in needs, module


def test_the_extra_all_has_every_package_that_a_line_names() -> None:
    (need,) = METADATA["optional-dependencies"]["all"]
    assert set(EXTRA_OF.values()) <= Requirement(need).extras


@pytest.mark.parametrize("need", METADATA["dependencies"])
def test_the_installed_version_is_in_range(need: str) -> None:
    requirement = Requirement(need)
    installed = importlib.metadata.version(requirement.name)
    assert requirement.specifier.contains(installed, prereleases=True)


def test_the_oldest_versions_are_those_of_the_ranges() -> None:
    extras = METADATA["optional-dependencies"]
    names = ("train", "search", "detection", "export", "report")
    needs = [*METADATA["dependencies"], *itertools.chain(*(extras[name] for name in names))]
    lowest = {
        requirement.name: Version(bound.version)
        for requirement in map(Requirement, needs)
        for bound in requirement.specifier
        if bound.operator == ">=" and requirement.name not in BUILD_TOOLS
    }
    text = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert {name: Version(version) for name, version in (x.split("==") for x in lines)} == lowest


def test_every_package_is_listed() -> None:
    packages = {*find_packages(str(ROOT), include=["fbnetv3", "fbnetv3.*"]), "fbnetv3.model_zoo"}
    assert set(SETUPTOOLS["packages"]) == packages


@pytest.mark.parametrize("folder", ["fbnetv3", "model_zoo"])
def test_every_data_file_is_shipped(folder: str) -> None:
    patterns = [*SETUPTOOLS["package-data"]["*"], "*.py", "*.pyc", "py.typed", "*.md"]
    files = (path for path in (ROOT / folder).rglob("*") if path.is_file())
    unknown = [
        p for p in files if not any(fnmatch.fnmatch(p.name, pattern) for pattern in patterns)
    ]
    assert unknown == [], "neither package data of pyproject.toml nor documentation"


@pytest.mark.parametrize(("command", "entry"), METADATA["scripts"].items())
def test_a_command_has_its_module(command: str, entry: str) -> None:
    module, function = entry.split(":")
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {"main", function} <= functions
    assert command == f"fbnetv3-{command.removeprefix('fbnetv3-')}"


def test_setup_py_states_nothing() -> None:
    lines = (ROOT / "setup.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2


def test_the_version_comes_from_the_metadata() -> None:
    assert fbnetv3.__version__ == importlib.metadata.version("fbnetv3")


def test_the_changelog_has_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(METADATA['version'])}\]", text, re.MULTILINE)


def test_the_licence_is_apache() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
