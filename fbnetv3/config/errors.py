"""What every problem with a config raises."""

from __future__ import annotations

from fbnetv3.errors import FBNetError


class ConfigError(FBNetError):
    """A config names an unknown key, a value of the wrong type, or a file that can't be read."""
