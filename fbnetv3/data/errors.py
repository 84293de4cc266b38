"""The error of data sets, images and loaders."""

from __future__ import annotations

from collections.abc import Sequence

from fbnetv3.errors import FBNetError


class DataError(FBNetError):
    """A data set is missing or malformed, or does not fit the request."""


def some(names: Sequence[str], limit: int = 5) -> str:
    """Returns the first ``limit`` names, joined by commas, and the number of the others."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
