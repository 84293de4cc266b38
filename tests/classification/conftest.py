"""Every test here leaves loggers and signal handlers as they were."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def restored_logging(own_logging: None) -> None:
    """Puts back the loggers and signals that a training takes over."""
