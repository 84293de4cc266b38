"""The connection to a Ray cluster; ray is imported when a :class:`Cluster` is constructed."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fbnetv3.requires import MissingPackageError, require
from fbnetv3.search.checks import as_real
from fbnetv3.search.errors import SearchError

# Options of a private cluster on this machine. The object store can be small, because evaluations
# return scores rather than arrays.
_PRIVATE_CLUSTER_OPTIONS = {"include_dashboard": False, "object_store_memory": 100_000_000}
_CONNECT_TIMEOUT_S = 10.0


class Cluster:
    """A Ray cluster, and the resources that each worker reserves on it.

    Args:
        address: Address of a running cluster, such as ``10.0.0.1:6379``, or ``auto`` for a cluster
            on this machine. If empty, the environment variable RAY_ADDRESS is used; if that
            is unset, a private cluster is started on this machine.
        cpus: CPUs of a worker: 0 to 1, or a whole number above 1.
        gpus: GPUs of a worker: 0 to 1, or a whole number above 1. If None, one GPU if the
            cluster has any, otherwise 0.

    Attributes:
        ray: The imported module ``ray``.

    Raises:
        SearchError: Ray is not installed, or ``cpus`` or ``gpus`` is no number that is allowed.
    """

    def __init__(self, address: str, cpus: float, gpus: float | None) -> None:
        for name, value in (("cpus", cpus), ("gpus", 0.0 if gpus is None else gpus)):
            value = as_real(f"{name} per worker", value, finite=False)
            # Ray gives out fractions of one CPU or GPU, but more than one only in whole numbers.
            if not 0 <= value < float("inf") or (value > 1 and value % 1):
                raise SearchError(
                    f"{name}={value} per worker is out of range; allowed: 0 to 1, or a whole number"
                )
        self.ray = _import_ray()
        self._address = address or os.environ.get("RAY_ADDRESS", "") or "local"
        self._requested = {"CPU": cpus, "GPU": gpus}
        self._per_worker: dict[str, float] = {}
        self._owns_connection = False

    def connect(self) -> None:
        """Connects, unless this program is connected already.

        Raises:
            SearchError: The cluster cannot be reached, or a private cluster on this machine cannot
                hold a worker.
        """
        if not self.ray.is_initialized():
            self._init()
            self._owns_connection = True
        total = self.ray.cluster_resources()
        # If `gpus` is None, a worker gets one whole GPU if the cluster has one.
        default = {name: min(1.0, total.get(name, 0.0) // 1) for name in self._requested}
        self._per_worker = {k: default[k] if v is None else v for k, v in self._requested.items()}
        problem = self.resource_problem()
        if problem and self._owns_connection and self._address == "local":
            raise SearchError(f"{problem}; lower SEARCH.RAY.CPUS or SEARCH.RAY.GPUS")

    def _init(self) -> None:
        is_local = self._address == "local"
        if is_local:  # A private cluster sends usage statistics only if the user asks for it.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            _check_port(self._address)
            with _keep_sigterm_handler():
                self.ray.init(
                    address=self._address,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    **(_PRIVATE_CLUSTER_OPTIONS if is_local else {}),
                )
        except (OSError, RuntimeError, ValueError, self.ray.exceptions.RayError) as error:
            # If an authentication token is missing, only the cause says so.
            reason = last_characters(error.__cause__ or error)
            raise SearchError(
                f"cannot connect to the Ray cluster {self._address!r}: {reason}; start a cluster "
                "with 'ray start --head' and set SEARCH.RAY.ADDRESS to its address; "
                "for a private cluster on this machine, leave it empty and unset RAY_ADDRESS"
            ) from error

    def resource_problem(self) -> str:
        """Returns an error message if no node is large enough for a worker, or an empty string.

        On a cluster with an autoscaler, a node that is large enough may still join.
        """
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if any(all(n.get(k, 0.0) >= v for k, v in self._per_worker.items()) for n in nodes):
            return ""
        sizes = {f"{n.get('CPU', 0.0):g} CPUs and {n.get('GPU', 0.0):g} GPUs" for n in nodes}
        return (
            f"a worker needs {self._per_worker['CPU']:g} CPUs and {self._per_worker['GPU']:g} GPUs "
            "(SEARCH.RAY.CPUS, SEARCH.RAY.GPUS), but no node has that many; nodes of the cluster: "
            f"{', '.join(sorted(sizes)) or 'none'}"
        )

    def start_actor(self, actor_class: type, *arguments: Any) -> Any:
        """Requests an actor and returns its handle; Ray starts it when a node has room.

        The actor handles two calls at a time, so that it can be stopped while another call waits
        for a message from the worker.
        """
        resources = {"num_cpus": self._per_worker["CPU"], "num_gpus": self._per_worker["GPU"]}
        remote = self.ray.remote(**resources, max_restarts=0, max_concurrency=2)
        return remote(actor_class).remote(*arguments)

    def is_alive(self, node: str) -> bool:
        """Returns whether the node with this id is part of the cluster."""
        return any(n["NodeID"] == node and n["Alive"] for n in self.ray.nodes())

    def close(self) -> None:
        """Disconnects from the cluster; a private cluster is shut down.

        If the program was connected before :meth:`connect`, it stays connected.
        """
        if self._owns_connection:
            self._owns_connection = False
            self.ray.shutdown()


@contextmanager
def _keep_sigterm_handler() -> Iterator[None]:
    """Restores the handler of SIGTERM that the block replaces.

    The block calls ``ray.init``, whose handler would end the process before checkpoints are saved.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        # getsignal returns None for a handler that was not set from Python. Only the main thread
        # may set a handler.
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def last_characters(error: BaseException) -> str:
    """Returns the last 300 characters of an error on one line; Ray puts the cause last."""
    return " ".join(str(error).split())[-300:]


def _check_port(address: str) -> None:
    """Raises OSError if nothing listens at an address ``HOST:PORT``.

    Ray itself would retry for minutes. Other addresses, such as ``auto``, are not checked.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S).close()


def _import_ray() -> Any:
    try:
        return require("ray", "ray")
    except MissingPackageError as error:
        raise SearchError(
            "SEARCH.EXECUTOR ray needs the package ray: pip install 'fbnetv3[ray]', or set "
            "SEARCH.EXECUTOR local"
        ) from error
