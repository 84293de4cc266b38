"""What ``fbnetv3-benchmark`` complains of; here, since its other parts import torch."""

from __future__ import annotations

from fbnetv3.errors import FBNetError


class BenchmarkError(FBNetError):
    """A benchmark was asked for that cannot be run."""
