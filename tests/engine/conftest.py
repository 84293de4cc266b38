"""The folder of a tiny training."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The folder of the tiny training."""
    return tmp_path / "out"
