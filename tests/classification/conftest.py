"""Restores loggers and signal handlers after every test."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def restored_logging(own_logging: None) -> None:
    """Restores the loggers and signal handlers that a training replaces."""
