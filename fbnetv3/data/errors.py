"""The error that every data problem raises."""

from __future__ import annotations

from collections.abc import Sequence

from fbnetv3.errors import FBNetError


class DataError(FBNetError):
    """A data set is missing, malformed, or doesn't fit the request; the message names the fix."""


def some(names: Sequence[str], limit: int = 5) -> str:
    """Returns the first ``limit`` names joined by commas, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
