"""Benchmarks: what is timed, and how. ``fbnetv3-benchmark`` prints the results."""
