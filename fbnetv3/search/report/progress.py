"""What a search shows while it runs: a bar on terminals, else a line per trial."""

from __future__ import annotations

from collections.abc import Sequence
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
        self._finished: list[Trial] = []
        self._batches: set[int] = set()
        self._best = _NONE
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
        if event == "finish":
            self._finish(trial)
        elif event == "report":
            epoch = max(trial.reports)
            self._running[trial.id] = f"{trial.id} at epoch {epoch}: {trial.reports[epoch]:.2f}"
        best = f"best {self._best:.2f}  " if self._finished else ""
        running = ", ".join(islice(self._running.values(), 3))
        name = self._place(trial)
        self._bar.update(
            self._task, completed=len(self._finished), description=name, note=f"{best}{running}"
        )

    def replayed(self, trials: list[Trial]) -> None:
        """Counts trials that an earlier process finished."""
        self._finished += trials
        self._best = _best_score(self._finished)
        self._bar.update(self._task, completed=len(self._finished))

    def rescore(self, trials: Sequence[Trial]) -> None:
        """Takes the finished trials with the scores that count now, as after an early stop."""
        self._finished = [t for t in trials if t.batch >= 0]  # without those of a warm start
        self._best = _best_score(self._finished)

    def _place(self, trial: Trial) -> str:
        return "finalists" if trial.stage == "fine" else f"batch {trial.batch + 1}{self._of}"

    def _finish(self, trial: Trial) -> None:
        self._running.pop(trial.id, None)
        self._finished.append(trial)
        self._best = max(self._best, _best_score([trial]))
        outcome = f"failed: {trial.reason}" if trial.score is None else f"{trial.score:.2f}"
        told = "" if trial.predicted is None else f" (predicted {trial.predicted:.2f})"
        costs = "".join(f"  {k} {v:.4g}" for k, v in sorted(trial.statistics.items()))
        place = self._place(trial)
        self.say(
            f"[{len(self._finished)}/{self._total}] {place}  {trial.id}  {outcome}{told}{costs}"
            f"  best {self._best:.2f}"
        )


def _best_score(trials: Sequence[Trial]) -> float:
    return max((t.score for t in trials if t.score is not None), default=_NONE)
