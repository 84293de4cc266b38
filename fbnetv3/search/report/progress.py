"""Shows a search while it runs: with a progress bar on terminals, else with a line per trial."""

from __future__ import annotations

import io
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

from fbnetv3.search.trial import Event, Trial

_LOWEST = float("-inf")


class SearchProgress:
    """Shows the events of a search; a context manager.

    Args:
        total: Number of trials of the whole search.
        stream: Stream to print to. It must not be ``sys.stderr``, which evaluations may redirect.
            None prints nothing.
        batches: Number of batches in stage 1; None leaves it out of the lines.
    """

    def __init__(self, total: int, stream: TextIO | None, batches: int | None = None) -> None:
        self._of_batches = "" if batches is None else f"/{batches}"
        self._console = Console(file=stream or io.StringIO(), quiet=stream is None)
        self._total = total
        # All trials are kept: when early stopping sets in, the scores of the first batch become
        # those of an earlier epoch.
        self._finished: list[Trial] = []
        self._batches: set[int] = set()
        self._best_trial: Trial | None = None
        self._best_score = _LOWEST
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

    def show(self, event: Event) -> None:
        """Shows an event of a trial."""
        trial = event.trial
        if trial.batch not in self._batches:
            self._batches.add(trial.batch)
            self._is_stale = True  # scores change where a batch is proposed
        if event.kind == "finish":
            self._finish(trial)
        elif event.kind == "report":
            epoch = max(trial.reports)
            self._running[trial.id] = f"{trial.id} at epoch {epoch}: {trial.reports[epoch]:.2f}"
        best = f"best {self._best():.2f}  " if self._finished else ""
        running = ", ".join(islice(self._running.values(), 3))
        self._bar.update(
            self._task,
            completed=len(self._finished),
            description=self._stage_text(trial),
            note=f"{best}{running}",
        )

    def replayed(self, trials: list[Trial]) -> None:
        """Counts trials that an earlier process finished."""
        self._finished += trials
        self._is_stale = True
        self._bar.update(self._task, completed=len(self._finished))

    def rescore(self, trials: list[Trial]) -> None:
        """Replaces the finished trials by copies with the scores that count now.

        Args:
            trials: Trials of ``JointNAS.result()``.
        """
        self._finished = [t for t in trials if t.batch >= 0]  # without those of a warm start
        self._is_stale = True

    def _best(self) -> float:
        """Returns the best score; compares all trials only if their scores may have changed."""
        has_changed = self._best_trial is not None and self._best_trial.score != self._best_score
        if self._is_stale or has_changed:
            self._is_stale = False
            self._best_trial, self._best_score = None, _LOWEST
            for trial in self._finished:
                self._compare(trial)
        return self._best_score

    def _compare(self, trial: Trial) -> None:
        if trial.score is not None and trial.score > self._best_score:
            self._best_trial, self._best_score = trial, trial.score

    def _stage_text(self, trial: Trial) -> str:
        return (
            "finalists" if trial.stage == "fine" else f"batch {trial.batch + 1}{self._of_batches}"
        )

    def _finish(self, trial: Trial) -> None:
        self._running.pop(trial.id, None)
        self._finished.append(trial)
        self._compare(trial)
        outcome = f"failed: {trial.reason}" if trial.score is None else f"{trial.score:.2f}"
        predicted = "" if trial.predicted is None else f" (predicted {trial.predicted:.2f})"
        costs = "".join(f"  {k} {v:.4g}" for k, v in sorted(trial.statistics.items()))
        self.say(
            f"[{len(self._finished)}/{self._total}] {self._stage_text(trial)}  {trial.id}  "
            f"{outcome}{predicted}{costs}  best {self._best():.2f}"
        )
