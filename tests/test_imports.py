"""Imports run one way: a layer imports those above it in ``LAYERS``, never below, at any depth.

The imports are read with ``ast``, at every depth of indentation and with
``importlib.import_module("...")``, so that a wrong one is named with file and line even where it
would work. Imports for type checkers only are left out of circles, but not out of the order.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fbnetv3"

# The order of layers: each may import those before it. A dot separates package and layer.
LAYERS = (
    "errors",
    "_deprecation",
    "registry",
    "registries",
    "io",
    "image_files",
    "plain_yaml",
    "resources",
    "version",
    "imagenet",
    "requires",
    "signals",
    "streams",
    "user_code",
    "recipe",
    "arch",
    "data",
    "modeling",
    "config",
    "weights",
    "engine",
    "classification",
    "detection",
    "training",
    "own_training",
    "zoo",
    "timm",
    "predictions",
    "evaluation",
    "export",
    "search.errors",
    "search.outcome",
    "search.checks",
    "search.trial",
    "search.direction",
    "search.objectives",
    "search.space",
    "search.trial_levels",
    "search.predictors",
    "search.plan",
    "search.acquisition",
    "search.executors",
    "search.storage",
    "search.chance",
    "search.enqueued",
    "search.records",
    "search.replicates",
    "search.rungs",
    "search.settings",
    "search.schedule",
    "search.history",
    "search.models",
    "search.bounded_scores",
    "search.stage_one",
    "search.stage_two",
    "search.fronts",
    "search.result",
    "search.promotion",
    "search.planner",
    "search.batches",
    "search.failures",
    "search.running",
    "search.jointnas",
    "search.integrations",
    "search.report",
    "search.fbnet",
    "benchmark",
    "cli",
)
# Two tasks side by side know nothing of each other.
APART = (("classification", "detection"),)
# What the search may import of the rest of the project, but for the layer that knows FBNet.
SEARCH_MAY = (
    *("errors", "_deprecation", "registry", "registries", "io", "plain_yaml", "resources"),
    *("version", "requires", "signals", "streams"),
    "search",
)
# Packages that a layer never imports.
NEVER: Mapping[str, tuple[str, ...]] = {
    "errors": ("torch", "numpy"),
    "_deprecation": ("torch", "numpy"),
    "registry": ("torch", "numpy"),
    "registries": ("torch", "numpy"),
    "io": ("torch",),
    "image_files": ("torch", "numpy", "PIL"),
    "plain_yaml": ("torch",),
    "resources": ("torch",),
    "signals": ("torch", "numpy"),
    "user_code": ("torch", "numpy"),
    "streams": ("torch", "numpy"),
    "recipe": ("torch", "torchvision", "detectron2"),
    "arch": ("torch", "torchvision", "timm", "detectron2"),
    "data": ("detectron2",),
    "modeling": ("detectron2",),
    "weights": ("detectron2",),
    "zoo": ("detectron2",),
    "timm": ("detectron2",),
    "search": ("detectron2", "torchvision", "PIL"),
}
# Parts of detectron2 and fvcore that warn of torch.jit.script when they are first imported, and the
# modules that import them quietly.
LOUD = ("engine", "data", "evaluation", "layers", "modeling", "structures")
QUIET = ("fbnetv3.engine.detectron2_loop", "fbnetv3.detection.detectron2_parts")


class Import(NamedTuple):
    """One import statement's module: who imports what, and for whom."""

    path: Path
    line: int
    importer: str
    target: str
    for_types: bool

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.target}"


