"""A progress bar for what takes longer than five seconds, and silence for what does not."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

PATIENCE = 5.0  # seconds


class DownloadProgress:
    """Shows bytes, speed and time left on standard error, once it has taken five seconds.

    Args:
        label: what is downloaded.
        total: its size in bytes, or None if the server does not say.
        patience: seconds before anything is shown.
    """

    def __init__(self, label: str, total: int | None, patience: float = PATIENCE) -> None:
        self._start = time.monotonic()
        self._patience = patience
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task(label, total=total)
        self.shown = False

    def update(self, done: int) -> None:
        """Takes the number of bytes so far."""
        if not self.shown and time.monotonic() - self._start > self._patience:
            self._progress.start()
            self.shown = True
        self._progress.update(self._task, completed=done)

    def __enter__(self) -> DownloadProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.shown:
            self._progress.stop()
