"""What a search complains of."""

from __future__ import annotations

from fbnetv3.errors import FBNetError


class SearchError(FBNetError):
    """A search is described or used in a way that cannot work."""


class InfeasibleError(SearchError):
    """No, or nearly no, candidate meets the constraints; the message has the nearest bound."""


class PlaceError(SearchError):
    """The disk, folder or URI of a candidate can't be used: a fault of no candidate."""
