"""A small Ray cluster on this machine, shared by the tests of a process."""

from __future__ import annotations

import atexit
import os
from typing import Any

import pytest

# Two CPUs have room for eight workers, however many this machine has.
_CPUS_PER_WORKER = 0.25


def imported() -> Any:
    """Returns the module ray without usage statistics; skips the test if it is not installed."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    return pytest.importorskip("ray", reason="ray is not installed: pip install 'fbnetv3[ray]'")


def ray_workers(count: int | None = None, **changes: Any) -> Any:
    """Makes a RayWorkers on the shared cluster, which ends with this process."""
    from fbnetv3.search import RayWorkers

    ray = imported()
    if not ray.is_initialized():
        ray.init(
            address="local",
            num_cpus=2,
            object_store_memory=100_000_000,
            include_dashboard=False,
            log_to_driver=False,
        )
        atexit.register(ray.shutdown)
    return RayWorkers(count, **{"cpus": _CPUS_PER_WORKER, **changes})
