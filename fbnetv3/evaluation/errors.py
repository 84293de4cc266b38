"""The error of evaluations."""

from __future__ import annotations

from fbnetv3.errors import FBNetError


class EvaluationError(FBNetError):
    """The network, the data or an option do not fit each other."""
