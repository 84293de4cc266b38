"""What a search shows while it runs: a bar on terminals, else a line per trial."""

from __future__ import annotations

from itertools import islice
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from fbnetv3.search.trial import Trial

_NONE = float("-inf")


class SearchProgress:
    """Watches a search (see ``JointNAS(watch=...)``); a context manager.

    Args:
        total: trials of the whole search.
        stream: where to print; a file of its own, since evaluations may redirect stderr.
        batches: of stage 1; None: not told.
    """

    def __init__(self, total: int, stream: TextIO, batches: int | None = None) -> None:
        self._of = "" if batches is None else f"/{batches}"
        self._console = Console(file=stream)
        self._total = total
        # kept whole: where early stopping sets in, the first batch's scores become earlier ones
        self._finished: list[Trial] = []
        self._batches: set[int] = set()
        self._top: Trial | None = None
        self._top_score = _NONE
        self._is_stale = False
        self._running: dict[str, str] = {}
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("search", total=total, note="")

    def __enter__(self) -> SearchProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def __call__(self, event: str, trial: Trial) -> None:
        """Takes an event of a trial."""
        if trial.batch not in self._batches:
            self._batches.add(trial.batch)
            self._is_stale = True  # scores change where a batch is proposed
        if event == "finish":
            self._finish(trial)
        elif event == "report":
            epoch = max(trial.reports)
            self._running[trial.id] = f"{trial.id} at epoch {epoch}: {trial.reports[epoch]:.2f}"
        best = f"best {self._best():.2f}  " if self._finished else ""
        running = ", ".join(islice(self._running.values(), 3))
        name = self._place(trial)
        self._bar.update(
            self._task, completed=len(self._finished), description=name, note=f"{best}{running}"
        )

    def replayed(self, trials: list[Trial]) -> None:
        """Counts trials that an earlier process finished."""
        self._finished += trials
        self._is_stale = True
        self._bar.update(self._task, completed=len(self._finished))

    def _best(self) -> float:
        """Returns the best score; all are looked at only where they may have changed."""
        if self._is_stale or (self._top is not None and self._top.score != self._top_score):
            self._is_stale = False
            self._top, self._top_score = None, _NONE
            for trial in self._finished:
                self._compare(trial)
        return self._top_score

    def _compare(self, trial: Trial) -> None:
        if trial.score is not None and trial.score > self._top_score:
            self._top, self._top_score = trial, trial.score

    def _place(self, trial: Trial) -> str:
        return "finalists" if trial.stage == "fine" else f"batch {trial.batch + 1}{self._of}"

    def _finish(self, trial: Trial) -> None:
        self._running.pop(trial.id, None)
        self._finished.append(trial)
        self._compare(trial)
        outcome = f"failed: {trial.reason}" if trial.score is None else f"{trial.score:.2f}"
        told = "" if trial.predicted is None else f" (predicted {trial.predicted:.2f})"
        costs = "".join(f"  {k} {v:.4g}" for k, v in sorted(trial.statistics.items()))
        place = self._place(trial)
        self.say(
            f"[{len(self._finished)}/{self._total}] {place}  {trial.id}  {outcome}{told}{costs}"
            f"  best {self._best():.2f}"
        )
