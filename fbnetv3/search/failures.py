"""Decides when failures end a search, and selects the failed trials that run again."""

from __future__ import annotations

from collections.abc import Sequence

from fbnetv3.search.errors import SearchError
from fbnetv3.search.executors.base import Finished
from fbnetv3.search.executors.device_faults import OUTSIDE, failure_kind
from fbnetv3.search.outcome import reason_text, short
from fbnetv3.search.trial import Trial

_HOW_TO_GO_ON = (
    "These candidates do not count as failed: once the cause is removed, the same command runs "
    "them again (a command with other values of keys that affect results starts another search, "
    "which needs a new folder or storage); with stop_after_failures=0 (SEARCH.STOP_AFTER_FAILURES "
    "0), failures never end a search"
)


class FailureLimit:
    """Counts failures of a running search, and decides when it ends.

    A search ends after ``count`` failures in a row, in the order of completion, whose cause is
    outside of the candidates: their device or their data. It also ends when the first ``count``
    candidates that this run of the search submitted have all failed, for whatever reason, and no
    candidate of the search has a score. This second rule takes the order of submission, so that a
    few quick failures do not end a search whose slower trainings still run.

    Args:
        count: Number of failures; 0: failures never end a search.
        has_scores: Whether a trial of the search has a score already.
    """

    def __init__(self, count: int, *, has_scores: bool) -> None:
        self._count, self._has_scores = count, has_scores
        self._first: set[int] = set()  # the first submitted trials, by number
        self._failures: dict[int, Finished] = {}  # by number of the trial
        self._outside: list[Finished] = []  # latest failures in a row with an outside cause

    def submitted(self, number: int) -> None:
        """Counts a trial that was submitted."""
        if len(self._first) < self._count:
            self._first.add(number)

    def finished(self, result: Finished) -> None:
        """Counts the result of a trial."""
        if result.score is None:
            self._failures[result.trial.number] = result
        else:
            self._has_scores = True
        self._outside = [*self._outside, result] if result.fault in OUTSIDE else []

    def problem(self) -> tuple[str, set[int]] | None:
        """Returns why the search has to end; None if it continues.

        Returns:
            The message, and the numbers of the trials whose failures do not count.
        """
        if not self._count:
            return None
        if len(self._outside) >= self._count:
            numbers = {result.trial.number for result in self._outside}
            text = self._text("in a row failed because of their device or data", self._outside)
            return text, numbers
        is_first = len(self._first) == self._count and self._first <= set(self._failures)
        if is_first and not self._has_scores:
            failures = [self._failures[number] for number in sorted(self._failures)]
            text = self._text("failed, among them the first ones that were submitted", failures)
            return text, set(self._failures)
        return None

    def _text(self, predicate: str, failures: list[Finished]) -> str:
        last = failures[-1]
        where = f"{last.fault} on {last.place or 'this process'}: " if last.fault else ""
        reason = reason_text(last.reason or "no reason was given")[:300]
        return (
            f"{len(failures)} candidates {predicate}; the last one, trial {last.trial.name}: "
            f"{where}{reason}. {_HOW_TO_GO_ON}"
        )


def has_reason(reason: str | None, part: str) -> bool:
    """Returns whether a reason contains ``part``, ignoring case, or is of the kind ``part``.

    The kinds are the two of :func:`failure_kind`: lack of memory and lack of time.
    """
    text = part.strip().lower()
    return text in (reason or "").lower() or text == failure_kind(reason)


def trials_that_failed(trials: Sequence[Trial], reason: str) -> list[Trial]:
    """Returns the trials that failed for a reason; see :meth:`JointNAS.retry_failed`.

    Raises:
        SearchError: Trials have failed, but none for this reason; or the reason is not a string.
    """
    if not isinstance(reason, str):
        raise SearchError(f"retry_failed: reason={short(reason)} is not allowed; give a string")
    failed = [t for t in trials if t.state == "failed"]
    chosen = [t for t in failed if has_reason(t.reason, reason)]
    if failed and not chosen:
        reasons = "; ".join(sorted({str(t.reason)[:80] for t in failed})[:5])
        raise SearchError(
            f"no trial failed for a reason like {reason!r}; reasons of the {len(failed)} "
            f"failures: {reasons}"
        )
    return chosen
