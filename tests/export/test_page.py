"""The script in docs/export.md classifies images with onnxruntime, numpy and Pillow alone."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fbnetv3.cli.export import main
from fbnetv3.data import build_dataset, read_image
from fbnetv3.export.run import ExportOptions, check_formats, export_classifier
from fbnetv3.zoo.classifier import from_zoo
from fbnetv3.zoo.detectors import get_detector

PAGE = Path(__file__).parents[2] / "docs/export.md"


def script(start: str = "import onnxruntime\n") -> str:
    """Returns the one Python block of the page with a line."""
    (block,) = (
        text
        for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        if start in text
    )
    return block


@pytest.mark.parametrize("start", ["import onnxruntime\n", "import onnxruntime as ort\n"])
def test_a_script_imports_three_packages_and_the_standard_library(start: str) -> None:
    modules = set()
    for node in ast.walk(ast.parse(script(start))):
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
    turned = Image.Exif()
    turned[0x0112] = 6  # the orientation of a camera held upright
    images.append(images[0].transpose(Image.Transpose.ROTATE_270))
    images[0].save(tmp_path / f"{len(images) - 1}.png", exif=turned)
    (tmp_path / "classify.py").write_text(script(), encoding="utf-8")
    files = [str(tmp_path / f"{i}.png") for i in range(len(images))]
    command = [sys.executable, str(tmp_path / "classify.py"), str(exported.path), *files]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    lines = [line.split() for line in result.stdout.splitlines()]
    for line, image in zip(lines, images, strict=True):
        ((name, probability),) = classifier.top(image, 1)
        assert line[1] == name
        assert float(line[2].rstrip("%")) == pytest.approx(100 * probability, abs=0.1)


@pytest.mark.slow
def test_the_script_detects_like_the_detector(tmp_path: Path, data_root: Path) -> None:
    detector = get_detector("retinanet_fbnetv3_a0.bccd")
    arguments = ["--model", "retinanet_fbnetv3_a0.bccd", "--format", "onnx", "--name", "cells"]
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    files = []
    for i, file in enumerate(sorted((data_root / "bccd/images").iterdir())[:3]):
        image = read_image(file)
        image = image.crop((0, 0, 300 + 100 * i, 400)) if i else image
        files.append(tmp_path / f"{i}.png")
        image.save(files[-1])
    (tmp_path / "detect.py").write_text(script("import onnxruntime as ort\n"), encoding="utf-8")
    command = [sys.executable, str(tmp_path / "detect.py"), str(tmp_path / "cells.onnx")]
    result = subprocess.run(
        [*command, *map(str, files)], capture_output=True, text=True, check=True, timeout=120
    )
    lines = [line.split() for line in result.stdout.splitlines()]
    expected = [(str(file), found) for file in files for found in detector.detect(file)]
    assert len(expected) > 10
    for line, (file, found) in zip(lines, expected, strict=True):
        assert line[:2] == [file, found.name]
        assert float(line[2].rstrip("%")) == pytest.approx(100 * found.score, abs=0.1)
        assert [float(side) for side in line[3:]] == pytest.approx(found.box, abs=0.1)
    assert all(file.with_suffix(".boxes.png").exists() for file in files)
