"""Children of a worker end with it, also where it is killed right after it started them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

from tests.search.executors.running import has_ended

# A worker forks a child and kills itself before the child can ask the kernel for a signal.
SCRIPT = """
import os, signal, time
from fbnetv3.search.executors.orphans import allow_children

allow_children()
child = os.fork()
if child == 0:
    time.sleep(600)
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_children_of_a_worker_that_is_killed_at_once_end() -> None:
    for _ in range(5):
        worker = subprocess.run([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True)
        assert worker.returncode == -signal.SIGKILL
        assert has_ended(int(worker.stdout))


def test_a_child_whose_parent_ended_before_it_was_watched_ends() -> None:
    reading, writing = os.pipe()
    if not os.fork():  # the worker
        from fbnetv3.search.executors.orphans import allow_children

        os.register_at_fork(after_in_child=lambda: time.sleep(0.5))  # runs before the next hook
        allow_children()
        if not os.fork():
            time.sleep(600)
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(writing)
    # The pipe closes when the last process that holds it ends.
    assert select.select([reading], [], [], 60)[0], "a process of the worker still runs"
    assert os.read(reading, 1) == b""
