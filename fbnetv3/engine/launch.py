"""Starting the processes of a training: here, on several machines, or under torchrun."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.rendezvous import rendezvous

from fbnetv3.engine.machines import SILENCE, Machines, in_time, tell_reason, told_reason
from fbnetv3.errors import FBNetError, first_line

_TIMEOUT = timedelta(minutes=30)
_POLL = 0.2  # seconds
_PATIENCE = 5.0  # seconds for ranks to end
# Seconds that a rank waits which lost another one: torchrun looks every 0.1 s, and takes the rank
# that it sees ended first for the cause.
_LATER = 1.0
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class LaunchError(FBNetError):
    """Processes can't be started as asked, or one of them failed."""


def launch(
    main: Callable[..., None],
    args: tuple[Any, ...] = (),
    *,
    num_processes: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    use_cuda: bool = False,
) -> None:
    """Calls ``main(*args)`` in every process of a training and waits for them.

    Under torchrun (its environment variables are set) this process is one of them already.
    detectron2's own ``launch`` demands CUDA; this one takes gloo where there is none.

    Args:
        main: importable by name, since it is started anew in each process.
        args: its arguments.
        num_processes: on this machine.
        num_machines: that take part.
        machine_rank: of this machine, 0 to num_machines - 1.
        dist_url: where machine 0 listens, as ``tcp://HOST:PORT``; ``auto`` on one machine.
        use_cuda: one GPU per process and nccl.

    Raises:
        LaunchError: the arguments contradict each other, or a process failed.
    """
    if all(name in os.environ for name in _TORCHRUN):
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        store, _, _ = next(rendezvous("env://", timeout=_TIMEOUT))
        return _call(store, rank, world_size, use_cuda, main, args, watched=False)
    _check(num_processes, num_machines, machine_rank, dist_url, use_cuda)
    world_size = num_processes * num_machines
    if world_size == 1:
        return main(*args)
    host, port = _address(dist_url)
    store = _meet(host, port, keeps=machine_rank == 0)
    first = machine_rank * num_processes
    machines = Machines(store, machine_rank, num_machines, num_processes)
    with _sigterm_as_interrupt():
        try:
            place = (first, world_size, host, store.port, use_cuda)
            ranks = mp.spawn(_worker, (*place, main, args), nprocs=num_processes, join=False)
            _watch(ranks, machines, first)
        finally:
            machines.leave()


def _watch(ranks: mp.ProcessContext, machines: Machines, first: int) -> None:
    """Waits for the ranks of this machine, and ends them where the training has ended elsewhere."""
    try:
        while not machines.end and not ranks.join(timeout=_POLL):
            pass
        # their end is in time where they end well: all ranks have met at the last barrier
        while not machines.end and not machines.last:
            time.sleep(_POLL)
        reason = machines.end
    except mp.ProcessExitedException as error:
        status = f"{error.exit_code}{f' ({error.signal_name})' if error.signal_name else ''}"
        told = f"rank {first + error.error_index} stopped with exit status {status}"
        reason = machines.tell(told)
    except mp.ProcessRaisedException as error:
        print(error, file=sys.stderr)
        reason = machines.tell(f"rank {first + error.error_index} failed, as told above")
    except KeyboardInterrupt:
        machines.tell_interrupted()
        raise
    finally:
        _end(ranks)
    if reason:
        raise LaunchError(
            f"{reason}; the others were ended; go on from the last checkpoint with --resume"
        )


