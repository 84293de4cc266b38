"""The callback of a run: shows the progress of the search and logs its finished batches."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fbnetv3.search.jointnas import JointNAS
    from fbnetv3.search.report.progress import SearchProgress
    from fbnetv3.search.storage.batch_log import BatchLog
    from fbnetv3.search.trial import Event


class RunWatch:
    """Callback of ``JointNAS.run`` that shows progress and logs finished batches.

    Before each batch, it shows the report card of the predictor, if there is one
    (:class:`~fbnetv3.search.predictors.report_card.ReportCard`): how well the predictor has
    predicted scores so far.

    Args:
        progress: Display of the events.
        log: Log of the finished batches.
        scored_by: Config values that the scores depend on, stored in the log.
    """

    def __init__(self, progress: SearchProgress, log: BatchLog, scored_by: dict[str, Any]) -> None:
        self._progress, self._log, self._scored_by = progress, log, scored_by
        self._batches: set[int] = set()
        self._running: Counter[int] = Counter()  # submitted trials without result, by batch

    def __call__(self, search: JointNAS, event: Event) -> None:
        """Handles an event of a trial."""
        batch = event.trial.batch
        if event.kind == "start" and batch not in self._batches:
            self._batches.add(batch)
            result = search.result()
            self._progress.rescore(result.trials)
            if result.report_cards:
                self._progress.say(str(result.report_cards[-1]))
        self._progress.show(event)
        self._running[batch] += {"start": 1, "finish": -1}.get(event.kind, 0)
        if event.kind == "finish" and not self._running[batch]:
            self.keep(search)

    def keep(self, search: JointNAS) -> None:
        """Writes all finished batches to the log, except those that it contains already."""
        self._log.write(
            search.trials, search.settings, search.order, self._scored_by, search.identity
        )
