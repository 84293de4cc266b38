"""Public functions say what they take: no bare ``Any``, apart from objects of untyped libraries.

mypy checks the rest, with the options in pyproject.toml.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "fbnetv3"
# file -> functions with an argument that has no type: of another library, or of any kind
UNTYPED = {
    "arch/keys.py": {"key_of_default"},  # a value of yaml
    "arch/layer.py": {"round_channels"},  # a number or an array
    "benchmark/inputs.py": {"cycle_loader"},  # timm's
    "data/hugging_face.py": {"HuggingFaceDataset.__init__"},  # a datasets.Dataset
    "data/items.py": {"as_rgb"},  # what a user's data set has as its images
    "data/own.py": {"labels_of"},  # a user's data set
    "detection/task.py": {"coco_results"},  # detectron2's
    "engine/trainer.py": {"HasLosses.losses", "split_batch"},  # the batches of a task
    "export/integer_gates.py": {"split_hard_swishes", "replace_hard_sigmoids"},  # onnx's
    "export/onnx.py": {"add_metadata"},  # onnx's
    "plain_yaml.py": {"PlainLoader.__init__", "PlainLoader.compose_node"},  # PyYAML's
    "search/acquisition/expected_improvement.py": {
        *("Improvement.choose", "Improvement.log_of_visited"),  # what the same class returned
    },
    "search/executors/ray.py": {"WorkerHandle.__init__"},  # Ray's
    "search/fbnet/mirror.py": {"Copy.__init__"},  # fsspec's
    "search/fbnet/space_values.py": {"SpaceLoader.decimal"},  # PyYAML's
    "search/outcome.py": {"scalar"},  # a number of any library
    "search/storage/guard.py": {"GuardedConnection.cursor"},  # of sqlite3
    "search/trial.py": {"trial_from_json"},  # of a database
}


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
