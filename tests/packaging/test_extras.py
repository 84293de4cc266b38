"""Extras: each command names the extra of a missing package; a light installation needs none.

Packages are made unimportable in processes of their own, by ``sys.modules[name] = None``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fbnetv3.requires import EXTRA_OF

OPTIONAL = (
    *("optuna", "sqlalchemy", "onnx", "onnxruntime", "matplotlib", "faster_coco_eval"),
    "pytorch_grad_cam",
    *("ray", "psycopg", "s3fs", "timm", "cmaes", "smac"),
)
_SEARCH = ("search", "--config-file", "model_zoo/search/digits.yaml", "OUTPUT_DIR", "out")
_DETECTOR = "model_zoo/detection/retinanet_fbnetv3_a0_digits.yaml"
_AUTOTRAIN = "model_zoo/recipes/autotrain.yaml"
_DIGITS = ("DATASETS.TRAIN", "digits_train", "DATASETS.TEST", "digits_test", "OUTPUT_DIR", "out")
# name of the case -> package, its extra, and a command that needs it
COMMANDS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "search": ("optuna", "search", _SEARCH),
    "storage": ("sqlalchemy", "search", _SEARCH),
    "report": ("matplotlib", "report", ("search", "--report", "no_such_run")),
    "page": ("jinja2", "report", ("search", "--report", "no_such_run")),
    "detector": (
        *("faster_coco_eval", "detection"),
        ("train", "--config-file", _DETECTOR, "OUTPUT_DIR", "out"),
    ),
    "timm": (
        *("timm", "timm"),
        ("train", "--config-file", _AUTOTRAIN, "MODEL.ARCH", "timm/resnet18", *_DIGITS),
    ),
    "explain": (
        *("pytorch_grad_cam", "explain"),
        ("predict", "photo.jpg", "--model", "fbnetv3_a0.cifar10", "--explain"),
    ),
    "evaluate": (
        *("matplotlib", "report"),
        ("evaluate", "--model", "fbnetv3_a0.cifar10", "--data", "digits_test"),
    ),
    "ray": ("ray", "ray", (*_SEARCH, "SEARCH.EXECUTOR", "ray")),
    "postgres": (
        *("psycopg", "postgres"),
        (*_SEARCH, "SEARCH.STORAGE", "postgresql://nowhere/database"),
    ),
    "s3": ("s3fs", "s3", (*_SEARCH, "SEARCH.CANDIDATES", "s3://bucket/run")),
}
# Hides the package of each case in turn and runs its command.
RUN_COMMANDS = """
import contextlib, importlib, io, json, sys
cases = json.loads(sys.argv[1])
messages = {}
for name, (package, _, (module, *arguments)) in cases.items():
    loaded = {k: v for k, v in sys.modules.items() if k.partition(".")[0] == package}
    for key in loaded:
        del sys.modules[key]
    sys.modules[package] = None
    cli = importlib.import_module(f"fbnetv3.cli.{module}")
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream), contextlib.redirect_stdout(io.StringIO()):
        status = cli.run_main(cli.main, arguments)
    messages[name] = (status, stream.getvalue())
    del sys.modules[package]
    sys.modules.update(loaded)
print(json.dumps(messages))
"""
USE_CORE = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))
import logging, os
import fbnetv3
from fbnetv3.search import FloatRange, JointNAS, SearchSpace

model = fbnetv3.build_model("fbnetv3_nano_a")
print("built", type(model).__name__)
os.environ["CXX"] = "no-such-compiler"
print("runs", fbnetv3.deploy(model, compile=True).runtime)

space = SearchSpace([FloatRange("x", 0.0, 1.0, part="recipe")])
search = JointNAS(space, pool_size=50, batch_size=4, iterations=1, finalists=0)
try:
    from fbnetv3.search.fbnet import run_search
except fbnetv3.errors.FBNetError as error:
    print("missing:", error)
print("searched", search.run(lambda trial: -trial.config["x"]).best.score <= 0)

cfg = fbnetv3.get_cfg()
keys = {
    "MODEL.ARCH": "fbnetv3_nano_a", "MODEL.DEVICE": "cpu", "DATALOADER.NUM_WORKERS": 0,
    "DATASETS.TRAIN": "digits_train", "DATASETS.TEST": "digits_test", "OUTPUT_DIR": "out",
    "SOLVER.IMS_PER_BATCH": 200, "SOLVER.MAX_EPOCHS": 0.3, "SOLVER.WARMUP_EPOCHS": 0.0,
}
cfg.merge_from_list([x for pair in keys.items() for x in pair])
print("trained", sorted(fbnetv3.train(cfg)))
"""
# What a light installation has is all that this needs.
USE_LIGHT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))
import importlib
import fbnetv3
from PIL import Image
from fbnetv3.zoo.classifier import from_zoo

