"""Commands that tests run as processes of their own."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from typing import Any

Start = Callable[..., "subprocess.Popen[str]"]
"""(command, **environment) -> the process; the fixture ``start``."""
Command = Callable[..., list[str]]
"""(*flags, **changes) -> the command line of a tiny training; the fixture ``command``."""


def finish(
    process: subprocess.Popen[str], status: int = 0, *, traceback: bool = False
) -> tuple[str, str]:
    """Waits for the end of a process, whose status must be ``status``; returns what it printed.

    A traceback is allowed where said: torchrun has one of its own for a rank that failed.
    """
    stdout, stderr = process.communicate(timeout=900)
    assert process.returncode == status, stderr
    assert traceback or "Traceback" not in stderr, stderr
    return stdout, stderr


def two_machines(
    command: Command, start: Start, *flags: str, **changes: Any
) -> list[subprocess.Popen[str]]:
    """Starts a training of two machines, here two launches on this one; rank 0 comes first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    both = ("--num-machines", "2", "--dist-url", url, *flags)
    return [start(command(*both, "--machine-rank", str(rank), **changes)) for rank in range(2)]
