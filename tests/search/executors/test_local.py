"""What becomes of local workers when the searching process is killed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.processes import Start
from tests.search.executors.running import has_ended, read_pids

SCRIPT = """
import sys, time
from pathlib import Path
from fbnetv3.search import LocalWorkers, Trial
from tests.search.executors.running import evaluate_all, make_trials, start_child

def evaluate(trial):
    start_child(Path(sys.argv[1]))
    time.sleep(600)
    return 1.0

if __name__ == "__main__":
    evaluate_all(LocalWorkers(1), evaluate, make_trials(1))
"""


@pytest.mark.parametrize("is_stopped", [False, True], ids=["running", "stopped"])
def test_workers_and_children_end_with_a_search_that_is_killed(
    tmp_path: Path, start: Start, is_stopped: bool
) -> None:
    (tmp_path / "search.py").write_text(SCRIPT)
    search = start([sys.executable, "search.py", str(tmp_path / "pids")])
    worker, child = read_pids(tmp_path / "pids")
    if is_stopped:
        os.kill(worker, signal.SIGSTOP)
    search.kill()
    search.wait()
    assert has_ended(worker)
    assert has_ended(child)
