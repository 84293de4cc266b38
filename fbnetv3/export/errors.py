"""Errors of the export."""

from __future__ import annotations

from fbnetv3.errors import FBNetError


class ExportError(FBNetError):
    """A network cannot be exported, or an exported file computes other outputs than PyTorch."""