def module_name(path: Path, package: Path) -> str:
    """Returns the dotted name of a file of the package, such as ``fbnetv3.arch.spec``."""
    parts = ("fbnetv3", *path.relative_to(package).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def _imported_by_call(node: ast.AST) -> list[str]:
    """Names the module of ``import_module("...")`` where it is a literal."""
    if not isinstance(node, ast.Call) or "import_module" not in ast.dump(node.func):
        return []
    literals = [a.value for a in node.args[:1] if isinstance(a, ast.Constant)]
    return [value for value in literals if isinstance(value, str)]


def _targets(node: ast.AST, modules: Iterable[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: relative imports are not used here"
        full = [f"{node.module}.{alias.name}" for alias in node.names]
        return [name if name in modules else str(node.module) for name in full]
    return _imported_by_call(node)


def _walk(
    node: ast.AST, modules: Iterable[str], for_types: bool
) -> Iterator[tuple[int, str, bool]]:
    for child in ast.iter_child_nodes(node):
        inside = for_types or _is_type_checking(child)
        for target in _targets(child, modules):
            yield getattr(child, "lineno", 0), target, inside
        yield from _walk(child, modules, inside)


def imports_of(package: Path) -> list[Import]:
    """Lists every import in a package, at any depth."""
    paths = {module_name(path, package): path for path in sorted(package.rglob("*.py"))}
    return [
        Import(path, line, module, target, for_types)
        for module, path in paths.items()
        for line, target, for_types in _walk(
            ast.parse(path.read_text(encoding="utf-8")), paths, False
        )
    ]


def circles(package: Path) -> list[list[str]]:
    """Returns the strongly connected components of more than one module."""
    found = [item for item in imports_of(package) if not item.for_types]
    names = sorted({module_name(path, package) for path in package.rglob("*.py")})
    number = {name: i for i, name in enumerate(names)}
    edges = [(number[i.importer], number[i.target]) for i in found if i.target in number]
    rows, columns = zip(*edges, strict=True) if edges else ((), ())
    graph = coo_array(([1] * len(edges), (rows, columns)), shape=(len(names),) * 2)
    _, labels = connected_components(graph, directed=True, connection="strong")
    groups = [[n for n in names if labels[number[n]] == label] for label in sorted(set(labels))]
    return [group for group in groups if len(group) > 1]


def layer_of(module: str) -> str | None:
    """Returns the layer of a module: None for faces (``__init__`` of the package or of search)."""
    parts = module.split(".")[1:]
    two, one = ".".join(parts[:2]), ".".join(parts[:1])
    return two if two in LAYERS else one if one in LAYERS else None


def _against_order(item: Import) -> bool:
    importer, target = layer_of(item.importer), layer_of(item.target)
    if not item.target.startswith("fbnetv3"):
        return False
    if importer is None:  # a face loads its names on first use, and says which extra they need
        return not item.for_types and target != "requires"
    if target is None:  # nothing below imports a face
        return item.target == "fbnetv3" or LAYERS.index(importer) < LAYERS.index("search.errors")
    return LAYERS.index(target) > LAYERS.index(importer) or {importer, target} in map(set, APART)


def _not_for_search(item: Import) -> bool:
    first = item.importer.split(".")[1:2]
    if first != ["search"] or layer_of(item.importer) == "search.fbnet":
        return False
    target = item.target.split(".")
    return target[0] == "fbnetv3" and "".join(target[1:2]) not in SEARCH_MAY


def _never(item: Import) -> bool:
    first = "".join(item.importer.split(".")[1:2])
    return item.target.split(".")[0] in NEVER.get(first, ()) and not item.for_types


def _warns(item: Import) -> bool:
    if item.for_types or item.importer in QUIET:
        return False
    package, _, part = item.target.partition(".")
    return package == "fvcore" or (package == "detectron2" and part.partition(".")[0] in LOUD)


def wrong_imports(package: Path) -> list[str]:
    """Lists the imports that run against the order of layers or fetch what a layer never needs.

    Imports that print a warning of detectron2's dependencies are listed, too.
    """
    rules = (_against_order, _not_for_search, _never, _warns)
    return [str(item) for item in imports_of(package) if any(rule(item) for rule in rules)]


def test_no_circle_at_any_depth() -> None:
    assert circles(PACKAGE) == []


def test_imports_follow_the_order_of_layers() -> None:
    assert wrong_imports(PACKAGE) == []


def test_every_module_is_in_a_layer() -> None:
    modules = [module_name(path, PACKAGE) for path in PACKAGE.rglob("*.py")]
    assert {m for m in modules if layer_of(m) is None} == {"fbnetv3", "fbnetv3.search"}


def _package(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text + "\n")
    return folder


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("arch/spec.py", "import torch"),
        ("arch/spec.py", "def f():\n    from torch import nn"),
        ("arch/spec.py", "from fbnetv3.modeling import blocks"),
        ("arch/spec.py", "if TYPE_CHECKING:\n    from fbnetv3.modeling import blocks"),
        ("arch/spec.py", "import importlib\nimportlib.import_module('fbnetv3.modeling')"),
        ("modeling/blocks.py", "from detectron2.config import get_cfg"),
        ("modeling/blocks.py", "def f():\n    if True:\n        import fbnetv3.zoo.api"),
        ("data/loaders.py", "from fbnetv3.engine.ema import ModelEMA"),
        ("engine/loop.py", "from fbnetv3.detection.task import DetectionTask"),
        ("weights/download.py", "import fbnetv3"),
        ("weights/download.py", "from fbnetv3 import __version__"),
        ("detection/build.py", "from fbnetv3.classification.task import ClassificationTask"),
        ("search/acquisition/coarse.py", "from fbnetv3.arch import Arch"),
        ("search/acquisition/coarse.py", "def f():\n    import fbnetv3.modeling.blocks"),
        ("search/space/pool.py", "from fbnetv3.search.predictors.gp import GaussianProcess"),
        ("search/jointnas.py", "from fbnetv3.search.fbnet.run import run_search"),
        ("__init__.py", "from fbnetv3.arch import Arch"),
        ("engine/hooks.py", "from detectron2.engine import HookBase"),
        ("engine/hooks.py", "def f():\n    import detectron2.modeling.meta_arch"),
        ("detection/build.py", "from fvcore.nn import sigmoid_focal_loss_jit"),
    ],
)
def test_a_wrong_import_is_named(tmp_path: Path, file: str, line: str) -> None:
    assert len(wrong_imports(_package(tmp_path, {file: line}))) == 1


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("arch/spec.py", "import numpy\nfrom fbnetv3.errors import FBNetError"),
        ("zoo/api.py", "def f():\n    from fbnetv3.detection import build"),
        ("engine/hooks.py", "from fbnetv3.engine.detectron2_loop import HookBase"),
        ("engine/detectron2_loop.py", "from detectron2.engine import HookBase"),
        ("engine/hooks.py", "from detectron2.utils.events import EventWriter"),
        ("search/jointnas.py", "from fbnetv3.search.space.pool import Pool"),
        ("search/fbnet/space.py", "from fbnetv3.arch import Arch"),
        ("search/fbnet/evaluator.py", "from fbnetv3.training import train"),
    ],
)
def test_a_right_import_is_left_alone(tmp_path: Path, file: str, line: str) -> None:
    assert wrong_imports(_package(tmp_path, {file: line})) == []


