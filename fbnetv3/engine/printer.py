"""The log lines about the steps of a training, for outputs that show no progress bar."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta

from detectron2.utils.events import EventStorage, EventWriter, get_event_storage

from fbnetv3.engine.speed import ETA, MEMORY, SPEED

_log = logging.getLogger("fbnetv3")
_WINDOW = 20  # latest iterations whose median loss and mean times are printed


class StepPrinter(EventWriter):
    """Logs position, losses, learning rate, speed and memory of a training in one line.

    The scores of evaluations are left out, since EvalHook logs each of them once, unsmoothed.
    detectron2's CommonMetricPrinter would print the median of the last evaluations as ``val/loss``.

    Args:
        max_iter: Index of the last step of the training, plus 1.
        iters_per_epoch: Steps per epoch.
        offset: Step from which the epochs are counted; see
            :func:`fbnetv3.engine.schedule.build_lr_scheduler`.
    """

    def __init__(self, max_iter: int, iters_per_epoch: int, offset: int = 0) -> None:
        self._max_iter, self._per_epoch, self._offset = max_iter, iters_per_epoch, offset

    def write(self) -> None:
        """Logs the values of the present iteration."""
        storage = get_event_storage()
        _log.info("%s", "  ".join([self._position(storage.iter + 1), *_values(storage)]))

    def _position(self, done: int) -> str:
        epoch, end = ((n - self._offset) / self._per_epoch for n in (done, self._max_iter))
        return f"iteration {done}/{self._max_iter}  epoch {_decimal(epoch)}/{_decimal(end)}"


def _decimal(epochs: float) -> str:
    return f"{epochs:.2f}".rstrip("0").rstrip(".")


def _values(storage: EventStorage) -> Iterator[str]:
    """Yields losses, learning rate, seconds per step, speed, memory, time left, where known."""
    now = {name: value for name, (value, i) in storage.latest().items() if i == storage.iter}
    hints = storage.smoothing_hints()
    for name, history in storage.histories().items():
        if "loss" in name and hints.get(name):  # scores are not smoothed
            yield f"{name} {history.median(_WINDOW):.4g}"
    if "lr" in now:
        yield f"lr {now['lr']:.4g}"
    if "time" in now:
        step, data = (storage.history(name).avg(_WINDOW) for name in ("time", "data_time"))
        yield f"step {step:.3g} s, of which data {data:.3g} s"
    if SPEED in now:
        yield f"{now[SPEED]:.4g} images/s"
    if MEMORY in now:
        yield f"peak memory {now[MEMORY]:,.0f} MB"
    if seconds := round(now.get(ETA, 0)):
        yield f"left {timedelta(seconds=seconds)}"
