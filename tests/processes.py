"""Commands that tests run as processes of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

Start = Callable[..., "subprocess.Popen[str]"]
"""(command, **environment) -> the process; the fixture ``start``."""


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
