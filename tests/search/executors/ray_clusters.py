"""A small Ray cluster of this machine, shared by the tests of a process."""

from __future__ import annotations

import atexit
import os
from typing import Any

import pytest

# eight workers have room on it, whatever this machine has
_EACH = 0.25


def imported() -> Any:
    """Returns ray; skips the test where it is not installed. It sends nothing home."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    return pytest.importorskip("ray", reason="ray is not installed: pip install 'fbnetv3[ray]'")


def ray_workers(count: int | None = None, **changes: Any) -> Any:
    """Makes a RayWorkers on a cluster that stays until this process ends: its start takes long."""
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
    return RayWorkers(count, **{"cpus": _EACH, **changes})
