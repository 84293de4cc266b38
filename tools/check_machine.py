#!/usr/bin/env python3
"""Checks, before .venv is made, that the installation fits on a machine.

    python tools/check_machine.py FOLDER [GIGABYTES]

The file runs on Python 3.6, so that users of old versions get a message instead of a traceback.
"""

import importlib.util
import shutil
import sys

OLDEST = (3, 10)
GIGABYTES = 8.0  # 5.5 for torch's CUDA build, the rest for pip's temporary files
# A command with another Python
ANOTHER = "PYTHON=python3.11 make demo"


def problem(version: "tuple[int, ...]", has_venv: bool, free: float, needed: float) -> str:
    """Returns a message that says what is missing and what to do, or "" if nothing is missing.

    Args:
        version: Version of Python, such as ``(3, 11)``.
        has_venv: Whether ``python -m venv`` works.
        free: Free gigabytes on the disk of .venv.
        needed: Gigabytes that the installation needs.
    """
    if version < OLDEST:
        text = ".".join(str(number) for number in version)
        return f"Python {text} is too old; use Python 3.10 or newer: {ANOTHER}"
    if not has_venv:
        return f"Python has no venv (Debian: apt install python3-venv); or use another: {ANOTHER}"
    if free < needed:
        return (
            f"{free:.1f} GB are free here, torch needs {needed:.1f}; free space or use another disk"
        )
    return ""


def main(folder: str, needed: float = GIGABYTES) -> int:
    """Checks this machine and returns the exit status, 2 if something is missing."""
    # Debian ships venv without ensurepip, which venv needs
    has_venv = all(importlib.util.find_spec(name) for name in ("venv", "ensurepip"))
    free = shutil.disk_usage(folder).free / 1e9
    message = problem(sys.version_info[:2], has_venv, free, needed)
    if message:
        sys.stderr.write(f"error: {message}\n")
    return 2 if message else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *(float(text) for text in sys.argv[2:3])))
