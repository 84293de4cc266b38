"""What every test shares: one thread per process, and where the real data sets lie."""

from __future__ import annotations

import multiprocessing.context
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Start

pytest_plugins = [
    "tests.fixtures.drawn",
    "tests.fixtures.hub",
    "tests.fixtures.registrations",
    "tests.fixtures.searches",
    "tests.fixtures.training",
    "tests.fixtures.zoo",
]
ROOT = Path(__file__).resolve().parents[1]

# Threads of several processes on few cores wait for each other. Set before torch or numpy is
# imported, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds what `make soak` sets."""
    parser.addoption(
        "--kills", type=int, default=8, help="SIGKILLs that a search is to outlive (8)"
    )
    parser.addoption(
        "--training-kills",
        type=int,
        default=3,
        help="SIGKILLs that a training is to outlive (3)",
    )
    parser.addoption(
        "--mutations", type=int, default=60, help="odd versions of each untrusted document (60)"
    )


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
def training_kills(request: pytest.FixtureRequest) -> int:
    """The number of SIGKILLs that a training is to outlive."""
    count = request.config.getoption("--training-kills")
    assert isinstance(count, int)
    return count


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a command in a process group of its own, which is killed after the test."""

    def begin(command: list[str], **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**_ENVIRONMENT, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    yield from _started(begin)


@pytest.fixture
def fork(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts a command as ``start`` does, without its imports; see ``tests/forked.py``."""
    from tests.forked import ForkedCommand

    def begin(command: list[str], **environment: str) -> ForkedCommand:
        output = tmp_path_factory.mktemp("output")
        return ForkedCommand(command, tmp_path, {**_ENVIRONMENT, **environment}, output)

    yield from _started(begin)


@pytest.fixture
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Local workers of the test are forked, as commands are by ``fork``."""
    from tests.forked import forked_context

    contexts = multiprocessing.context._concrete_contexts  # type: ignore[attr-defined]
    monkeypatch.setitem(contexts, "spawn", forked_context())


@pytest.fixture(scope="session")
def shared_executors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Executors by kind and number of workers; see ``tests/search/executors/shared.py``."""
    from tests.search.executors.shared import SharedExecutors

    executors = SharedExecutors(tmp_path_factory.mktemp("evaluations"))
    yield executors
    executors.close()


def _started(begin: Callable[..., Any]) -> Iterator[Start]:
    """Returns a function that starts processes, which are killed in the end with their groups."""
    started = []

    def begin_and_note(command: list[str], **environment: str) -> Any:
        started.append(begin(command, **environment))
        return started[-1]

    yield begin_and_note
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB, which fills."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False,
        capture_output=True,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture
def moved_clock(tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose wall clock is as the file ``clock`` says."""
    if not shutil.which("faketime"):
        pytest.skip("needs libfaketime (Debian's package faketime)")
    tell = "import os; print(os.environ['LD_PRELOAD'])"
    preload = subprocess.run(
        ["faketime", "-f", "+0", sys.executable, "-c", tell],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    (tmp_path / "clock").write_text("+0")
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "LD_PRELOAD": preload,
        "FAKETIME_TIMESTAMP_FILE": str(tmp_path / "clock"),
        "FAKETIME_NO_CACHE": "1",
        # as where an administrator or NTP moves a clock: the monotonic one goes on
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
