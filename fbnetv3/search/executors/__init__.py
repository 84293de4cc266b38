"""Executors evaluate trials: in this process, in worker processes, on a Ray cluster."""
