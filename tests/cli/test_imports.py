"""``--import`` on the commands whose other tests need none."""

from __future__ import annotations

from pathlib import Path

import pytest

from fbnetv3.cli import benchmark, data, export, run_main, zoo

CODE = """
import numpy as np
from torch import nn
from fbnetv3 import get_arch, register_dataset, register_network
from fbnetv3.arch import register_arch
from fbnetv3.data import ArrayDataset

register_arch(get_arch("fbnetv3_a0").replace(name="test_imported_arch"))

@register_network("test/net")
def net(num_classes, drop_rate=0.0):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, num_classes))

@register_dataset("test/greys")
def greys():
    levels = np.arange(4, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2)
    return ArrayDataset("test/greys", ["dark", "light"], levels.repeat(3, 3), [0, 0, 1, 1])
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The option that imports a network, an architecture and a data set."""
    from fbnetv3.arch import registry

    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
    (tmp_path / "my_parts.py").write_text(CODE)
    return ["--import", str(tmp_path / "my_parts.py")]


def test_zoo(code: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(zoo.main, ["list", "test_imported*"]) == 2
    assert "test_imported*" in capsys.readouterr().err
    assert run_main(zoo.main, ["list", "test_imported*", *code]) == 0
    assert "test_imported_arch" in capsys.readouterr().out


def test_data(code: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(data.main, ["check", "test/greys"]) == 2
    assert "test/greys" in capsys.readouterr().err
    assert run_main(data.main, ["check", "test/greys", *code]) == 0
    assert "test/greys: 4 images, 2 classes: dark 2, light 2" in capsys.readouterr().out


def test_export(code: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The imported data set is opened; it has too few images for a calibration."""
    argv = ["--model", "fbnetv3_nano_a.cifar10", "--format", "onnx-int8", "--output", str(tmp_path)]
    argv += ["--calibration", "test/greys"]
    assert run_main(export.main, argv) == 2
    assert "test/greys" in capsys.readouterr().err
    assert run_main(export.main, [*argv, *code]) == 2
    assert "got 4; allowed: 32 or more" in capsys.readouterr().err


def test_benchmark(code: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--models", "test/net", "--measures", "latency", "--rounds", "1", "--resolution", "32"]
    assert run_main(benchmark.main, argv) == 2
    assert "test/net" in capsys.readouterr().err
    assert run_main(benchmark.main, [*argv, *code]) == 0
    assert "test/net" in capsys.readouterr().out
