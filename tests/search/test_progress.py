"""What a search prints while it runs."""

from __future__ import annotations

import io

from fbnetv3.search.progress import SearchProgress
from fbnetv3.search.trials import Trial


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
