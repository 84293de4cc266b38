"""Benchmarks of networks, as functions that return what they measured.

:func:`fbnetv3.benchmark.comparison.compare` times networks, their deployed form and timm's networks
side by side; :func:`fbnetv3.benchmark.latency.measure_latency_table` measures the blocks of a
search space. ``fbnetv3-benchmark`` prints and writes their results.
"""
