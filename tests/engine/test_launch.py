"""Starting processes: arguments, ranks, failures."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from fbnetv3.engine.launch import LaunchError, launch

ROOT = Path(__file__).resolve().parents[2]
HEADER = """\
import os, signal, sys, time
from pathlib import Path
import torch, torch.distributed as dist
from fbnetv3.cli import run_main
from fbnetv3.engine.launch import launch
from fbnetv3.errors import FBNetError
"""


def script(folder: Path, body: str, call: str, **environment: str) -> subprocess.CompletedProcess:
    path = folder / "job.py"
    main = f"if __name__ == '__main__':\n    sys.exit(run_main(lambda _: {call} or 0))\n"
    path.write_text(f"{HEADER}\n{body}\n\n{main}")
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, env=variables, timeout=100
    )


def test_one_process_is_called_here() -> None:
    found: list[Any] = []
    launch(found.append, (5,))
    assert found == [5]
    assert not dist.is_initialized()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"num_processes": 0}, "--num-processes 0"),
        ({"num_machines": 0}, "--num-machines 0"),
        ({"num_machines": 2, "machine_rank": 2, "dist_url": "tcp://a:1"}, "--machine-rank 2"),
        ({"machine_rank": -1}, "--machine-rank -1"),
        ({"num_machines": 2}, "--dist-url"),
        ({"num_processes": 2, "dist_url": "node1"}, "--dist-url 'node1'.*tcp://HOST:PORT"),
        ({"num_processes": 99, "use_cuda": True}, "GPUs"),
    ],
)
def test_arguments_that_contradict(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(LaunchError, match=says) as caught:
        launch(print, **arguments)
    assert "\n" not in str(caught.value)


SUM = """
def main(folder):
    value = torch.tensor([2.0 ** dist.get_rank()])
    dist.all_reduce(value)
    Path(folder, f"rank{dist.get_rank()}").write_text(str(value.item()))
"""


def test_ranks_meet(tmp_path: Path) -> None:
    done = script(tmp_path, SUM, f"launch(main, ({str(tmp_path)!r},), num_processes=2)")
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"rank{i}").read_text() for i in (0, 1)] == ["3.0", "3.0"]


@pytest.mark.slow
def test_machines_meet(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    path = tmp_path / "job.py"
    call = f"launch(main, ({str(tmp_path)!r},), num_machines=2, machine_rank=int(sys.argv[1]), "
    path.write_text(f"{HEADER}{SUM}\nif __name__ == '__main__':\n    {call}dist_url={url!r})\n")
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    jobs = [subprocess.Popen([sys.executable, str(path), str(i)], env=variables) for i in (0, 1)]
    assert [job.wait(90) for job in jobs] == [0, 0]
    assert (tmp_path / "rank1").read_text() == "3.0"


def failing(reason: str) -> str:
    return f"""
def main():
    if dist.get_rank() == 1:
        {reason}
    dist.barrier()
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("raise FBNetError('the data are bad')", "error (rank 1): the data are bad"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "error: rank 1 stopped with exit status -9"),
        pytest.param(
            "raise ZeroDivisionError('a bug')", "ZeroDivisionError: a bug", marks=pytest.mark.slow
        ),
    ],
)
def test_a_failing_rank_ends_all(tmp_path: Path, reason: str, says: str) -> None:
    begun = time.monotonic()
    done = script(tmp_path, failing(reason), "launch(main, num_processes=2)")
    assert time.monotonic() - begun < 50  # starting Python counts
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: rank 1 ")


@pytest.mark.slow
def test_a_lost_peer_is_one_line(tmp_path: Path) -> None:
    """Under torchrun and over machines nobody here watches the other rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    body = failing("os.kill(os.getpid(), signal.SIGKILL)")
    path = tmp_path / "job.py"
    path.write_text(f"{HEADER}{body}\nif __name__ == '__main__':\n    launch(main)\n")
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    jobs = []
    for rank in ("0", "1"):
        names = {**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank, "PYTHONPATH": str(ROOT)}
        jobs.append(
            subprocess.Popen(
                [sys.executable, str(path)], env=names, stderr=subprocess.PIPE, text=True
            )
        )
    errors = [job.communicate(timeout=90)[1] for job in jobs]
    assert jobs[1].returncode == -signal.SIGKILL
    assert jobs[0].returncode == 2, errors[0]
    assert "error (rank 0): lost the connection to another rank" in errors[0]
    assert "Traceback" not in errors[0]
