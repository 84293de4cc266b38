"""Every test here has an empty cache of its own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(cache: Path) -> None:
    """Points FBNETV3_CACHE to a folder of the test's own."""
