"""Errors about weights. Each message is one line that says what to do."""

from __future__ import annotations

from fbnetv3.errors import FBNetError


class ZooError(FBNetError):
    """The base class of errors about weights and the zoo."""


class RecordError(ZooError):
    """The zoo has no such weights, their record is invalid, or the zoo cannot use a given file."""


class WeightsFileError(ZooError):
    """A file has no usable weights, for example a web page, a broken archive, pickled code."""


class DownloadError(ZooError):
    """Weights cannot be downloaded, or their file does not match the record."""


class LoadError(ZooError):
    """Weights do not fit the model, or their classes are not those of the data."""
