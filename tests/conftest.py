"""What every test shares: one thread per process, and where the real data sets lie."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Start

ROOT = Path(__file__).resolve().parents[1]

# Threads of several processes on few cores wait for each other. Set before torch or numpy is
# imported, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Keeps torch at one thread, without importing it where a test needs no torch."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets, named by the environment variable FBNETV3_DATA."""
    named = os.environ.get("FBNETV3_DATA", "")
    if not named:
        pytest.skip("FBNETV3_DATA is not set; it names the folder of the real data sets")
    root = Path(named)
    if not root.is_dir():
        pytest.skip(f"FBNETV3_DATA={named} is not a folder")
    return root.resolve()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a command in a process group of its own, which is killed after the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(command: list[str], **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
