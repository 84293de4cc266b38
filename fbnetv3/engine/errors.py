"""Errors of a training that launchers handle; this module needs neither torch nor detectron2."""

from __future__ import annotations

from fbnetv3.errors import FBNetError

STOPPED = "stopped by "
"""How the message of a StoppedError begins."""


class StoppedError(FBNetError):
    """A signal stopped the training; a checkpoint was written."""
