"""Starting the processes of a training: here, on several machines, or under torchrun."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fbnetv3.errors import FBNetError

_TIMEOUT = timedelta(minutes=30)
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
        dist_url: where rank 0 listens, as ``tcp://HOST:PORT``; ``auto`` on one machine.
        use_cuda: one GPU per process and nccl.

    Raises:
        LaunchError: the arguments contradict each other, or a process failed.
    """
    if all(name in os.environ for name in _TORCHRUN):
        _join(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), "env://", use_cuda)
        return _call(main, args)
    _check(num_processes, num_machines, machine_rank, dist_url, use_cuda)
    world_size = num_processes * num_machines
    if world_size == 1:
        return main(*args)
    url = f"tcp://127.0.0.1:{_free_port()}" if dist_url == "auto" else dist_url
    first = machine_rank * num_processes
    try:
        mp.spawn(_worker, (first, world_size, url, use_cuda, main, args), nprocs=num_processes)
    except mp.ProcessExitedException as error:
        raise LaunchError(
            f"rank {first + error.error_index} stopped with exit status {error.exit_code}"
            f"{f' ({error.signal_name})' if error.signal_name else ''}; the others were ended; "
            "go on from the last checkpoint with --resume"
        ) from error
    except mp.ProcessRaisedException as error:
        print(error, file=sys.stderr)
        raise LaunchError(
            f"rank {first + error.error_index} failed, as told above; the others were ended"
        ) from error


def _check(processes: int, machines: int, rank: int, url: str, use_cuda: bool) -> None:
    if processes < 1 or machines < 1 or not 0 <= rank < machines:
        raise LaunchError(
            f"--num-processes {processes} --num-machines {machines} --machine-rank {rank}: the "
            "first two must be at least 1, the rank from 0 to the machines less one"
        )
    if machines > 1 and url == "auto":
        raise LaunchError("--dist-url auto works on one machine; give tcp://HOST:PORT of rank 0")
    if url != "auto" and not re.fullmatch(r"tcp://[^/]+:\d+", url):
        raise LaunchError(f"--dist-url {url!r}: allowed are auto and tcp://HOST:PORT of rank 0")
    if use_cuda and processes > torch.cuda.device_count():
        raise LaunchError(
            f"--num-processes {processes}: this machine has {torch.cuda.device_count()} GPUs"
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _worker(
    local_rank: int,
    first: int,
    world_size: int,
    url: str,
    use_cuda: bool,
    main: Callable[..., None],
    args: tuple[Any, ...],
) -> None:
    if use_cuda:
        torch.cuda.set_device(local_rank)
    _join(first + local_rank, world_size, url, use_cuda)
    _call(main, args)


def _join(rank: int, world_size: int, url: str, use_cuda: bool) -> None:
    if use_cuda and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "nccl" if use_cuda else "gloo"
    dist.init_process_group(backend, url, timeout=_TIMEOUT, world_size=world_size, rank=rank)


def _call(main: Callable[..., None], args: tuple[Any, ...]) -> None:
    """Runs main; an error that a user can act on is one line that names the rank."""
    rank = dist.get_rank()
    try:
        main(*args)
        dist.barrier()
    except FBNetError as error:
        _leave(rank, str(error))
    except RuntimeError as error:
        if not is_lost_connection(error):
            raise
        _leave(rank, f"lost the connection to another rank: {str(error).splitlines()[0]}")
    dist.destroy_process_group()


def is_lost_connection(error: BaseException) -> bool:
    """Tells whether an error only means that another rank is gone."""
    return isinstance(error, RuntimeError) and (
        "gloo" in str(error) or isinstance(error, dist.DistError)
    )


def _leave(rank: int, reason: str) -> NoReturn:
    print(f"error (rank {rank}): {reason}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    # at once: the others wait in a collective call, and so would leaving the group
    os._exit(2)
