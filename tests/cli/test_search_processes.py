"""Searches as processes: the same result on Ray, and a stop that leaves no process behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.search_command import SMALL
from tests.processes import Start, finish
from tests.search.executors import ray_clusters

pytest.importorskip("detectron2")

ROOT = Path(__file__).resolve().parents[2]
LONG = ["SEARCH.WORKERS", "2", "SOLVER.MAX_EPOCHS", "200.0", "SEARCH.EARLY_STOP", "0.0"]
# Two workers on a machine of any size.
RAY = ["SEARCH.EXECUTOR", "ray", "SEARCH.RAY.WORKERS", "2", "SEARCH.RAY.CPUS", "0.5"]


def _processes_with(variable: str) -> list[int]:
    """Returns the ids of the processes with ``NAME=VALUE`` in their environment."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if variable.encode() in path.read_bytes():
                pids.append(int(path.parent.name))
    return pids


def _processes_in(folder: Path) -> list[int]:
    """Returns the ids of the processes whose working directory is a folder."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if path.readlink() == folder:
                pids.append(int(path.parent.name))
    return pids


@pytest.mark.slow
def test_ray_gives_the_same_result(search_run: Path, tmp_path: Path, fork: Start) -> None:
    ray_clusters.imported()
    tool = str(ROOT / "tools" / "jointnas_search.py")
    # A relative folder: workers run in the working directory of the search.
    finish(fork([sys.executable, tool, *SMALL, *RAY, "OUTPUT_DIR", "run"]))
    run = tmp_path / "run"
    assert (run / "best_arch.yaml").read_text() == (search_run / "best_arch.yaml").read_text()
    names = sorted(path.name for path in (search_run / "candidates").iterdir())
    assert sorted(path.name for path in (run / "candidates").iterdir()) == names
    for name in names:
        scores = Path("candidates", name, "scores.json")
        assert (run / scores).read_text() == (search_run / scores).read_text()


@pytest.mark.slow
def test_a_stop_leaves_no_process_on_ray(tmp_path: Path, fork: Start) -> None:
    """Executors never see which signal it was: all signals with one, and one with the other."""
    folder, mark = tmp_path / "run", f"MARK={tmp_path}"
    ray_clusters.imported()
    command = [sys.executable, str(ROOT / "tools" / "jointnas_search.py"), *SMALL, *LONG, *RAY]
    process = fork([*command, "OUTPUT_DIR", str(folder)], MARK=str(tmp_path))
    _wait_until_both_train(folder, process)
    # Processes of Ray and workers have it from their start; that of the search has been forked.
    assert len(_processes_with(mark)) >= 2
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out = "".join(process.communicate(timeout=120))
    assert process.returncode == 130
    assert _processes_with(mark) == []
    _assert_can_be_resumed(folder, out)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_leaves_no_process_and_prints_how_to_resume(
    tmp_path: Path, fork: Start, number: signal.Signals
) -> None:
    folder, tool = tmp_path / "run", str(ROOT / "tools" / "jointnas_search.py")
    process = fork([sys.executable, tool, *SMALL, *LONG, "OUTPUT_DIR", str(folder)])
    _wait_until_both_train(folder, process)
    assert len(_processes_in(tmp_path)) >= 3
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        os.kill(process.pid, number)  # as a scheduler does
    out = "".join(process.communicate(timeout=120))
    assert process.returncode == 130
    assert _processes_in(tmp_path) == []
    _assert_can_be_resumed(folder, out)


def _wait_until_both_train(folder: Path, process: subprocess.Popen[str]) -> None:
    """Waits until both workers of a search have trained an epoch."""
    deadline = time.monotonic() + 300
    while len(list(folder.glob("candidates/*/scores.json"))) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)


def _assert_can_be_resumed(folder: Path, out: str) -> None:
    """Asserts that a stopped search printed how to resume it, and left two checkpoints."""
    assert "Traceback" not in out
    assert f"--config-file {folder / 'config.yaml'} OUTPUT_DIR {folder}" in out
    assert len(list(folder.glob("candidates/*/checkpoint_*.pt"))) == 2