def _end(ranks: mp.ProcessContext) -> None:
    for process in ranks.processes:
        process.terminate()
    for process in ranks.processes:
        process.join(_PATIENCE)
        process.kill()


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM, which batch systems send, ends the ranks and is told to the other machines."""
    if threading.current_thread() is not threading.main_thread():
        yield  # where no signal arrives
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check(processes: int, machines: int, rank: int, url: str, use_cuda: bool) -> None:
    if processes < 1 or machines < 1 or not 0 <= rank < machines:
        raise LaunchError(
            f"--num-processes {processes} --num-machines {machines} --machine-rank {rank}: the "
            "first two must be at least 1, the rank from 0 to the machines less one"
        )
    if machines > 1 and url == "auto":
        raise LaunchError("--dist-url auto works on one machine; give tcp://HOST:PORT of machine 0")
    if url != "auto" and not re.fullmatch(r"tcp://[^/]+:\d+", url):
        raise LaunchError(f"--dist-url {url!r}: allowed are auto and tcp://HOST:PORT of machine 0")
    if use_cuda and processes > torch.cuda.device_count():
        raise LaunchError(
            f"--num-processes {processes}: this machine has {torch.cuda.device_count()} GPUs"
        )


def _address(url: str) -> tuple[str, int]:
    """Returns host and port; port 0, on this machine, is any that is free."""
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    return ("127.0.0.1", 0) if url == "auto" else (host.strip("[]"), int(port))


def _meet(host: str, port: int, *, keeps: bool) -> dist.TCPStore:
    """Returns the store of machine 0, which keeps it; the others wait until it is there."""

    def store() -> dist.TCPStore:
        return dist.TCPStore(host, port, is_master=keeps, timeout=_TIMEOUT, wait_for_workers=False)

    try:
        # Ctrl-C must end the wait
        return in_time(store, 2 * _TIMEOUT.total_seconds())
    except RuntimeError as error:
        raise LaunchError(
            f"--dist-url tcp://{host}:{port}: {first_line(error)}; allowed is the name of machine "
            "0 with a free port there"
        ) from error


def _worker(
    local_rank: int,
    first: int,
    world_size: int,
    host: str,
    port: int,
    use_cuda: bool,
    main: Callable[..., None],
    args: tuple[Any, ...],
) -> None:
    if use_cuda:
        torch.cuda.set_device(local_rank)
    store = _meet(host, port, keeps=False)
    _call(store, first + local_rank, world_size, use_cuda, main, args, watched=True)


def _call(
    store: dist.Store,
    rank: int,
    world_size: int,
    use_cuda: bool,
    main: Callable[..., None],
    args: tuple[Any, ...],
    *,
    watched: bool,
) -> None:
    """Runs main; an error that a user can act on is one line that names the rank.

    Where it is watched by the process that started it, a rank that only lost a connection says
    nothing: that process learns who died, and why, and ends this one.
    """
    try:
        _join(store, rank, world_size, use_cuda)
        main(*args)
        dist.barrier()
    except FBNetError as error:
        _leave(store, rank, str(error))
    except Exception as error:
        if not is_lost_connection(error):
            # here, since the others' end may overtake this process's
            traceback.print_exc()
            _tell_failure(store, rank, f"{type(error).__name__}: {first_line(error)}")
            _exit()
        if watched:
            time.sleep(2 * SILENCE)
        _lose(rank, told_reason(store) or first_line(error))
    dist.destroy_process_group()


def _join(store: dist.Store, rank: int, world_size: int, use_cuda: bool) -> None:
    if use_cuda and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(
        "nccl" if use_cuda else "gloo",
        store=dist.PrefixStore("group", store),
        timeout=_TIMEOUT,
        world_size=world_size,
        rank=rank,
    )


def is_lost_connection(error: BaseException) -> bool:
    """Tells whether an error only means that another rank is gone."""
    return isinstance(error, RuntimeError) and (
        "gloo" in str(error) or isinstance(error, dist.DistError)
    )


def _leave(store: dist.Store, rank: int, reason: str) -> NoReturn:
    print(f"error (rank {rank}): {reason}", file=sys.stderr, flush=True)
    _tell_failure(store, rank, reason)
    _exit()


def _lose(rank: int, reason: str) -> NoReturn:
    print(
        f"error (rank {rank}): lost the connection to another rank: {reason}; go on from the last "
        "checkpoint with --resume",
        file=sys.stderr,
        flush=True,
    )
    time.sleep(_LATER)
    _exit()


def _tell_failure(store: dist.Store, rank: int, reason: str) -> None:
    with suppress(RuntimeError):
        tell_reason(store, f"rank {rank} failed: {reason}")


def _exit() -> NoReturn:
    sys.stdout.flush()
    # at once: the others wait in a collective call, and so would leaving the group
    os._exit(2)
