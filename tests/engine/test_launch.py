"""Starting the processes of a training: options, communication, failures."""

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
from tests.processes import ENDS_WITHIN, Start, finish

HEADER = """\
import os, signal, sys, time
from pathlib import Path
import torch, torch.distributed as dist
from fbnetv3.cli import run_main
from fbnetv3.engine.launch import launch
from fbnetv3.errors import FBNetError
"""


def write_script(folder: Path, body: str, call: str) -> list[str]:
    """Writes a script with a function ``main``, and returns the command that runs a call."""
    path = folder / "job.py"
    main = f"if __name__ == '__main__':\n    sys.exit(run_main(lambda _: {call} or 0))\n"
    path.write_text(f"{HEADER}\n{body}\n\n{main}")
    return [sys.executable, str(path)]


def test_one_process_runs_in_this_process() -> None:
    calls: list[Any] = []
    launch(calls.append, (5,))
    assert calls == [5]
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
def test_invalid_options(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(LaunchError, match=says) as caught:
        launch(print, **arguments)
    assert "\n" not in str(caught.value)


SUM = """
def main(folder):
    value = torch.tensor([2.0 ** dist.get_rank()])
    dist.all_reduce(value)
    Path(folder, f"rank{dist.get_rank()}").write_text(str(value.item()))
"""


def test_ranks_communicate(tmp_path: Path, fork: Start) -> None:
    call = f"launch(main, ({str(tmp_path)!r},), num_processes=2)"
    finish(fork(write_script(tmp_path, SUM, call)))
    assert [(tmp_path / f"rank{i}").read_text() for i in (0, 1)] == ["3.0", "3.0"]


def start_machines(
    folder: Path, start: Start, body: str, arguments: str = "()"
) -> list[subprocess.Popen[str]]:
    """Starts ``main`` on two machines, simulated by two launches."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    call = f"launch(main, {arguments}, num_machines=2, machine_rank=int(sys.argv[1]), "
    call += f"dist_url={url!r})"
    command = write_script(folder, body, call)
    return [start([*command, str(rank)]) for rank in (0, 1)]


@pytest.mark.slow
def test_machines_communicate(tmp_path: Path, fork: Start) -> None:
    for job in start_machines(tmp_path, fork, SUM, f"({str(tmp_path)!r},)"):
        finish(job)
    assert (tmp_path / "rank1").read_text() == "3.0"


WAITING = """
def main(folder):
    Path(folder, f"pid{dist.get_rank()}").write_text(str(os.getpid()))
    dist.barrier()
    Path(folder, f"met{dist.get_rank()}").touch()
    if dist.get_rank() == FAILING:
        raise ERROR
    dist.barrier()
    time.sleep(600)
"""


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 200
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path.name}"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("FBNetError('the data are bad')", "rank {} failed: the data are bad; "),
        ("ZeroDivisionError('a bug')", "rank {} failed: ZeroDivisionError: a bug; "),
    ],
)
def test_both_machines_print_why_a_rank_failed(
    tmp_path: Path, fork: Start, rank: int, error: str, reason: str
) -> None:
    body = WAITING.replace("FAILING", str(rank)).replace("ERROR", error)
    jobs = start_machines(tmp_path, fork, body, f"({str(tmp_path)!r},)")
    for number, job in enumerate(jobs):
        allowed = "a bug" in error and number == rank
        stderr = finish(job, 2, traceback=allowed)[1]
        assert stderr.count("Traceback") == allowed
        last = stderr.strip().splitlines()[-1]
        assert last.startswith(f"error: {reason.format(rank)}")
        assert "--resume" in last


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    ("what", "name", "reason"),
    [
        ("rank", "SIGKILL", "rank {} stopped with exit status -9 (SIGKILL); "),
        ("launcher", "SIGTERM", "machine {0} (rank {0}) was interrupted; "),
        ("all", "SIGKILL", "machine {0} (rank {0}) does not answer any more; "),
        # like a host without power or network, whose connections stay open
        ("all", "SIGSTOP", "machine {0} (rank {0}) does not answer any more; "),
    ],
)
def test_the_other_machine_names_what_died(
    tmp_path: Path,
    start: Start,
    fork: Start,
    number: int,
    what: str,
    name: str,
    reason: str,
) -> None:
    begin = start if what == "all" else fork
    body = WAITING.replace("FAILING", "-1")
    jobs = start_machines(tmp_path, begin, body, f"({str(tmp_path)!r},)")
    for rank in (0, 1):
        wait_for(tmp_path / f"met{rank}")
    rank = int((tmp_path / f"pid{number}").read_text())
    signal_number = signal.Signals[name]
    begun = time.monotonic()
    if what == "all":
        os.killpg(jobs[number].pid, signal_number)
    else:
        os.kill(rank if what == "rank" else jobs[number].pid, signal_number)
    _, stderr = finish(jobs[1 - number], 2)
    took = time.monotonic() - begun
    print(f"{took:.1f} s")
    assert took < ENDS_WITHIN
    assert stderr.strip().splitlines()[-1].startswith(f"error: {reason.format(number)}"), stderr
    if what == "rank":
        _, stderr = finish(jobs[number], 2)
        assert stderr.strip().splitlines()[-1].startswith(f"error: {reason.format(number)}")
    elif what == "launcher":
        finish(jobs[number], 130)


def test_a_port_in_use_raises_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(LaunchError, match=f"--dist-url {url}: .*address already in use"):
            launch(print, num_machines=2, dist_url=url)


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
def test_a_failing_rank_ends_the_others(
    tmp_path: Path, fork: Start, reason: str, says: str
) -> None:
    command = write_script(tmp_path, failing(reason), "launch(main, num_processes=2)")
    process = fork(command)
    begun = time.monotonic()
    _, stderr = finish(process, 2, traceback=True)
    assert time.monotonic() - begun < 50
    assert says in stderr
    assert stderr.strip().splitlines()[-1].startswith("error: rank 1 ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "status", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("raise FBNetError('the data are bad')", 2, "rank 1 failed: the data are bad; "),
    ],
)
def test_a_lost_rank_is_reported_in_one_line(
    tmp_path: Path, fork: Start, ending: str, status: int, reason: str
) -> None:
    """Under torchrun no launcher of this package monitors the ranks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    body = failing(ending)
    path = tmp_path / "job.py"
    path.write_text(f"{HEADER}{body}\nif __name__ == '__main__':\n    launch(main)\n")
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    jobs = [
        fork([sys.executable, str(path)], **common, RANK=rank, LOCAL_RANK=rank) for rank in "01"
    ]
    errors = [job.communicate(timeout=90)[1] for job in jobs]
    assert jobs[1].returncode == status
    assert jobs[0].returncode == 2, errors[0]
    assert f"error (rank 0): lost the connection to another rank: {reason}" in errors[0]
    assert "--resume" in errors[0]
    assert "Traceback" not in errors[0]
