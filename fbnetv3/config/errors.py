"""The error of an invalid config."""

from __future__ import annotations

from fbnetv3.errors import FBNetError


class ConfigError(FBNetError):
    """A config has an unknown key, an invalid value, or a file that cannot be read."""