@pytest.mark.parametrize("indent", ["", "def f():\n    ", "class A:\n    def f(self):\n        "])
def test_a_circle_is_found_at_any_depth(tmp_path: Path, indent: str) -> None:
    pairs = (("zoo", "modeling"), ("modeling", "data"), ("data", "zoo"))
    files = {f"{a}/x.py": f"{indent}import fbnetv3.{b}.x" for a, b in pairs}
    files["data/y.py"] = "import fbnetv3.data.x"
    assert circles(_package(tmp_path, files)) == [
        ["fbnetv3.data.x", "fbnetv3.modeling.x", "fbnetv3.zoo.x"]
    ]


def test_an_import_for_type_checkers_makes_no_circle(tmp_path: Path) -> None:
    files = {
        "data/x.py": "if TYPE_CHECKING:\n    from fbnetv3.data import y",
        "data/y.py": "from fbnetv3.data import x",
    }
    assert circles(_package(tmp_path, files)) == []


def _run(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_import_fbnetv3_loads_no_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import fbnetv3; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    assert _run(code) == "['fbnetv3']"


def test_arch_loads_no_torch() -> None:
    code = (
        "import sys, fbnetv3.arch as a; a.count_cost('fbnetv3_a0'); print('torch' in sys.modules)"
    )
    assert _run(code) == "False"


@pytest.mark.parametrize(
    "tool",
    [
        "train",
        "search",
        "predict",
        "evaluate",
        "zoo",
        "data",
        "benchmark",
        "demo",
        "detectron2.install",
    ],
)
def test_help_loads_no_torch(tool: str) -> None:
    code = (
        f"import sys, fbnetv3.cli.{tool} as tool; sys.argv[1:] = ['--help']\n"
        "try: tool.cli()\nexcept SystemExit: print('torch' in sys.modules)"
    )
    assert _run(code).splitlines()[-1] == "False"


def test_build_model_needs_no_detectron2() -> None:
    code = (
        "import sys; sys.modules['detectron2'] = None; import fbnetv3; "
        "print(type(fbnetv3.build_model('fbnetv3_a0')).__name__)"
    )
    assert _run(code) == "FBNetClassifier"


@pytest.mark.parametrize("module", ["fbnetv3.training", "fbnetv3.detection.detector"])
def test_importing_detectron2_prints_no_warning(module: str) -> None:
    code = "import warnings; warnings.simplefilter('error', FutureWarning); import "
    assert _run(f"{code}{module}, detectron2.modeling") == ""
