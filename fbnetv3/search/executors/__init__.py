"""Executors evaluate trials in this process, in local worker processes or on a Ray cluster.

To add one, see ``base.py``.
"""
