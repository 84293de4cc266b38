"""The connection to a Ray cluster; ray is imported when it is made."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fbnetv3.search.errors import SearchError

# For a search on this machine alone: candidates send scores, no arrays, and nobody looks at a
# dashboard.
_LOCAL = {"include_dashboard": False, "object_store_memory": 100_000_000}
_KNOCK_S = 10.0


class Cluster:
    """A Ray cluster and what each worker takes of it.

    Args:
        address: of a running one, such as ``10.0.0.1:6379``, or ``auto`` for one on this machine.
            Empty: that of the environment variable RAY_ADDRESS, else one of this machine's own.
        cpus: of a worker.
        gpus: of a worker; None: one where the cluster has any, else none.

    Raises:
        SearchError: ray is not installed, or a number is out of range.
    """

    def __init__(self, address: str, cpus: float, gpus: float | None) -> None:
        for name, value in (("cpus", cpus), ("gpus", gpus or 0.0)):
            # Ray divides one of them, and gives several whole
            if not 0 <= value < float("inf") or (value > 1 and value % 1):
                raise SearchError(
                    f"a worker's {name}={value}: allowed are 0 to 1, and whole numbers above"
                )
        self.ray = _imported()
        self._address = address or os.environ.get("RAY_ADDRESS", "") or "local"
        self._asked = {"CPU": cpus, "GPU": gpus}
        self._each: dict[str, float] = {}
        self._is_ours = False

    def connect(self) -> None:
        """Connects, where this program has not done so before.

        Raises:
            SearchError: there is no such cluster, or this machine can't hold a worker.
        """
        if not self.ray.is_initialized():
            self._init()
            self._is_ours = True
        has = self.ray.cluster_resources()
        some = {name: min(1.0, has.get(name, 0.0) // 1) for name in self._asked}
        self._each = {k: some[k] if v is None else v for k, v in self._asked.items()}
        lack = self.lack()
        if lack and self._is_ours and self._address == "local":
            raise SearchError(f"{lack}; ask for less")

    def _init(self) -> None:
        is_local = self._address == "local"
        if is_local:  # a cluster that we start sends nothing home, unless the user says so
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            _knock(self._address)
            with _own_sigterm():
                self.ray.init(
                    address=self._address,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    **(_LOCAL if is_local else {}),
                )
        except (OSError, RuntimeError, ValueError, self.ray.exceptions.RayError) as error:
            why = one_line(error.__cause__ or error)  # a token that is asked for is told below
            raise SearchError(
                f"the Ray cluster {self._address!r} can't be used: {why}; start one "
                "with 'ray start --head' and give its address (SEARCH.RAY.ADDRESS), or give none "
                "for one of this machine's own"
            ) from error

    def lack(self) -> str:
        """Says that no node could hold a worker; an autoscaler may yet bring one that can."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if any(all(n.get(k, 0.0) >= v for k, v in self._each.items()) for n in nodes):
            return ""
        has = {f"{n.get('CPU', 0.0):g} CPUs and {n.get('GPU', 0.0):g} GPUs" for n in nodes}
        return (
            f"a candidate takes {self._each['CPU']:g} CPUs and {self._each['GPU']:g} GPUs "
            "(SEARCH.RAY.CPUS, SEARCH.RAY.GPUS), and no node has so many; there are nodes with "
            f"{', or '.join(sorted(has)) or 'nothing'}"
        )

    def actor(self, kind: type, *arguments: Any) -> Any:
        """Starts an actor on a node that has room for it, now or later.

        Two calls to it run at a time: a stop is to be heard while a message is waited for.
        """
        each = {"num_cpus": self._each["CPU"], "num_gpus": self._each["GPU"]}
        remote = self.ray.remote(**each, max_restarts=0, max_concurrency=2)
        return remote(kind).remote(*arguments)

    def is_alive(self, node: str) -> bool:
        """Whether a node, by its id, is part of the cluster."""
        return any(n["NodeID"] == node and n["Alive"] for n in self.ray.nodes())

    def close(self) -> None:
        """Leaves the cluster; one of this machine's own ends. What others began goes on."""
        if self._is_ours:
            self._is_ours = False
            self.ray.shutdown()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keeps what this process does at SIGTERM; Ray has it aborted, with nothing saved."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        # None: a handler that Python did not set; other threads than the first may set none
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def one_line(error: BaseException) -> str:
    """Returns the end of an error's text, where Ray says most."""
    return " ".join(str(error).split())[-300:]


def _knock(address: str) -> None:
    """Raises an OSError where nothing listens: ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()


def _imported() -> Any:
    try:
        import ray
    except ImportError as error:
        raise SearchError(
            "SEARCH.EXECUTOR ray needs ray, which is not installed: pip install 'fbnetv3[ray]', or "
            "set SEARCH.EXECUTOR local"
        ) from error
    return ray
