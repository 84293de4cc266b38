"""Restores loggers and signal handlers after every test."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def restored_logging(own_logging: None) -> None:
    """Restores the loggers and signal handlers that a training replaces."""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The folder of the tiny training."""
    return tmp_path / "out"
