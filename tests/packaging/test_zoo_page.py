"""The Python code of docs/zoo.md that shows the surface of timm runs as printed."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")


def test_the_surface_of_timm(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = (c for c in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "encoder" in c)
    exec(compile(code, "zoo.md", "exec"), {})
    shapes, levels, maps, rule = capsys.readouterr().out.splitlines()
    assert shapes == "torch.Size([1, 1984]) torch.Size([1, 10])"
    assert levels == "[24, 40, 224] [4, 8, 32]"
    assert maps == "[(1, 24, 24, 16), (1, 40, 12, 8), (1, 224, 3, 2)]"
    assert rule.startswith("Preprocessing(resolution=32, resize=32, interpolation='bilinear'")
