"""The notebooks of docs/tutorials: they run, hold their outputs, and name no place of a machine."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

FOLDER = ROOT / "docs" / "tutorials"
NAMES = ("boxes", "budget", "paper_cluster", "photos")


def cells(name: str) -> list[dict[str, Any]]:
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    return list(json.loads(text)["cells"])


def test_the_tutorials_are_as_many_as_tested() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_holds_its_outputs(name: str) -> None:
    outputs = [cell["outputs"] for cell in cells(name) if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in cells(name) if cell["cell_type"] == "code")
    kinds = [output["output_type"] for cell in outputs for output in cell]
    assert len(kinds) >= 4
    assert "error" not in kinds
    assert not re.search(r"/work/|/root/|/home/|/tmp/", (FOLDER / f"{name}.ipynb").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_links_to_files(name: str) -> None:
    text = "\n".join("".join(c["source"]) for c in cells(name) if c["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert links
    assert [link for link in links if not (FOLDER / link).exists()] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_code_of_a_tutorial_is_readable(name: str) -> None:
    for cell in cells(name):
        if cell["cell_type"] == "code":
            code = "".join(cell["source"])
            ast.parse(code)
            assert max(map(len, code.splitlines())) <= 120


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_runs(name: str, tmp_path: Path) -> None:
    pytest.importorskip("nbmake")
    # Only the limit of this process counts: pyproject.toml has one for each test, nbmake has one.
    limits = ["--timeout=0", "--nbmake-timeout=900"]
    command = ["-m", "pytest", "--nbmake", *limits, "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run(
        [sys.executable, *command, str(FOLDER / f"{name}.ipynb")],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=890, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-5000:]
    assert "1 passed" in ran.stdout
