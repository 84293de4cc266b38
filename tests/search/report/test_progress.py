"""What a search prints while it runs."""

from __future__ import annotations

import io

from fbnetv3.search.report.progress import SearchProgress
from fbnetv3.search.trial import Trial


def _finished(number: int, score: float | None) -> Trial:
    trial = Trial(f"t{number}", number, 0, {})
    trial.finish(score, None if score is not None else "it broke")
    return trial


def test_the_best_is_told_by_the_scores_that_count() -> None:
    stream = io.StringIO()
    progress = SearchProgress(4, stream, batches=2)
    first, second = _finished(0, 48.0), _finished(1, 40.0)
    progress("finish", first)
    progress("finish", second)
    assert "[2/4] batch 1/2  t1  40.00  best 48.00" in stream.getvalue()
    first.score, second.score = 20.0, 30.0  # early stopping: scores of an earlier epoch
    progress("finish", _finished(2, None))
    assert "t2  failed: it broke  best 30.00" in stream.getvalue()


def test_trials_of_an_earlier_process_count() -> None:
    stream = io.StringIO()
    progress = SearchProgress(4, stream)
    progress.replayed([_finished(0, 3.0), _finished(1, None)])
    progress("finish", _finished(2, 1.0))
    assert "[3/4]" in stream.getvalue()
    assert "best 3.00" in stream.getvalue()


def test_scores_that_change_between_batches_are_looked_at_again() -> None:
    stream = io.StringIO()
    progress = SearchProgress(4, stream)
    first, second = _finished(0, 48.0), _finished(1, 40.0)
    progress("finish", first)
    progress("finish", second)
    second.score = 50.0  # the best one's stays as it was
    third = _finished(2, 1.0)
    third.batch = 1
    progress("finish", third)
    assert "best 50.00" in stream.getvalue()


class _Counted(Trial):
    """Counts how often scores are read."""

    reads = 0

    def __getattribute__(self, name: str) -> object:
        if name == "score":
            _Counted.reads += 1
        return super().__getattribute__(name)


def test_an_event_costs_the_same_however_many_trials_there_are() -> None:
    progress, reads = SearchProgress(300, io.StringIO()), []
    for number in range(300):
        before = _Counted.reads
        trial = _Counted(f"t{number}", number, 0, {})
        progress("start", trial)
        for epoch in range(1, 4):
            trial.report(epoch, 0.5)
            progress("report", trial)
        trial.finish(float(number % 97))
        progress("finish", trial)
        reads.append(_Counted.reads - before)
    assert max(reads[200:]) <= max(reads[10:100])
