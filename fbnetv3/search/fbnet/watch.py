"""What the command line does at each event of a search."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fbnetv3.search.jointnas import JointNAS
    from fbnetv3.search.report.progress import SearchProgress
    from fbnetv3.search.storage.batch_log import BatchLog
    from fbnetv3.search.trial import Trial


class RunWatch:
    """Shows the events, a report card before each batch, and keeps finished batches in the log.

    For ``JointNAS(watch=...)``.

    Args:
        progress: shows.
        log: keeps.
        scored_by: what the scores follow from, for the log.

    Attributes:
        search: that is watched; to be set when it is made.
    """

    search: JointNAS

    def __init__(self, progress: SearchProgress, log: BatchLog, scored_by: dict[str, Any]) -> None:
        self._progress, self._log, self._scored_by = progress, log, scored_by
        self._rounds: set[int] = set()
        self._running: Counter[int] = Counter()  # trials by batch

    def __call__(self, event: str, trial: Trial) -> None:
        """Takes an event of a trial."""
        if event == "start" and trial.batch not in self._rounds:
            self._rounds.add(trial.batch)
            result = self.search.result()
            self._progress.rescore(result.trials)
            if result.cards:
                self._progress.say(f"round {len(result.cards)}: {result.cards[-1]}")
        self._progress(event, trial)
        self._running[trial.batch] += {"start": 1, "finish": -1}.get(event, 0)
        if event == "finish" and not self._running[trial.batch]:
            self.keep()

    def keep(self) -> None:
        """Writes the batches that are finished and not in the log yet."""
        search = self.search
        self._log.write(search.trials, search.settings, search.order, self._scored_by)
