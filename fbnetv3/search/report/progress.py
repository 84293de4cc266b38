"""Shows a search while it runs: one line per trial and, on terminals, a progress bar."""

from __future__ import annotations

import io
import math
import time
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

from fbnetv3.search.direction import MAXIMIZE, best_score
from fbnetv3.search.trial import Event, Trial
from fbnetv3.streams import quiet


class SearchProgress:
    """Shows the events of a search; a context manager.

    Args:
        total: Number of trials of the whole search.
        stream: Stream to print to. It must not be ``sys.stderr``, which evaluations may redirect.
            None prints nothing. A stream that is closed or full does not end the search.
        batches: Number of batches before the finalists; None leaves it out of the lines.
        direction: ``maximize`` or ``minimize``.
        full_epochs: Number of epochs of a whole training in a search with rungs, where some trials
            train for fewer epochs; None: every training is whole.
        unit: What the trials' reports count, ``epoch`` or ``iteration``.
    """

    def __init__(
        self,
        total: int,
        stream: TextIO | None,
        batches: int | None = None,
        direction: str = MAXIMIZE,
        full_epochs: int | None = None,
        unit: str = "epoch",
    ) -> None:
        self._full_epochs, self._unit = full_epochs, unit
        self._of_batches = "" if batches is None else f"/{batches}"
        self._console = Console(file=quiet(stream or io.StringIO()), quiet=stream is None)
        self._total = total
        self._finished = 0  # number of finished trials
        self._start = time.monotonic()
        self._earlier = 0  # number of trials that earlier processes finished
        self._direction, self._best = direction, best_score([], direction)
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
        self._start = time.monotonic()
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
        if event.kind == "finish":
            self._finish(trial)
        elif event.kind == "report":
            step = max(trial.reports)
            score = f"{trial.reports[step]:.2f}"
            self._running[trial.name] = f"{trial.name} at {self._unit} {step}: {score}"
        best = f"{self._best_text()}  " if self._finished else ""
        running = ", ".join(islice(self._running.values(), 3))
        self._bar.update(
            self._task,
            completed=self._finished,
            description=self._stage_text(trial),
            note=f"{best}{running}",
        )

    def replayed(self, trials: list[Trial]) -> None:
        """Counts trials that an earlier process finished."""
        self._finished += len(trials)
        self._earlier += len(trials)
        self._note_best(trials)
        self._bar.update(self._task, completed=self._finished)

    def _note_best(self, trials: list[Trial]) -> None:
        """Updates the best score; trials with fewer epochs than a whole training do not count."""
        whole = [t for t in trials if self._full_epochs in (None, t.max_epochs)]
        self._best = best_score([self._best, *_scores(whole)], self._direction)

    def _best_text(self) -> str:
        return f"best {self._best:.2f}" if math.isfinite(self._best) else "none trained in full"

    def rescore(self, trials: list[Trial]) -> None:
        """Replaces the best score by the best score of a result.

        With early stopping, the scores of a result are those at the epoch of the early stop, which
        may come before the last epoch.

        Args:
            trials: Trials of ``JointNAS.result()``; trials of a warm start are ignored.
        """
        self._best = best_score(_scores([t for t in trials if t.batch >= 0]), self._direction)

    def _stage_text(self, trial: Trial) -> str:
        return (
            "finalists" if trial.stage == "fine" else f"batch {trial.batch + 1}{self._of_batches}"
        )

    def _finish(self, trial: Trial) -> None:
        self._running.pop(trial.name, None)
        self._finished += 1
        self._note_best([trial])
        outcome = f"failed: {trial.reason}" if trial.score is None else f"{trial.score:.2f}"
        if self._full_epochs is not None:
            outcome += f" after {trial.max_epochs} of {self._full_epochs} epochs"
        predicted = "" if trial.predicted is None else f" (predicted {trial.predicted:.2f})"
        costs = "".join(f"  {k} {v:.4g}" for k, v in sorted(trial.statistics.items()))
        self.say(
            f"[{self._finished}/{self._total}] {self._stage_text(trial)}  {trial.name}  "
            f"{outcome}{predicted}{costs}  {self._best_text()}{self._pace()}"
        )

    def _pace(self) -> str:
        """Returns this process's seconds per trial, and an estimate of the remaining time."""
        seconds = (time.monotonic() - self._start) / (self._finished - self._earlier)
        left = seconds * max(0, self._total - self._finished)
        return f"  {seconds:.3g} s per trial" + (f", {duration(left)} left" if left else "")


def duration(seconds: float) -> str:
    """Returns a duration such as ``40 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _scores(trials: list[Trial]) -> list[float]:
    return [trial.score for trial in trials if trial.score is not None]
