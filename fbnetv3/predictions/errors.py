"""The error of predictions."""

from __future__ import annotations

from fbnetv3.errors import FBNetError


class PredictError(FBNetError):
    """The images, the network or the device cannot be used."""
