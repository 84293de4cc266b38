"""The Python code of docs/search.md runs as printed."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
QUICK = """[
    "SEARCH.WORKERS", 0, "SEARCH.POOL_SIZE", 50, "SEARCH.BATCH_SIZE", 2, "SEARCH.ITERATIONS", 1,
    "SEARCH.FINALISTS", 0, "SOLVER.MAX_EPOCHS", 0.1, "SOLVER.WARMUP_EPOCHS", 0.1,
]"""


def run(code: str, folder: Path) -> tuple[str, str]:
    """Runs a block as a file in a folder that has ``model_zoo/``; returns output and errors."""
    (folder / "model_zoo").symlink_to(ROOT / "model_zoo")
    (folder / "block.py").write_text(code)
    ran = subprocess.run(
        [sys.executable, "block.py"], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout, ran.stderr


def block(word: str) -> str:
    (code,) = [code for code in BLOCKS if word in code]
    return str(code)


@pytest.mark.slow
def test_the_search_of_a_function(tmp_path: Path) -> None:
    lines = run(block("def show(search, event)"), tmp_path)[0].splitlines()
    assert len(lines) == 4 * 16 + 8 + 1  # batches, finalists, winner
    assert "'depth': 3" in lines[-1]


@pytest.mark.slow
def test_the_sampler_of_optuna(tmp_path: Path) -> None:
    errors = run(block("JointNASSampler(") + "print(study.best_value)\n", tmp_path)[1]
    assert errors.count("Trial 14 finished") == 1


@pytest.mark.slow
def test_the_search_of_a_config(tmp_path: Path) -> None:
    code = block("run_search(")
    assert '["SEARCH.WORKERS", 2]' in code
    out, errors = run(code.replace('["SEARCH.WORKERS", 2]', QUICK), tmp_path)
    assert out.splitlines()[-1].startswith("output/search/python/best.yaml score ")
    assert "FutureWarning" not in errors


@pytest.mark.slow
def test_the_search_of_a_front(tmp_path: Path) -> None:
    *front, volumes = run(block('objectives=["score", "-macs"],'), tmp_path)[0].splitlines()
    costs, scores = ([float(line.split()[i]) for line in front] for i in (0, 1))
    assert costs == sorted(costs)
    assert scores == sorted(scores)
    assert len(front) > 10
    assert list(ast.literal_eval(volumes)) == [0, 1, 2, 3]
