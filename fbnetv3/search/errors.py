"""Errors of a search."""

from __future__ import annotations

from fbnetv3.errors import FBNetError


class SearchError(FBNetError):
    """A search is described or used in a way that cannot work."""


class InfeasibleError(SearchError):
    """Too few candidates meet the constraints; the message suggests the nearest bound."""


class PlaceError(SearchError):
    """A candidate's disk, folder or URI cannot be used: the candidate itself has not failed."""
