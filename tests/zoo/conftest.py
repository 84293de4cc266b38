"""An empty cache for every test."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _empty_cache(cache: Path) -> None:
    """Points FBNETV3_CACHE to a new folder."""
