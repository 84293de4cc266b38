"""Errors of a search."""

from __future__ import annotations

from fbnetv3.errors import FBNetError


class SearchError(FBNetError):
    """A search cannot be set up, run or read; the message says why and what to do."""


class InfeasibleError(SearchError):
    """Too few candidates meet the constraints.

    The message suggests the nearest bound that enough candidates meet, if there is one.
    """


class StorageUnavailableError(SearchError):
    """The disk, folder or URI of a candidate's files cannot be used.

    The candidate itself has not failed.
    """
