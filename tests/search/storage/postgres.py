"""A PostgreSQL server (Debian's package) on loopback, for one test run."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

START_S = 60.0


def program(name: str) -> str | None:
    """Returns the path of a server program, from PATH or Debian's folder; None if not installed."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(versions[-1]) if versions else None)


def missing() -> str | None:
    """Returns why no server can run on this machine; None if one can."""
    if program("initdb") is None or program("postgres") is None:
        return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    if os.getuid() == 0 and _user() is None:
        return "PostgreSQL refuses to run as root, and there is no user postgres"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "PostgreSQL's driver is not installed (pip install 'fbnetv3[postgres]')"
    return None


def _user() -> str | None:
    """Returns the user that runs the server if this process is root; None if there is none."""
    return "postgres" if any(u.pw_name == "postgres" for u in pwd.getpwall()) else None


class Server:
    """A server and its data.

    Args:
        folder: Empty folder for the data.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._user = _user() if os.getuid() == 0 else None
        if self._user:
            shutil.chown(folder, self._user)
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        data = str(folder / "data")
        initdb = self._popen("initdb", "-D", data, "-U", "tester", "-A", "trust", "--no-sync")
        assert initdb.wait(START_S) == 0

    @property
    def url(self) -> str:
        """URL for Optuna and SQLAlchemy."""
        return f"postgresql://tester@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        import psycopg

        self._process = self._popen(
            "postgres", "-D", str(self._folder / "data"), "-p", str(self._port),
            "-k", str(self._folder), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off",
        )  # fmt: skip
        deadline = time.monotonic() + START_S
        while True:
            try:
                psycopg.connect(self.url).close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, "the server does not answer"
                time.sleep(0.05)

    def stop(self) -> None:
        """Stops the server, closes its connections, and waits until its port refuses others."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # "fast shutdown"
            self._process.wait(START_S)
            self._process = None
            # Some kernels close the listening socket only after the process has been reaped.
            deadline = time.monotonic() + START_S
            while _accepts(self._port):
                assert time.monotonic() < deadline, "the stopped server still takes connections"
                time.sleep(0.05)

    def _popen(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder.parent / f"{self._folder.name}.log").open("ab") as log:
            return subprocess.Popen(
                [str(program(name)), *arguments], cwd=self._folder, user=self._user,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Runs a server; its data is removed in the end."""
    # Not in pytest's folder, which other users cannot enter.
    with tempfile.TemporaryDirectory(prefix="fbnetv3_pg_") as temporary:
        outer = Path(temporary)
        outer.chmod(0o755)
        inner = outer / "server"
        inner.mkdir()
        server = Server(inner)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    # Below the range that the system gives to sockets without a port of their own: none of those
    # takes the port while the server is down.
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")
