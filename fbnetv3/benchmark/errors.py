"""Errors of the benchmarks, in a file that imports no torch."""

from __future__ import annotations

from fbnetv3.errors import FBNetError


class BenchmarkError(FBNetError):
    """A benchmark cannot run as requested."""
