"""Starting the processes of a training: on one machine, on several, or under torchrun."""

from __future__ import annotations

import io
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from types import FrameType
from typing import Any, NoReturn

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.rendezvous import rendezvous

from fbnetv3.engine.errors import STOPPED, StoppedError
from fbnetv3.engine.machines import (
    HEARTBEAT_TIMEOUT,
    MachineMonitor,
    call_with_timeout,
    end_reason,
    report_end,
)
from fbnetv3.errors import FBNetError, first_line
from fbnetv3.signals import restore_handlers, stop_signals, stop_signals_as_interrupt

_TIMEOUT = timedelta(minutes=30)  # of connecting to the store, and of collective operations
_POLL_INTERVAL = 0.2  # seconds between two looks at the ranks and the other machines
_TERMINATE_TIMEOUT = 5.0  # seconds that a rank or data worker is given to end after SIGTERM
# Seconds that a rank waits before it exits because another one died. torchrun looks every 0.1 s and
# reports the rank that it sees exit first as the root cause, which must be the dead rank.
_LOST_CONNECTION_DELAY = 1.0
# Environment variables that torchrun sets
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class LaunchError(FBNetError):
    """The options for starting processes are invalid, or one of the processes failed."""


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

    Under torchrun, ``main`` is called in this process only, options other than ``use_cuda`` are
    ignored, and an error of ``main`` ends the process; call :func:`end_rank` at the end.

    Args:
        main: Function to call; processes import it by name.
        args: Arguments of ``main``, which must be picklable.
        num_processes: Number of processes on this machine.
        num_machines: Number of machines that train together.
        machine_rank: Rank of this machine, 0 to ``num_machines - 1``.
        dist_url: Address of machine 0, ``tcp://HOST:PORT``; ``auto`` on a single machine.
        use_cuda: Whether each process has a GPU and communicates by nccl instead of gloo.

    Raises:
        FBNetError: The options contradict each other, or a process failed or was stopped.
    """
    if all(name in os.environ for name in _TORCHRUN):
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        store, _, _ = next(rendezvous("env://", timeout=_TIMEOUT))
        gpu = int(os.environ["LOCAL_RANK"]) if use_cuda else None
        return _run_rank(store, rank, world_size, gpu, main, args, monitored=False)
    _check(num_processes, num_machines, machine_rank, dist_url, use_cuda)
    if (world_size := num_processes * num_machines) == 1:
        return main(*args)
    host, port = _address(dist_url)
    store = _connect(host, port, is_host=machine_rank == 0)
    monitor = MachineMonitor(store, machine_rank, num_machines, num_processes)
    first = machine_rank * num_processes
    _spawn((first, world_size, host, store.port, use_cuda, main, args), num_processes, monitor)


def _spawn(rank_args: tuple[Any, ...], num_processes: int, monitor: MachineMonitor) -> None:
    """Starts the ranks of this machine, with the arguments of :func:`_worker`, and waits."""
    try:
        with stop_signals_as_interrupt():
            ranks = mp.spawn(_worker, rank_args, nprocs=num_processes, join=False)
        with _StopSignals(ranks) as signals:
            _wait(ranks, monitor, signals, first=rank_args[0])
    finally:
        monitor.leave()


class _StopSignals:
    """Sends SIGTERM to the ranks at the first stop signal, so that they save and end.

    A later Ctrl-C raises KeyboardInterrupt.

    Args:
        ranks: The processes of this machine.
    """

    def __init__(self, ranks: mp.ProcessContext) -> None:
        self._ranks = ranks
        self.arrived = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in stop_signals():
                self._before[number] = signal.signal(number, self._pass_on)
        return self

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if self.arrived and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.arrived:  # batch systems may send a signal twice
            return
        self.arrived = True
        for process in self._ranks.processes:
            process.terminate()

    def __exit__(self, *error: object) -> None:
        restore_handlers(self._before)


def _wait(
    ranks: mp.ProcessContext, monitor: MachineMonitor, signals: _StopSignals, first: int
) -> None:
    """Waits for the ranks of this machine; ends them if another machine has ended the training."""
    try:
        while not monitor.reason and not ranks.join(timeout=_POLL_INTERVAL):
            pass
        # Without a reason, the ranks have ended well, and machine 0, which hosts the store, waits
        # for the other machines.
        while not monitor.reason and not monitor.others_have_left:
            time.sleep(_POLL_INTERVAL)
        reason = monitor.reason
    except mp.ProcessExitedException as error:
        status = f"{error.exit_code}{f' ({error.signal_name})' if error.signal_name else ''}"
        failure = f"rank {first + error.error_index} stopped with exit status {status}"
        if signals.arrived:
            failure = monitor.interrupt_reason
        reason = monitor.report(failure)  # or the reason that another machine reported before
        if reason == monitor.interrupt_reason:
            raise KeyboardInterrupt from None
    except mp.ProcessRaisedException as error:
        print(error, file=sys.stderr)
        reason = monitor.report(f"rank {first + error.error_index} failed (see the error above)")
    except KeyboardInterrupt:
        monitor.report(monitor.interrupt_reason)
        raise
    finally:
        _terminate(ranks)
    if reason.startswith(STOPPED):
        raise StoppedError(reason)
    if reason:
        raise LaunchError(
            f"{reason}; the other ranks were stopped; continue from the last checkpoint with "
            "--resume"
        )


def _terminate(ranks: mp.ProcessContext) -> None:
    for process in ranks.processes:
        process.terminate()
    deadline = time.monotonic() + _TERMINATE_TIMEOUT
    for process in ranks.processes:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()


def _check(processes: int, machines: int, rank: int, url: str, use_cuda: bool) -> None:
    if processes < 1 or machines < 1 or not 0 <= rank < machines:
        raise LaunchError(
            f"--num-processes {processes} --num-machines {machines} --machine-rank {rank}: "
            "allowed are processes >= 1, machines >= 1, and ranks from 0 to the number of machines "
            "less one"
        )
    if machines > 1 and url == "auto":
        raise LaunchError("--dist-url auto works on one machine; give tcp://HOST:PORT of machine 0")
    if url != "auto" and not re.fullmatch(r"tcp://[^/]+:\d+", url):
        raise LaunchError(f"--dist-url {url!r}: allowed are auto and tcp://HOST:PORT of machine 0")
    gpus = torch.cuda.device_count()
    if use_cuda and processes > gpus:
        raise LaunchError(
            f"--num-processes {processes}: this machine has {gpus} GPUs; give at most that many, "
            "or train on the CPU (MODEL.DEVICE cpu)"
        )


def _address(url: str) -> tuple[str, int]:
    """Returns host and port; ``auto`` is any free port of this machine (port 0)."""
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    return ("127.0.0.1", 0) if url == "auto" else (host.strip("[]"), int(port))


def _connect(host: str, port: int, *, is_host: bool) -> dist.TCPStore:
    """Hosts the store, or waits for its host and connects to it."""

    def store() -> dist.TCPStore:
        return dist.TCPStore(
            host, port, is_master=is_host, timeout=_TIMEOUT, wait_for_workers=False
        )

    try:
        # in a thread, so that Ctrl-C can end the wait; the store's own timeout is shorter
        return call_with_timeout(store, 2 * _TIMEOUT.total_seconds())
    except RuntimeError as error:
        raise LaunchError(
            f"--dist-url tcp://{host}:{port}: {first_line(error)}; give the host name of machine 0 "
            "and a free port on it"
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
    """Entry point of each process of this machine, whose first rank is ``first``."""
    store = _connect(host, port, is_host=False)
    gpu = local_rank if use_cuda else None
    _run_rank(store, first + local_rank, world_size, gpu, main, args, monitored=True)


def _run_rank(
    store: dist.Store,
    rank: int,
    world_size: int,
    gpu: int | None,
    main: Callable[..., None],
    args: tuple[Any, ...],
    *,
    monitored: bool,
) -> None:
    """Runs ``main``; an error that a user can act on is printed as one line with the rank.

    If a launcher of this module monitors the ranks (``monitored``), a rank that only lost the
    connection to another rank waits: the launcher learns which rank died and why, and ends the
    waiting rank before that rank prints anything.
    """
    try:
        _join(store, rank, world_size, gpu)
        main(*args)
        dist.barrier()
    except (FBNetError, KeyboardInterrupt) as error:
        _end_rank(store, rank, error, monitored=monitored)
    except Exception as error:
        if not is_lost_connection(error):
            # printed now, since the launcher may end this process before Python prints it
            traceback.print_exc()
            _report_failure(store, rank, f"{type(error).__name__}: {first_line(error)}")
            _exit()
        if monitored:
            time.sleep(2 * HEARTBEAT_TIMEOUT)
        _exit_after_lost_connection(rank, end_reason(store) or first_line(error))
    dist.destroy_process_group()
    if monitored:
        _end_process(0)


def _end_rank(
    store: dist.Store, rank: int, error: FBNetError | KeyboardInterrupt, *, monitored: bool
) -> NoReturn:
    """Reports an error and ends this rank; a StoppedError, raised on all ranks, is printed once."""
    if isinstance(error, KeyboardInterrupt):
        if not monitored:
            raise error
        _end_process(130)  # torch.multiprocessing would end it with status 0
    if isinstance(error, StoppedError):
        with suppress(RuntimeError):
            report_end(store, str(error))
        if rank == 0 and not monitored:
            _say(f"error: {error}")
    else:
        _say(f"error (rank {rank}): {error}")
        _report_failure(store, rank, str(error))
    _exit()


def _join(store: dist.Store, rank: int, world_size: int, gpu: int | None) -> None:
    """Joins the process group: by nccl with a GPU of this machine, by gloo without one."""
    device = None if gpu is None else gpu_of_rank(gpu)
    if device is not None:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "gloo" if device is None else "nccl",
        store=dist.PrefixStore("group", store),
        timeout=_TIMEOUT,
        world_size=world_size,
        rank=rank,
        device_id=device,
    )


def gpu_of_rank(local_rank: int) -> torch.device:
    """Returns the GPU of a process.

    This is ``cuda:LOCAL_RANK``, or ``cuda:0`` if the process sees a single GPU, as under
    schedulers that bind one GPU to each task.

    Args:
        local_rank: Rank of the process on its machine, 0 or more.

    Raises:
        LaunchError: The process sees no GPU, or several but none with this rank as its index.
    """
    gpus = torch.cuda.device_count()
    index = 0 if gpus == 1 else local_rank
    if index >= gpus:
        raise LaunchError(
            f"local rank {local_rank} has no GPU, since this machine has {gpus}; start at most "
            "that many processes per machine (torchrun --nproc-per-node), or set MODEL.DEVICE cpu"
        )
    return torch.device("cuda", index)


def is_lost_connection(error: BaseException) -> bool:
    """Returns whether communication with another rank failed, most likely since it has ended."""
    return isinstance(error, RuntimeError) and (
        "gloo" in str(error) or isinstance(error, dist.DistError)
    )


def _say(text: str) -> None:
    """Prints a line on standard error, unless that is closed or full."""
    with suppress(OSError):
        print(text, file=sys.stderr or io.StringIO(), flush=True)


def _exit_after_lost_connection(rank: int, reason: str) -> NoReturn:
    _say(
        f"error (rank {rank}): lost the connection to another rank: {reason}; continue from the "
        "last checkpoint with --resume"
    )
    time.sleep(_LOST_CONNECTION_DELAY)
    _exit()


def _report_failure(store: dist.Store, rank: int, reason: str) -> None:
    with suppress(RuntimeError):
        report_end(store, f"rank {rank} failed: {reason}")


def _exit() -> NoReturn:
    # Leaving the process group would wait for the other ranks, which wait for this one.
    _end_process(2)


def _end_process(status: int) -> NoReturn:
    """Ends the child processes, flushes the output, and ends this process without finalization.

    With ``sys.exit``, a training that has finished could still fail: threads of torch and gloo may
    be in C++ code, and Python ends those that ask for the GIL while it finalizes. C++ then aborts
    the process ("terminate called without an active exception", SIGABRT).
    """
    # torch's handler raises an error when a data worker ends
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for child in multiprocessing.active_children():  # data workers
        child.terminate()
    for child in multiprocessing.active_children():
        child.join(_TERMINATE_TIMEOUT)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or None
            stream.flush()
    os._exit(status)


def end_rank(status: int) -> None:
    """Ends this process if torchrun started it, with all output written; otherwise returns.

    Commands call it last: a rank that ends in the usual way can fail although its training has
    finished, see :func:`_end_process`.

    Args:
        status: Exit status of the process.
    """
    if dist.is_available() and all(name in os.environ for name in _TORCHRUN):
        _end_process(status)
