"""Errors of a search."""

from __future__ import annotations

from fbnetv3.errors import FBNetError


class SearchError(FBNetError):
    """A search is described or used in a way that cannot work."""


class InfeasibleError(SearchError):
    """Too few candidates meet the constraints; the message suggests the nearest bound."""


class StorageUnavailableError(SearchError):
    """The disk, folder or URI of a candidate's files cannot be used.

    The candidate itself has not failed.
    """
