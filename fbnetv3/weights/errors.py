"""What can go wrong with weights, each as one line that says what to do."""

from __future__ import annotations

from fbnetv3.errors import FBNetError


class ZooError(FBNetError):
    """The root of the zoo's errors."""


class RecordError(ZooError):
    """No such weight, or a weight record that is not well formed."""


class WeightsFileError(ZooError):
    """A file that is not weights: a web page, a truncated archive, a pickle that holds code."""


class DownloadError(ZooError):
    """A weight could not be fetched, or what came is not what the record says."""


class LoadError(ZooError):
    """Weights that do not fit the model."""
