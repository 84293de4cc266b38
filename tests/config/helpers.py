"""Helpers of the config's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fbnetv3.config import ConfigError


def write(folder: Path, text: str, name: str = "x.yaml") -> str:
    """Writes a file and returns its path."""
    path = folder / name
    path.write_text(text)
    return str(path)


def error_of(call: Any, *args: Any) -> str:
    """Returns the message of the ConfigError that a call raises, which must be one line."""
    with pytest.raises(ConfigError) as caught:
        call(*args)
    text = str(caught.value)
    assert "\n" not in text
    return text
