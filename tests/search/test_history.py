"""Finished batches of a history, and the scores by which its trials are compared."""

from __future__ import annotations

import pytest

from fbnetv3.search import SearchSettings, Trial
from fbnetv3.search.history import History, score_trials
from fbnetv3.search.schedule import Schedule


def _trial(number: int, batch: int, *curve: float) -> Trial:
    """Returns a complete trial with a learning curve, or a running one without."""
    trial = Trial(f"t{number}", number, batch, {})
    for epoch, score in enumerate(curve, start=1):
        trial.report(epoch, score)
    if curve:
        trial.finish(curve[-1])
    return trial


def test_leading_batches_without_running_trials_are_finished() -> None:
    first, second, third = [_trial(0, 0, 1.0)], [_trial(1, 1)], [_trial(2, 2, 3.0)]
    assert History.of([first, second, third]).finished == 1
    assert History.of([first, third]).finished == 2
    assert History.of([]).finished == 0
    head = History.of([first, third]).head(1)
    assert (len(head), head.finished, head.trials) == (1, 1, first)


@pytest.mark.parametrize(
    ("sizes", "recorded", "ahead", "finished"),
    [
        # without a record, as in storages of version 0.1.0
        ([], {}, 0, 0),
        ([3, 3], {}, 0, 2),
        ([3, 2], {}, 0, 1),  # the last batch is still running
        ([2, 3], {}, 0, 2),  # the first batch has a successor, so it was as small as this
        ([2, 3], {}, 4, 0),  # ahead, a batch may have a successor while it is running
        ([3, 3, 2], {}, 0, 3),  # two finalists are a whole batch
        ([3, 3, 1], {}, 0, 2),
        # with a record
        ([3, 2], {0: 3, 1: 2}, 0, 2),
        ([3, 2], {0: 3, 1: 3}, 0, 1),
        ([2, 3], {0: 2, 1: 3}, 4, 2),
        ([2, 3], {0: 3, 1: 3}, 4, 0),
        ([3, 3, 1], {0: 3, 1: 3, 2: 1}, 0, 3),
        ([3, 3], {0: 3, 1: 3, 2: 0}, 0, 3),  # no finalist was left
        ([3, 3], {0: 3, 1: 3, 2: 2}, 0, 2),  # no finalist is finished
        ([3, 2], {0: 3, 1: 2, 10**9: 1}, 0, 2),  # a batch that the settings do not have
    ],
)
def test_finished_batches_of_a_storage(
    sizes: list[int], recorded: dict[int, int], ahead: int, finished: int
) -> None:
    settings = SearchSettings(batch_size=3, iterations=2, finalists=2, ahead=ahead)
    batches = [batch for batch, size in enumerate(sizes) for _ in range(size)]
    trials = [_trial(number, batch, 1.0) for number, batch in enumerate(batches)]
    history = History.stored(trials, Schedule(settings), recorded)
    assert history.finished == finished
    assert [len(batch) for batch in history.batches if batch] == sizes


def test_scores_are_those_at_the_early_stop() -> None:
    batch = [_trial(i, 0, 10.0 + i, 20.0 + i, 30.0 + i) for i in range(4)]
    later = [_trial(4, 1, 19.0), _trial(5, 1)]
    warm = [_trial(-1, -1, 7.0)]
    known = score_trials(History.of([batch, later]), warm, threshold=0.9)
    assert known.epochs_of("coarse", is_whole=False) == 1
    assert known.scores == {-1: 7.0, 0: 10.0, 1: 11.0, 2: 12.0, 3: 13.0, 4: 19.0}
    assert [t.number for t in known.ranked] == [4, 3, 2, 1, 0, -1]
    assert [t.number for t in known.complete] == [-1, 0, 1, 2, 3, 4]
    assert [t.number for t in known.running] == [5]
    assert [t.score for t in known.finished()] == [7.0, 10.0, 11.0, 12.0, 13.0, 19.0]
    assert [t.score for t in batch] == [30.0, 31.0, 32.0, 33.0]


def test_scores_are_final_while_the_first_batch_runs_or_without_early_stopping() -> None:
    batch = [_trial(i, 0, 10.0 + i, 20.0 + i) for i in range(4)]
    final = {i: 20.0 + i for i in range(4)}
    running = History.of([[*batch, _trial(4, 0)]])
    assert score_trials(running, [], threshold=0.9).scores == final
    assert score_trials(running, [], threshold=0.9).early_stop is None
    assert score_trials(History.of([batch]), [], threshold=None).scores == final


def test_failed_trials_have_no_score() -> None:
    failed = _trial(1, 0)
    failed.finish(None, "out of memory")
    known = score_trials(History.of([[_trial(0, 0, 1.0), failed]]), [], threshold=0.9)
    assert known.scores == {0: 1.0}
    assert [(t.number, t.score) for t in known.finished()] == [(0, 1.0), (1, None)]