print("built", type(fbnetv3.build_model("fbnetv3_nano_a", num_classes=3)).__name__)
print("predicted", len(from_zoo("fbnetv3_nano_a.cifar10").top(Image.new("RGB", (40, 40)), 2)))
for module, name in (
    ("fbnetv3", "get_cfg"), ("fbnetv3", "train"), ("fbnetv3.search", "JointNAS"),
    ("fbnetv3.config", "get_cfg"), ("fbnetv3.search.fbnet", "run_search"),
):
    try:
        getattr(importlib.import_module(module), name)
    except fbnetv3.errors.FBNetError as error:
        print("missing:", module, error)
try:
    fbnetv3.data.build_dataset("digits_test")
except fbnetv3.errors.FBNetError as error:
    print("missing:", error)
"""
# The search of a function needs the extra search alone.
USE_SEARCH = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))
from fbnetv3.search import FloatRange, JointNAS, SearchSpace

space = SearchSpace([FloatRange("x", 0.0, 1.0, part="recipe")])
search = JointNAS(space, storage="sqlite:///search.db", pool_size=50, batch_size=4, iterations=1)
print("searched", search.run(lambda trial: -trial.config["x"]).best.score <= 0)
"""


def _run(code: str, arguments: list[str], folder: Path) -> str:
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout + process.stderr


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Exit status and standard error of each command without its package."""
    output = _run(RUN_COMMANDS, [json.dumps(COMMANDS)], tmp_path_factory.mktemp("commands"))
    lines = [line for line in output.splitlines() if line.startswith("{")]
    return json.loads(lines[-1])


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_names_the_extra(name: str, messages: dict[str, tuple[int, str]]) -> None:
    status, text = messages[name]
    (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
    assert status == 2
    assert f"pip install 'fbnetv3[{COMMANDS[name][1]}]'" in line
    assert "Traceback" not in text


def test_a_light_installation_builds_and_predicts(tmp_path: Path) -> None:
    output = _run(USE_LIGHT, ["detectron2", *EXTRA_OF, *OPTIONAL], tmp_path)
    lines = output.splitlines()
    assert lines[:2] == ["built FBNetClassifier", "predicted 2"]
    missing = [line.removeprefix("missing: ") for line in lines if line.startswith("missing: ")]
    assert len(missing) == 6
    search = "scipy is not installed; install it with: pip install 'fbnetv3[search]'"
    assert f"fbnetv3.search {search}" in missing
    assert "sklearn is not installed; install it with: pip install 'fbnetv3[train]'" in missing
    assert sum("run fbnetv3-install-detectron2" in line for line in missing) == 3


def test_a_search_needs_its_extra_alone(tmp_path: Path) -> None:
    brought = {"markupsafe"}  # by Optuna
    others = {module for module, extra in EXTRA_OF.items() if extra != "search"} - brought
    assert _run(USE_SEARCH, ["detectron2", *others], tmp_path).splitlines()[-1] == "searched True"


def test_a_training_needs_no_other_extra(tmp_path: Path) -> None:
    output = _run(USE_CORE, [*OPTIONAL, "jinja2"], tmp_path)
    assert "built FBNetClassifier" in output
    assert "runs eager" in output
    assert output.count("pip install 'fbnetv3[export]'") == 1
    assert "missing: optuna is not installed" in output
    assert "searched True" in output
    assert "'val/top1'" in output
    assert output.count("pip install 'fbnetv3[report]'") == 1
    assert (tmp_path / "out" / "model.safetensors").is_file()
