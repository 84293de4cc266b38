"""Images per second, peak memory and traces of a training."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from torch import profiler

from fbnetv3.engine.detectron2_loop import HookBase
from fbnetv3.engine.hooks import Every
from fbnetv3.io import atomic_write

_log = logging.getLogger("fbnetv3")
SPEED, MEMORY, ETA = "images_per_second", "peak_memory_mb", "eta_seconds"
"""Names in metrics.json."""
_TIMED_STEPS = 1000  # number of latest steps whose median time is taken
_WARM_UP = 3  # steps before a trace, in which libraries choose algorithms and allocate memory


def peak_memory(device: torch.device) -> float | None:
    """Returns the largest memory of this process so far in bytes; None if unknown (Windows).

    Args:
        device: A CUDA GPU, for the memory of PyTorch's tensors there, or any other device, for the
            resident memory of the process.
    """
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # ru_maxrss is in bytes on macOS, in KiB elsewhere
    return float(peak if sys.platform == "darwin" else peak * 1024)


def seconds_left(storage: EventStorage, steps: int) -> float | None:
    """Returns the expected seconds of the remaining steps; None if no step was timed yet.

    Args:
        storage: Event storage in which detectron2's IterationTimer records the time of each step.
        steps: Number of remaining steps.
    """
    times = storage.histories().get("time")
    return None if times is None else float(times.median(_TIMED_STEPS)) * steps


class SpeedHook(HookBase):
    """Records images per second over all processes, and the peak memory of this process.

    The remaining time of the training, without evaluations, is recorded, too.

    The time of a step includes the wait for its batch, but neither evaluations nor checkpoints. The
    hook must come before the hooks that evaluate or save, and after ReadLossesHook, which waits
    until the GPU has finished the steps.

    Args:
        dues: Iterations after which to record.
        images: Images per step over all processes.
        device: Device of the network.
    """

    def __init__(self, dues: list[Every], images: int, device: torch.device) -> None:
        self._dues, self._images, self._device = dues, images, device
        self._start, self._seconds, self._steps = 0.0, 0.0, 0

    def before_step(self) -> None:
        """Starts the clock."""
        self._start = time.perf_counter()

    def after_step(self) -> None:
        """Stops the clock, and records if it is due."""
        self._seconds += time.perf_counter() - self._start
        self._steps += 1
        if not any(due(self.trainer) for due in self._dues):
            return
        speed = self._steps * self._images / max(self._seconds, 1e-9)
        self._seconds, self._steps = 0.0, 0
        storage = self.trainer.storage
        storage.put_scalar(SPEED, round(speed, 2), smoothing_hint=False)
        peak = peak_memory(self._device)
        if peak is not None:
            storage.put_scalar(MEMORY, round(peak / 2**20, 1), smoothing_hint=False)
        left = seconds_left(storage, self.trainer.max_iter - self.trainer.iter - 1)
        if left is not None:
            storage.put_scalar(ETA, left, smoothing_hint=False)


class ProfileHook(HookBase):
    """Writes a trace of some steps, which Perfetto, chrome://tracing and TensorBoard open.

    The trace begins after three steps. This hook must come before the hooks that are to be traced.

    Args:
        steps: Number of steps to trace; at least 1.
        folder: Folder of ``profile_ITERATION.pt.trace.json``.
        device: Device of the network.
    """

    def __init__(self, steps: int, folder: Path, device: torch.device) -> None:
        self._steps, self._folder = steps, folder
        activities = [profiler.ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(profiler.ProfilerActivity.CUDA)
        self._profile: Any = profiler.profile(activities=activities, record_shapes=True)
        self._first = -1
        self._is_running = False

    def before_step(self) -> None:
        """Writes the trace if its steps are done, or begins it if it is due."""
        done = self.trainer.iter - self.trainer.start_iter - _WARM_UP
        if self._is_running and done >= self._steps:
            self._write()
        if done == 0:
            self._profile.start()
            self._first, self._is_running = self.trainer.iter, True

    def after_train(self) -> None:
        """Writes a trace that is still running at the end; warns if none has begun."""
        if self._is_running:
            self._write()
        elif self._first < 0:
            _log.warning("--profile: no trace, since this run had at most %d steps", _WARM_UP)

    def _write(self) -> None:
        self._profile.stop()
        self._is_running = False
        path = self._folder / f"profile_{self._first:08d}.pt.trace.json"
        with atomic_write(path) as temporary:
            self._profile.export_chrome_trace(str(temporary))
        _log.info("wrote the trace from step %d on to %s", self._first, path)


@contextmanager
def cudnn_benchmark(enabled: bool) -> Iterator[None]:
    """Lets cuDNN try its algorithms and use the fastest ones within the ``with`` block.

    Its choice may differ from run to run, and with it the rounding of results.

    Args:
        enabled: Whether cuDNN tries algorithms.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = enabled
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
