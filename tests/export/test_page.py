"""The script in docs/export.md classifies images with onnxruntime, numpy and Pillow alone."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fbnetv3.data import build_dataset
from fbnetv3.export.run import ExportOptions, check_formats, export_classifier
from fbnetv3.zoo.classifier import from_zoo

PAGE = Path(__file__).parents[2] / "docs/export.md"


def script() -> str:
    """Returns the one Python block of the page that imports onnxruntime."""
    (block,) = (
        text
        for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        if "import onnxruntime" in text
    )
    return block


def test_the_script_imports_three_packages_and_the_standard_library() -> None:
    modules = set()
    for node in ast.walk(ast.parse(script())):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module.partition(".")[0])
    assert modules - set(sys.stdlib_module_names) == {"numpy", "onnxruntime", "PIL"}


def test_the_script_classifies_like_the_network(tmp_path: Path, data_root: Path) -> None:
    classifier, data = from_zoo("fbnetv3_a0.cifar10"), build_dataset("cifar10_test")
    formats, options = check_formats(["onnx"], ExportOptions()), ExportOptions()
    (exported,) = export_classifier(classifier, formats, tmp_path, "a0", options)
    images = [data.image(i) for i in range(6)]
    images.append(images[0].resize((57, 41)))  # the resize rule is followed, too
    for i, image in enumerate(images):
        image.save(tmp_path / f"{i}.png")
    (tmp_path / "classify.py").write_text(script(), encoding="utf-8")
    files = [str(tmp_path / f"{i}.png") for i in range(len(images))]
    command = [sys.executable, str(tmp_path / "classify.py"), str(exported.path), *files]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    lines = [line.split() for line in result.stdout.splitlines()]
    for line, image in zip(lines, images, strict=True):
        ((name, probability),) = classifier.top(image, 1)
        assert line[1] == name
        assert float(line[2].rstrip("%")) == pytest.approx(100 * probability, abs=0.1)
