"""Commands that tests run as separate processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Start = Callable[..., "subprocess.Popen[str]"]
"""Type of the fixture ``start``: (command, **environment) -> the process."""
Command = Callable[..., list[str]]
"""Type of the fixture ``command``: (*flags, **changes) -> command line of a tiny training."""
ENDS_WITHIN = 30.0
"""Seconds in which the other ranks must have ended; on an idle machine it takes some 10."""
TORCHRUN = (
    str(Path(sys.executable).with_name("torchrun")),
    "--nproc-per-node",
    "2",
    "--standalone",
)


def finish(
    process: subprocess.Popen[str], status: int = 0, *, traceback: bool = False
) -> tuple[str, str]:
    """Waits for a process and checks its exit status; returns its stdout and stderr.

    Args:
        process: The process.
        status: Expected exit status.
        traceback: Whether stderr may hold a traceback; torchrun prints one if a rank fails.
    """
    stdout, stderr = process.communicate(timeout=900)
    assert process.returncode == status, stderr
    assert traceback or "Traceback" not in stderr, stderr
    return stdout, stderr


def two_machines(
    command: Command, start: Start, *flags: str, **changes: Any
) -> list[subprocess.Popen[str]]:
    """Starts a training of two machines, simulated by two launches; that of rank 0 is first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    options = ("--num-machines", "2", "--dist-url", url, *flags)
    return [start(command(*options, "--machine-rank", str(rank), **changes)) for rank in range(2)]


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """Returns the pids of the ranks that a launch or torchrun started, in the order of ranks.

    They are in the process group of a launch, and children of torchrun.
    """
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != process.pid:
            try:
                command = (entry / "cmdline").read_text()
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parent, group = int(fields[1]), int(fields[2])
            if process.pid in (parent, group) and "resource_tracker" not in command:
                pids.append(int(entry.name))
    return sorted(pids)


def wait_for_checkpoint(folder: Path, process: subprocess.Popen[str]) -> None:
    """Waits for the first checkpoint of a training, which must still be running then."""
    deadline = time.monotonic() + 300
    while not list(folder.glob("checkpoint_*")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert process.poll() is None, "it ended before the checkpoint was seen: make the run longer"


def kill_rank(process: subprocess.Popen[str], rank: int) -> None:
    """Kills one of two ranks."""
    ranks = ranks_of(process)
    assert len(ranks) == 2
    os.kill(ranks[rank], signal.SIGKILL)


def assert_torchrun_names(stderr: str, rank: int) -> None:
    """Asserts that torchrun's report names a rank and SIGKILL.

    It need not be the root cause: on a busy machine torchrun may see another rank exit first.
    """
    assert re.search(rf"\(local_rank: {rank}\)\n *exitcode *: -9 .*\(SIGKILL\)", stderr), stderr
