"""An empty cache for every test, and no waiting between attempts to download."""

from __future__ import annotations

from pathlib import Path

import pytest

from fbnetv3.weights import transfer


@pytest.fixture(autouse=True)
def _empty_cache(cache: Path) -> None:
    """Points FBNETV3_CACHE to a new folder."""


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "WAIT", 0.0)
