"""The error of evaluations."""

from __future__ import annotations

from fbnetv3.errors import FBNetError


class EvaluationError(FBNetError):
    """The network, data and options of an evaluation do not fit together, or one is not allowed."""
