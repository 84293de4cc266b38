"""The Dockerfile names files, packages and commands that exist, and follows the usual rules.

No image is built here: that needs a Docker daemon and PyTorch's own index.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it for Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
TEXT = (ROOT / "Dockerfile").read_text("utf-8")
LINES = [
    line for line in re.sub(r"\\\n\s*", "", TEXT).splitlines() if line and not line.startswith("#")
]


def _arguments(instruction: str) -> list[str]:
    return [line.split(" ", 1)[1] for line in LINES if line.startswith(f"{instruction} ")]


def _packages(command: str) -> list[str]:
    """Returns the quoted words of a command that are no variables."""
    return [word for word in re.findall(r'"([^"]+)"', command) if not word.startswith("$")]


def test_instructions_are_known() -> None:
    known = {"FROM", "WORKDIR", "COPY", "RUN", "ARG", "USER", "CMD"}
    assert {line.split(" ", 1)[0] for line in LINES} == known


def test_the_base_images_have_a_version_that_the_package_supports() -> None:
    images = [line.split()[0] for line in _arguments("FROM")]
    assert len(set(images)) == 1
    version = re.fullmatch(r"python:(\d+\.\d+)-slim", images[0])
    assert version
    assert SpecifierSet(PROJECT["requires-python"]).contains(version[1])


def test_copied_files_exist_or_are_those_of_another_stage() -> None:
    stages = {line.split(" AS ")[1] for line in _arguments("FROM") if " AS " in line}
    for line in _arguments("COPY"):
        source = line.split()[0]
        if source.startswith("--from="):
            assert source.removeprefix("--from=") in stages
        else:
            assert (ROOT / source).exists()


def test_packages_have_versions_and_leave_no_cache() -> None:
    installs = [part for line in _arguments("RUN") for part in line.split("&&") if "pip " in part]
    assert len(installs) == 4
    for command in installs:
        assert "--no-cache-dir" in command
        packages = _packages(command.partition("pip install ")[2])
        assert packages == ["fbnetv3[$EXTRA]>=0.2"] or all(
            Requirement(package).specifier for package in packages
        )


def test_torch_is_the_cpu_build_in_the_range_of_the_package() -> None:
    assert "TORCH_INDEX=https://download.pytorch.org/whl/cpu" in _arguments("ARG")
    (line,) = [line for line in _arguments("RUN") if '--index-url "$TORCH_INDEX" ' in line]
    stated = set(PROJECT["dependencies"])
    assert set(_packages(line)) <= stated


def test_extras_and_commands_exist() -> None:
    assert "EXTRA=all" in _arguments("ARG")
    assert "all" in PROJECT["optional-dependencies"]
    commands = set(re.findall(r"\bfbnetv3-[a-z0-9-]+", TEXT))
    assert commands <= set(PROJECT["scripts"])
    assert SpecifierSet(">=0.2").contains(PROJECT["version"])


def test_commands_do_not_run_as_root() -> None:
    assert _arguments("USER") == ["fbnetv3"]
    (add,) = [line for line in _arguments("RUN") if line.startswith("useradd")]
    assert add.endswith(" fbnetv3")


def test_what_the_wheel_is_built_from_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").split()
    needed = {"fbnetv3", "model_zoo", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"}
    assert set(ignored) & needed == set()
    assert {".git", ".venv"} <= set(ignored)
