"""Public functions say what they take: no bare ``Any``, apart from objects of untyped libraries.

mypy checks the rest, with the options in pyproject.toml.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "fbnetv3"
# file -> functions with an argument that has no type: of another library, or of any kind
UNTYPED = {
    "arch/keys.py": {"key_of_default"},  # a value of yaml
    "arch/layer.py": {"round_channels"},  # a number or an array
    "engine/trainer.py": {"HasLosses.losses", "split_batch"},  # the batches of a task
    "search/storage/guard.py": {"GuardedConnection.cursor"},  # of sqlite3
}
PROGRAM = """
from typing_extensions import assert_type

import fbnetv3
from fbnetv3 import zoo
from fbnetv3.config import CfgNode, get_cfg
from fbnetv3.data import DataError, ImageDataset, build_dataset, register_dataset
from fbnetv3.engine.result import TrainingResult
from fbnetv3.modeling import ClassifierHead
from fbnetv3.search import FloatRange, JointNAS, SearchResult, SearchSpace, Trial
from fbnetv3.zoo import Preprocessing
from torch.nn import Module

assert_type(fbnetv3.__version__, str)
assert_type(fbnetv3.get_arch("fbnetv3_a"), fbnetv3.Arch)
assert_type(fbnetv3.count_cost(fbnetv3.get_arch("fbnetv3_a"), 224), fbnetv3.Cost)
assert_type(fbnetv3.list_models(), list[str])
model = fbnetv3.build_model("fbnetv3_a")
assert_type(model, Module)
assert_type(fbnetv3.deploy(model), Module)
assert_type(zoo.preprocessing("fbnetv3_a"), Preprocessing)
assert_type(build_dataset("digits_train"), ImageDataset)
cfg = get_cfg()
assert_type(cfg, CfgNode)
assert_type(fbnetv3.train(cfg, model), TrainingResult)


def evaluate(trial: Trial) -> float:
    return float(trial.config["x"])


search = JointNAS(SearchSpace([FloatRange("x", 0.0, 1.0)]), batch_size=8)
result = search.run(evaluate)
assert_type(result, SearchResult)
assert_type(result.best.number, int)
"""


def _public_functions(
    body: list[ast.stmt], prefix: str = ""
) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in body:
        is_public = not getattr(node, "name", "_").startswith("_")
        if isinstance(node, ast.ClassDef) and is_public:
            yield from _public_functions(node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef) and (is_public or node.name == "__init__"):
            yield f"{prefix}{node.name}", node


def _arguments(node: ast.FunctionDef) -> list[ast.arg]:
    return [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]


def untyped(text: str) -> set[str]:
    """Returns the public functions and methods with an argument whose type is ``Any`` alone."""
    return {
        name
        for name, node in _public_functions(ast.parse(text).body)
        if any(a.annotation and ast.unparse(a.annotation) == "Any" for a in _arguments(node))
    }


def test_public_functions_take_no_bare_any() -> None:
    files = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    found = {name: untyped(path.read_text("utf-8")) for name, path in files.items()}
    problem = "give the argument a type, or object if it is checked; else list it in UNTYPED"
    assert {name: names for name, names in found.items() if names} == UNTYPED, problem


def test_no_config_is_of_any_type() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for argument in _arguments(node):
                    if argument.arg == "cfg" and argument.annotation is not None:
                        assert ast.unparse(argument.annotation) != "Any", f"{path}:{node.lineno}"


def test_a_bare_any_is_named() -> None:
    methods = "    def f(self, x: Any): ...\n    def _g(self, x: Any): ..."
    assert untyped(f"class A:\n{methods}\ndef h(x: list[Any]): ...") == {"A.f"}


@pytest.mark.slow
def test_a_program_under_strict_checks_sees_the_types(tmp_path: Path) -> None:
    """``assert_type`` fails where the package gives ``Any`` or another type."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, "utf-8")
    options = ["--strict", "--follow-imports=silent", f"--cache-dir={tmp_path / 'cache'}"]
    options.append(f"--config-file={PACKAGE.parent / 'pyproject.toml'}")
    command = [sys.executable, "-m", "mypy", *options, str(path)]
    run = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
